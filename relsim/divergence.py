"""KL divergences between the fact distributions of all pairs of relations: exact heads, tails summed exactly over a pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution, on_cpu
from relsim.kl.blocks import BlockStore
from relsim.kl.pool import HeadPool
from relsim.kl.sums import TailSums
from relsim.maths.expfamily import SMALL_KL, bregman_kl, centred_kl, moments

__all__ = [
    "TailEstimate",
    "centred_features",
    "certified",
    "evaluating",
    "head_kl",
    "head_prob",
    "tail_blocks",
    "tail_kl",
]

# Heads that a relation practically never has: their whole share of its mean is at most this times the pool's size.
_CUTOFF = {torch.float32: 1e-10, torch.float64: 1e-17}
_BLOCK = 1 << 21  # natural parameters held at a time
# Error of a divergence from rounding, relative to the largest |x| |f|.
_ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-13}


@dataclass(frozen=True, eq=False)
class TailEstimate:
    """Estimated ``E_{h ~ P_i} KL(P_i(t|h) || P_j(t|h))`` of all pairs.

    Parameters
    ----------
    kl, variance
        float64 ``(R, R)``: the estimate, at least 0, in nats, and its variance; the diagonals are exactly 0.
    ess
        float64 ``(R,)``: independent heads that would give a relation's row the same variance.
    df
        float64 ``(R, R)``: degrees of freedom of the variance.
    lower
        float64 ``(R, R)``: the part of the sum over heads that was evaluated exactly, less rounding: a lower bound.
    skewness
        float64 ``(R,)``: of the estimates of each relation, averaged over pairs.
    heads
        Number of heads evaluated.
    """

    kl: Tensor
    variance: Tensor
    ess: Tensor
    df: Tensor
    lower: Tensor
    skewness: Tensor
    heads: int


def certified(total: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Sums of divergences less what rounding can have added to them, at least 0; ``scale`` is the largest |x| |f|."""
    return (total - _ROUNDING[dtype] * scale).clamp_(min=0.0).fill_diagonal_(0.0)


@contextmanager
def evaluating(dist: FactDistribution) -> Iterator[FactDistribution]:
    """The model in evaluation mode, without dropout, and back in its own mode afterwards.

    Sums are made on the CPU, where draws are the same for all: a model on another device is copied.
    """
    training, dist = dist.training, on_cpu(dist)
    dist.eval()
    try:
        yield dist
    finally:
        dist.train(training)


def centred_features(dist: FactDistribution, dtype: torch.dtype) -> Tensor:
    """Entity features around their mean, ``(E, d)`` in the given dtype."""
    # Subtracting one vector from all features changes no distribution and makes the logits smaller, hence more exact.
    features = dist.features().double()
    return (features - features.mean(0)).to(dtype)


@torch.no_grad()
def head_prob(dist: FactDistribution) -> Tensor:
    """``P(h | r)`` of every relation, float64 ``(R, E)`` on the CPU, rows summing to 1."""
    dist = on_cpu(dist)
    natural = dist.head_natural(torch.arange(dist.num_relations)).double()
    return torch.softmax(natural @ centred_features(dist, torch.float64).T, 1)


@torch.no_grad()
def head_kl(dist: FactDistribution) -> Tensor:
    r"""Exact ``KL(P_i(h) || P_j(h))`` for all pairs at once, from one ``R x E`` product.

    Returns
    -------
    Tensor
        float64 ``(R, R)`` on the CPU, in nats, at least 0, diagonal exactly 0. By the chain rule a bound of the full KL from
        below.
    """
    dist = on_cpu(dist)
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


def tail_blocks(dist: FactDistribution, heads: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Natural parameters ``(b, R, d)`` of blocks of heads that fit in memory, with the place of their first head."""
    step = max(1, _BLOCK // (dist.num_relations * dist.dim))
    for start in range(0, len(heads), step):
        yield start, dist.tail_natural_all(heads[start : start + step])


@torch.no_grad()
def tail_kl(
    dist: FactDistribution,
    pool: HeadPool,
    *,
    head: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    store: BlockStore | None = None,
    part: str = "pool",
) -> TailEstimate:
    r"""Rao-Blackwellised ``E_{h ~ P_i} KL(P_i(t|h) || P_j(t|h))`` over the heads of a pool, for all pairs.

    For each head the sum over all tails is exact, ``D_ij = A_j - A_i - (x_j - x_i) . mu_i``, at a cost of
    ``R E d + R^2 d`` rather than ``R^2 E``. Memory is a block of logits plus seven ``R x R`` matrices.

    Parameters
    ----------
    dist
        The model.
    pool
        Heads and weights; with :func:`relsim.kl.pool.every_head` the result is exact.
    head
        float64 ``(R, R)``: the divergences of the heads. Given them, the centred form is spent on the pairs that are
        small in all, not on those whose tails alone agree.
    dtype
        float32 or float64, of the logits. With float32 the error is below 1e-6 times the largest ``|x| |f|``, that is
        under 1e-4 nats on fitted models; values under 1e-2 nats are recomputed in float64 whatever is asked for, and
        pairs under 1e-2 nats in the centred form.
    store, part
        Where running sums are kept, and under which name.
    """
    dist = on_cpu(dist)
    cutoff, every = _CUTOFF[dtype], torch.arange(dist.num_relations)
    kl, variance, lower, skewness = _tail_sums(dist, pool, every, dtype, cutoff, store, part)
    small = (kl < SMALL_KL).fill_diagonal_(False)
    some = (small | small.T).any(1).nonzero().squeeze(1)
    if dtype != torch.float64 and len(some):
        exact_kl, exact_variance, _, _ = _tail_sums(dist, pool, some, torch.float64, cutoff, None, part)
        chosen = small[some][:, some]
        i, j = some[chosen.nonzero()].T
        kl[i, j], variance[i, j] = exact_kl[chosen], exact_variance[chosen]
    # What is left below zero after double precision is rounding of at most some 1e-13 of the logits.
    kl[small] = torch.where((kl[small] < 0.0) & (kl[small] > -1e-12), 0.0, kl[small])
    total = kl if head is None else kl + head
    _refine(dist, pool, kl, variance, small & (total < SMALL_KL), cutoff)
    df = pool.df[:, None].expand_as(kl)
    return TailEstimate(kl, variance, pool.ess, df, lower, skewness, len(pool.heads))


def _tail_sums(
    dist: FactDistribution,
    pool: HeadPool,
    some: Tensor,
    dtype: torch.dtype,
    cutoff: float,
    store: BlockStore | None,
    part: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Estimate, variance, lower bound and skewness for the pairs among some relations, in the plain form."""
    features, sums, done = centred_features(dist, dtype), TailSums.zeros(len(some)), 0
    lower, largest = torch.zeros_like(sums.first), torch.zeros(1, dtype=torch.float64)
    if store is not None and (kept := store.load(part)) is not None:
        done, state = kept
        sums, lower, largest = TailSums.from_state(state, "sums"), state["lower"], state["largest"]
    for start, block in tail_blocks(dist, pool.heads[done:]):
        at = slice(done + start, done + start + len(block))
        natural = block[:, some].to(dtype)
        weight = pool.weight[some, at].T
        active = weight > cutoff
        partition, mean = moments(natural.flatten(0, 1), features, mean_of=active.flatten())
        partition, counts = partition.view(weight.shape), active.sum(1).tolist()
        for k, mu in enumerate(torch.split(mean, counts)):
            rows = active[k].nonzero().squeeze(1)
            divergence = bregman_kl(natural[k].double(), partition[k], mu, rows)
            sums.add(rows, divergence, weight[k, rows], pool.variance[some[rows], at.start + k])
            lower.index_add_(0, rows, pool.mass[some[rows], at.start + k, None] * divergence)
        largest = torch.maximum(largest, natural.norm(dim=2).max().double())
        if store is not None:
            state = sums.state("sums") | {"lower": lower, "largest": largest}
            store.save(part, at.stop, state, last=at.stop == len(pool.heads))
    kl, variance = sums.estimate()
    scale = float(largest) * float(features.norm(dim=1).max())
    return kl.fill_diagonal_(0.0), variance, certified(lower, scale, dtype), sums.skewness()


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
