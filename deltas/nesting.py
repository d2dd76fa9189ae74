"""Deltas that cannot be in a model at once: of it and of a part of it, or two that train the same.

Each of a model and a part of it would freeze and give back what the other trains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from torch import nn

from .attention import AttentionPart
from .base import Site
from .errors import DeltaError

if TYPE_CHECKING:
    from .handle import Handle

__all__ = ["mark", "meeting", "refuse_mixed", "refuse_nested", "refuse_shared", "unmark"]

_ABOVE = "_delta_above"  # attribute of every module below one with deltas: their names, for it knows not its owner


def mark(modules: Iterable[tuple[str, nn.Module]], name: str) -> None:
    """Tell the parts of a model, given with their paths, that it has a delta."""
    for module in _below(modules):
        module.__dict__[_ABOVE] = (*module.__dict__.get(_ABOVE, ()), name)


def unmark(modules: Iterable[tuple[str, nn.Module]], name: str) -> None:
    """Tell the parts of a model, given with their paths, that it has the delta no longer."""
    for module in _below(modules):
        names = list(module.__dict__.pop(_ABOVE, ()))
        if name in names:
            names.remove(name)
        if names:
            module.__dict__[_ABOVE] = tuple(names)


def _below(modules: Iterable[tuple[str, nn.Module]]) -> list[nn.Module]:
    """Modules below a model, without those of deltas."""
    return [module for path, module in modules if path and ".deltas." not in f".{path}."]


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


def refuse_shared(handle: Handle) -> None:
    """Refuse what two deltas cannot have at once: a parameter that both train, a layer whose weight holds one of them.

    Raises
    ------
    DeltaError : says what, and which delta has it.
    """
    mine = {*handle.owned(), *handle.head_parameters()}
    table: dict[str, Handle] = handle.model.__dict__.get("_delta_handles", {})
    for other in table.values():
        both = mine & {*other.owned(), *other.head_parameters()}
        if other.active and both:
            head = " Or pass heads=() to train no head." if both <= set(other.head_parameters()) else ""
            raise DeltaError(
                f"the delta {other.name!r} trains {sorted(both)[0]} too"
                + (f" and {len(both) - 1} others" if len(both) > 1 else "")
                + f": call its disable() or detach() first.{head}"
            )
        if other.merged and (path := meeting(handle, other)):
            raise DeltaError(f"the delta {other.name!r} is merged into {path}: unmerge() it first")
        if other.active:
            refuse_mixed([*other.sites, *handle.sites])


def meeting(one: Handle, other: Handle) -> str | None:
    """Path of a module where both act."""
    mine = {id(site.module) for site in one.sites}
    return next((site.path for site in other.sites if id(site.module) in mine), None)


def refuse_mixed(sites: list[Site]) -> None:
    """Refuse tokens with a gate, which have a softmax of their own, and other tokens in one attention layer.

    Raises
    ------
    DeltaError : says which methods meet where.
    """
    there: dict[int, Site] = {}
    for site in sites:
        if not isinstance(site.part, AttentionPart):
            continue
        other = there.setdefault(id(site.module), site)
        parts = (site.part, other.part)
        if other is not site and any(isinstance(part, AttentionPart) and part.gated for part in parts):
            assert site.method is not None and other.method is not None
            raise DeltaError(
                f"{other.method.name} and {site.method.name} both give tokens to {site.path}, and tokens with a gate have a "
                "softmax of their own: attach one of them, or the two in different layers (layers=)"
            )
