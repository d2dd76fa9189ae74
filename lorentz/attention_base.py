"""What attention by distances does in every geometry: masks, caches, dropout, and rows that see nothing."""

from __future__ import annotations

from math import log, prod
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .cache import LorentzCache
from .forms import at_least_float32
from .kernel import attend, average, weights
from .masks import join_masks
from .positional import rotate
from .prefix import Prefix, before_keys

__all__ = ["LOGITS", "DistanceAttention", "TokenCache"]

LOGITS = ("distance", "relative")


@runtime_checkable
class TokenCache(Protocol):
    """Keys and values of tokens already seen, as ``LorentzCache`` holds them; the length may be a tensor."""

    length: int | Tensor
    fixed: bool

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values stored so far."""

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the points of new tokens and return all stored so far."""


class DistanceAttention(nn.Module):
    """Attention whose weights are a softmax of negative squared distances over a learned scale.

    With ``logits="relative"`` it is a softmax of how much nearer to the query than to the origin a key is. A geometry gives
    the maps ``query``, ``key``, ``value`` and ``out``; the first three return vectors of ``head_size + 1`` coordinates a
    head, such that the product of a query's (times ``factor``) and a key's is the negative squared distance over the scale,
    up to what is the same for all keys, and that the first coordinate of a weighted sum of values is not 0. A cache holds
    the keys as they enter that product.

    Attributes
    ----------
    prefix : Prefix or None. Tokens that every query sees besides the keys, without a position of their own; see
        :class:`lorentz.prefix.Prefix`.
    """

    takes_points: tuple[str, ...] = ("query", "key", "value")
    _hint: tuple[str, str] = ("", "")
    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    prefix: Prefix | None = None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        space: int,
        dropout: float,
        rotary_base: float | None,
        logits: str = "distance",
    ) -> None:
        super().__init__()
        if logits not in LOGITS:
            raise ValueError(f"logits is one of {', '.join(map(repr, LOGITS))}; got {logits!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {dropout}")
        size = space // num_heads
        if rotary_base is not None and (size % 2 or not rotary_base > 1):
            raise ValueError(
                f"rotary positions rotate pairs and need a base above 1; got {size} space coordinates a head, "
                f"base {rotary_base}"
            )
        self.dim, self.num_heads, self.dropout, self.rotary_base = dim, num_heads, dropout, rotary_base
        self.head_size, self.logits = size, logits
        self.log_scale = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to twice the root of the head's size; the maps have their own."""
        nn.init.constant_(self.log_scale, log(2 * self.head_size**0.5))

    def lift(self, space: Tensor) -> Tensor:
        """Point with these space coordinates."""
        raise NotImplementedError

    def relative(self, q: Tensor, factor: Tensor) -> Tensor:
        """Queries whose product with a key is also what the key's distance from the origin takes off the distance."""
        raise NotImplementedError

    def merge(self, a: Tensor, dead: Tensor | None) -> Tensor:
        """Point (b, s, dim) of the heads' centroids, from weighted sums (b, h, s, head_size + 1) of values."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        kind = "" if self.logits == "distance" else f", logits={self.logits!r}"
        return f"dim={self.dim}, num_heads={self.num_heads}, dropout={self.dropout}{kind}"

    def new_cache(self, batch: int, max_length: int) -> LorentzCache:
        """Empty cache for `batch` sequences (beams) of at most `max_length` tokens."""
        like: Any = self.key.weight
        return LorentzCache(batch, self.num_heads, max_length, self.head_size + 1, dtype=like.dtype, device=like.device)

    def forward(
        self,
        query: Float[Tensor, "*batch s dim"],
        key: Float[Tensor, "*batch t dim"] | None = None,
        value: Float[Tensor, "*batch t dim"] | None = None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
        cache: TokenCache | None = None,
        addend: Float[Tensor, "*batch s space"] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend from points (..., S, dim) to points (..., T, dim); the result (..., S, dim) is on the hyperboloid.

        Parameters
        ----------
        query, key, value : Tensor. `key` is `query` and `value` is `key` where None.
        attn_mask : bool (True: attend) or additive (<= finfo.min / 2: do not), broadcast to (..., num_heads, S, T)
        key_padding_mask : the same kinds, shape (..., T). True is a token. Both masks are those of
            ``F.scaled_dot_product_attention``; the boolean masks of ``nn.MultiheadAttention`` mean the opposite.
        is_causal : bool. Query i sees the keys up to i, counted from the first token of the cache; joined with masks.
        need_weights : bool. Return (result, weights (..., num_heads, S, T)), the weights before dropout, 0 where masked.
        cache : LorentzCache or None. Self-attention appends to it, cross-attention fills it once.
        addend : Tensor, shape (..., S, dim - 1), joins the space part of the output map: the residual.

        A row all of whose keys are masked attends to nothing: it returns the origin, or the lifted `addend`.
        """
        self._check(query, key, value)
        batch, length = query.shape[:-2], query.shape[-2]
        offset = 0 if cache is None or key is not None else cache.length
        q, k, v = self._project(query, key, value, cache, offset)
        causal = is_causal and not (key is None and length == 1 and k.shape[-2] == offset + 1)
        shape = (*batch, self.num_heads, length, k.shape[-2])
        cast = torch.is_autocast_enabled(q.device.type) and q.dtype == torch.float32
        dtype = torch.get_autocast_dtype(q.device.type) if cast else q.dtype
        mask, dead, causal = join_masks(
            attn_mask, key_padding_mask, causal=causal, offset=offset, shape=shape, dtype=dtype, device=q.device
        )
        p = self.dropout if self.training else 0.0
        gated = None
        if self.prefix is not None:
            pk, pv, gate = self._prefix(query, q)
            if gate is None:
                mask = before_keys(mask, dead, causal=causal, n=pk.shape[-2], queries=length, keys=k)
                k, v, dead, causal = torch.cat([pk, k], -2), torch.cat([pv, v], -2), None, False
                shape = (*shape[:-1], k.shape[-2])
            else:
                gated = gate * self._space(self._average(q, pk, pv, None, None, False, p))
                gated = gated.reshape(*batch, length, -1)
        w = weights(q, k, mask, causal) if need_weights else None
        merged = self._average(q, k, v, mask, dead, causal, p, w).reshape(*batch, length, self.dim)
        if gated is not None:
            merged = self.lift(self._space(merged) + gated)
        y: Tensor = self.out(merged.to(query.dtype), addend=addend)
        if dead is not None and gated is None:
            nothing = y.new_zeros(*y.shape[:-1], self.num_heads * self.head_size) if addend is None else addend.to(y)
            row = dead.all(1).expand(q.shape[0], length, 1).reshape(*batch, length, 1)
            y = torch.where(row, self.lift(nothing), y)
        if w is None:
            return y
        w = w if dead is None else w.masked_fill(dead, 0)
        return y, w.reshape(shape).to(query.dtype)

    def _average(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        dead: Tensor | None,
        causal: bool,
        p: float,
        w: Tensor | None = None,
    ) -> Tensor:
        """Merged centroids (b, s, dim) of the values; `w` holds the weights where they are known."""
        if p > 0:  # a column of ones in the values sums the weights that are left
            q, k, v = F.pad(q, (0, 1)), F.pad(k, (0, 1)), F.pad(v, (0, 1), value=1.0)
        a = at_least_float32(attend(q, k, v, mask, causal, p)) if w is None else average(F.dropout(w, p, p > 0), v)
        if p > 0:
            left = a[..., -1:]
            # What is left of a row that lost all but a rounding error has a gradient that overflows: it has no keys.
            lost = left < torch.finfo(q.dtype).eps
            a = a[..., :-1] / torch.where(lost, torch.ones_like(left), left)
            dead = lost if dead is None else dead | lost
        return self.merge(a, dead)

    def _prefix(self, query: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Points (b, h, n, size + 1) of the prefix's keys and values, and its gate."""
        assert self.prefix is not None
        key, value, gate = self.prefix(query)
        points = []
        for name, coordinates, layer in (("keys", key, self.key), ("values", value, self.value)):
            size = self.num_heads * self.head_size
            if coordinates.shape[-1] != size:
                raise ValueError(f"the prefix's {name} have {size} space coordinates each, got {coordinates.shape[-1]}")
            heads: Any = layer
            heads = heads.finish(coordinates.to(query.dtype)).transpose(-3, -2)
            points.append(heads.expand(q.shape[0], *heads.shape[-3:]).to(q.dtype))
        return points[0], points[1], gate

    def _space(self, x: Tensor) -> Tensor:
        """Space coordinates of merged points."""
        return x[..., x.shape[-1] - self.num_heads * self.head_size :]

    def _check(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> None:
        if value is not None and key is None:
            raise ValueError("value without key: a query is matched with keys, pass both or neither")
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x is not None and x.shape[-1] != self.dim:
                raise ValueError(
                    f"{type(self).__name__} expects points of {self.dim} coordinates{self._hint[0]}, and got a {name} of "
                    f"{x.shape[-1]}. {self._hint[1].format(self.dim - 1)}"
                )
        if key is not None and key.shape[:-2] != query.shape[:-2]:
            raise ValueError(
                f"queries and keys are those of one batch: query {tuple(query.shape)}, key {tuple(key.shape)}; expand() one"
            )
        if value is not None and key is not None and value.shape != key.shape:
            raise ValueError(f"every key has one value; got key {tuple(key.shape)} and value {tuple(value.shape)}")

    def _arrange(self, heads: Tensor, offset: int | Tensor | None) -> Tensor:
        """Heads' points (..., s, h, size + 1) as (b, h, s, size + 1), rotated by position where an `offset` is given."""
        *batch, length, count, size = heads.shape
        heads = heads.reshape(prod(batch), length, count, size).transpose(1, 2)
        if offset is None or self.rotary_base is None:
            return heads
        positions = torch.arange(length, device=heads.device) + offset
        return torch.cat([heads[..., :1], rotate(heads[..., 1:], positions, base=self.rotary_base)], -1)

    def _project(
        self, query: Tensor, key: Tensor | None, value: Tensor | None, cache: TokenCache | None, offset: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (times negative, everything times 2 / scale), keys and values, each (b, h, length, size + 1)."""
        cross = key is not None
        if cross and self.rotary_base is not None:
            raise ValueError("rotary positions are for self-attention: query and key of one sequence")
        if cache is not None and cache.length and cache.fixed != cross:
            held = "a memory (cross-attention)" if cache.fixed else "earlier tokens (self-attention)"
            raise ValueError(f"this cache holds {held}; give every attention layer a cache of its own, or reset() it")
        factor = 2 * torch.exp(-self.log_scale)
        q = self._arrange(self.query(query, factor=factor), offset)
        q = self.relative(q, factor) if self.logits == "relative" else q
        if cache is not None and cross and cache.length:
            if key is not None and key.shape[-2] != cache.length:
                raise ValueError(
                    f"the cache holds a memory of {cache.length} tokens and got one of {key.shape[-2]}; reset() it first"
                )
            return q, *cache.read()
        key = query if key is None else key
        k = self._arrange(self.key(key), offset)
        v = self._arrange(self.value(key if value is None else value), None)
        if cache is not None:
            k, v = cache.append(k, v)
            cache.fixed = cross
        return q, k, v
