"""Sequential adapters whose matrices are products: low-rank adapters and Compacter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Site
from ..errors import DeltaError
from ..functions import function
from ..hosts import Host
from ..space import Space
from .adapter import Adapter, Sequential
from .kronecker import KroneckerMap, Rule, check_divides

__all__ = ["Compacter", "LowRankAdapter"]


@dataclass(frozen=True, kw_only=True)
class LowRankAdapter(Adapter):
    r"""Adapter of low-rank matrices: :math:`z \leftarrow z + U \phi(D z + c) + c',\ D = d_1 d_2^\top,\ U = u_1 u_2^\top`.

    u_1 and c' are 0 at the start, so the model is unchanged. An adapter of d coordinates takes
    :math:`2 \rho (d + r) + r + d` parameters, r the bottleneck and rho the rank of the factors; on a Lorentz backbone, where
    D and U see the time too, 2 rho more.

    Parameters
    ----------
    factor_rank : int, >= 1. rho.
    bottleneck, activation, roles : as in :class:`Adapter`

    References
    ----------
    Karimi Mahabadi et al., "Compacter", NeurIPS 2021, section 4 (the baseline "Low-Rank Adapters").
    """

    factor_rank: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rank(self.name, self.factor_rank)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """The four factors."""
        d, r, rho = site.out_features, self.bottleneck, self.factor_rank
        down = _LowRankMap(d, r, rank=rho, columns=space.columns)
        up = _LowRankMap(r, d, rank=rho, columns=space.columns, zero=True)
        return Sequential(_TwoMaps(down, up, r, d, space, self.activation))


@dataclass(frozen=True, kw_only=True)
class Compacter(Adapter):
    r"""Adapter of Kronecker products, :math:`D, U = \sum_{i \le N} A_i \otimes (s_i t_i^\top)`, the A_i shared by all layers.

    Those s_i that make U, and the biases of the result, are 0 at the start, so the model is unchanged. L layers of d
    coordinates take :math:`2L(2(d + r) + r + d) + N^3` parameters at rank 1, r the bottleneck. On a Lorentz backbone the
    products make the space columns, so that N need not divide the number of all columns, and the time has a column of its
    own: r + d more an adapter.

    Compacter++, after the feed-forward layer alone, is ``Compacter(roles=("ffn.down",))``.

    Parameters
    ----------
    terms : int, >= 1. N; divides the bottleneck and the (free) coordinates.
    factor_rank : int, >= 1. Columns of s_i and t_i.
    bottleneck, activation, roles : as in :class:`Adapter`

    References
    ----------
    Karimi Mahabadi et al., "Compacter", NeurIPS 2021, equations 5 and 6 and section 3.3 (Compacter++).
    """

    terms: int = 4
    factor_rank: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rank(self.name, self.factor_rank)
        if self.terms < 1:
            raise DeltaError(f"{self.name} takes terms >= 1, got {self.terms}")
        check_divides(self.name, self.terms, bottleneck=self.bottleneck)

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles, whose results terms divides."""
        found = super().sites(host)
        for site in found:
            check_divides(self.name, self.terms, coordinates=site.out_features, bottleneck=self.bottleneck)
        return found

    @property
    def size_step(self) -> int:
        """Terms divide the bottleneck."""
        return self.terms

    def shared(self, host: Host, sites: list[Site]) -> nn.Module:
        """A_1 to A_N."""
        return Rule(self.terms)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """The vectors of two maps."""
        d, r = site.out_features, self.bottleneck
        terms, rank, columns = self.terms, self.factor_rank, space.columns
        down = KroneckerMap(d, r, terms=terms, rank=rank, columns=columns, rule=shared)
        up = KroneckerMap(r, d, terms=terms, rank=rank, columns=columns, rule=shared, zero="left")
        return Sequential(_TwoMaps(down, up, r, d, space, self.activation))


def _check_rank(name: str, rank: int) -> None:
    if rank < 1:
        raise DeltaError(f"{name} takes a factor_rank >= 1, got {rank}")


class _LowRankMap(nn.Module):
    """Matrix ``left right^T`` (m, n + columns); 0 at the start if `zero`."""

    def __init__(self, n: int, m: int, *, rank: int, columns: int, zero: bool = False) -> None:
        super().__init__()
        self.columns = columns
        std = (3 * n) ** -0.25  # of each factor: entries of the product vary as those of a linear layer do
        self.left = nn.Parameter(torch.zeros(m, rank))
        self.right = nn.Parameter(torch.randn(n + columns, rank) * (1.0 if zero else std))
        if not zero:
            nn.init.normal_(self.left, std=std * rank**-0.5)

    def forward(self, u: Tensor, time: Tensor | None) -> Tensor:
        """The map of free coordinates u (..., n) and the time (..., 1)."""
        low = u @ self.right[self.columns :]
        if time is not None:
            low = torch.addcmul(low, time, self.right[0])
        return F.linear(low, self.left)


class _TwoMaps(nn.Module):
    """``up(phi(down(u) + c)) + c'``."""

    def __init__(self, down: nn.Module, up: nn.Module, r: int, m: int, space: Space, activation: str) -> None:
        super().__init__()
        self.space, self.activation = space, function(activation)
        self.down, self.up = down, up
        self.down_bias = nn.Parameter(torch.zeros(r))
        self.up_bias = nn.Parameter(torch.zeros(m))

    def forward(self, u: Tensor) -> Tensor:
        """The change (..., m)."""
        hidden: Tensor = self.activation(self.down(u, self.space.time(u)) + self.down_bias)
        change: Tensor = self.up(hidden, self.space.time(hidden)) + self.up_bias
        return change
