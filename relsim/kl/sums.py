"""Running weighted sums of conditional divergences, from which means and their variances follow."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["TailSums"]

_COLUMNS = 24  # pairs of a relation from which its skewness is told


def _every(relations: int) -> int:
    return max(1, relations // _COLUMNS)


@dataclass(eq=False)
class TailSums:
    """Weighted sums of conditional divergences over heads; those of disjoint sets of heads add up.

    Deviations are summed around a fixed reference, the first divergence seen for the row, so that the variance of a
    nearly constant one does not cancel.

    Parameters
    ----------
    first, second, square
        float64 ``(R, R)``: ``sum w (D - c)``, ``sum v (D - c)`` and ``sum v (D - c)^2`` with the reference c.
    reference
        float64 ``(R, R)``: c.
    weight, variance
        float64 ``(R,)``: ``sum w`` and ``sum v``.
    seen
        float64 ``(R,)``: largest w so far, 0 while the row has no reference.
    cubes
        float64 ``(4, R, C)``: ``sum v^(3/2) (D - c)^p`` for p from 0 to 3 over every so-manieth column, for skewness.
    """

    first: Tensor
    second: Tensor
    square: Tensor
    reference: Tensor
    weight: Tensor
    variance: Tensor
    seen: Tensor
    cubes: Tensor

    @classmethod
    def zeros(cls, relations: int) -> TailSums:
        """Sums over no heads."""
        shapes: dict[str, tuple[int, ...]] = {"cubes": (4, relations, len(range(0, relations, _every(relations))))}
        shapes |= dict.fromkeys(("weight", "variance", "seen"), (relations,))
        whole = (relations, relations)
        return cls(*(torch.zeros(shapes.get(f.name, whole), dtype=torch.float64) for f in fields(cls)))

    def state(self, prefix: str) -> dict[str, Tensor]:
        """Every field under ``prefix.name``, for a file."""
        return {f"{prefix}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], prefix: str) -> TailSums:
        """Sums as :meth:`state` gave them."""
        return cls(*(state[f"{prefix}.{field.name}"] for field in fields(cls)))

    def add(self, rows: Tensor, divergence: Tensor, weight: Tensor, variance: Tensor) -> None:
        """Add divergences ``(k, R)`` of the relations ``rows``, with their ``w`` and ``v``, all float64."""
        fresh = self.seen[rows] == 0.0
        self.reference[rows[fresh]] = divergence[fresh]
        self.seen.scatter_reduce_(0, rows, weight, "amax")
        centred = divergence - self.reference[rows]
        scaled = variance[:, None] * centred
        self.first.index_add_(0, rows, weight[:, None] * centred)
        self.second.index_add_(0, rows, scaled)
        self.square.index_add_(0, rows, scaled * centred)
        self.weight.index_add_(0, rows, weight)
        self.variance.index_add_(0, rows, variance)
        part = centred[:, :: _every(len(self.seen))]
        for power in range(4):
            self.cubes[power].index_add_(0, rows, variance[:, None] ** 1.5 * part**power)

    def add_block(self, divergence: Tensor, weight: Tensor, variance: Tensor) -> None:
        """Add b heads: ``divergence (b, R, R)``, changed in place, with ``w`` and ``v`` ``(b, R)``, all of one dtype.

        Products are summed over the block in that dtype, blocks in float64.
        """
        top = weight.max(0)
        fresh = ((self.seen == 0.0) & (top.values > 0.0)).nonzero().squeeze(1)
        self.reference[fresh] = divergence[top.indices[fresh], fresh].double()
        torch.maximum(self.seen, top.values.double(), out=self.seen)
        centred = divergence.sub_(self.reference.to(divergence.dtype))
        part, scale = centred[:, :, :: _every(len(self.seen))].clone(), variance**1.5
        first, second, square = (torch.zeros_like(centred[0]) for _ in range(3))
        # One head at a time: its matrix stays in a core's cache over the three sums.
        for one, w, v in zip(centred, weight[:, :, None], variance[:, :, None], strict=True):
            first.addcmul_(one, w)
            second.addcmul_(one, v)
            square.addcmul_(one.square_(), v)
        self.first += first
        self.second += second
        self.square += square
        for power in range(4):
            self.cubes[power] += torch.einsum("hi,hij->ij", scale, part**power)
        self.weight += weight.sum(0, dtype=torch.float64)
        self.variance += variance.sum(0, dtype=torch.float64)

    def estimate(self, rounding: float = 1e-12) -> tuple[Tensor, Tensor]:
        """Return the mean divergence and its variance, float64 ``(R, R)`` each.

        The variance is infinite in rows whose spread could not be seen (``v`` infinite), and 0 where it is below
        ``rounding`` times the sum of squares around the reference.
        """
        shift = self.first / self.weight[:, None]
        spread = self.square - shift * (2.0 * self.second - shift * self.variance[:, None])
        # A sum of squares: below zero by rounding alone, and only beside much larger terms that cancelled.
        spread = torch.where(spread.abs() <= rounding * self.square, 0.0, spread)
        unseen = torch.isinf(self.variance)[:, None] | torch.isnan(spread)
        return self.reference + shift, spread.masked_fill(unseen, torch.inf).fill_diagonal_(0.0)

    def skewness(self) -> Tensor:
        """Mean skewness of the estimates of each relation, float64 ``(R,)``, 0 where nothing was left to chance."""
        mean, variance = (value[:, :: _every(len(self.seen))] for value in self.estimate())
        shift = mean - self.reference[:, :: _every(len(self.seen))]
        none, one, two, three = self.cubes
        cube = three - shift * (3.0 * two - shift * (3.0 * one - shift * none))
        told = (variance > 0.0) & torch.isfinite(variance)
        ratio = torch.where(told, cube / torch.where(told, variance, 1.0) ** 1.5, 0.0)
        return ratio.sum(1) / told.sum(1).clamp(min=1)
