"""Deltas from and to names and options, as files and the command line have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .base import Combination, Delta, methods_of
from .errors import DeltaError, lookup, nearest
from .methods import DELTAS
from .options import coerced

__all__ = ["from_config", "parse", "to_config"]


def parse(text: str, options: Mapping[str, Any] | None = None) -> Delta | Combination:
    """The delta of a text such as ``"LoRA"`` or ``"Adapter+BitFit"``.

    Parameters
    ----------
    text : names of methods, joined by ``+``
    options : each goes to every method that has it; ``"LoRA.rank"`` to that method alone

    Raises
    ------
    DeltaError : an unknown method, or an option that none of them has; with the nearest name.

    Examples
    --------
    >>> parse("LoRA+BitFit", {"rank": 4}).name
    'LoRA+BitFit'
    """
    classes = [lookup(DELTAS, name.strip(), kind="delta") for name in text.split("+")]
    given: list[dict[str, Any]] = [{} for _ in classes]
    for key, value in (options or {}).items():
        owner, _, option = key.rpartition(".")
        takers = 0
        for cls, mine in zip(classes, given, strict=True):
            if option in (f.name for f in fields(cls)) and owner in ("", cls.__name__):
                mine[option] = coerced(cls, option, value)
                takers += 1
        if not takers:
            known = sorted({f.name for cls in classes for f in fields(cls)})
            raise DeltaError(f"{text} has no option {key!r}. {nearest(option, known)}")
    methods = tuple(cls(**mine) for cls, mine in zip(classes, given, strict=True))
    return methods[0] if len(methods) == 1 else Combination(methods)


def to_config(spec: Delta | Combination) -> list[dict[str, Any]]:
    """Names and options, ready for JSON."""
    return [{"method": method.name, "config": method.config()} for method in methods_of(spec)]


def from_config(entries: list[dict[str, Any]]) -> Delta | Combination:
    """What :func:`to_config` described.

    Raises
    ------
    DeltaError : a method or an option that this version does not know.
    """
    methods = []
    for entry in entries:
        try:
            cls, config = lookup(DELTAS, entry["method"], kind="delta"), dict(entry["config"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DeltaError):
                raise
            raise DeltaError(f"a method is described by its name and config, got {entry!r}") from None
        values = {k: _tuple(v) for k, v in config.items()}
        if unknown := sorted(set(values) - {f.name for f in fields(cls)}):
            raise DeltaError(f"{cls.__name__} has no option {unknown[0]!r}; the file is of another version of it")
        methods.append(cls(**values))
    return methods[0] if len(methods) == 1 else Combination(tuple(methods))


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value
