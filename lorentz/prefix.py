"""Tokens that attention sees before its keys: where prefix tuning and other users put points of their own."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import causal_mask

__all__ = ["Prefix", "PrefixTokens", "before_keys"]


class PrefixTokens(NamedTuple):
    """Free coordinates of n tokens' keys and values, (n, size) or (batch, n, size); size counts the space coordinates.

    Without a gate they join the keys in one softmax. With a gate, a number or (batch, 1, 1) or (..., S, 1), they have a
    softmax of their own, whose centroid's space coordinates times the gate are added to those of the result before the lift:
    a gate of 0 leaves the attention as it is.
    """

    key: Tensor
    value: Tensor
    gate: Tensor | None = None


class Prefix(Protocol):
    """What ``attention.prefix`` may be: a module, or any function of the queries' points."""

    def __call__(self, query: Tensor) -> PrefixTokens:
        """Tokens that the queries (..., S, dim) see."""


def before_keys(
    mask: Tensor | None, dead: Tensor | None, *, causal: bool, n: int, queries: int, keys: Tensor
) -> Tensor | None:
    """Mask (..., S, n + T) under which every query sees n tokens before its keys (..., T, size), also the `dead` rows."""
    length = keys.shape[-2]
    if causal:
        mask = causal_mask(queries, length, 0, keys.device)[None, None]
    if mask is None:
        return None
    mask = mask.expand(*mask.shape[:-1], length)
    if mask.dtype == torch.bool:
        mask = mask if dead is None else mask & ~dead
        return F.pad(mask, (n, 0), value=True)
    return F.pad(mask if dead is None else mask.masked_fill(dead, -torch.inf), (n, 0))
