"""Multi-head attention by Lorentzian distances and centroids, through torch's fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import math
from .attention_base import DistanceAttention
from .forms import at_least_float32
from .fused import free_heads
from .fused_heads import merge_heads
from .linear import LorentzLinear
from .manifold import Lorentz

__all__ = ["LorentzMultiheadAttention"]


class Heads(LorentzLinear):
    """Unbounded map of `in_features` to one point of every head, (..., num_heads, n + 1); `dim` merges all heads' points.

    A key's first coordinate is its time above that of the origin. What that leaves out of the product with a query, the
    query's time times sqrt(k), is the same for all keys and lost on a softmax; in the product of two times it would be all
    that float32 sees of a large k.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        manifold: Lorentz,
        bias: bool,
        role: str,
        in_features: int | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        centred: bool = False,
    ) -> None:
        super().__init__(
            dim if in_features is None else in_features,
            dim,
            manifold=manifold,
            bias=bias,
            variant="unbounded",
            activation=activation,
            centred=centred,
        )
        self.num_heads, self.role = num_heads, role
        self.returns_points = role == "value"

    def forward(self, x: Tensor, *, addend: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
        """Heads, points in the dtype of `x`; of a query ``factor * (-time, space)``, of a key ``(time - sqrt(k), space)``."""
        return self.map(self.prepare(x), addend=addend, factor=factor)

    def finish(self, z: Tensor, *, factor: Tensor | None = None) -> Tensor:
        """The same, of a pre-activation."""
        points = self.manifold.lift(at_least_float32(z).view(*z.shape[:-1], self.num_heads, -1))
        if self.role == "key":
            points = math.from_origin(points, k=self.manifold.k)
        if factor is not None:
            points = factor * torch.cat([-points[..., :1], points[..., 1:]], -1)
        return points.to(z.dtype)

    def map(self, h: Tensor, *, addend: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
        """The same, of what :meth:`prepare` returned."""
        sign = -1 if factor is not None else int(self.role != "key")
        if not self._fits(h):
            return self.finish(self._plain(h, addend), factor=factor)
        weight: Tensor = self.weight
        bias = self._constant()
        k = self.manifold.k.to(h.device)
        if factor is not None:  # on the parameters, which are smaller than the points
            factor = factor.to(h)
            weight, k = weight * factor, k * factor * factor
            bias = None if bias is None else bias * factor
            addend = None if addend is None else addend * factor
        return free_heads(h, weight, bias, addend=addend, k=k, heads=self.num_heads, sign=sign)


class LorentzMultiheadAttention(DistanceAttention):
    r"""Attention whose weights come from Lorentzian distances and whose result is the Lorentzian centroid.

    Per head, with :math:`d_L^2(q, k) = -2k - 2\langle q, k\rangle_L` and a learned scale :math:`\lambda > 0`,

    .. math:: w_{ij} = \mathrm{softmax}_j(-d_L^2(q_i, k_j) / \lambda), \qquad
              o_i = \sqrt k\, a_i / \sqrt{-\langle a_i, a_i\rangle_L}, \quad a_i = \sum_j w_{ij} v_j .

    With ``logits="relative"`` the weights are :math:`\mathrm{softmax}_j((d_L^2(o, k_j) - d_L^2(q_i, k_j)) / \lambda)`, o the
    origin: by how much a key is nearer to the query than to the origin, as in :class:`LorentzClassifier`. A key far out then
    loses nothing by its radius. For k to infinity these are the weights of ordinary attention,
    :math:`\mathrm{softmax}_j(2\, q_i \cdot k_j / \lambda)`, and those of ``"distance"`` are not.

    Every head is a hyperboloid of its own, of ``(dim - 1) / num_heads`` space coordinates and its own time. Queries,
    keys, values and the result are ``"unbounded"`` ``LorentzLinear`` maps: a bound on the radius would bind all heads
    together, as it is one number a point, and would hide the length of the residual that enters the output map.

    The weights never exist in memory: ``F.scaled_dot_product_attention`` computes them from ``(-time, space)`` of the query
    and ``(time - sqrt(k), space)`` of the key; what is the same for all keys is lost on a softmax. ``need_weights=True`` and
    a second derivative take the plain form.
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
    out_dropout : float in [0, 1), on the space part of the merged heads, before the output map
    centred : bool, of the four linear maps; see :class:`LorentzLinear`
    logits : str, ``"distance"`` or ``"relative"``

    Attributes
    ----------
    query, key, value, out : LorentzLinear
    log_scale : Parameter, scalar. Starts at :math:`\lambda = 2\sqrt{(dim - 1) / num\_heads}`, where the space part of
        the logits is that of ordinary attention.

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : heads that do not divide the space coordinates; in a call, masks of a shape that fits nothing.

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

    _hint = (", time first", "Euclidean features of size {} become points by manifold.lift.")

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        manifold: Lorentz,
        dropout: float = 0.0,
        bias: bool = True,
        rotary_base: float | None = None,
        out_dropout: float = 0.0,
        centred: bool = False,
        logits: str = "distance",
    ) -> None:
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if dim < 2 or num_heads < 1 or (dim - 1) % num_heads:
            raise ValueError(
                f"dim counts the time axis, so num_heads divides dim - 1; got dim={dim} and num_heads={num_heads}. "
                f"The next dim that fits is {max(-(-(dim - 1) // max(num_heads, 1)), 1) * max(num_heads, 1) + 1}."
            )
        super().__init__(dim, num_heads, space=dim - 1, dropout=dropout, rotary_base=rotary_base, logits=logits)
        self.manifold = manifold
        maps: dict[str, Any] = {"manifold": manifold, "bias": bias, "centred": centred}
        self.query = Heads(dim, num_heads, role="query", **maps)
        self.key = Heads(dim, num_heads, role="key", **maps)
        self.value = Heads(dim, num_heads, role="value", **maps)
        self.out = LorentzLinear(dim, dim, variant="unbounded", dropout=out_dropout, **maps)

    def lift(self, space: Tensor) -> Tensor:
        """Point with these space coordinates."""
        return self.manifold.lift(space)

    def relative(self, q: Tensor, factor: Tensor) -> Tensor:
        """Queries with ``-factor (time - sqrt(k))`` in place of ``-factor time``, which does not cancel for large k."""
        space, root = at_least_float32(q[..., 1:]), factor * self.manifold.k.to(factor.device).sqrt()
        first = (space * space).sum(-1, keepdim=True) / (at_least_float32(q[..., :1]) - root)
        return torch.cat([first.to(q.dtype), q[..., 1:]], -1)

    def merge(self, a: Tensor, dead: Tensor | None) -> Tensor:
        """Point (b, s, dim) whose space coordinates are those of the heads' centroids."""
        return merge_heads(a, k=self.manifold.k.to(a.device), dead=dead)
