"""Sizes of methods under one budget of trained parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .base import methods_of
from .errors import DeltaError
from .hosts import Host
from .plan import plan
from .spec import parse

__all__ = ["fit_budget"]

LARGEST = 1 << 16


def fit_budget(
    model: nn.Module,
    name: str,
    budget: int,
    options: Mapping[str, Any] | None = None,
    *,
    host: Host | str | Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Options with which a method's number of parameters comes nearest to a budget.

    Parameters
    ----------
    model, host : as for :func:`deltas.attach`
    name : of a method, or of several joined by ``+``: then the first one with a size takes what the others leave
    budget : number of trained parameters, heads left out
    options : of the method, kept

    Returns
    -------
    `options` and the size, ``{"rank": 5}``; `options` alone where no method has one size (BitFit, UniPELT, SparseAdapter:
    give these their sizes as options). Steps of a size may be coarse, and some methods stop growing (LoKr, at whole
    factors): count what is returned before it is said to meet the budget.

    Raises
    ------
    DeltaError : the smallest size is beyond twice the budget.
    """
    kept = dict(options or {})
    sized = next((m for m in methods_of(parse(name, kept)) if m.size is not None), None)
    if sized is None:
        return kept
    key, step = f"{sized.name}.{sized.size}", sized.size_step

    def count(steps: int) -> int:
        return plan(model, parse(name, {**kept, key: steps * step}), host=host, heads=()).parameters

    smallest = count(1)
    if smallest > 2 * budget:
        raise DeltaError(f"{name} has {smallest:,} parameters at {sized.size} {step}, and the budget is {budget:,}")
    low, high, numbers = 1, 2, count(2)
    while high < LARGEST and numbers < budget:
        if (more := count(2 * high)) <= numbers:
            break
        low, high, numbers = high, 2 * high, more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < budget else (low, middle)
    best = min((low, high), key=lambda steps: abs(count(steps) - budget))
    numbers = count(best)
    while best > 1 and count(best - 1) == numbers:  # larger sizes of the same numbers would only look like more
        best -= 1
    return {**kept, key: best * step}
