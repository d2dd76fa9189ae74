"""One self-contained HTML page: text, numbers, searchable and sortable tables, inline SVG figures."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return format(value, spec)
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(format_cell(item, spec) for item in value)
    return str(value)


def _cell(value: Any, spec: str) -> dict[str, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    missing = value is None or (number and math.isnan(value))
    return {"text": format_cell(value, spec), "number": number, "sort": None if missing else value}


_UNSAFE = re.compile(
    r"<script|<foreignObject|<iframe|\son\w+\s*=|javascript:|(?:href|src)\s*=\s*[\"'](?!#|data:)", re.I
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
        If it is no SVG, or holds a script, an event handler or a reference to another file.
    """
    match = re.search(r"<svg\b.*</svg>", svg, re.S)
    if match is None:
        raise ValueError(f"expected an SVG document, got {svg[:40]!r}")
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", match.group(), flags=re.S)
    if found := _UNSAFE.search(body):
        raise ValueError(f"the SVG holds {found.group().strip()!r}: scripts and outside references are not allowed")
    body = re.sub(r'(\bid=")', rf"\g<1>{prefix}-", body)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", body)


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
        columns = [Column(column) if isinstance(column, str) else column for column in columns]
        table = [list(row) for row in rows]
        for number, row in enumerate(table):
            if len(row) != len(columns):
                raise ValueError(f"table {caption!r}, row {number}: {len(row)} values for {len(columns)} columns")
        if evidence is not None and len(evidence) != len(table):
            raise ValueError(f"table {caption!r}: {len(evidence)} evidence entries for {len(table)} rows")
        cells = [[_cell(value, column.spec) for value, column in zip(row, columns, strict=True)] for row in table]
        shown = [{"cells": row, "evidence": evidence[i] if evidence else ()} for i, row in enumerate(cells)]
        self.blocks.append(
            {
                "kind": "table",
                "columns": columns,
                "numeric": [any(row[i]["number"] for row in cells) for i in range(len(columns))],
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
