"""Mean rank and mean average precision of the ancestors of each node among all nodes, by distance."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.data.hierarchy import Hierarchy
from tasks.errors import RunError

from .models import Table

__all__ = ["rank_ancestors", "reconstruction"]

BLOCK = 16_000_000  # distances held at once


def rank_ancestors(distances: NDArray[np.float64], node: int, ancestors: NDArray[np.int64]) -> tuple[Tensor, float]:
    """Rank each ancestor of a node among all that are not.

    Parameters
    ----------
    distances : shape (n,), of every node to it; any increasing function of them will do
    node : its number; it is no candidate
    ancestors : shape (a,)

    Returns
    -------
    ranks : float64 Tensor, shape (a,), sorted: ``1 + #nearer + #equal / 2`` over non-ancestors
    precision : average precision of "is an ancestor" under the order by distance; equal distances are one step of the curve
    """
    own = np.sort(distances[ancestors])
    candidates = distances <= own[-1]
    candidates[ancestors] = False
    candidates[node] = False
    others = np.sort(distances[candidates])
    nearer, within = np.searchsorted(others, own), np.searchsorted(others, own, side="right")
    hits = np.searchsorted(own, own, side="right")
    return torch.from_numpy(1 + (nearer + within) / 2), float((hits / (hits + within)).mean())


@torch.no_grad()
def reconstruction(table: Table, data: Hierarchy, nodes: Tensor) -> dict[str, float]:
    """Reconstruct the ancestors of nodes (B,) from distances to all nodes, in float64.

    Returns
    -------
    dict
        ``map``: mean over nodes of the average precision; ``mean_rank``: mean over edges of the rank, from 1.

    Raises
    ------
    RunError : distances that are not finite.

    References
    ----------
    Nickel and Kiela, NeurIPS 2017, section 4.1.
    """
    query, key = table.every()
    precisions, total, count = 0.0, 0.0, 0
    for block in nodes.split(max(1, BLOCK // data.num_nodes)):
        q = (query[block.to(query.device)] @ key.T).cpu().numpy()
        if not np.isfinite(q).all():
            raise RunError("the model gives distances that are not finite; no rank can be told")
        for row, node in zip(q, block.tolist(), strict=True):
            ancestors = data.edges[data.starts[node] : data.starts[node + 1], 1].numpy()
            ranks, precision = rank_ancestors(row, node, ancestors)
            total, count, precisions = total + float(ranks.sum()), count + len(ranks), precisions + precision
    return {"map": precisions / len(nodes), "mean_rank": total / count}
