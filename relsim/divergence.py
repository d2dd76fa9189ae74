"""KL divergences between the fact distributions of all pairs of relations: exact heads, tails summed exactly over a pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.expfamily import SMALL_KL, bregman_kl, centred_kl, moments
from relsim.pool import HeadPool

__all__ = ["TailSums", "centred_features", "head_kl", "head_prob", "tail_blocks", "tail_kl"]

# Heads that a relation practically never has: their whole share of its mean is at most this times the pool's size.
_CUTOFF = {torch.float32: 1e-10, torch.float64: 1e-17}
_BLOCK = 1 << 21  # natural parameters held at a time


def centred_features(dist: FactDistribution, dtype: torch.dtype) -> Tensor:
    """Entity features around their mean, ``(E, d)`` in the given dtype."""
    # Subtracting one vector from all features changes no distribution and makes the logits smaller, hence more exact.
    features = dist.features().double()
    return (features - features.mean(0)).to(dtype)


@torch.no_grad()
def head_prob(dist: FactDistribution) -> Tensor:
    """``P(h | r)`` of every relation, float64 ``(R, E)``, rows summing to 1."""
    natural = dist.head_natural(torch.arange(dist.num_relations)).double()
    return torch.softmax(natural @ centred_features(dist, torch.float64).T, 1)


@torch.no_grad()
def head_kl(dist: FactDistribution) -> Tensor:
    r"""Exact ``KL(P_i(h) || P_j(h))`` for all pairs at once, from one ``R x E`` product.

    Returns
    -------
    Tensor
        float64 ``(R, R)``, in nats, at least 0, diagonal exactly 0. By the chain rule a lower bound of the full KL.
    """
    natural, features = (
        dist.head_natural(torch.arange(dist.num_relations)).double(),
        centred_features(dist, torch.float64),
    )
    kl = bregman_kl(natural, *moments(natural, features), torch.arange(len(natural)))
    small = (kl < SMALL_KL).fill_diagonal_(False)
    # One relation at a time: rows of one product may round differently, and equal relations must agree to the bit.
    for i in small.any(1).nonzero().squeeze(1).tolist():
        others = small[i].nonzero().squeeze(1)
        pair = [dist.head_natural(torch.tensor([j])).double() for j in [i, *others.tolist()]]
        kl[i, others] = centred_kl(pair[0].expand(len(others), -1), torch.cat(pair[1:]), features)
    return kl.fill_diagonal_(0.0)


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
    """

    first: Tensor
    second: Tensor
    square: Tensor
    reference: Tensor
    weight: Tensor
    variance: Tensor

    @classmethod
    def zeros(cls, relations: int) -> TailSums:
        """Sums over no heads."""
        matrix, vector = torch.zeros(relations, relations, dtype=torch.float64), torch.zeros(relations).double()
        return cls(matrix, matrix.clone(), matrix.clone(), matrix.clone(), vector, vector.clone())

    def add(self, rows: Tensor, divergence: Tensor, weight: Tensor, variance: Tensor) -> None:
        """Add one head: ``divergence (k, R)`` of the k relations ``rows`` that have it, with their ``w`` and ``v``."""
        fresh = rows[self.weight[rows] == 0.0]
        self.reference[fresh] = divergence[self.weight[rows] == 0.0]
        centred = divergence - self.reference[rows]
        scaled = variance[:, None] * centred
        self.first.index_add_(0, rows, weight[:, None] * centred)
        self.second.index_add_(0, rows, scaled)
        self.square.index_add_(0, rows, scaled * centred)
        self.weight.index_add_(0, rows, weight)
        self.variance.index_add_(0, rows, variance)

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Return the mean divergence and its variance, float64 ``(R, R)`` each.

        The variance is infinite in rows whose spread could not be seen (``v`` infinite).
        """
        shift = self.first / self.weight[:, None]
        spread = self.square - shift * (2.0 * self.second - shift * self.variance[:, None])
        # A sum of squares: below zero by rounding alone, and only beside much larger terms that cancelled.
        spread = torch.where(spread.abs() <= 1e-12 * self.square, 0.0, spread)
        unseen = torch.isinf(self.variance)[:, None] | torch.isnan(spread)
        return self.reference + shift, spread.masked_fill(unseen, torch.inf).fill_diagonal_(0.0)


def tail_blocks(dist: FactDistribution, heads: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Natural parameters ``(b, R, d)`` of blocks of heads that fit in memory, with the place of their first head."""
    step = max(1, _BLOCK // (dist.num_relations * dist.dim))
    for start in range(0, len(heads), step):
        yield start, dist.tail_natural_all(heads[start : start + step])


@torch.no_grad()
def tail_kl(
    dist: FactDistribution, pool: HeadPool, *, head: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    r"""Rao-Blackwellised ``E_{h ~ P_i} KL(P_i(t|h) || P_j(t|h))`` over the heads of a pool, for all pairs.

    For each head the sum over all tails is exact, ``D_ij = A_j - A_i - (x_j - x_i) . mu_i``, at a cost of
    ``R E d + R^2 d`` rather than ``R^2 E``. Memory is a block of logits plus six ``R x R`` matrices.

    Parameters
    ----------
    dist
        The model.
    pool
        Heads and weights; with :func:`relsim.pool.every_head` the result is exact.
    head
        float64 ``(R, R)``: the divergences of the heads. Given them, the centred form is spent on the pairs that are
        small in all, not on those whose tails alone agree.
    dtype
        float32 or float64, of the logits. With float32 the error is below 1e-6 times the largest ``|x| |f|``, that is
        under 1e-4 nats on fitted models; values under 1e-2 nats are recomputed in float64 whatever is asked for, and
        pairs under 1e-2 nats in the centred form.

    Returns
    -------
    tuple
        Estimate and its variance, float64 ``(R, R)``, in nats and nats squared. The estimate is at least 0 and the
        diagonal of both is exactly 0.
    """
    cutoff, every = _CUTOFF[dtype], torch.arange(dist.num_relations)
    kl, variance = _tail_sums(dist, pool, every, dtype, cutoff)
    small = (kl < SMALL_KL).fill_diagonal_(False)
    some = (small | small.T).any(1).nonzero().squeeze(1)
    if dtype != torch.float64 and len(some):
        exact_kl, exact_variance = _tail_sums(dist, pool, some, torch.float64, cutoff)
        chosen = small[some][:, some]
        i, j = some[chosen.nonzero()].T
        kl[i, j], variance[i, j] = exact_kl[chosen], exact_variance[chosen]
    # What is left below zero after double precision is rounding of at most some 1e-13 of the logits.
    kl[small] = torch.where((kl[small] < 0.0) & (kl[small] > -1e-12), 0.0, kl[small])
    total = kl if head is None else kl + head
    _refine(dist, pool, kl, variance, small & (total < SMALL_KL), cutoff)
    return kl, variance


def _tail_sums(
    dist: FactDistribution, pool: HeadPool, some: Tensor, dtype: torch.dtype, cutoff: float
) -> tuple[Tensor, Tensor]:
    """Estimate and variance for the pairs among some relations, in the plain form."""
    features, sums = centred_features(dist, dtype), TailSums.zeros(len(some))
    for start, block in tail_blocks(dist, pool.heads):
        natural = block[:, some].to(dtype)
        weight = pool.weight[some, start : start + len(block)].T
        active = weight > cutoff
        partition, mean = moments(natural.flatten(0, 1), features, mean_of=active.flatten())
        partition, counts = partition.view(weight.shape), active.sum(1).tolist()
        for k, mu in enumerate(torch.split(mean, counts)):
            rows = active[k].nonzero().squeeze(1)
            divergence = bregman_kl(natural[k].double(), partition[k], mu, rows)
            sums.add(rows, divergence, weight[k, rows], pool.variance[some[rows], start + k])
    kl, variance = sums.estimate()
    return kl.fill_diagonal_(0.0), variance


def _refine(dist: FactDistribution, pool: HeadPool, kl: Tensor, variance: Tensor, small: Tensor, cutoff: float) -> None:
    """Recompute, in place, the chosen entries over the same heads in the centred float64 form."""
    features = centred_features(dist, torch.float64)
    for i in small.any(1).nonzero().squeeze(1).tolist():
        keep = pool.weight[i] > cutoff
        heads, weight, spread = pool.heads[keep], pool.weight[i, keep], pool.variance[i, keep]
        own = dist.tail_natural(heads, torch.full_like(heads, i)).double()
        for j in small[i].nonzero().squeeze(1).tolist():
            values = centred_kl(own, dist.tail_natural(heads, torch.full_like(heads, j)).double(), features)
            kl[i, j] = values @ weight / weight.sum()
            unseen = bool(torch.isinf(spread).any())
            variance[i, j] = torch.inf if unseen else (values - kl[i, j]) ** 2 @ spread
