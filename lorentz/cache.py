"""Keys and values of tokens already seen, for decoding one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LorentzCache"]


class LorentzCache:
    """Preallocated keys and values of one attention layer, as they enter the product with queries and the average.

    Self-attention appends at every call. Cross-attention fills the cache at its first call and reads it afterwards, so
    the keys of the memory are computed once; ``reset`` before the next memory. One cache serves one layer and one of
    the two purposes. It is for decoding: it stores values, no gradients.

    Parameters
    ----------
    batch, heads, max_length : int, >= 1. ``batch`` counts beams.
    head_dim : int, >= 2. Size of a head's points, time axis included.
    dtype, device : of the stored points; torch's defaults if None. ``LorentzMultiheadAttention.new_cache`` gives a
        cache that fits its layer.

    Attributes
    ----------
    length : int. Tokens stored.
    fixed : bool. Whether it holds the keys of a memory (cross-attention).

    Raises
    ------
    ValueError : sizes below 1; in ``append``, points of another shape, or more tokens than there is room for.
    TypeError : points of another dtype than the cache's.
    RuntimeError : points that require a gradient, which a cache would lose.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        max_length: int,
        head_dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if min(batch, heads, max_length) < 1 or head_dim < 2:
            raise ValueError(
                f"batch, heads and max_length are at least 1 and head_dim, which counts the time axis, at least 2; "
                f"got {batch}, {heads}, {max_length} and {head_dim}"
            )
        self.keys = torch.empty(batch, heads, max_length, head_dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)
        self.length = 0
        self.fixed = False

    @property
    def max_length(self) -> int:
        """Tokens it has room for."""
        return self.keys.shape[2]

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values stored so far, each (batch, heads, length, head_dim); views, no copies."""
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the points of new tokens, each (batch, heads, new, head_dim), and return all stored so far."""
        for name, points in (("keys", key), ("values", value)):
            room = self.keys.shape
            if points.ndim != 4 or points.shape[:2] != room[:2] or points.shape[3] != room[3]:
                raise ValueError(
                    f"the cache holds (batch, heads, length, head_dim) = {tuple(room)} and got {name} of shape "
                    f"{tuple(points.shape)}; make one by layer.new_cache(batch, max_length)"
                )
            if points.dtype != self.keys.dtype:
                raise TypeError(f"the cache holds {self.keys.dtype} and got {name} in {points.dtype}; set its dtype")
            if points.requires_grad:
                raise RuntimeError("a cache keeps no gradients: decode within torch.no_grad(), or train without cache")
        if key.shape != value.shape:
            raise ValueError(f"got {key.shape[2]} keys and {value.shape[2]} values")
        end = self.length + key.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache has room for {self.max_length} tokens and would hold {end}; raise max_length or reset()"
            )
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.read()

    def reorder(self, beam_idx: Tensor) -> None:
        """Let entry i of the batch continue beam ``beam_idx[i]``; `beam_idx` is an integer tensor (batch,)."""
        if beam_idx.shape != self.keys.shape[:1]:
            raise ValueError(f"beam_idx has shape {tuple(beam_idx.shape)}, the cache holds {self.keys.shape[0]} beams")
        for stored in self.read():
            stored.copy_(stored.index_select(0, beam_idx))

    def reset(self) -> None:
        """Forget everything; the storage is kept."""
        self.length = 0
        self.fixed = False
