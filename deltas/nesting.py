"""Deltas that cannot be in a model at once: of it and of a part of it, or two that train the same.

Each of a model and a part of it would freeze and give back what the other trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from .attention import AttentionPart
from .base import Site
from .errors import DeltaError

if TYPE_CHECKING:
    from .handle import Handle

__all__ = ["mark", "meeting", "refuse_changed", "refuse_mixed", "refuse_nested", "refuse_shared", "unmark"]

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


def refuse_nested(model: nn.Module, modules: Sequence[tuple[str, nn.Module]]) -> None:
    """Refuse a delta of a model if a part of it has one, or if it is, or shares, a part of a model that has.

    Parameters
    ----------
    modules : the model's, with their paths

    Raises
    ------
    DeltaError : says where the other is.
    """
    if below := sorted(path for path, module in modules if path and module.__dict__.get("_delta_handles")):
        raise DeltaError(
            f"{below[0]}, a part of this {type(model).__name__}, has a delta: detach it first, or attach this one there too"
        )
    if above := model.__dict__.get(_ABOVE):
        raise DeltaError(
            f"this {type(model).__name__} is a part of a model that has the delta {above[0]!r}: detach it first, or attach "
            "this one to that model too"
        )
    own = Counter(model.__dict__.get("_delta_handles", {}).keys())
    marks = {module.__dict__[_ABOVE]: path for path, module in reversed(modules) if _ABOVE in module.__dict__}
    for names, path in marks.items():
        if others := Counter(names) - own:
            raise DeltaError(
                f"{path}, a part of this {type(model).__name__}, is a part of another model too, which has the delta "
                f"{next(iter(others))!r}: detach it first, attach this one there, or give each model a copy of the part"
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
        taken = {place for place in functions_of(other) if place in functions_of(handle)}
        if other.active and taken:
            raise DeltaError(
                f"the delta {other.name!r} has taken the place of {sorted(taken)[0]} too: disable() or detach() it first"
            )
        if other.merged and (path := meeting(handle, other)):
            raise DeltaError(f"the delta {other.name!r} is merged into {path}: unmerge() it first")
        if other.active:
            refuse_mixed([*other.sites, *handle.sites])


def refuse_changed(handle: Handle) -> None:
    """Refuse a model that has other parameters by now than those that a delta has trained, such as a new head.

    Raises
    ------
    DeltaError : says which.
    """
    own = {**handle.owned(), **handle.head_parameters()}
    for path, value in {**handle.initial, **handle._tuned}.items():
        here = own.get(path)
        if ":" not in path and (here is None or here.shape != value.shape):
            now = "is gone" if here is None else f"has the shape {tuple(here.shape)}, not {tuple(value.shape)}"
            raise DeltaError(
                f"{path}, which the delta {handle.name!r} trains, {now}: the model was changed after the delta was detached. "
                "Put the earlier module back; or save the delta, and load it into a model that has it"
            )


def functions_of(handle: Handle) -> set[str]:
    """Paths of the activation functions whose place a delta takes."""
    return {site.place.path for site in handle.sites if site.kind == "activation"}


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
