"""The dtype of parts: float32 beside layers of 16 bits, which are too coarse for what is trained in small steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import DeltaError

__all__ = ["check_dtype", "dtype_of_part", "in_dtype_of"]

_COARSE = (torch.bfloat16, torch.float16)


def check_dtype(dtype: torch.dtype | None) -> None:
    """Refuse what no number of a part can be.

    Raises
    ------
    DeltaError : no dtype of real floating-point numbers.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise DeltaError(
            f"dtype is {dtype!r}; give torch.float32, torch.bfloat16, ... or None, which takes the layer's own, and float32 "
            "beside a layer of 16 bits"
        )


def dtype_of_part(like: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """What a part's parameters are beside tensors such as `like`, where the caller wished for `dtype`."""
    if dtype is not None:
        return dtype
    return torch.float32 if like.dtype in _COARSE else like.dtype


def in_dtype_of(part: nn.Module, x: Tensor) -> Tensor:
    """`x` in the dtype of a part's parameters; `x` itself under autocast, which chooses for itself, or if there are none."""
    like = next(part.parameters(), None)
    if like is None or like.dtype == x.dtype or torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(like.dtype)
