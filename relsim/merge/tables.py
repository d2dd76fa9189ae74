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

__all__ = ["PairTable", "cell", "plain", "write_lines", "write_tsv"]


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

    TAB, line ends and backslash become ``\t``, ``\n``, ``\r``, ``\\``. Text that a spreadsheet would run (first
    character = + - @) gets a leading apostrophe. Numbers are written as they are; NaN as an empty cell.

    Examples
    --------
    >>> cell("=1+1"), cell("a\tb"), cell(-0.5), cell(float("nan"))
    ("'=1+1", 'a\\tb', '-0.5', '')
    """
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return "'" + text if text.lstrip().startswith(("=", "+", "-", "@")) else text


_ESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def plain(text: str) -> str:
    r"""Undo :func:`cell` for text.

    Examples
    --------
    >>> plain("'=1+1"), plain("a\\tb")
    ('=1+1', 'a\tb')
    """
    if text.startswith("'") and text[1:].lstrip().startswith(("=", "+", "-", "@")):
        text = text[1:]
    return re.sub(r"\\([\\tnr])", lambda found: _ESCAPES[found.group(1)], text)


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a TSV in UTF-8 with LF, as :func:`write_lines` does.

    Raises
    ------
    OSError
        When the folder cannot be written; the old file, if any, is untouched.
    """
    write_lines(path, ("\t".join(row) + "\n" for row in chain([header], (map(cell, row) for row in rows))))


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
