"""Random weights that mix the intrinsic points of several methods."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DeltaError, lookup

__all__ = ["INTERPOLATIONS", "random_weights"]


def _simplex(count: int, generator: torch.Generator) -> Tensor:
    """Uniform on the simplex: exponential variables over their sum."""
    drawn = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
    return drawn / drawn.sum()


def _stick(count: int, generator: torch.Generator) -> Tensor:
    """Stick-breaking: each takes a uniform share of what the ones before it left, the last takes the rest.

    Not uniform: of three, the first has 1/2 on average and the others 1/4 each.
    """
    weights, left = [], 1.0
    for _ in range(count - 1):
        weights.append(left * float(torch.rand((), dtype=torch.float64, generator=generator)))
        left -= weights[-1]
    return torch.tensor([*weights, left], dtype=torch.float64)


INTERPOLATIONS = {"simplex": _simplex, "stick-breaking": _stick}


def random_weights(count: int, *, kind: str = "simplex", seed: int, step: int) -> Tensor:
    """Weights (count), not negative, of sum one; a pure function of seed and step.

    Parameters
    ----------
    kind : ``"simplex"``, or ``"stick-breaking"`` as in Yi et al. 2022, eq. 4
    """
    if count < 1:
        raise DeltaError("there is no method to interpolate")
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % (1 << 63))
    return lookup(INTERPOLATIONS, kind, kind="interpolation")(count, generator).float()
