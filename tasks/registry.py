"""Names that users type: looked up here, so that a miss always suggests the nearest one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

from .errors import UsageError

__all__ = ["did_you_mean", "lookup", "named"]

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``Did you mean 'X'?`` and the names that exist, for the end of an error message."""
    names = list(known)
    folded = {n.lower(): n for n in names}
    near = [folded[n] for n in get_close_matches(name.lower(), folded, n=1, cutoff=0.5)]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def lookup(table: Mapping[str, T], name: str, *, kind: str) -> T:
    """Entry `name` of `table`; a :class:`UsageError` with the nearest name if there is none."""
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}. {did_you_mean(name, table)}")
    return table[name]


def named(place: str) -> Any:
    """What ``"module:name"`` names, imported now."""
    module, name = place.split(":")
    return getattr(import_module(module), name)
