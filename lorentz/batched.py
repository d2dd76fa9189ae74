"""Whether a backward pass runs under ``torch.vmap``, where nothing may be written in place."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["is_batched"]


def is_batched(*tensors: Tensor) -> bool:
    """Whether one of them is a batch of ``torch.vmap``, as ``torch.func.jacrev`` makes them of gradients."""
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    return any(functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor) for tensor in tensors)
