"""How the files of each sentence set are written, and how its rows are split into training, validation and test."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

from tasks.errors import UsageError

__all__ = ["FORMATS", "Format", "Row", "comma_rows", "tab_rows"]


@dataclass(frozen=True)
class Row:
    """One example as its file gives it, with the line it stands on, for error messages."""

    first: str
    second: str | None
    label: str
    line: int


@dataclass(frozen=True)
class Format:
    """How a set is read.

    Attributes
    ----------
    read : rows of the text of a file, given the text and the file's name for error messages
    classes : label as written to the name of its class, in order (the last of two is the positive one); None where the
        names of the training rows are the classes
    span : least and greatest label of a regression, otherwise None
    monitor : metric that the set is usually scored by, which selects the model
    split : ``"published"`` (a file each), ``"hash"`` (all rows by their hash), or ``"held out"`` (the first file is the
        training one, of which a tenth, by hash, is the validation split; the others are the test split)
    encoding : of the files
    """

    read: Callable[[str, str], list[Row]]
    classes: dict[str, str] | None = None
    span: tuple[float, float] | None = None
    monitor: str = "accuracy"
    split: str = "published"
    encoding: str = "utf-8-sig"


def _row(cells: list[str], places: tuple[int, int | None, int], where: str, line: int) -> Row:
    first, second, label = (None if place is None else cells[place].strip() for place in places)
    if not first or not label or second == "":
        raise UsageError(f"{where}, line {line}: an empty text or label: {' TAB '.join(cells)[:80]!r}")
    return Row(first, second, label, line)


def tab_rows(
    text: str, where: str, *, places: tuple[int, int | None, int], columns: tuple[int, ...], header: bool = False
) -> list[Row]:
    """Rows of a table with tabs between its columns and no quoting; blank lines are left out.

    Parameters
    ----------
    places : columns of the text, of the second text (or None) and of the label, from 0
    columns : how many columns a line may have
    header : whether the first line names the columns

    Raises
    ------
    UsageError : a line with another number of columns, or an empty cell (which).
    """
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or (header and number == 1):
            continue
        cells = line.split("\t")
        if len(cells) not in columns:
            expected = " or ".join(map(str, columns))
            raise UsageError(
                f"{where}, line {number}: expected {expected} columns with tabs between them, got {len(cells)}: "
                f"{line[:80]!r}"
            )
        rows.append(_row(cells, places, where, number))
    return rows


def comma_rows(text: str, where: str, *, places: tuple[int, int | None, int], columns: tuple[int, ...]) -> list[Row]:
    """Rows of a quoted CSV table; blank lines are left out.

    Raises
    ------
    UsageError : a row with another number of columns, an empty cell, or quotes that do not end (which line).
    """
    rows, reader = [], csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) not in columns:
                expected = " or ".join(map(str, columns))
                raise UsageError(
                    f"{where}, line {reader.line_num}: expected {expected} columns with commas between them, got "
                    f"{len(cells)} (a text with a comma stands in double quotes): {','.join(cells)[:80]!r}"
                )
            rows.append(_row(cells, places, where, reader.line_num))
    except csv.Error as error:
        raise UsageError(f"{where}, line {reader.line_num}: not CSV ({error})") from None
    return rows


def _table(*places: int | None, columns: tuple[int, ...], header: bool = False) -> Callable[[str, str], list[Row]]:
    first, second, label = places
    assert first is not None and label is not None
    return lambda text, where: tab_rows(text, where, places=(first, second, label), columns=columns, header=header)


def _label_first(text: str, where: str) -> list[Row]:
    """Lines ``label BLANK text``."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            label, _, rest = line.strip().partition(" ")
            if not rest.strip():
                raise UsageError(f"{where}, line {number}: expected a label, a blank and a text, got {line[:80]!r}")
            rows.append(Row(rest.strip(), None, label, number))
    return rows


def _coarse(text: str, where: str) -> list[Row]:
    """Lines ``COARSE:fine question``, of which the coarse class counts."""
    rows = _label_first(text, where)
    for row in rows:
        if ":" not in row.label:
            raise UsageError(f"{where}, line {row.line}: expected COARSE:fine before the question, got {row.label!r}")
    return [Row(row.first, None, row.label.partition(":")[0], row.line) for row in rows]


def _by_file(text: str, where: str) -> list[Row]:
    """A sentence a line, whose class is the ending of the file's name."""
    label = where.rpartition(".")[2]
    return [Row(line.strip(), None, label, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def _news(text: str, where: str) -> list[Row]:
    """Rows ``class, title, description``; the text is the title and the description."""
    rows = comma_rows(text, where, places=(1, 2, 0), columns=(3,))
    return [Row(f"{row.first} - {row.second}", None, row.label, row.line) for row in rows]


_SENTIMENT = {"0": "negative", "1": "positive"}
_FIVE = {"0": "very negative", "1": "negative", "2": "neutral", "3": "positive", "4": "very positive"}
_BY_FILE = {"neg": "negative", "pos": "positive"}
_ENTAILMENT = {name: name.lower() for name in ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")}

FORMATS: dict[str, Format] = {
    "SST-2": Format(_table(0, None, 1, columns=(2,)), _SENTIMENT),
    "SST-5": Format(_label_first, _FIVE),
    "CoLA": Format(
        _table(3, None, 1, columns=(4,)), {"0": "unacceptable", "1": "acceptable"}, monitor="mcc", split="held out"
    ),
    "MRPC": Format(
        _table(3, 4, 0, columns=(5,), header=True), {"0": "different", "1": "paraphrase"}, monitor="f1"
    ),
    "STS-B": Format(_table(5, 6, 4, columns=(7, 9)), span=(0, 5), monitor="spearman"),
    "SICK-R": Format(_table(1, 2, 3, columns=(5,), header=True), span=(1, 5), monitor="pearson"),
    "SICK-E": Format(_table(1, 2, 4, columns=(5,), header=True), _ENTAILMENT),
    "TREC": Format(_coarse, split="held out", encoding="latin-1"),
    "TREC-50": Format(_label_first, split="held out", encoding="latin-1"),
    "SUBJ": Format(
        _by_file, {"objective": "objective", "subjective": "subjective"}, split="hash", encoding="latin-1"
    ),
    "MR": Format(_by_file, _BY_FILE, split="hash", encoding="latin-1"),
    "CR": Format(_by_file, _BY_FILE, split="hash"),
    "MPQA": Format(_by_file, _BY_FILE, split="hash"),
    "AG-News": Format(_news, {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}, split="hash"),
    "WNLI": Format(
        _table(1, 2, 3, columns=(4,), header=True), {"0": "not entailed", "1": "entailed"}, split="held out"
    ),
}  # fmt: skip
