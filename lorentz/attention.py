"""Multi-head attention by Lorentzian distances and centroids, through torch's fused kernel."""

from __future__ import annotations

from math import log
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .cache import LorentzCache
from .linear import LorentzLinear
from .manifold import Lorentz
from .positional import rotate

__all__ = ["LorentzMultiheadAttention"]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _causal(queries: int, keys: int, offset: int, device: torch.device) -> Tensor:
    """(queries, keys): whether query i, the token at position offset + i, may see key j."""
    return torch.arange(keys, device=device) <= torch.arange(queries, device=device)[:, None] + offset


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention weights (b, h, s, t) by the plain formula, in at least float32."""
    logits = _wide(q) @ _wide(k).mT
    if causal:
        logits = logits.masked_fill(~_causal(q.shape[-2], k.shape[-2], 0, q.device), -torch.inf)
    if mask is not None:
        logits = logits + mask if mask.is_floating_point() else logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1)


class _TwiceDifferentiable(torch.autograd.Function):
    """Identity on what the fused kernel returned; a backward pass that builds a graph takes the plain formula.

    The kernel has a first derivative only. An ordinary backward pass hands the gradient on to it and costs nothing.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:5])
        ctx.causal = inputs[5]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return grad, None, None, None, None, None
        q, k, v, mask = ctx.saved_tensors
        grad = _wide(grad)
        weights = _weights(q, k, mask, ctx.causal)
        along = grad @ _wide(v).mT
        slope = weights * (along - (weights * along).sum(-1, keepdim=True))
        to_mask = slope.sum_to_size(mask.shape).to(mask.dtype) if ctx.needs_input_grad[4] else None
        to_q, to_k, to_v = slope @ _wide(k), slope.mT @ _wide(q), weights.mT @ grad
        return None, to_q.to(q.dtype), to_k.to(k.dtype), to_v.to(v.dtype), to_mask, None


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=1.0)
    # Compiled code has no second derivative at all, and with dropout the kernel's own choice of weights is not known.
    if dropout > 0 or torch.compiler.is_compiling() or not out.requires_grad:
        return out
    twice: Tensor = _TwiceDifferentiable.apply(out, q, k, v, mask, causal)  # type: ignore[no-untyped-call]
    return twice


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
        self.query = LorentzLinear(dim, dim, manifold=manifold, bias=bias, variant="unbounded")
        self.key = LorentzLinear(dim, dim, manifold=manifold, bias=bias, variant="unbounded")
        self.value = LorentzLinear(dim, dim, manifold=manifold, bias=bias, variant="unbounded")
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
        key_padding_mask : the same kinds, shape (..., T). True is a token, as in ``attn_mask`` and unlike
            ``nn.MultiheadAttention``.
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
        mask, dead, causal = self._mask(attn_mask, key_padding_mask, causal, offset, (*batch, length, k.shape[-2]), q)
        p = self.dropout if self.training else 0.0
        if p > 0:  # a column of ones in the values sums the weights that are left
            q, k, v = F.pad(q, (0, 1)), F.pad(k, (0, 1)), F.pad(v, (0, 1), value=1.0)
        weights = _weights(q, k, mask, causal) if need_weights else None
        a = _wide(_fused(q, k, v, mask, causal, p)) if weights is None else F.dropout(weights, p, p > 0) @ _wide(v)
        if p > 0:
            left = a[..., -1:]
            a = a[..., :-1] / torch.where(left == 0, torch.ones_like(left), left)
        kk = self.manifold.k.to(a)
        time, space = a[..., :1], a[..., 1:]
        norm_sq = torch.maximum(time * time - (space * space).sum(-1, keepdim=True), kk)
        space = space * (kk / norm_sq).sqrt()
        if dead is not None:
            space = space.masked_fill(dead, 0)
            weights = None if weights is None else weights.masked_fill(dead, 0)
        merged = space.transpose(1, 2).flatten(-2).reshape(*batch, length, self.dim - 1).to(query.dtype)
        y = self.out(self.manifold.lift(merged), addend=addend)
        if dead is not None:
            nothing = torch.zeros_like(merged) if addend is None else addend.to(merged)
            row = dead.all(1).expand(len(q), length, 1).reshape(*batch, length, 1)
            y = torch.where(row, self.manifold.lift(nothing), y)
        return y if weights is None else (y, weights.reshape(*batch, *weights.shape[1:]).to(query.dtype))

    def _check(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> None:
        if value is not None and key is None:
            raise ValueError("value without key: a query is matched with keys, pass both or neither")
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x is not None and x.shape[-1] != self.dim:
                raise ValueError(
                    f"LorentzMultiheadAttention expects points of {self.dim} coordinates, time first, and got a {name} "
                    f"of {x.shape[-1]}. Euclidean features of size {self.dim - 1} become points by manifold.lift."
                )

    def _split(self, x: Tensor) -> Tensor:
        """Space part of points (..., S, dim) by head, (b, h, S, size), in at least float32."""
        space = _wide(math.space_of(x))
        heads = space.reshape(x.shape[:-2].numel(), x.shape[-2], self.num_heads, (self.dim - 1) // self.num_heads)
        return heads.transpose(1, 2)

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
        s = self._split(self.query(query))
        if self.rotary_base is not None:
            positions = torch.arange(offset, offset + s.shape[-2], device=s.device)
            s = rotate(s, positions, base=self.rotary_base)
        factor = 2 * torch.exp(-self.log_scale.to(s))
        time = (self.manifold.k.to(s) + (s * s).sum(-1, keepdim=True)).sqrt()
        q = torch.cat([-factor * time, factor * s], -1).to(query.dtype)
        if cache is not None and cross and cache.length:
            if key is not None and key.shape[-2] != cache.length:
                raise ValueError(
                    f"the cache holds a memory of {cache.length} tokens and got one of {key.shape[-2]}; reset() it first"
                )
            return q, *cache.read()
        key = query if key is None else key
        ks, vs = self._split(self.key(key)), self._split(self.value(key if value is None else value))
        if self.rotary_base is not None:
            ks = rotate(ks, positions, base=self.rotary_base)
        k = self.manifold.lift(ks).to(key.dtype)
        v = self.manifold.lift(vs).to(key.dtype)
        if cache is not None:
            k, v = cache.append(k, v)
            cache.fixed = cross
        return q, k, v

    def _mask(
        self,
        attn_mask: Tensor | None,
        padding: Tensor | None,
        causal: bool,
        offset: int,
        shape: tuple[int, ...],
        q: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, bool]:
        """One mask (b|1, h|1, S|1, T) for the kernel, the rows (..., 1) it leaves nothing, and the kernel's own flag."""
        *batch, length, keys = shape
        keep: Tensor | None = None
        bias: Tensor | None = None
        for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", padding)):
            if mask is None:
                continue
            given = tuple(mask.shape)
            full = (*batch, self.num_heads, length, keys) if name == "attn_mask" else (*batch, keys)
            if mask.dtype != torch.bool and not mask.is_floating_point():
                raise TypeError(
                    f"{name} is bool (True: attend) or additive floats, got {mask.dtype}; use {name}.bool()"
                )
            if len(given) > len(full) or any(m not in (1, n) for m, n in zip(given[::-1], full[::-1], strict=False)):
                raise ValueError(f"{name} of shape {given} does not broadcast to {tuple(full)}")
            if name == "key_padding_mask":
                mask = mask.broadcast_to(full).reshape(len(q), 1, 1, keys)
            elif mask.ndim > 3:
                mask = mask.broadcast_to((*batch, *given[-3:])).reshape(len(q), *given[-3:])
            else:
                mask = mask.reshape((1,) * (4 - mask.ndim) + given)
            if mask.is_floating_point():
                bias = mask.to(q.dtype) if bias is None else bias + mask.to(q.dtype)
                mask = ~(mask <= torch.finfo(mask.dtype).min / 2)
            keep = mask if keep is None else keep & mask
        if keep is None:
            if keys == 0:
                return None, torch.ones(1, 1, 1, 1, dtype=torch.bool, device=q.device), False
            if causal and offset:
                return _causal(length, keys, offset, q.device), None, False
            return None, None, causal
        if causal:
            keep = keep & _causal(length, keys, offset, q.device)
        dead = ~keep.any(-1, keepdim=True)
        if bias is None:
            return keep | dead, dead, False  # a row that sees nothing is let see, and its result replaced
        return bias.masked_fill(~keep, -torch.inf).masked_fill(dead, 0), dead, False
