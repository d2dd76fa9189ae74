"""Filtered ranking metrics: blocked matrix products, never a loop over candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.data.kg import KnowledgeGraph, KnownTails
from tasks.errors import RunError

from .scorers import Scorer

__all__ = ["both_directions", "rank", "rank_relations", "ranking_metrics"]

BLOCK = 8_000_000  # scores held at once
PAIRS = 200_000  # triples scored at once


def _finite(target: Tensor) -> Tensor:
    if not bool(torch.isfinite(target).all()):  # a NaN is neither greater nor equal: it would rank first
        raise RunError("the model gives scores that are not finite; no rank can be told")
    return target


def rank(scorer: Scorer, queries: Tensor, known: KnownTails) -> tuple[Tensor, Tensor]:
    """Rank the true tail of each query among all entities, other known tails left out.

    Parameters
    ----------
    scorer : Scorer
    queries : int64 Tensor, shape (N, 3): head, relation (with inverses), tail
    known : KnownTails, the triples to filter

    Returns
    -------
    standard, paper : float64 Tensors, shape (N,)
        Standard protocol: nothing else is removed, ties count half, ``1 + #greater + (#equal - 1) / 2``. Paper's protocol
        (the published script): the head entity is removed from the candidates and ties count in full.
    """
    rows = max(1, BLOCK // scorer.num_entities)
    standard, paper = [], []
    with torch.no_grad():
        for block in queries.split(rows):
            head, relation, tail = block.unbind(1)
            scores = scorer.score_tails(head, relation)
            target = _finite(scores.gather(1, tail[:, None]))
            row, other = known.lookup(head, relation)
            scores[row, other] = -torch.inf
            scores.scatter_(1, tail[:, None], target)
            greater = torch.count_nonzero(scores > target, 1).double()
            equal = torch.count_nonzero(scores == target, 1).double()
            standard.append(1 + greater + (equal - 1) / 2)
            own = scores.gather(1, head[:, None])
            removed = ((own >= target) & (head != tail)[:, None]).squeeze(1)
            paper.append(greater + equal - removed.double())
    return torch.cat(standard), torch.cat(paper)


def both_directions(scorer: Scorer, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
    """Mean of the scores of triples (B,), (B,), (B,) and of their inverses, (B,)."""
    inverse = relation + scorer.num_relations
    blocks = zip(*(x.split(PAIRS) for x in (head, relation, inverse, tail)), strict=True)
    with torch.no_grad():
        return torch.cat([(scorer.score(h, r, t) + scorer.score(t, i, h)) / 2 for h, r, i, t in blocks])


def rank_relations(scorer: Scorer, triples: Tensor, data: KnowledgeGraph) -> Tensor:
    """Rank the relation of each triple (N, 3) among all relations, others known to hold between the two left out.

    The score is that of :func:`both_directions`; ties count half. Returns float64 ranks (N,).
    """
    count = scorer.num_relations
    known = data.known_relations.to(triples.device)
    every = torch.arange(count, device=triples.device)
    ranks = []
    for block in triples.split(max(1, PAIRS // count)):
        head, relation, tail = block.unbind(1)
        wide = head.repeat_interleave(count), every.repeat(len(head)), tail.repeat_interleave(count)
        scores = both_directions(scorer, *wide).view(-1, count)
        target = _finite(scores.gather(1, relation[:, None]))
        row, other = known.lookup(head, tail)
        scores[row, other] = -torch.inf
        scores.scatter_(1, relation[:, None], target)
        greater = torch.count_nonzero(scores > target, 1).double()
        equal = torch.count_nonzero(scores == target, 1).double()
        ranks.append(1 + greater + (equal - 1) / 2)
    return torch.cat(ranks)


def ranking_metrics(ranks: Tensor, prefix: str = "") -> dict[str, float]:
    """Mean reciprocal rank and hits@1, 3, 10 of float64 ranks (N,)."""
    metrics = {"mrr": float(ranks.reciprocal().mean())}
    for n in (1, 3, 10):
        metrics[f"hits@{n}"] = float((ranks <= n).double().mean())
    return {prefix + key: value for key, value in metrics.items()}
