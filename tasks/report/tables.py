"""Rows as a terminal table, plain text, CSV, LaTeX or HTML, by one function."""

from __future__ import annotations

import csv
import difflib
import html
import io
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

from tasks.errors import UsageError
from tasks.report.html import format_cell

__all__ = ["FORMATS", "render"]

Row = Sequence[str]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"$\pm$",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _terminal(columns: Row, rows: Sequence[Row], numeric: Sequence[bool], width: int | None) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column, number in zip(columns, numeric, strict=True):
        table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    out = io.StringIO()
    # Rows are not folded in a file or a pipe, which have no width.
    wide = shutil.get_terminal_size((1000, 24)).columns if width is None else width
    Console(file=out, width=wide, highlight=False).print(table)
    return out.getvalue()


def _text(columns: Row, rows: Sequence[Row], numeric: Sequence[bool], width: int | None) -> str:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]

    def line(row: Row) -> str:
        cells = zip(row, widths, numeric, strict=True)
        return "  ".join(cell.rjust(n) if number else cell.ljust(n) for cell, n, number in cells).rstrip()

    return "\n".join(line(row) for row in (columns, *rows)) + "\n"


def _latex(columns: Row, rows: Sequence[Row], numeric: Sequence[bool], width: int | None) -> str:
    def line(row: Row) -> str:
        return " & ".join("".join(_LATEX.get(ch, ch) for ch in " ".join(cell.split())) for cell in row) + r" \\"

    spec = "".join("r" if number else "l" for number in numeric)
    body = [line(columns), r"\midrule", *map(line, rows)]
    return "\n".join([rf"\begin{{tabular}}{{{spec}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def _html(columns: Row, rows: Sequence[Row], numeric: Sequence[bool], width: int | None) -> str:
    align = [' style="text-align: right"' if number else "" for number in numeric]

    def line(row: Row, tag: str) -> str:
        cells = zip(row, align, strict=True)
        start, end = tag, tag.split()[0]
        return "<tr>" + "".join(f"<{start}{style}>{html.escape(cell)}</{end}>" for cell, style in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    head = line(columns, 'th scope="col"')
    return f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _csv(columns: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """CSV keeps full precision; text that a spreadsheet would run as a formula gets a leading apostrophe."""

    def safe(value: Any) -> Any:
        if value is None or (isinstance(value, Real) and math.isnan(value)):
            return ""
        if _is_number(value):
            return value
        text = format_cell(value)
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([safe(column) for column in columns])
    writer.writerows([safe(value) for value in row] for row in rows)
    return out.getvalue()


_LAYOUTS: dict[str, Callable[[Row, Sequence[Row], Sequence[bool], int | None], str]] = {
    "table": _terminal,
    "text": _text,
    "latex": _latex,
    "html": _html,
}
FORMATS = (*_LAYOUTS, "csv")


def render(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    format: str = "table",
    *,
    spec: str = ".3f",
    width: int | None = None,
) -> str:
    r"""Return rows of a table as text in one of ``FORMATS``.

    Parameters
    ----------
    columns
        Their names.
    rows
        One value a column: text, numbers, None or NaN where nothing is known.
    format
        "table" (for a terminal), "text" (plain, aligned), "csv", "latex" (needs booktabs) or "html" (the table alone).
    spec
        Format of floats; "csv" gives them in full.
    width
        Columns of the terminal for "table"; its own by default.

    Raises
    ------
    UsageError
        For an unknown format.
    ValueError
        For a row with more or fewer values than columns.

    Examples
    --------
    >>> render(["model", "mrr"], [("Lorentz", 0.5)], "text")
    'model      mrr\nLorentz  0.500\n'
    """
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown table format {format!r}, expected one of {', '.join(FORMATS)}{hint}")
    table = [tuple(row) for row in rows]
    for number, row in enumerate(table):
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} values for {len(columns)} columns: {row!r}")
    if format == "csv":
        return _csv(columns, table)
    numeric = [any(_is_number(row[i]) for row in table) for i in range(len(columns))]
    cells = [[format_cell(value, spec) for value in row] for row in table]
    return _LAYOUTS[format](list(columns), cells, numeric, width)
