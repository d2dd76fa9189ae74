"""Attention masks of transformers as those of the attention layers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["split_mask"]


def split_mask(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """(key_padding_mask, attn_mask), of which one at most is not None.

    A mask (batch, keys) says which tokens there are, by numbers that are not 0. One of three or four dimensions, (batch,
    queries, keys) or (batch, heads, queries, keys), is bool, 0 and 1, or additive.
    """
    if mask is None:
        return None, None
    if mask.ndim == 2:
        return mask != 0, None
    if mask.ndim not in (3, 4):
        raise ValueError(f"attention_mask has 2, 3 or 4 dimensions, got shape {tuple(mask.shape)}")
    mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
    return None, mask if mask.is_floating_point() else mask.to(torch.bool)
