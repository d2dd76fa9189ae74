"""Attention masks of transformers as those of the attention layers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["seen_keys", "split_mask"]


def split_mask(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """(key_padding_mask, attn_mask), of which one at most is not None.

    A mask (batch, keys) says which tokens there are, by numbers that are not 0. One of three or four dimensions, (batch,
    queries, keys) or (batch, heads, queries, keys), is bool, 0 and 1, or additive. Floats are additive unless they are all 0
    or 1, and some 1: as numbers that are added these would hide nothing.
    """
    if mask is None:
        return None, None
    if mask.ndim == 2:
        return mask != 0, None
    if mask.ndim not in (3, 4):
        raise ValueError(f"attention_mask has 2, 3 or 4 dimensions, got shape {tuple(mask.shape)}")
    mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
    if not mask.is_floating_point():
        return None, mask.to(torch.bool)
    seen = mask == 1
    counts = (seen | (mask == 0)).all() & seen.any()  # a tensor: no device waits, and a graph has no branch
    return None, torch.where(counts, torch.where(seen, 0.0, -torch.inf).to(mask), mask)


def seen_keys(mask: Tensor | None) -> Tensor | None:
    """Keys (batch, keys) that some query of some head sees, by a mask as :func:`split_mask` takes it."""
    padding, square = split_mask(mask)
    if square is None:
        return padding
    seen = square if square.dtype == torch.bool else square > torch.finfo(square.dtype).min / 2
    return seen.flatten(1, -2).any(1)
