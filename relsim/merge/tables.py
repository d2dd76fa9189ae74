"""A light table of columns, and TSV that neither breaks nor runs anything in a spreadsheet."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PairTable", "cell", "plain", "read_tsv", "write_columns", "write_lines", "write_tsv"]

# Text that a spreadsheet runs; apostrophes before it count, so that the one added can be told from the text's own.
_RUN = re.compile(r"'*\s*[=+\-@]")
_ODD = re.compile(r"[\\\t\n\r]")
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class PairTable:
    """Columns of equal length, in a fixed order.

    ``table["kind"]`` is a column, ``len(table)`` the number of rows, and iteration gives rows as dicts.

    Parameters
    ----------
    columns
        Name to a one-dimensional array.
    """

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self._columns = dict(columns)
        if len({len(column) for column in self._columns.values()}) > 1:
            raise ValueError(f"columns have unequal lengths: { ({k: len(v) for k, v in self._columns.items()}) }")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self.columns
        for row in zip(*(column.tolist() for column in self._columns.values()), strict=True):
            yield dict(zip(names, row, strict=True))

    def rows(self, limit: int | None = None) -> list[dict[str, Any]]:
        """First rows as dicts of plain Python values; all of them without a limit."""
        return list(self.take(np.arange(min(len(self), len(self) if limit is None else limit))))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> PairTable:
        """Keep some rows, by number or by a mask."""
        return PairTable({name: column[rows] for name, column in self._columns.items()})

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns as lists of plain Python values."""
        return {name: column.tolist() for name, column in self._columns.items()}

    def __repr__(self) -> str:
        return f"PairTable({len(self)} rows: {', '.join(self.columns)})"


def cell(value: Any) -> str:
    r"""Text of one TSV cell.

    TAB, line ends and backslash become ``\t``, ``\n``, ``\r``, ``\\``, and a quotation mark at the beginning of text that
    ends with one becomes ``\"``, so that it is none of a spreadsheet's. Text that a spreadsheet would run (first character
    = + - @) gets a leading apostrophe. Numbers are written as they are; NaN as an empty cell.

    Examples
    --------
    >>> cell("=1+1"), cell("a\tb"), cell(-0.5), cell(float("nan"))
    ("'=1+1", 'a\\tb', '-0.5', '')
    """
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    if not isinstance(value, str):
        return str(value)
    text = value.translate(_ESCAPED) if _ODD.search(value) else value
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = "\\" + text
    return "'" + text if _RUN.match(text) else text


_ESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r", '"': '"'}


def plain(text: str) -> str:
    r"""Undo :func:`cell` for text.

    Examples
    --------
    >>> plain("'=1+1"), plain("a\\tb")
    ('=1+1', 'a\tb')
    """
    if text.startswith("'") and _RUN.match(text, 1):
        text = text[1:]
    return re.sub(r"\\([\\tnr\"])", lambda found: _ESCAPES[found.group(1)], text)


def read_tsv(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a TSV that :func:`write_tsv` wrote, also after an editor or a spreadsheet saved it.

    A byte-order mark is skipped. Spreadsheets put cells in quotes, all of them (the header too), or those that hold a
    quote or a comma: such quotes are taken off. Cells keep their escapes, for :func:`plain`; a short row lacks the rest.

    Raises
    ------
    ValueError
        For text that is not UTF-8.
    OSError
        When the file cannot be read.
    """
    data = Path(path).read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: UTF-16 text, expected UTF-8; save it as UTF-8 with a TAB between the cells")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        at = 1 + data.count(b"\n", 0, error.start)
        raise ValueError(f"{path}:{at}: not UTF-8; save it as UTF-8 with a TAB between the cells") from None
    rows = [line.rstrip("\r").split("\t") for line in lines if line.rstrip("\r")]
    header = rows[0] if rows else []
    everywhere = all(map(_QUOTED.fullmatch, header))
    names = [_unquoted(name, everywhere) for name in header]
    return names, [dict(zip(names, (_unquoted(text, everywhere) for text in row), strict=False)) for row in rows[1:]]


_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def _unquoted(text: str, everywhere: bool) -> str:
    found = _QUOTED.fullmatch(text)
    # Without a reason to quote it, a quoted cell is a phrase that has quotes.
    if found and (everywhere or '""' in found[1] or "," in found[1]):
        return found[1].replace('""', '"')
    return text


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a TSV in UTF-8 with LF, as :func:`write_lines` does.

    Raises
    ------
    OSError
        When the folder cannot be written; the old file, if any, is untouched.
    """
    write_lines(path, ("\t".join(row) + "\n" for row in chain([header], (map(cell, row) for row in rows))))


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write columns of equal length as :func:`write_tsv` writes rows, each different text made a cell once."""
    texts = []
    for values in columns.values():
        plain_values = values.tolist()
        if values.dtype.kind == "f":
            texts.append(list(map(cell, plain_values)))
        else:
            known = {value: cell(value) for value in set(plain_values)}
            texts.append([known[value] for value in plain_values])
    write_lines(path, ("\t".join(row) + "\n" for row in chain([columns], zip(*texts, strict=True))))


def write_lines(path: Path, lines: Iterable[str], *, errors: str = "strict") -> None:
    """Write lines in UTF-8 as they are: to a temporary name beside the file, flushed to disk, then renamed.

    Parameters
    ----------
    path
        The file.
    lines
        Each with its line end.
    errors
        What becomes of text that UTF-8 cannot hold, as in ``open``.

    Raises
    ------
    OSError
        When the folder cannot be written; the old file, if any, is untouched.
    """
    handle, temp = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors=errors, newline="") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temp).chmod(0o644)
        Path(temp).replace(path)
    except BaseException:
        Path(temp).unlink(missing_ok=True)
        raise
