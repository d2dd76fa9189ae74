"""LoKr: a Kronecker product, one or both factors of low rank, as a change of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host
from ..linear import LinearPart, folded, matrix
from ..space import Space, space_before
from .lora import QUERY_AND_VALUE, linear_roles

__all__ = ["LoKr", "split"]


@dataclass(frozen=True, kw_only=True)
class LoKr(Delta):
    r"""Low-rank Kronecker product: :math:`z = (W + s\,C_1 \otimes C_2) h + b`, s = alpha / rank, C_1 = 0 at the start.

    For a matrix (m, n) with m = a c and n = b d, C_1 is (a, b), and C_2 (c, d) a product of (c, rank) and (rank, d) if
    ``rank < max(c, d) / 2``. On a Lorentz backbone the product makes the space columns and the time has a column of its own,
    0 at the start.

    Parameters
    ----------
    rank : int, >= 1
    alpha : float or None; rank if None
    factor : int. a and b: `factor` itself where it divides m (n), else the largest divisor up to it and to the root; -1 for
        the largest up to the root.
    decompose_both : bool. C_1 too is a product, if ``rank < max(a, b) / 2``.
    roles : roles of linear layers, or ``("all",)``; by default as of :class:`LoRA`

    References
    ----------
    Yeh et al., "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation", ICLR 2024,
    section 3.2.
    """

    size = "rank"
    rank: int = 8
    alpha: float | None = None
    factor: int = -1
    decompose_both: bool = False
    roles: tuple[str, ...] = QUERY_AND_VALUE

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.factor < 1 and self.factor != -1):
            raise DeltaError(f"LoKr takes a rank >= 1 and a factor >= 1 or -1, got {self.rank} and {self.factor}")

    @property
    def scale(self) -> float:
        """What multiplies the product."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles."""
        return self.at(host, *linear_roles(host, self.roles))

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """C_1 and C_2, whole or as factors, and the column of the time."""
        return _Product(site, self)


def split(size: int, factor: int) -> tuple[int, int]:
    """Two numbers whose product is `size`.

    Examples
    --------
    >>> split(128, -1), split(128, 4), split(96, 7)
    ((8, 16), (4, 32), (6, 16))
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = isqrt(size) if factor < 0 else min(factor, isqrt(size))
    first = next(m for m in range(limit, 0, -1) if size % m == 0)
    return first, size // first


class _Product(LinearPart):
    def __init__(self, site: Site, method: LoKr) -> None:
        super().__init__()
        self.space, self.scale, rank = space_before(site.module), method.scale, method.rank
        columns = self.space.columns
        (a, c), (b, d) = split(site.out_features, method.factor), split(site.in_features - columns, method.factor)
        if method.decompose_both and rank < max(a, b) / 2:
            self.w1_a, self.w1_b = nn.Parameter(torch.zeros(a, rank)), _kaiming(rank, b)
        else:
            self.w1 = nn.Parameter(torch.zeros(a, b))
        if rank < max(c, d) / 2:
            self.w2_a, self.w2_b = _kaiming(c, rank), _kaiming(rank, d)
        else:
            self.w2 = _kaiming(c, d)
        if columns:
            self.time = nn.Parameter(torch.zeros(site.out_features))

    def _factors(self) -> tuple[Tensor, Tensor]:
        first = self.w1 if "w1" in self._parameters else self.w1_a @ self.w1_b
        second = self.w2 if "w2" in self._parameters else self.w2_a @ self.w2_b
        return first, second

    def addend(self, host: nn.Module, h: Tensor) -> Tensor:
        """``s (C_1 (x) C_2) h``, as ``C_1 X C_2^T`` with X the coordinates as a matrix."""
        first, second = self._factors()
        u = self.space.coordinates(h)
        table = u.reshape(*u.shape[:-1], first.shape[1], second.shape[1])
        z = (first @ F.linear(table, second)).flatten(-2)
        if (time := self.space.time(u, host)) is not None:
            z = torch.addcmul(z, time, self.time)
        return self.scale * z

    def merged(self, host: nn.Module) -> Tensor:
        """The weight with the change."""
        old, (first, second) = matrix(host, self.rows), self._factors()
        dense = torch.kron(first.double(), second.double())
        if self.space.columns:
            dense = torch.cat([self.time.double()[:, None], dense], 1)
        return folded(host, self.rows, (old.double() + self.scale * dense).to(old.dtype))


def _kaiming(rows: int, columns: int) -> nn.Parameter:
    weight = nn.Parameter(torch.empty(rows, columns))
    nn.init.kaiming_uniform_(weight, a=5**0.5)
    return weight
