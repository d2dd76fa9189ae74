"""Activation functions by their names."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import lookup

__all__ = ["FUNCTIONS", "function"]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


def function(name: str) -> Callable[[Tensor], Tensor]:
    """The function of a name."""
    return lookup(FUNCTIONS, name, kind="activation")
