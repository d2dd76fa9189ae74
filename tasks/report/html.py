"""One self-contained HTML page: text, numbers, searchable and sortable tables, inline SVG figures."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from tasks.folder import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Column", "Report", "Section", "format_cell", "inline_svg"]

Evidence = Sequence[tuple[str, Sequence[str]]]
"""What a table row opens to: (heading, lines) blocks."""


@dataclass(frozen=True)
class Column:
    """A table column.

    Parameters
    ----------
    name
        Shown in the header.
    spec
        Format of numbers, as in ``format(value, spec)``.
    help
        One sentence on what the column says, shown under the table.
    """

    name: str
    spec: str = ".3f"
    help: str = ""


def format_cell(value: Any, spec: str = ".3f") -> str:
    """Text of a cell: integers as they are, floats by ``spec``, nothing known (None, NaN) as a dash."""
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return "–"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return format(float(value), spec)
    if isinstance(value, (list, tuple, set, frozenset)):
        texts = [format_cell(item, spec) for item in value]  # those of a set come in an order of the process
        return ", ".join(sorted(texts) if isinstance(value, (set, frozenset)) else texts)
    return str(value)


def _cell(value: Any, spec: str) -> dict[str, Any]:
    number = isinstance(value, Real) and not isinstance(value, bool)
    text = format_cell(value, spec)
    key = "" if value is None or (number and math.isnan(value)) else float(value) if number else text
    return {"text": text, "number": number, "sort": key}


_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_ELEMENTS = frozenset(
    [
        "svg",
        "g",
        "defs",
        "path",
        "use",
        "text",
        "tspan",
        "style",
        "clipPath",
        "rect",
        "circle",
        "ellipse",
        "line",
        "polyline",
        "polygon",
        "title",
        "desc",
        "marker",
        "pattern",
        "linearGradient",
        "radialGradient",
        "stop",
    ]
)


def inline_svg(svg: str, prefix: str) -> str:
    """Make an SVG document fit for the inside of a page: no prologue, no metadata, its ids prefixed.

    Parameters
    ----------
    svg
        The document, as matplotlib writes it.
    prefix
        Put before every id, so that two figures of a page do not share one.

    Raises
    ------
    ValueError
        If it is no SVG, or holds anything but shapes and text of its own: a script, an event handler, a picture, a
        reference to another file.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"expected an SVG document, got {svg[:40]!r} ({error})") from None
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == f"{_SVG}metadata"]:
            parent.remove(child)
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        if node.tag not in _ELEMENTS:
            raise ValueError(f"the SVG holds a {node.tag!r} element; expected shapes and text only")
        for name in list(node.attrib):
            # Inside a page the namespaces go without saying.
            node.set(name.removeprefix(_XLINK), _local(name, node.attrib.pop(name), prefix))
        if node.tag == "style" and re.search(r"@import|url\(", node.text or ""):
            raise ValueError("the SVG holds a style that loads another file")
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str, value: str, prefix: str) -> str:
    """Value of an SVG attribute with references to ids of the same document prefixed; any other is refused."""
    href = name.removeprefix(_XLINK) in ("href", "src")
    if name.lower().startswith("on") or (href and not value.startswith("#")) or re.search(r"url\((?!#)", value):
        raise ValueError(f"the SVG holds {name}={value[:60]!r}: scripts and outside references are not allowed")
    if name == "id":
        return f"{prefix}-{value}"
    return f"#{prefix}-{value[1:]}" if href else value.replace("url(#", f"url(#{prefix}-")


@dataclass
class Section:
    """A part of a report; every ``add_`` returns the section."""

    title: str
    intro: str = ""
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def add_text(self, text: str) -> Section:
        """Add paragraphs; a blank line parts them."""
        self.blocks.append({"kind": "text", "paragraphs": [p for p in text.split("\n\n") if p.strip()]})
        return self

    def add_code(self, text: str) -> Section:
        """Add lines to be typed or read as they stand."""
        self.blocks.append({"kind": "code", "text": text})
        return self

    def add_list(self, items: Iterable[str], *, title: str = "") -> Section:
        """Add a bulleted list."""
        self.blocks.append({"kind": "list", "title": title, "items": list(items)})
        return self

    def add_numbers(self, numbers: Mapping[str, Any], *, spec: str = ".3f") -> Section:
        """Add key figures, each a label and a value."""
        rows = [(label, format_cell(value, spec)) for label, value in numbers.items()]
        self.blocks.append({"kind": "numbers", "rows": rows})
        return self

    def add_figure(self, svg: str, caption: str, *, alt: str | None = None) -> Section:
        """Add an SVG figure; ``alt`` describes it to those who cannot see it, the caption by default.

        Raises
        ------
        ValueError
            As ``inline_svg``.
        """
        prefix = f"{_slug(self.title)}-{len(self.blocks)}"
        self.blocks.append(
            {"kind": "figure", "svg": inline_svg(svg, prefix), "caption": caption, "alt": alt or caption}
        )
        return self

    def add_table(
        self,
        columns: Sequence[Column | str],
        rows: Iterable[Sequence[Any]],
        *,
        caption: str,
        evidence: Sequence[Evidence] | None = None,
        page: int = 50,
    ) -> Section:
        """Add a table that can be searched, and sorted by every column.

        Parameters
        ----------
        columns
            Names, or ``Column`` with a number format and a help text.
        rows
            One value a column: text, numbers, None where nothing is known.
        caption
            What the table shows; its accessible name.
        evidence
            One entry a row: what the row opens to, as (heading, lines) blocks. An empty entry has nothing to open.
        page
            Rows shown before "show more"; all of them are searched and sorted.

        Raises
        ------
        ValueError
            For a row with more or fewer values than columns, or not one ``evidence`` entry a row.
        """
        heads = [Column(column) if isinstance(column, str) else column for column in columns]
        table = [list(row) for row in rows]
        for number, row in enumerate(table):
            if len(row) != len(heads):
                raise ValueError(f"table {caption!r}, row {number}: {len(row)} values for {len(heads)} columns")
        if evidence is not None and len(evidence) != len(table):
            raise ValueError(f"table {caption!r}: {len(evidence)} evidence entries for {len(table)} rows")
        cells = [[_cell(value, column.spec) for value, column in zip(row, heads, strict=True)] for row in table]
        shown = [{"cells": row, "evidence": evidence[i] if evidence else ()} for i, row in enumerate(cells)]
        self.blocks.append(
            {
                "kind": "table",
                "columns": heads,
                "numeric": [any(row[i]["number"] for row in cells) for i in range(len(heads))],
                "rows": shown,
                "opens": any(row["evidence"] for row in shown),
                "caption": caption,
                "page": page,
            }
        )
        return self


class Report:
    """A page of named sections, saved as one HTML file that loads nothing from anywhere.

    Everything added is text and is escaped; only figures are markup, and those are checked.

    Parameters
    ----------
    title
        Heading and title of the page.
    subtitle
        One line under it.

    Examples
    --------
    >>> report = Report("Result")
    >>> _ = report.section("Scores").add_table(["model", "mrr"], [("<b>", 0.5)], caption="Scores by model")
    >>> "&lt;b&gt;" in report.render() and "<b>" not in report.render()
    True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.sections: dict[str, Section] = {}

    def section(self, title: str, intro: str = "") -> Section:
        """Return the section of that title, made at the end of the page if there is none; ``intro`` opens a new one."""
        return self.sections.setdefault(title, Section(title, intro))

    def render(self) -> str:
        """Return the page as text; the same content gives the same bytes."""
        template = _environment().get_template("report.html")
        return template.render(
            title=self.title, subtitle=self.subtitle, sections=[(_slug(s.title), s) for s in self.sections.values()]
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page (atomically: the old file stays until the new one is whole) and return its path."""
        path = Path(path)
        # Text from the outside may hold a lone surrogate, which UTF-8 cannot say.
        atomic_write(path, self.render().encode("utf-8", errors="replace"))
        return path


def _slug(title: str) -> str:
    # The sum of the code points tells titles apart that have no Latin letters.
    return f"s-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}-{sum(map(ord, title))}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tasks.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
