"""Similarity of relations under a back-off mixture of the fitted distribution and the counts of the facts."""

from __future__ import annotations

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.divergence import TailEstimate, centred_features, evaluating
from relsim.facts import Facts
from relsim.kl.mixture_kl import mixture_kl, mixture_log_prob
from relsim.kl.pool import HeadPool, draw_pool, every_head
from relsim.kl.result import RelationSimilarity
from relsim.kl.sums import TailSums
from relsim.similarity import assembled

__all__ = ["mixture_similarity"]

_CUTOFF = 1e-17  # weight of a head below which a relation practically never has it


@torch.no_grad()
def mixture_similarity(
    dist: FactDistribution,
    facts: Facts,
    *,
    head_weight: Tensor,
    tail_weight: Tensor,
    heads: int = 400,
    seed: int = 0,
) -> RelationSimilarity:
    r"""KL between all pairs of mixtures with the counts, exact for the heads and given a head.

    .. math:: P(h|r) = l_r c(h|r) + (1 - l_r) n(h|r), \qquad P(t|h,r) = m_{h,r} c(t|h,r) + (1 - m_{h,r}) n(t|h,r)

    with the neural distribution n and shares of the counts c; ``m`` is ``tail_weight`` where the relation has facts of
    that head and 0 elsewhere.

    Parameters
    ----------
    dist
        The neural part, with at least two relations.
    facts
        Where the counts come from.
    head_weight, tail_weight
        ``l`` and ``m``, float64 ``(R,)`` in [0, 1); ``l`` is taken as 0 for relations without facts.
    heads
        Heads of the pool; all of them from E on, which is exact.
    seed
        Seed of the pool.

    Raises
    ------
    ValueError
        For facts of another size than the model, or weights outside [0, 1).
    """
    sizes, expected = (facts.num_entities, facts.num_relations), (dist.num_entities, dist.num_relations)
    if sizes != expected:
        raise ValueError(f"facts have (entities, relations) = {sizes}, the model has {expected}")
    with evaluating(dist) as dist:
        natural, features = dist.head_natural(torch.arange(expected[1])).double(), centred_features(dist, torch.float64)
        count = facts.count.double()
        seen = _shares(facts.relation, facts.head, count, (expected[1], expected[0]))
        own = torch.where(torch.bincount(facts.relation, minlength=expected[1]) > 0, head_weight, 0.0)
        prob = mixture_log_prob(natural, features, seen, own).exp()
        prob = prob / prob.sum(1, keepdim=True)
        head = mixture_kl(natural, features, seen, own)
        generator = torch.Generator().manual_seed(seed)
        pool = every_head(prob) if heads >= expected[0] else draw_pool(prob, heads, generator=generator)
        tail = _tails(dist, facts, pool, tail_weight, features)
    return assembled("exact" if heads >= expected[0] else "pooled", head, tail, len(pool.heads), 1)


def _shares(row: Tensor, column: Tensor, count: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sparse table of counts with rows that sum to 1."""
    table = torch.sparse_coo_tensor(torch.stack([row, column]), count, shape, check_invariants=True).coalesce()
    total = torch.zeros(shape[0], dtype=torch.float64).index_add_(0, table.indices()[0], table.values())
    values = table.values() / total[table.indices()[0]]
    return torch.sparse_coo_tensor(table.indices(), values, shape, is_coalesced=True, check_invariants=True)


def _tails(dist: FactDistribution, facts: Facts, pool: HeadPool, weight: Tensor, features: Tensor) -> TailEstimate:
    shape = dist.num_relations, dist.num_entities
    sums, lower = TailSums.zeros(shape[0]), torch.zeros(shape[0], shape[0], dtype=torch.float64)
    order = torch.argsort(facts.head, stable=True)
    start = torch.searchsorted(facts.head[order], pool.heads)
    stop = torch.searchsorted(facts.head[order], pool.heads, right=True)
    for k, h in enumerate(pool.heads):
        mine = order[start[k] : stop[k]]
        relation = facts.relation[mine]
        counts = _shares(relation, facts.tail[mine], facts.count[mine].double(), shape)
        own = torch.where(torch.bincount(relation, minlength=shape[0]) > 0, weight, 0.0)
        divergence = mixture_kl(dist.tail_natural_all(h[None])[0].double(), features, counts, own)
        rows = (pool.weight[:, k] > _CUTOFF).nonzero().squeeze(1)
        sums.add(rows, divergence[rows], pool.weight[rows, k], pool.variance[rows, k])
        lower[rows] += pool.mass[rows, k, None] * divergence[rows]
    kl, variance = sums.estimate()
    df = pool.df[:, None].expand_as(kl)
    return TailEstimate(kl.fill_diagonal_(0.0), variance, pool.ess, df, lower, sums.skewness(), len(pool.heads))
