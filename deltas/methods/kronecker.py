"""Sums of Kronecker products, stored as their factors: what Compacter, KronA and KAdaptation have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import DeltaError

__all__ = ["KroneckerMap", "Rule", "check_divides", "divisor_near", "kronecker_linear", "kronecker_sum"]


def kronecker_sum(A: Tensor, B: Tensor) -> Tensor:
    r""":math:`\sum_i A_i \otimes B_i` (a c, b d) of A (N, a, b) and B (N, c, d)."""
    total: Tensor = torch.einsum("iab,icd->acbd", A, B)
    return total.reshape(A.shape[1] * B.shape[1], A.shape[2] * B.shape[2])


def kronecker_linear(x: Tensor, A: Tensor, left: Tensor, right: Tensor) -> Tensor:
    r""":math:`\left(\sum_i A_i \otimes (S_i T_i^\top)\right) x` without making the matrix.

    Parameters
    ----------
    x : Tensor, shape (..., b d)
    A : Tensor, shape (N, a, b)
    left, right : Tensor, S of shape (N, c, r) and T of shape (N, d, r)

    Returns
    -------
    Tensor, shape (..., a c).
    """
    n, c, r = left.shape
    batch, b, d = x.shape[:-1], A.shape[2], right.shape[1]
    low = x.reshape(*batch, b, d) @ right.transpose(0, 1).reshape(d, n * r)
    mixed = torch.einsum("iab,...bir->...air", A, low.view(*batch, b, n, r))
    return (mixed.flatten(-2) @ left.permute(0, 2, 1).reshape(n * r, c)).flatten(-2)


class Rule(nn.Module):
    """The matrices A_1 to A_N, (N, N, N), that all maps of a delta share."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(n, n, n) * n**-0.5)


class KroneckerMap(nn.Module):
    r"""Matrix :math:`\sum_i A_i \otimes (s_i t_i^\top)` (m, n), with a column of its own for the time if there is one.

    It has ``rank (m + n)`` parameters, m more for the time column, which is 0 at the start, and the N^3 of the shared A.

    Parameters
    ----------
    n, m : sizes, divided by terms
    terms : N
    rank : columns of s_i and t_i
    columns : 0, or 1 for the time
    rule : the shared A
    zero : ``"left"`` or ``"right"`` if s or t is 0 at the start, and with it the map; else ``""``
    """

    def __init__(
        self, n: int, m: int, *, terms: int, rank: int, columns: int, rule: nn.Module | None, zero: str = ""
    ) -> None:
        super().__init__()
        self.rule = rule
        std = (3 * n) ** -0.25  # of s and t each: entries of the sum vary as those of a linear layer do
        self.left = nn.Parameter(torch.zeros(terms, m // terms, rank))
        self.right = nn.Parameter(torch.zeros(terms, n // terms, rank))
        with torch.no_grad():
            if zero != "left":
                self.left.normal_(std=1.0 if zero else std * rank**-0.5)
            if zero != "right":
                self.right.normal_(std=1.0 if zero else std)
        self.time = nn.Parameter(torch.zeros(m)) if columns else None

    def forward(self, u: Tensor, time: Tensor | None) -> Tensor:
        """The map of free coordinates u (..., n) and the time (..., 1) that the column multiplies."""
        z = kronecker_linear(u, self._rule(), self.left, self.right)
        return z if self.time is None or time is None else torch.addcmul(z, time, self.time)

    def matrix(self) -> Tensor:
        """The matrix (m, n + columns)."""
        dense = kronecker_sum(self._rule(), self.left @ self.right.transpose(1, 2))
        return dense if self.time is None else torch.cat([self.time[:, None], dense], 1)

    def _rule(self) -> Tensor:
        assert isinstance(self.rule, Rule)
        return self.rule.A


def divisor_near(n: int, wanted: int | float) -> int:
    """The divisor of n nearest to `wanted`, the smaller of two."""
    return min((d for d in range(1, n + 1) if n % d == 0), key=lambda d: (abs(d - wanted), d))


def check_divides(method: str, terms: int, **sizes: int) -> None:
    """Refuse a number of terms that does not divide every size.

    Raises
    ------
    DeltaError : names the nearest number that does.
    """
    if wrong := [f"{name} = {size}" for name, size in sizes.items() if size % terms]:
        common = [d for d in range(1, min(sizes.values()) + 1) if not any(size % d for size in sizes.values())]
        near = min(common, key=lambda d: (abs(d - terms), d))
        raise DeltaError(
            f"{method} cuts every size into terms={terms} equal parts, and {wrong[0]} is not divisible "
            f"by it; the nearest number that divides {', '.join(map(str, sizes.values()))} is terms={near}"
        )
