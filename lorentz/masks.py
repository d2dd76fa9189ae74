"""Attention masks of every kind, joined into one."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

__all__ = ["causal_mask", "join_masks"]


def causal_mask(queries: int, keys: int, offset: int | Tensor, device: torch.device) -> Tensor:
    """(queries, keys): whether query i, the token at position offset + i, may see key j."""
    return torch.arange(keys, device=device) <= torch.arange(queries, device=device)[:, None] + offset


def join_masks(
    attn_mask: Tensor | None,
    padding: Tensor | None,
    *,
    causal: bool,
    offset: int | Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor | None, Tensor | None, bool]:
    """One mask (b|1, h|1, S|1, T) for the kernel, the rows (..., 1) it leaves nothing, and the kernel's own causal flag.

    Parameters
    ----------
    attn_mask, padding : bool (True: attend) or additive (<= finfo.min / 2: do not), broadcast to `shape` without and with
        the heads and queries
    offset : int. Keys that come before the first query, for the causal mask.
    shape : (*batch, h, S, T)
    dtype : of an additive mask in the result, that of the kernel; what becomes -inf in it is masked
    """
    *batch, heads, length, keys = shape
    rows = prod(batch)
    keep: Tensor | None = None
    bias: Tensor | None = None
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", padding)):
        if mask is None:
            continue
        given = tuple(mask.shape)
        full = (*batch, heads, length, keys) if name == "attn_mask" else (*batch, keys)
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise TypeError(f"{name} is bool (True: attend) or additive floats, got {mask.dtype}; use {name}.bool()")
        if len(given) > len(full) or any(m not in (1, n) for m, n in zip(given[::-1], full[::-1], strict=False)):
            raise ValueError(f"{name} of shape {given} does not broadcast to {tuple(full)}")
        if name == "key_padding_mask":
            mask = mask.broadcast_to(full).reshape(rows, 1, 1, keys)
        elif mask.ndim > 3:
            mask = mask.broadcast_to((*batch, *given[-3:])).reshape(rows, *given[-3:])
        else:
            mask = mask.reshape((1,) * (4 - mask.ndim) + given)
        if mask.is_floating_point():
            bias = mask.to(dtype) if bias is None else bias + mask.to(dtype)
            mask = ~(mask <= torch.finfo(mask.dtype).min / 2)
        keep = mask if keep is None else keep & mask
    if keys == 0:
        return None, torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device), False
    if keep is None:
        if causal and offset:
            return causal_mask(length, keys, offset, device), None, False
        return None, None, causal
    if bias is not None:  # -1e9 is no float16, nor is the sum of two that are
        keep = keep & (bias != -torch.inf)
    if causal:
        keep = keep & causal_mask(length, keys, offset, device)
    dead = ~keep.any(-1, keepdim=True)
    if bias is None:
        return keep | dead, dead, False  # a row that sees nothing is let see, and its result replaced
    return bias.masked_fill(~keep, -torch.inf).masked_fill(dead, 0), dead, False
