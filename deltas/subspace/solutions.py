"""Solutions of tasks by delta methods, as a subspace takes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import DeltaError

__all__ = ["Solutions", "checked"]

Solutions = Mapping[str, Mapping[str, Tensor]]
"""Solutions by task and method: what ``Handle.flatten()`` of a trained delta gives. Sizes differ between methods only."""


def checked(solutions: Solutions) -> dict[str, dict[str, Tensor]]:
    """Solutions in float32 on the CPU, the same methods in the same order for every task."""
    if not solutions or not next(iter(solutions.values())):
        raise DeltaError("there are no solutions: give {task: {method: vector}}")
    names = list(next(iter(solutions.values())))
    found: dict[str, dict[str, Tensor]] = {}
    for task, row in solutions.items():
        if set(row) != set(names):
            odd = sorted(set(row) ^ set(names))[0]
            raise DeltaError(f"the task {task!r} {'has' if odd in row else 'lacks'} a solution of {odd}, others do not")
        found[task] = {}
        for name in names:
            vector, first = row[name].detach().float().cpu(), next(iter(found.values())).get(name, row[name])
            if "." in name:
                raise DeltaError(f"the name of a method has no dot, got {name!r}")
            if vector.ndim != 1 or vector.shape != first.shape:
                raise DeltaError(
                    f"the solution of {name} for {task!r} has shape {tuple(vector.shape)}, that of the first task "
                    f"{tuple(first.shape)}: one vector of Handle.flatten() each, of deltas with equal options"
                )
            if not torch.isfinite(vector).all():
                raise DeltaError(f"the solution of {name} for {task!r} has values that are not finite")
            found[task][name] = vector
    return found
