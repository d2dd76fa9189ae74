"""How a part takes the place of an activation function."""

from __future__ import annotations

from typing import Any

from torch import nn

from .errors import DeltaError
from .hosts import Place

__all__ = ["ActivationPart"]


class ActivationPart(nn.Module):
    """A part that is called in place of an activation function, which it keeps as ``base``."""

    base: Any  # set when it is inserted; in the dictionary of the object, so that it is no child


def insert(host: nn.Module, key: str, part: nn.Module, place: Place) -> None:
    """Put a part where the function is."""
    leaf = place.path.rpartition(".")[2]
    if isinstance(getattr(host, leaf), ActivationPart):
        raise DeltaError(f"another delta has taken the place of {place.path}: disable() or detach() it first")
    part.__dict__["base"] = getattr(host, leaf)
    _put(host, leaf, part)


def remove(host: nn.Module, key: str, part: nn.Module, place: Place) -> None:
    """Put the function back."""
    leaf = place.path.rpartition(".")[2]
    _put(host, leaf, part.__dict__["base"])


def _put(host: nn.Module, leaf: str, value: Any) -> None:
    if isinstance(value, nn.Module) and leaf in host._modules:  # in the same place, so that the order of names stays
        host._modules[leaf] = value
        return
    if leaf in host._modules:
        del host._modules[leaf]
    setattr(host, leaf, value)
