"""Errors of this package, and the names that an error suggests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

__all__ = ["DeltaError", "lookup", "nearest", "required"]

T = TypeVar("T")


class DeltaError(ValueError):
    """A delta that does not fit: to the model, to another delta, or to a file."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``Did you mean 'X'?`` and the names that exist, for the end of a message."""
    names = list(known)
    folded = {n.lower(): n for n in names}
    near = [folded[n] for n in get_close_matches(name.lower(), folded, n=1, cutoff=0.5)]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def lookup(table: Mapping[str, T], name: str, *, kind: str) -> T:
    """Entry `name` of `table`.

    Raises
    ------
    DeltaError : there is none; with the nearest name.
    """
    if name not in table:
        raise DeltaError(f"unknown {kind} {name!r}. {nearest(name, table)}")
    return table[name]


def required(part: object, kind: type[T], where: str) -> T:
    """`part`, if it is of the kind that acts at such a place.

    Raises
    ------
    DeltaError : it is not.
    """
    if not isinstance(part, kind):
        raise DeltaError(
            f"what build() gives for {where} subclasses {kind.__module__}.{kind.__name__}; it gave a {type(part).__name__}"
        )
    return part
