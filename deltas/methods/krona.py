"""Kronecker products as changes of weights: KronA and KAdaptation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host
from ..linear import LinearPart, folded, matrix
from ..space import Space, space_before
from .kronecker import KroneckerMap, Rule, check_divides, divisor_near
from .lora import QUERY_AND_VALUE, linear_roles
from .parallel import Branch, End, Reader, beside, sources

__all__ = ["KAdaptation", "KronA"]

PLACES = ("weight", "ffn")


@dataclass(frozen=True, kw_only=True)
class KronA(Delta):
    r"""Kronecker adapter: :math:`z = (W + s\,A \otimes B) h + b`, B = 0 at the start.

    A is (a_1, a_2) and B (m / a_1, n / a_2), :math:`a_1 a_2 + (m / a_1)(n / a_2)` parameters for a matrix (m, n). On a
    Lorentz backbone the product makes the space columns and the time has a column of its own, m parameters more, 0 at the
    start: the number of all columns often has no divisors.

    Parameters
    ----------
    to : str. ``"weight"``: a change of the weights of `roles`, which merges. ``"ffn"`` (KronA^B): beside the whole
        feed-forward layer, :math:`z \leftarrow z + s\,(A \otimes B)\,x` with x its input, which does not merge.
    left : (a_1, a_2), sizes of A; the divisors of m and n that are nearest are taken. None: nearest to the roots of m and n,
        the smallest number of parameters.
    scale : float. s.
    residual : bool (KronA^B_res, with ``to="ffn"``). Add :math:`s_{res}\,x` too, s_res learned. It is 0 at the start here, so
        that the model is unchanged.
    roles : roles of linear layers with ``to="weight"``, or ``("all",)``; by default as of :class:`LoRA`

    References
    ----------
    Edalati et al., "KronA: Parameter Efficient Tuning with Kronecker Adapter", 2022, section 3.
    """

    to: str = "weight"
    left: tuple[int, int] | None = None
    scale: float = 1.0
    residual: bool = False
    roles: tuple[str, ...] = QUERY_AND_VALUE

    def __post_init__(self) -> None:
        if self.to not in PLACES:
            raise DeltaError(f"KronA goes to 'weight' or to 'ffn', got to={self.to!r}")
        if self.residual and self.to != "ffn":
            raise DeltaError("residual=True is of KronA(to='ffn'): a change of a weight has no residual of its own")
        if self.left is not None and (len(self.left) != 2 or min(self.left) < 1):
            raise DeltaError(f"left are two sizes >= 1, got {self.left}")

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles, or beginning and end of the feed-forward layers."""
        if self.to == "weight":
            return self.at(host, *linear_roles(host, self.roles))
        ends = ("ffn.down",)
        return beside(self, host, ends, sources(ends, None))

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """A and B, the column of the time, and s_res."""
        if self.to == "weight":
            before = space_before(site.module)
            n = site.in_features - before.columns
            return _Change(_Product(n, site.out_features, self.left, before.columns), before, self.scale)
        if not isinstance(site, End):
            return Reader()
        n = site.source.in_features - space_before(site.source.module).columns
        if self.residual and n != site.out_features:
            raise DeltaError(f"a residual needs as many coordinates at {site.path} as at {site.source.path}")
        product = _Product(n, site.out_features, self.left, space.columns)
        return Branch(site, _Beside(product, space, self.scale, self.residual), 1.0)


@dataclass(frozen=True, kw_only=True)
class KAdaptation(Delta):
    r"""KAdaptation: :math:`z = \left(W + \sum_{i \le N} A_i \otimes (u_i v_i^\top)\right) h + b`, v = 0 at the start.

    The A_i (N, N) are shared by all layers ("slow weights"), u_i and v_i belong to one ("fast weights"):
    :math:`\mathrm{rank}\,(m + n)` parameters for a matrix (m, n), and N^3 once. On a Lorentz backbone as :class:`KronA`.

    Parameters
    ----------
    terms : int, >= 1. N; divides m and n, the time not counted.
    rank : int, >= 1. Columns of u_i and v_i.
    roles : roles of linear layers, or ``("all",)``; by default as of :class:`LoRA`

    References
    ----------
    He et al., "Parameter-efficient Model Adaptation for Vision Transformers", AAAI 2023, section 3.3.
    """

    terms: int = 4
    size = "rank"
    rank: int = 1
    roles: tuple[str, ...] = QUERY_AND_VALUE

    def __post_init__(self) -> None:
        if self.terms < 1 or self.rank < 1:
            raise DeltaError(f"KAdaptation takes terms and rank >= 1, got {self.terms} and {self.rank}")

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles, whose sizes terms divides."""
        found = self.at(host, *linear_roles(host, self.roles))
        for site in found:
            inputs = site.in_features - space_before(site.module).columns
            check_divides(self.name, self.terms, inputs=inputs, outputs=site.out_features)
        return found

    def shared(self, host: Host, sites: list[Site]) -> nn.Module:
        """A_1 to A_N."""
        return Rule(self.terms)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """U, v and the column of the time."""
        before = space_before(site.module)
        n = site.in_features - before.columns
        sizes = {"terms": self.terms, "rank": self.rank, "columns": before.columns}
        return _Change(KroneckerMap(n, site.out_features, **sizes, rule=shared, zero="right"), before, 1.0)


class _Product(nn.Module):
    """Matrix ``A (x) B`` (m, n), 0 at the start, and a column for the time."""

    def __init__(self, n: int, m: int, left: tuple[int, int] | None, columns: int) -> None:
        super().__init__()
        rows, cols = (m**0.5, n**0.5) if left is None else left
        rows, cols = divisor_near(m, rows), divisor_near(n, cols)
        self.A = nn.Parameter(torch.empty(rows, cols))
        self.B = nn.Parameter(torch.zeros(m // rows, n // cols))
        self.time = nn.Parameter(torch.zeros(m)) if columns else None
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, u: Tensor, time: Tensor | None) -> Tensor:
        """The map of free coordinates u (..., n) and the time (..., 1): ``A X B^T``, X the coordinates as a matrix."""
        table = u.reshape(*u.shape[:-1], self.A.shape[1], self.B.shape[1])
        z = (self.A @ (table @ self.B.T)).flatten(-2)
        return z if self.time is None or time is None else torch.addcmul(z, time, self.time)

    def matrix(self) -> Tensor:
        """The matrix (m, n + columns)."""
        dense = torch.kron(self.A, self.B)
        return dense if self.time is None else torch.cat([self.time[:, None], dense], 1)


class _Change(LinearPart):
    """A change of a weight that is never made: only its product with h."""

    def __init__(self, product: _Product | KroneckerMap, space: Space, scale: float) -> None:
        super().__init__()
        self.product, self.space, self.scale = product, space, scale

    def addend(self, host: nn.Module, h: Tensor) -> Tensor:
        """``s (A (x) B) h``."""
        u = self.space.coordinates(h)
        z: Tensor = self.product(u, self.space.time(u, host))
        return z if self.scale == 1 else self.scale * z

    def merged(self, host: nn.Module) -> Tensor:
        """The weight with the change."""
        old = matrix(host, self.rows)
        change = self.scale * self.product.matrix().double()
        return folded(host, self.rows, (old.double() + change).to(old.dtype))


class _Beside(nn.Module):
    """``s (A (x) B) u + s_res u``."""

    def __init__(self, product: _Product, space: Space, scale: float, residual: bool) -> None:
        super().__init__()
        self.product, self.space, self.scale = product, space, scale
        self.residual = nn.Parameter(torch.zeros(1)) if residual else None

    def forward(self, u: Tensor) -> Tensor:
        """The branch."""
        z: Tensor = self.scale * self.product(u, self.space.time(u))
        return z if self.residual is None else torch.addcmul(z, u, self.residual)
