"""Multi-head attention by Lorentzian distances and centroids, through torch's fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .cache import LorentzCache
from .fused import free_heads
from .fused_heads import merge_heads
from .kernel import attend, average, weights, wide
from .linear import LorentzLinear
from .manifold import Lorentz
from .masks import join_masks
from .positional import rotate

__all__ = ["LorentzMultiheadAttention"]


class Heads(LorentzLinear):
    """Unbounded map of `in_features` to one point of every head, (..., num_heads, n + 1); `dim` merges all heads' points."""

    returns_points: bool = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        manifold: Lorentz,
        bias: bool,
        in_features: int | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(
            dim if in_features is None else in_features,
            dim,
            manifold=manifold,
            bias=bias,
            variant="unbounded",
            activation=activation,
        )
        self.num_heads = num_heads

    def forward(self, x: Tensor, *, addend: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
        """Points of the heads in the dtype of `x`, or, for a query, ``factor * (-time, space)``."""
        h = self._input(x)
        sign = 1 if factor is None else -1
        if not self._fits(h):
            points = self.manifold.lift(wide(self._plain(h, addend)).view(*h.shape[:-1], self.num_heads, -1))
            if factor is not None:
                points = factor * torch.cat([-points[..., :1], points[..., 1:]], -1)
            return points.to(x.dtype)
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        k = self.manifold.k.to(h)
        if factor is not None:  # on the parameters, which are smaller than the points
            factor = factor.to(h)
            weight, k = weight * factor, k * factor * factor
            bias = None if bias is None else bias * factor
            addend = None if addend is None else addend * factor
        return free_heads(h, weight, bias, addend=addend, k=k, heads=self.num_heads, sign=sign)


class LorentzMultiheadAttention(nn.Module):
    r"""Attention whose weights come from Lorentzian distances and whose result is the Lorentzian centroid.

    Per head, with :math:`d_L^2(q, k) = -2k - 2\langle q, k\rangle_L` and a learned scale :math:`\lambda > 0`,

    .. math:: w_{ij} = \mathrm{softmax}_j(-d_L^2(q_i, k_j) / \lambda), \qquad
              o_i = \sqrt k\, a_i / \sqrt{-\langle a_i, a_i\rangle_L}, \quad a_i = \sum_j w_{ij} v_j .

    Every head is a hyperboloid of its own, of ``(dim - 1) / num_heads`` space coordinates and its own time. Queries,
    keys, values and the result are ``"unbounded"`` ``LorentzLinear`` maps: a bound on the radius would bind all heads
    together, as it is one number a point, and would hide the length of the residual that enters the output map.

    The weights never exist in memory: ``F.scaled_dot_product_attention`` computes them from ``(-time, space)``, the
    constant of the distance being lost on a softmax. ``need_weights=True`` and a second derivative take the plain form.
    With dropout, the second derivative is that of torch's kernel, which has one on the CPU and raises elsewhere.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, one time axis included.
    num_heads : int, divides ``dim - 1``
    manifold : Lorentz, of input and result
    dropout : float in [0, 1), on the weights. A head that loses all of them gives the origin.
    bias : bool, of the four linear maps
    rotary_base : float or None. Rotary positions on the space part of queries and keys (self-attention only), with
        this base; a token's position is its index, counted on by the cache.

    Attributes
    ----------
    query, key, value, out : LorentzLinear
    log_scale : Parameter, scalar. Starts at :math:`\lambda = 2\sqrt{(dim - 1) / num\_heads}`, where the space part of
        the logits is that of ordinary attention.

    Notes
    -----
    The norm of a is the difference of two numbers of the size of its squared time, so the space coordinates carry a
    relative error of about ``eps * time ** 2 / k``: 1e-5 at radius 3 in float32, and beyond radius 8 (3 in bfloat16)
    results come out nearer to the origin than they are. :math:`-\langle a, a\rangle_L \ge k` holds exactly for weights
    that sum to 1; where rounding breaks it, the bound takes its place, with the right gradient at the bound.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, equations 5 and 6.

    Examples
    --------
    >>> manifold = Lorentz(k=1.0)
    >>> attend = LorentzMultiheadAttention(17, 4, manifold=manifold)
    >>> attend(manifold.origin(2, 5, 17), is_causal=True).shape
    torch.Size([2, 5, 17])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        manifold: Lorentz,
        dropout: float = 0.0,
        bias: bool = True,
        rotary_base: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if dim < 2 or num_heads < 1 or (dim - 1) % num_heads:
            raise ValueError(
                f"dim counts the time axis, so num_heads divides dim - 1; got dim={dim} and num_heads={num_heads}. "
                f"The next dim that fits is {max(-(-(dim - 1) // max(num_heads, 1)), 1) * max(num_heads, 1) + 1}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {dropout}")
        size = (dim - 1) // num_heads
        if rotary_base is not None and (size % 2 or not rotary_base > 1):
            raise ValueError(
                f"rotary positions rotate pairs and need a base above 1; got {size} space coordinates a head, "
                f"base {rotary_base}"
            )
        self.dim, self.num_heads, self.dropout, self.rotary_base = dim, num_heads, dropout, rotary_base
        self.manifold = manifold
        self.query = Heads(dim, num_heads, manifold=manifold, bias=bias)
        self.query.returns_points = False  # with a factor, as forward calls it
        self.key = Heads(dim, num_heads, manifold=manifold, bias=bias)
        self.value = Heads(dim, num_heads, manifold=manifold, bias=bias)
        self.out = LorentzLinear(dim, dim, manifold=manifold, bias=bias, variant="unbounded")
        self.log_scale = nn.Parameter(torch.tensor(log(2 * size**0.5)))

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"dim={self.dim}, num_heads={self.num_heads}, dropout={self.dropout}"

    def new_cache(self, batch: int, max_length: int) -> LorentzCache:
        """Empty cache for `batch` sequences (beams) of at most `max_length` tokens."""
        weight = self.key.weight
        size = (self.dim - 1) // self.num_heads + 1
        return LorentzCache(batch, self.num_heads, max_length, size, dtype=weight.dtype, device=weight.device)

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
        cache: LorentzCache | None = None,
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
        mask, dead, causal = join_masks(
            attn_mask, key_padding_mask, causal=causal, offset=offset, shape=shape, dtype=q.dtype, device=q.device
        )
        p = self.dropout if self.training else 0.0
        if p > 0:  # a column of ones in the values sums the weights that are left
            q, k, v = F.pad(q, (0, 1)), F.pad(k, (0, 1)), F.pad(v, (0, 1), value=1.0)
        w = weights(q, k, mask, causal) if need_weights else None
        a = wide(attend(q, k, v, mask, causal, p)) if w is None else average(F.dropout(w, p, p > 0), v)
        empty = dead
        if p > 0:
            left = a[..., -1:]
            # What is left of a row that lost all but a rounding error has a gradient that overflows: it has no keys.
            lost = left < torch.finfo(q.dtype).eps
            a = a[..., :-1] / torch.where(lost, torch.ones_like(left), left)
            empty = lost if dead is None else dead | lost
        merged = merge_heads(a, k=self.manifold.k.to(a), dead=empty).reshape(*batch, length, self.dim)
        y: Tensor = self.out(merged.to(query.dtype), addend=addend)
        if dead is not None:
            nothing = torch.zeros_like(y[..., 1:]) if addend is None else addend.to(y)
            row = dead.all(1).expand(q.shape[0], length, 1).reshape(*batch, length, 1)
            y = torch.where(row, self.manifold.lift(nothing), y)
        if w is None:
            return y
        w = w if dead is None else w.masked_fill(dead, 0)
        return y, w.reshape(shape).to(query.dtype)

    def _check(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> None:
        if value is not None and key is None:
            raise ValueError("value without key: a query is matched with keys, pass both or neither")
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x is not None and x.shape[-1] != self.dim:
                raise ValueError(
                    f"LorentzMultiheadAttention expects points of {self.dim} coordinates, time first, and got a {name} "
                    f"of {x.shape[-1]}. Euclidean features of size {self.dim - 1} become points by manifold.lift."
                )

    def _arrange(self, heads: Tensor, offset: int | None) -> Tensor:
        """Heads' points (..., s, h, size + 1) as (b, h, s, size + 1), rotated by position where an `offset` is given."""
        *batch, length, count, size = heads.shape
        heads = heads.reshape(prod(batch), length, count, size).transpose(1, 2)
        if offset is None or self.rotary_base is None:
            return heads
        positions = torch.arange(offset, offset + length, device=heads.device)
        return torch.cat([heads[..., :1], rotate(heads[..., 1:], positions, base=self.rotary_base)], -1)

    def _project(
        self, query: Tensor, key: Tensor | None, value: Tensor | None, cache: LorentzCache | None, offset: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (times negative, everything times 2 / scale), keys and values, each (b, h, length, size + 1)."""
        cross = key is not None
        if cross and self.rotary_base is not None:
            raise ValueError("rotary positions are for self-attention: query and key of one sequence")
        if cache is not None and cache.length and cache.fixed != cross:
            held = "a memory (cross-attention)" if cache.fixed else "earlier tokens (self-attention)"
            raise ValueError(f"this cache holds {held}; give every attention layer a cache of its own, or reset() it")
        q = self._arrange(self.query(query, factor=2 * torch.exp(-self.log_scale)), offset)
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
