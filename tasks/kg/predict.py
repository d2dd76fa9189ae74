"""Answers of a trained scorer of triples, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tasks.data.kg import KnowledgeGraph
from tasks.errors import UsageError
from tasks.rows import known, require_parts

from .ranking import both_directions
from .scorers import Scorer

__all__ = ["ASKED", "predict_triples"]

ASKED = "?"


@torch.no_grad()
def predict_triples(
    task: Any, model: Scorer, data: KnowledgeGraph, rows: Sequence[Sequence[str]], *, top: int
) -> list[dict[str, Any]]:
    """Best heads, relations or tails where one of a triple is ``?``, and the score of whole triples.

    An answer has ``head``, ``relation``, ``tail``, its ``rank`` among all (1 is the best; None of a whole triple), its
    ``score``, and whether it is ``known``: a triple of the data, of any split. Heads are asked as tails of the inverse
    relation, as they were in training, and the score of a relation that is asked is the mean of both directions, as it is
    ranked in evaluation.

    Raises
    ------
    UsageError : a row without three parts or with two ``?``, or a name that the graph does not have.
    """
    require_parts(rows, 3, "head, relation and tail, at most one of them ?")
    if ASKED in data.entities or ASKED in data.relations:
        raise UsageError(
            f"{data.name} has a name {ASKED!r}, which stands for what is asked: score triples by trained.model"
        )
    device = next(model.parameters()).device
    found: list[dict[str, Any]] = []

    def answer(head: int, relation: int, tail: int, score: float, rank: int | None) -> None:
        names = {"head": data.entities[head], "relation": data.relations[relation], "tail": data.entities[tail]}
        found.append({**names, "rank": rank, "score": score, "known": data.holds(head, relation, tail)})

    for number, row in enumerate(rows, 1):
        if row.count(ASKED) > 1:
            raise UsageError(f"row {number}: expected at most one ?, got {' '.join(row)[:80]!r}")
        head, tail = (
            -1 if name == ASKED else known(name, data.entity_ids, number, "entity") for name in (row[0], row[2])
        )
        relation = -1 if row[1] == ASKED else known(row[1], data.relation_ids, number, "relation")
        if relation < 0:
            count = data.num_relations
            first, second = (torch.full((count,), part, device=device) for part in (head, tail))
            scores = both_directions(model, first, torch.arange(count, device=device), second)
        elif head >= 0 and tail >= 0:
            one = [torch.tensor([i], device=device) for i in (head, relation, tail)]
            answer(head, relation, tail, float(model.score(*one)), None)
            continue
        else:
            inverse = head < 0
            asked = torch.tensor([tail if inverse else head], device=device)
            by = torch.tensor([relation + data.num_relations if inverse else relation], device=device)
            scores = model.score_tails(asked, by)[0]
        best = scores.topk(min(top, len(scores)))
        for place, (score, i) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), 1):
            h, r, t = (i if part < 0 else part for part in (head, relation, tail))
            answer(h, r, t, score, place)
    return found
