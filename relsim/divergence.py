"""KL divergences between the fact distributions of all pairs of relations: exact, pooled and ancestral estimates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.expfamily import SMALL_KL, bregman_kl, centred_kl, moments
from relsim.pool import HeadPool

__all__ = ["AncestralEstimate", "TailSums", "ancestral_kl", "head_kl", "head_prob", "tail_kl"]

_BLOCK = 1 << 21  # natural parameters held at a time


def _features(dist: FactDistribution, dtype: torch.dtype) -> Tensor:
    # Subtracting one vector from all features changes no distribution and makes the logits smaller, hence more exact.
    features = dist.features().double()
    return (features - features.mean(0)).to(dtype)


@torch.no_grad()
def head_prob(dist: FactDistribution) -> Tensor:
    """``P(h | r)`` of every relation, float64 ``(R, E)``, rows summing to 1."""
    natural = dist.head_natural(torch.arange(dist.num_relations)).double()
    return torch.softmax(natural @ _features(dist, torch.float64).T, 1)


@torch.no_grad()
def head_kl(dist: FactDistribution) -> Tensor:
    r"""Exact ``KL(P_i(h) || P_j(h))`` for all pairs at once, from one ``R x E`` product.

    Returns
    -------
    Tensor
        float64 ``(R, R)``, in nats, at least 0, diagonal exactly 0. By the chain rule a lower bound of the full KL.
    """
    natural, features = dist.head_natural(torch.arange(dist.num_relations)).double(), _features(dist, torch.float64)
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


def _blocks(dist: FactDistribution, heads: Tensor) -> Iterator[tuple[int, Tensor]]:
    step = max(1, _BLOCK // (dist.num_relations * dist.dim))
    for start in range(0, len(heads), step):
        yield start, dist.tail_natural_all(heads[start : start + step])


@torch.no_grad()
def tail_kl(dist: FactDistribution, pool: HeadPool, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    r"""Rao-Blackwellised ``E_{h ~ P_i} KL(P_i(t|h) || P_j(t|h))`` over the heads of a pool, for all pairs.

    For each head the sum over all tails is exact, ``D_ij = A_j - A_i - (x_j - x_i) . mu_i``, at a cost of
    ``R E d + R^2 d`` rather than ``R^2 E``. Memory is a block of logits plus six ``R x R`` matrices.

    Parameters
    ----------
    dist
        The model.
    pool
        Heads and weights; with :func:`relsim.pool.every_head` the result is exact.
    dtype
        Of the logits. With float32 the error is below 1e-6 times the largest ``|x| |f|``, that is under 1e-4 nats on
        fitted models; pairs under 1e-2 nats are recomputed in float64 whatever is asked for.

    Returns
    -------
    tuple
        Estimate and its variance, float64 ``(R, R)``, in nats and nats squared. The estimate is at least 0 and the
        diagonal of both is exactly 0.
    """
    features, relations = _features(dist, dtype), dist.num_relations
    # Heads that a relation practically never has: their whole share of the mean is at most this times len(heads).
    cutoff = 1e-10 if dtype == torch.float32 else 1e-17
    sums = TailSums.zeros(relations)
    for start, block in _blocks(dist, pool.heads):
        natural = block.to(dtype)
        weight = pool.weight[:, start : start + len(block)].T
        active = weight > cutoff
        partition, mean = moments(natural.flatten(0, 1), features, mean_of=active.flatten())
        partition, counts = partition.view(weight.shape), active.sum(1).tolist()
        for k, mu in enumerate(torch.split(mean, counts)):
            rows = active[k].nonzero().squeeze(1)
            divergence = bregman_kl(natural[k].double(), partition[k], mu, rows)
            sums.add(rows, divergence, weight[k, rows], pool.variance[rows, start + k])
    kl, variance = sums.estimate()
    return _refined(dist, pool, kl.fill_diagonal_(0.0), variance, cutoff)


def _refined(
    dist: FactDistribution, pool: HeadPool, kl: Tensor, variance: Tensor, cutoff: float
) -> tuple[Tensor, Tensor]:
    """Recompute the small entries over the same heads in the centred float64 form."""
    features = _features(dist, torch.float64)
    small = (kl < SMALL_KL).fill_diagonal_(False)
    for i in small.any(1).nonzero().squeeze(1).tolist():
        keep = pool.weight[i] > cutoff
        heads, weight, spread = pool.heads[keep], pool.weight[i, keep], pool.variance[i, keep]
        own = dist.tail_natural(heads, torch.full_like(heads, i)).double()
        for j in small[i].nonzero().squeeze(1).tolist():
            values = centred_kl(own, dist.tail_natural(heads, torch.full_like(heads, j)).double(), features)
            kl[i, j] = values @ weight / weight.sum()
            unseen = bool(torch.isinf(spread).any())
            variance[i, j] = torch.inf if unseen else (values - kl[i, j]) ** 2 @ spread
    return kl, variance


@dataclass(frozen=True, eq=False)
class AncestralEstimate:
    """Plain Monte Carlo estimate of the divergences: the mean and variance of sampled log-ratios.

    Parameters
    ----------
    head, tail
        float64 ``(R, R)``: means of the head and the tail part of the log-ratio, in nats; either may be negative.
    variance
        float64 ``(R, R)``: variance of their sum, sample variance over number of samples.
    heads
        Number of distinct heads drawn.
    """

    head: Tensor
    tail: Tensor
    variance: Tensor
    heads: int


@torch.no_grad()
def ancestral_kl(
    dist: FactDistribution,
    samples: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    reuse_heads: bool = True,
) -> AncestralEstimate:
    r"""The sampler of the paper: heads, then tails, from relation i, and the mean log-ratio against every j.

    Parameters
    ----------
    dist
        The model.
    samples
        Facts drawn from each relation, at least 2.
    generator
        Source of the draws.
    dtype
        Of the logits.
    reuse_heads
        Share the normalisers between samples with the same head. False costs what the paper's procedure costs, and
        has the same distribution.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019, section 3.2.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}, expected at least 2: one sample has no standard error")
    relations, features = dist.num_relations, _features(dist, dtype)
    probability = head_prob(dist)
    drawn = torch.multinomial(probability, samples, replacement=True, generator=generator).flatten()
    owner = torch.arange(relations).repeat_interleave(samples)
    if reuse_heads:
        heads, inverse = torch.unique(drawn, return_inverse=True)
    else:
        heads, inverse = drawn, torch.arange(len(drawn))
    order = torch.argsort(inverse, stable=True)
    members = torch.split(order, torch.bincount(inverse, minlength=len(heads)).tolist())
    log_head = probability.log()
    ratio_head = torch.zeros(relations, relations, dtype=torch.float64)
    ratio_tail = ratio_head.clone()
    values = torch.empty(relations * samples, relations, dtype=torch.float64)
    for start, block in _blocks(dist, heads):
        for k, natural in enumerate(block.to(dtype)):
            which = members[start + k]
            rows = owner[which]
            log_tail = torch.log_softmax(natural @ features.T, 1)
            tails = torch.multinomial(log_tail[rows].exp(), 1, generator=generator).squeeze(1)
            tail = log_tail[:, tails].T.double()
            tail = tail[torch.arange(len(rows)), rows][:, None] - tail
            head = log_head[rows, heads[start + k]][:, None] - log_head[:, heads[start + k]]
            values[which] = head + tail
            ratio_head.index_add_(0, rows, head)
            ratio_tail.index_add_(0, rows, tail)
    spread = values.view(relations, samples, relations).var(1) / samples
    distinct = len(torch.unique(drawn))
    return AncestralEstimate(ratio_head / samples, ratio_tail / samples, spread, distinct)
