"""Groups of phrases in which every pair is redundant: complete linkage, so that a chain of pairs never merges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relsim.counts import Float

__all__ = ["Cluster", "complete_linkage"]


@dataclass(frozen=True)
class Cluster:
    """Phrases that mean the same.

    Parameters
    ----------
    canonical
        The member mentioned most often, the first in sorted order among equals.
    members
        All phrases, the canonical one first, then by mentions.
    mentions
        Mentions of each member.
    p_redundant
        Probability that each member means the same as the canonical one; 1 for itself.
    weakest
        The smallest probability of any pair in the cluster.
    """

    canonical: str
    members: tuple[str, ...]
    mentions: tuple[float, ...]
    p_redundant: tuple[float, ...]
    weakest: float


def complete_linkage(
    i: NDArray[np.int64], j: NDArray[np.int64], p: Float, *, size: int, threshold: float
) -> list[tuple[list[int], Float]]:
    """Cluster ids 0 to size - 1 so that every pair in a cluster has ``p >= threshold``.

    Parameters
    ----------
    i, j, p
        Known pairs ``(P,)`` and their probabilities; a pair that is not among them counts 0.
    size
        Number of things.
    threshold
        Above 0.

    Returns
    -------
    list
        Clusters of at least two, as their ids in order and the matrix of probabilities among them.
    """
    from scipy import sparse
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    linked = p >= threshold
    i, j, p = i[linked], j[linked], p[linked]
    graph = sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(size, size))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    place = np.empty(size, dtype=np.int64)
    out = []
    for label in np.flatnonzero(np.bincount(component, minlength=1) > 1):
        ids = np.flatnonzero(component == label)
        place[ids] = np.arange(len(ids))
        inside = component[i] == label
        known = np.zeros((len(ids), len(ids)))
        known[place[i[inside]], place[j[inside]]] = p[inside]
        known = np.maximum(known, known.T)
        np.fill_diagonal(known, 1.0)
        # Unknown pairs are put well beyond the cut, so that rounding cannot pull them in.
        distance = np.where(known >= threshold, 1.0 - known, 2.0)
        np.fill_diagonal(distance, 0.0)
        cut = fcluster(linkage(squareform(distance, checks=False), "complete"), 1.0, criterion="distance")
        for number in np.unique(cut):
            members = np.flatnonzero(cut == number)
            if len(members) > 1:
                out.append((ids[members].tolist(), known[np.ix_(members, members)]))
    return out
