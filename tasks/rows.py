"""Rows of questions to a trained model: their parts and the names in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .errors import UsageError
from .registry import did_you_mean

__all__ = ["known", "require_parts"]


def require_parts(rows: Sequence[Sequence[str]], count: int, meaning: str) -> None:
    """Refuse a row that has not so many parts, or an empty one.

    Raises
    ------
    UsageError : the first such row, by its number from 1, and what was expected.
    """
    for number, row in enumerate(rows, 1):
        if len(row) != count or not all(isinstance(part, str) and part.strip() for part in row):
            given = "\t".join(map(str, row))[:80]
            raise UsageError(f"row {number}: expected {meaning}, got {given!r}")


def known(name: str, table: Mapping[str, int], number: int, kind: str) -> int:
    """Id of a name.

    Raises
    ------
    UsageError : none, with the row and the nearest one.
    """
    if name not in table:
        near = did_you_mean(name, table).split(" Known:")[0]
        near = "" if near.startswith("Known:") else f". {near}"
        raise UsageError(f"row {number}: {name!r} is no {kind} of the {len(table)} that the model knows{near}")
    return table[name]
