"""The flat twins: what the layers become for k to infinity, for comparisons that differ in geometry alone.

There is no time axis, so sizes are numbers of coordinates. A transformer takes ``manifold=Euclidean()`` and builds these.
"""

from __future__ import annotations

from collections.abc import Callable

import geoopt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .attention_base import DistanceAttention
from .heads import KINDS

__all__ = ["Euclidean", "EuclideanClassifier", "EuclideanLinear", "EuclideanMultiheadAttention"]


class Euclidean(geoopt.Euclidean):  # type: ignore[misc]
    """Flat space with the methods of ``Lorentz`` that layers call."""

    def __init__(self) -> None:
        super().__init__(ndim=1)

    def lift(self, space: Tensor) -> Tensor:
        """The coordinates themselves."""
        return space

    def centroid(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted mean (..., d) of x (..., n, d) with weights (..., n) >= 0, not all 0."""
        if weight is None:
            return x.mean(-2)
        weight = weight.to(x)
        return (weight.unsqueeze(-2) @ x).squeeze(-2) / weight.sum(-1, keepdim=True)


class EuclideanLinear(nn.Module):
    """Twin of ``LorentzLinear`` with ``variant="unbounded", centred=True``: ``W dropout(activation(x)) + b + addend``.

    Parameters
    ----------
    in_features, out_features : int, >= 1
    bias, activation, dropout : as in ``LorentzLinear``
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {dropout}")
        self.in_features, self.out_features = in_features, out_features
        self.activation, self.dropout = activation, dropout
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ``+-1 / sqrt(in_features)``; bias 0."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def forward(
        self, x: Float[Tensor, "*batch n"], *, addend: Float[Tensor, "*batch m"] | None = None
    ) -> Float[Tensor, "*batch m"]:
        """Map (..., in_features) to (..., out_features)."""
        return self.map(self.prepare(x), addend=addend)

    def prepare(self, x: Tensor) -> Tensor:
        """What the matrix sees: `x` after activation and dropout."""
        h = x if self.activation is None else self.activation(x)
        return F.dropout(h, self.dropout, self.training)

    def map(self, h: Tensor, *, addend: Tensor | None = None) -> Tensor:
        """The layer after :meth:`prepare`: ``W h + b + addend``."""
        z = self.preactivation(h)
        return self.finish(z if addend is None else z + addend)

    def preactivation(self, h: Tensor) -> Tensor:
        """``W h + b``."""
        return F.linear(h, self.weight, self.bias)

    def finish(self, z: Tensor) -> Tensor:
        """The result of a pre-activation: itself."""
        return z


class _Heads(EuclideanLinear):
    """Map to one vector of every head with the number before it that makes a product of two a distance."""

    def __init__(self, dim: int, num_heads: int, *, role: str, bias: bool) -> None:
        super().__init__(dim, dim, bias=bias)
        self.num_heads, self.role = num_heads, role

    def forward(self, x: Tensor, *, addend: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
        """Vectors (..., num_heads, n + 1): ``factor (-1, q)``, ``(|k|^2 / 2, k)`` or ``(1, v)``."""
        return self.map(self.prepare(x), addend=addend, factor=factor)

    def map(self, h: Tensor, *, addend: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
        """The same, of what :meth:`prepare` returned."""
        z = self.preactivation(h)
        return self.finish(z if addend is None else z + addend, factor=factor)

    def finish(self, z: Tensor, *, factor: Tensor | None = None) -> Tensor:
        """The same, of a pre-activation."""
        space = z.view(*z.shape[:-1], self.num_heads, -1)
        if self.role == "key":
            first = (space * space).sum(-1, keepdim=True) / 2
        else:
            first = torch.full_like(space[..., :1], -1.0 if self.role == "query" else 1.0)
        points = torch.cat([first, space], -1)
        return points if factor is None else points * factor.to(points)


class EuclideanMultiheadAttention(DistanceAttention):
    r"""Twin of ``LorentzMultiheadAttention``: weights :math:`\mathrm{softmax}_j(-|q_i - k_j|^2 / \lambda)`, and their mean.

    Parameters
    ----------
    dim : int, a multiple of num_heads
    num_heads, dropout, bias, rotary_base, out_dropout : as there
    logits : str. ``"relative"``: weights :math:`\mathrm{softmax}_j(2\, q_i \cdot k_j / \lambda)`, ordinary attention
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        rotary_base: float | None = None,
        out_dropout: float = 0.0,
        logits: str = "distance",
    ) -> None:
        if dim < 1 or num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads divides dim; got dim={dim} and num_heads={num_heads}")
        super().__init__(dim, num_heads, space=dim, dropout=dropout, rotary_base=rotary_base, logits=logits)
        self.query = _Heads(dim, num_heads, role="query", bias=bias)
        self.key = _Heads(dim, num_heads, role="key", bias=bias)
        self.value = _Heads(dim, num_heads, role="value", bias=bias)
        self.out = EuclideanLinear(dim, dim, bias=bias, dropout=out_dropout)

    def lift(self, space: Tensor) -> Tensor:
        """The coordinates themselves."""
        return space

    def relative(self, q: Tensor, factor: Tensor) -> Tensor:
        """Queries ``factor (0, q)``."""
        return torch.cat([torch.zeros_like(q[..., :1]), q[..., 1:]], -1)

    def merge(self, a: Tensor, dead: Tensor | None) -> Tensor:
        """Means (b, s, dim) of the heads, from weighted sums (b, h, s, head_size + 1) of values."""
        mean = a[..., 1:]
        return (mean if dead is None else mean.masked_fill(dead, 0)).transpose(1, 2).flatten(-2)


class EuclideanClassifier(nn.Module):
    r"""Twin of ``LorentzClassifier``: its logits for k to infinity.

    ``"prototype"``: :math:`-|x - p_c|^2 + b_c`; ``"relative"``: :math:`|x|^2 - |x - p_c|^2 + b_c`; ``"mlr"``:
    :math:`z_c \cdot x - a_c |z_c|`.

    Parameters
    ----------
    dim : int, >= 1
    num_classes, kind, bias : as there
    """

    def __init__(self, dim: int, num_classes: int, *, kind: str = "prototype", bias: bool = True) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}; got {kind!r}")
        self.dim, self.num_classes, self.kind = dim, num_classes, kind
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal coordinates of deviation ``dim ** -0.5``; bias 0."""
        nn.init.normal_(self.weight, 0, self.dim**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Sizes and kind, shown by ``print``."""
        return f"{self.dim}, {self.num_classes}, kind={self.kind!r}, bias={self.bias is not None}"

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch classes"]:
        """Logits (..., num_classes) of x (..., dim)."""
        inner: Tensor = F.linear(x, self.weight)
        norm_sq: Tensor = (self.weight * self.weight).sum(-1)
        if self.kind == "mlr":
            return inner if self.bias is None else inner - self.bias * norm_sq.sqrt()
        logits = 2 * inner - norm_sq
        if self.kind == "prototype":
            logits = logits - (x * x).sum(-1, keepdim=True)
        return logits if self.bias is None else logits + self.bias
