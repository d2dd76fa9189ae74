"""Exact divergences at the heads drawn for one relation: for the pairs too close for the cheap sums to tell apart."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.maths.expfamily import SMALL_KL, centred_kl, moments

__all__ = ["OwnCells", "exact_at_own_heads"]


@dataclass(frozen=True, eq=False)
class OwnCells:
    """Exact sums over tails of (relation, head) cells drawn for the relation.

    Parameters
    ----------
    relation, head
        int64 ``(N,)``.
    weight, variance
        float64 ``(N,)``: the estimate of relation i is ``sum weight D`` over its cells, its variance over both phases
        ``sum variance (D - estimate)^2``.
    partition, mean
        float64 ``(N,)`` and ``(N, d)``: log-partition and mean feature.
    """

    relation: Tensor
    head: Tensor
    weight: Tensor
    variance: Tensor
    partition: Tensor
    mean: Tensor

    @classmethod
    def none(cls, dim: int) -> OwnCells:
        """No cells."""
        ids, values = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64)
        return cls(ids, ids, values, values, values, values.view(0, 1).expand(0, dim))

    def extended(self, other: OwnCells) -> OwnCells:
        """These cells and those of another."""
        return OwnCells(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def of(self, relation: int) -> OwnCells:
        """The cells of one relation."""
        mine = self.relation == relation
        return OwnCells(*(getattr(self, field.name)[mine] for field in fields(self)))

    def state(self) -> dict[str, Tensor]:
        """Every field, for a file."""
        return {f"cells.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> OwnCells:
        """Cells as :meth:`state` gave them."""
        return cls(*(state[f"cells.{field.name}"] for field in fields(cls)))


@torch.no_grad()
def exact_at_own_heads(
    dist: FactDistribution, cells: OwnCells, i: int, others: Tensor, features: Tensor, head: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Tail divergences from relation i to others, each summed exactly over all tails at the heads of i.

    Parameters
    ----------
    dist
        The model.
    cells
        Cells of relation i.
    i, others
        The relation, and int64 ``(k,)``.
    features
        Centred entity features ``(E, d)``, float32. Values under 1e-2 nats are recomputed in float64, and in the
        centred form where the divergence of the heads does not exceed that either.
    head
        float64 ``(k,)``: divergences of the heads.

    Returns
    -------
    tuple
        Estimates and variances, float64 ``(k,)`` each, the former at least 0, and the degrees of freedom of the latter.
    """
    own = dist.tail_natural(cells.head, torch.full_like(cells.head, i)).double()
    double, in_double = features.double(), None
    size = len(cells.head)
    natural = dist.tail_natural(cells.head.repeat(len(others)), others.repeat_interleave(size)).to(features.dtype)
    again = own.repeat(len(others), 1), cells.partition.repeat(len(others)), cells.mean.repeat(len(others), 1)
    values = _paired(natural, *again, features).view(-1, size)
    for k in (values @ cells.weight < SMALL_KL).nonzero().squeeze(1).tolist():
        # One relation at a time: rows of one product may round differently, and equal relations must agree to the bit.
        other = dist.tail_natural(cells.head, torch.full_like(cells.head, int(others[k])))
        if float(values[k] @ cells.weight + head[k]) < SMALL_KL:
            values[k] = centred_kl(own, other.double(), double)
        else:
            in_double = moments(own, double) if in_double is None else in_double
            values[k] = _paired(other.double(), own, *in_double, double)
    estimate = values @ cells.weight / cells.weight.sum()
    if bool(torch.isinf(cells.variance).any()):
        return estimate, torch.full_like(estimate, torch.inf), 1.0
    total = float(cells.variance.sum())
    df = total**2 / float((cells.variance**2).sum()) if total > 0.0 else torch.inf
    return estimate, (values - estimate[:, None]) ** 2 @ cells.variance, df


def _paired(other: Tensor, own: Tensor, partition: Tensor, mean: Tensor, features: Tensor) -> Tensor:
    """``A_j - A_i - (x_j - x_i) . mu_i`` of paired rows; the sums of j in the dtype of the features."""
    across, _ = moments(other, features, mean_of=torch.zeros(len(other), dtype=torch.bool))
    return across - partition - ((other.double() - own) * mean).sum(1)
