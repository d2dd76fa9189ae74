"""Filtered ranking metrics: blocked matrix products, never a loop over candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.data.kg import KnowledgeGraph, KnownTails
from tasks.errors import RunError

from .scorers import Scorer

__all__ = ["both_directions", "rank", "rank_relations", "ranking_metrics"]

BLOCK = 1_500_000  # scores held at once: they stay in the cache of a CPU
LARGE = 64_000_000  # the same on an accelerator
PAIRS = 200_000  # triples scored at once


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
    rows = max(1, (BLOCK if queries.device.type == "cpu" else LARGE) // scorer.num_entities)
    standard, paper = [], []
    with torch.no_grad():
        columns = scorer.columns()
        for block in queries.split(rows):
            head, relation, tail = block.unbind(1)
            scores = scorer.score_columns(head, relation, columns)
            row, other = known.lookup(head, relation)
            greater, equal, target = _counts(scores, tail, row, other)
            standard.append(1 + greater + (equal - 1) / 2)
            own = scores.gather(1, head[:, None])
            removed = ((own >= target) & (head != tail)[:, None]).squeeze(1)
            paper.append(greater + equal - removed.double())
    return torch.cat(standard), torch.cat(paper)


def _counts(scores: Tensor, true: Tensor, row: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many scores (B, E) are greater than, and equal to, those of the true columns (B,); and the latter, (B, 1).

    Scores of the other known answers, at (row, other), are set to minus infinity.
    """
    target = scores.gather(1, true[:, None])
    # A NaN is neither greater nor equal: it would rank first, and where others have one they would rank last.
    if not bool(torch.isfinite(target).all()) or bool(scores.sum(1).isnan().any()):
        raise RunError("the model gives scores that are not finite; no rank can be told")
    scores[row, other] = -torch.inf
    scores.scatter_(1, true[:, None], target)
    flags = torch.empty_like(scores, dtype=torch.float32)  # sums of floats are several times faster than of bools
    greater = torch.gt(scores, target, out=flags).sum(1).double()
    return greater, torch.eq(scores, target, out=flags).sum(1).double(), target


def both_directions(scorer: Scorer, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
    """Mean of the scores of triples (B,), (B,), (B,) and of their inverses, (B,)."""
    inverse = relation + scorer.num_relations
    blocks = zip(*(x.split(PAIRS) for x in (head, relation, inverse, tail)), strict=True)
    with torch.no_grad():
        return torch.cat([(scorer.score(h, r, t) + scorer.score(t, i, h)) / 2 for h, r, i, t in blocks])


def rank_relations(scorer: Scorer, triples: Tensor, data: KnowledgeGraph) -> Tensor:
    """Rank the relation of each triple (N, 3) among all relations, others known to hold between the two left out.

    The score is that of :func:`both_directions`, without the biases, which all relations share; ties count half. Returns
    float64 ranks (N,).
    """
    count = scorer.num_relations
    known = data.known_relations.to(triples.device)
    ranks = []
    for block in triples.split(max(1, BLOCK // count)):
        head, relation, tail = block.unbind(1)
        scores = _relation_scores(scorer, head, tail)
        greater, equal, _ = _counts(scores, relation, *known.lookup(head, tail))
        ranks.append(1 + greater + (equal - 1) / 2)
    return torch.cat(ranks)


@torch.no_grad()
def _relation_scores(scorer: Scorer, head: Tensor, tail: Tensor) -> Tensor:
    """Scores (B, R) of pairs under each relation and its inverse together, relation by relation."""
    heads, tails = scorer.embed(head), scorer.embed(tail)
    head_keys, tail_keys = scorer.keys(heads), scorer.keys(tails)
    columns = []
    for r in range(scorer.num_relations):
        forward, back = torch.full_like(head, r), torch.full_like(head, r + scorer.num_relations)
        product = (scorer.query(heads, forward) * tail_keys).sum(-1)
        columns.append(product + (scorer.query(tails, back) * head_keys).sum(-1))
    return torch.stack(columns, 1)


def ranking_metrics(ranks: Tensor, prefix: str = "") -> dict[str, float]:
    """Mean reciprocal rank and hits@1, 3, 10 of float64 ranks (N,)."""
    metrics = {"mrr": float(ranks.reciprocal().mean())}
    for n in (1, 3, 10):
        metrics[f"hits@{n}"] = float((ranks <= n).double().mean())
    return {prefix + key: value for key, value in metrics.items()}
