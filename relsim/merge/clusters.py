"""Groups of phrases in which every pair is redundant: complete linkage, so that a chain of pairs never merges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Float

__all__ = ["Cluster", "cluster_id", "complete_linkage"]

Link = tuple[int, int]


@dataclass(frozen=True)
class Cluster:
    """Phrases that mean the same.

    Parameters
    ----------
    id
        Made of the canonical phrase alone, so that it stays when members come or go.
    canonical
        The member mentioned most often, the first in sorted order among equals.
    members
        All phrases, the canonical one first, then by mentions.
    mentions
        Mentions of each member.
    p_redundant
        Probability that each member means the same as the canonical one; 1 for itself.
    weakest
        The smallest probability of any pair in the cluster; pairs that a review links count as they were scored.
    facts_before, facts_after
        Distinct facts of the members one by one, and after they are written as one phrase.
    """

    id: str
    canonical: str
    members: tuple[str, ...]
    mentions: tuple[float, ...]
    p_redundant: tuple[float, ...]
    weakest: float
    facts_before: int
    facts_after: int


def cluster_id(canonical: str) -> str:
    """Ten hexadecimal digits of the SHA-256 of the canonical phrase."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def complete_linkage(
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    p: Float,
    *,
    size: int,
    threshold: float,
    must: Sequence[Link] = (),
    cannot: Sequence[Link] = (),
) -> list[tuple[list[int], Float]]:
    """Cluster ids 0 to size - 1 so that every pair in a cluster has ``p >= threshold``, or is linked by ``must``.

    Parameters
    ----------
    i, j, p
        Known pairs ``(P,)`` and their probabilities; a pair that is not among them counts 0.
    size
        Number of things.
    threshold
        Above 0.
    must
        Pairs that stand in one cluster; what they chain together is one thing, whatever its other pairs say.
    cannot
        Pairs that never do.

    Returns
    -------
    list
        Clusters of at least two, as their ids in order and the matrix of probabilities among them.

    Raises
    ------
    ValueError
        When must-links chain two ids together that a cannot-link holds apart; the ids are its second argument.
    """
    from scipy import sparse

    unit = _units(must, size)
    for a, b in cannot:
        if unit[a] == unit[b]:
            raise ValueError("linked and held apart", (a, b))
    value = np.asarray(p, dtype=np.float64)
    linked = value >= threshold
    rows, columns = unit[i[linked]], unit[j[linked]]
    graph = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    label = component[unit]
    # A pair held apart has probability 0, whatever was known of it: the last word counts.
    apart = np.array(list(cannot), dtype=np.int64).reshape(-1, 2)
    first, second = np.concatenate([i, apart[:, 0]]), np.concatenate([j, apart[:, 1]])
    value = np.concatenate([value, np.zeros(len(apart))])
    inside = np.flatnonzero(label[first] == label[second])
    inside = inside[np.argsort(label[first[inside]], kind="stable")]
    start = np.searchsorted(label[first[inside]], np.arange(int(label.max(initial=-1)) + 2))
    place = np.zeros(size, dtype=np.int64)
    out = []
    order = np.argsort(label, kind="stable")
    for ids in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        if len(ids) > 1:
            pairs = inside[start[label[ids[0]]] : start[label[ids[0]] + 1]]
            place[ids] = np.arange(len(ids))
            known = np.eye(len(ids))
            for one, two in ((first, second), (second, first)):
                known[place[one[pairs]], place[two[pairs]]] = value[pairs]
            out += _inside(ids, unit[ids], known, threshold)
    return out


def _units(must: Sequence[Link], size: int) -> NDArray[np.int64]:
    """The smallest id that each id is chained to."""
    from scipy import sparse

    a, b = np.array(list(must), dtype=np.int64).reshape(-1, 2).T
    graph = sparse.csr_matrix((np.ones(len(a)), (a, b)), shape=(size, size))
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return np.asarray(first[label], dtype=np.int64)


def _inside(
    ids: NDArray[np.int64], unit: NDArray[np.int64], p: Float, threshold: float
) -> list[tuple[list[int], Float]]:
    """Cluster ids ``(n,)`` that pairs chain together, given the unit of each and the probabilities among them."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    groups, place = np.unique(unit, return_inverse=True)
    order = np.argsort(place, kind="stable")
    start = np.searchsorted(place[order], np.arange(len(groups)))
    weakest = np.minimum.reduceat(np.minimum.reduceat(p[np.ix_(order, order)], start, axis=0), start, axis=1)
    # Pairs below the threshold are put well beyond the cut, so that rounding cannot pull them in.
    distance = np.where(weakest >= threshold, 1.0 - weakest, 2.0)
    np.fill_diagonal(distance, 0.0)
    cut = np.ones(1, dtype=np.int64)
    if len(groups) > 1:
        cut = fcluster(linkage(squareform(distance, checks=False), "complete"), 1.0, criterion="distance")
    out = []
    for number in np.unique(cut):
        members = np.flatnonzero(cut[place] == number)
        if len(members) > 1:
            out.append((ids[members].tolist(), p[np.ix_(members, members)]))
    return out
