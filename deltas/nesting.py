"""Deltas of a model and of a part of it at once: each would freeze and give back what the other trains, so it is refused."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from .errors import DeltaError

__all__ = ["mark", "refuse_nested", "unmark"]

_ABOVE = "_delta_above"  # attribute of every module below one with deltas: their names, for it knows not its owner


def mark(model: nn.Module, name: str) -> None:
    """Tell the parts of a model that it has a delta."""
    for module in _below(model):
        module.__dict__[_ABOVE] = (*module.__dict__.get(_ABOVE, ()), name)


def unmark(model: nn.Module, name: str) -> None:
    """Tell the parts of a model that it has the delta no longer."""
    for module in _below(model):
        names = list(module.__dict__.pop(_ABOVE, ()))
        if name in names:
            names.remove(name)
        if names:
            module.__dict__[_ABOVE] = tuple(names)


def _below(model: nn.Module) -> list[nn.Module]:
    """Modules below a model, without those of deltas."""
    return [module for path, module in model.named_modules() if path and ".deltas." not in f".{path}."]


def refuse_nested(model: nn.Module, having: Collection[str]) -> None:
    """Refuse a delta of a model if a part of it has one, or if it is itself a part of a model that has.

    Parameters
    ----------
    having : paths of the modules below `model` that have deltas; that of the model itself, ``""``, may be among them

    Raises
    ------
    DeltaError : says where the other is.
    """
    if below := sorted(path for path in having if path):
        raise DeltaError(
            f"{below[0]}, a part of this {type(model).__name__}, has a delta: detach it first, or attach this one there too"
        )
    if above := model.__dict__.get(_ABOVE):
        raise DeltaError(
            f"this {type(model).__name__} is a part of a model that has the delta {above[0]!r}: detach it first, or attach "
            "this one to that model too"
        )
