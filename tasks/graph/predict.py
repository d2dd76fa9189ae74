"""Classes of nodes, and scores of pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tasks.data.graphs import Graph
from tasks.rows import known, require_parts

__all__ = ["predict_nodes"]


@torch.no_grad()
def predict_nodes(
    task: Any, model: Any, data: Graph, rows: Sequence[Sequence[str]], *, top: int
) -> list[dict[str, Any]]:
    """Class of each node, or score of each pair of nodes.

    Node classification: ``node``, its ``label``, and the ``probability`` of that by softmax of the scores. Link prediction:
    ``first`` and ``second`` node, the ``score`` of an edge between them, their negative squared distance, and whether it is
    ``known``, an edge of the data.

    Nodes are called as in ``edges.csv``, by names or by numbers.

    Raises
    ------
    UsageError : a row that is not one node, or not two in link prediction; a node that the graph does not have.
    """
    links = task.config.problem == "lp"
    require_parts(rows, 2 if links else 1, "two nodes with a tab between" if links else "one node")
    names = data.names or [str(i) for i in range(data.nodes)]
    table = {name: i for i, name in enumerate(names)}
    places = torch.tensor([[known(name, table, n, "node") for name in row] for n, row in enumerate(rows, 1)])
    h = model()
    if links:
        edges = {tuple(edge) for edge in data.edges.tolist()}
        scores = model.proximity(h, places.T.to(h.device)).tolist()
        return [
            {"first": row[0], "second": row[1], "score": score, "known": tuple(sorted(pair)) in edges}
            for row, score, pair in zip(rows, scores, places.tolist(), strict=True)
        ]
    probability, label = model.class_scores(h, places[:, 0].to(h.device)).double().softmax(1).max(1)
    return [
        {"node": row[0], "label": i, "probability": p}
        for row, i, p in zip(rows, label.tolist(), probability.tolist(), strict=True)
    ]
