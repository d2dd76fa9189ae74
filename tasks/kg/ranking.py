"""Filtered ranking metrics: one blocked matrix product, never a loop over candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.data.kg import KnownTails
from tasks.errors import RunError

from .scorers import Scorer

__all__ = ["rank", "ranking_metrics"]

BLOCK = 8_000_000  # scores held at once


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
            target = scores.gather(1, tail[:, None])
            if not bool(torch.isfinite(target).all()):  # a NaN is neither greater nor equal: it would rank first
                raise RunError("the model gives scores that are not finite; no rank can be told")
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


def ranking_metrics(ranks: Tensor, prefix: str = "") -> dict[str, float]:
    """Mean reciprocal rank and hits@1, 3, 10 of float64 ranks (N,)."""
    metrics = {"mrr": float(ranks.reciprocal().mean())}
    for n in (1, 3, 10):
        metrics[f"hits@{n}"] = float((ranks <= n).double().mean())
    return {prefix + key: value for key, value in metrics.items()}
