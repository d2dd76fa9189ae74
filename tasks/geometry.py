"""How tree-like and how hierarchical a graph is, and which curvature that speaks for, before any training."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import combinations
from math import comb, log, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from .data.edges import EdgeList
from .report.tables import render

__all__ = ["Delta", "Geometry", "RelationGeometry", "delta_hyperbolicity", "describe", "geometry", "krackhardt"]

Array = NDArray[np.int64]

PLANE = log(1 + sqrt(2))  # delta of the hyperbolic plane of curvature -1, and of every H^n
BALL = 12.2  # diameter up to which the Poincare ball is told apart from its boundary in float32, as the paper has it
_BITS = 1 << 26  # bytes of reachability held at once


@dataclass(frozen=True)
class Delta:
    """Gromov's delta of a metric space by the four-point condition.

    Attributes
    ----------
    worst : largest delta of the quadruples seen; a lower bound of the space's unless `exact`
    mean : mean over quadruples
    diameter : largest distance seen; a lower bound unless `exact`
    quadruples : how many were seen
    points : nodes of the largest component, in which they lie
    exact : whether these were all quadruples
    """

    worst: float
    mean: float
    diameter: float
    quadruples: int
    points: int
    exact: bool

    @property
    def relative(self) -> float:
        """``2 delta / diameter``, from 0 (a tree) to 1."""
        return 2 * self.worst / self.diameter if self.diameter else nan


@dataclass(frozen=True)
class RelationGeometry:
    """One relation's edges: their number, Krackhardt score, and mean and relative delta of the largest component."""

    name: str
    edges: int
    krackhardt: float
    delta: Delta


@dataclass(frozen=True)
class Geometry:
    """What :func:`geometry` found.

    Attributes
    ----------
    krackhardt : of all relations together
    relations : one entry each, most edges first; empty if there is only one
    k : recommended, see :meth:`recommendation`
    """

    name: str
    what: str
    nodes: int
    edges: int
    delta: Delta
    krackhardt: float
    relations: tuple[RelationGeometry, ...]

    @property
    def k(self) -> float:
        r"""Recommended k, ``(relative delta / 0.144)^2`` within [0.1, 10].

        Khrulkov et al. scale the data to the diameter of the ball that float32 can hold, 12.2, and take the curvature at
        which hyperbolic space has the delta of the data: :math:`c = (0.144 / \delta_{rel})^2`, and k = 1 / c. (0.144 is
        2 log(1 + sqrt 2) / 12.2.) It is a rule of thumb with three limits. Delta is a worst case, so one large cycle in a
        tree decides it. In H^n of any k > 0 a longer embedding is the same as a stronger curvature: where the loss may
        choose the length of an edge, k matters little and training undoes a wrong one. And it compares the shape of
        distances only; nothing says that a task gains by it.
        """
        return float(np.clip(self.unbounded_k, 0.1, 10.0))

    @property
    def unbounded_k(self) -> float:
        """The rule without bounds; 0 for a tree, NaN without an edge."""
        return (self.delta.relative / (2 * PLANE / BALL)) ** 2

    def recommendation(self) -> str:
        """Recommended k and the reasoning, a few lines."""
        if not self.delta.diameter:
            return "no recommendation: no two nodes are connected"
        delta, relative = self.delta, self.delta.relative
        lines = [
            f"recommended k: {self.k:.3g}  (curvature {-1 / self.k:.3g})",
            f"  by (relative delta / 0.144)^2 = ({relative:.3g} / 0.144)^2 = {self.unbounded_k:.3g}, kept within [0.1, 10]; "
            "0.144 is that of hyperbolic space of k = 1 at diameter 12.2",
        ]
        if delta.worst == 0:
            seen = "" if delta.exact else " as far as was seen"
            lines.append(
                f"  delta 0{seen}: a tree, or cliques hung on one. Every k > 0 fits where edges may be long enough"
            )
        elif self.unbounded_k >= 10:
            lines.append("  hardly tree-like: compare with the Euclidean twin before expecting anything of curvature")
        lines.append(
            f"  where edges are to have length 1: k = (delta / 0.881)^2 = {(delta.worst / PLANE) ** 2:.3g}, "
            "at which hyperbolic space has this very delta"
        )
        lines.append(
            "  a rule of thumb: where a loss is free to choose the length of edges, another k is undone by training"
        )
        return "\n".join(lines)


def _quadruple_deltas(d: NDArray[np.float64], quadruples: Array) -> NDArray[np.float64]:
    x, y, z, w = quadruples.T
    sums = np.stack([d[x, y] + d[z, w], d[x, z] + d[y, w], d[x, w] + d[y, z]])
    sums.sort(axis=0)
    return np.asarray((sums[2] - sums[1]) / 2)


def delta_hyperbolicity(
    edges: Array, size: int, *, quadruples: int = 100_000, sources: int = 300, seed: int = 0
) -> Delta:
    r"""Gromov's delta of the undirected graph's largest component, with the number of edges on a path as the distance.

    Of the three sums of opposite distances of four points, :math:`\delta = (S_1 - S_2) / 2` for the two largest: 0 for
    every quadruple of a tree.

    Parameters
    ----------
    edges : shape (E, 2); direction, loops and repetitions do not matter
    size : number of nodes
    quadruples : seen; all of them if there are no more
    sources : nodes among which quadruples are drawn, from each of which a search over the whole component is made
    seed : of the draw

    References
    ----------
    Gromov, "Hyperbolic groups", 1987; Adcock, Sullivan and Mahoney, "Tree-like structure in large social and information
    networks", ICDM 2013.
    """
    edges = edges[edges[:, 0] != edges[:, 1]]
    if not len(edges):
        return Delta(0.0, 0.0, 0.0, 0, min(size, 1), exact=True)
    graph = sparse.csr_matrix((np.ones(len(edges)), edges.T), shape=(size, size))
    label = csgraph.connected_components(graph, directed=False)[1]
    inside = np.flatnonzero(label == np.bincount(label).argmax())
    graph = graph[inside][:, inside]
    graph = ((graph + graph.T) > 0).astype(float)
    points = len(inside)
    rng = np.random.default_rng(seed)
    whole = points <= sources
    chosen = np.arange(points) if whole else np.sort(rng.choice(points, sources, replace=False))
    rows = csgraph.shortest_path(graph, unweighted=True, indices=chosen)
    distance = rows[:, chosen]
    diameter = float(rows.max())
    if not whole:  # the farthest node from anywhere is near an end of a longest path
        ends = np.unravel_index(rows.argmax(), rows.shape)[1]
        diameter = max(diameter, float(csgraph.shortest_path(graph, unweighted=True, indices=[ends]).max()))
    n = len(chosen)
    if n < 4:
        return Delta(0.0, 0.0, diameter, 0, points, exact=True)
    exact = whole and comb(n, 4) <= quadruples
    if exact:
        drawn = np.array(list(combinations(range(n), 4)))
    else:
        drawn = rng.integers(n, size=(quadruples, 4))
        ordered = np.sort(drawn, axis=1)
        drawn = drawn[(ordered[:, 1:] != ordered[:, :-1]).all(axis=1)]
        if not len(drawn):  # few were asked for, and each drew a node twice
            drawn = rng.choice(n, size=(1, 4), replace=False)
    deltas = _quadruple_deltas(distance, drawn)
    return Delta(float(deltas.max()), float(deltas.mean()), diameter, len(drawn), points, exact=exact)


def krackhardt(edges: Array, size: int) -> float:
    r"""Krackhardt's hierarchy score: share of the ordered pairs joined by a directed path that no path leads back.

    :math:`\sum_{i \ne j} R_{ij}(1 - R_{ji}) / \sum_{i \ne j} R_{ij}`, R the reachability matrix; exact. 1 for a graph
    without directed cycles, 0 for a symmetric one, NaN without edges. (Some tables count single edges instead of paths.)

    References
    ----------
    Krackhardt, "Graph theoretical dimensions of informal organizations", 1994.
    """
    edges = edges[edges[:, 0] != edges[:, 1]]
    if not len(edges):
        return nan
    used, flat = np.unique(edges, return_inverse=True)
    edges = flat.reshape(-1, 2)
    size = len(used)
    graph = sparse.csr_matrix((np.ones(len(edges)), edges.T), shape=(size, size))
    count, label = csgraph.connected_components(graph, connection="strong")
    sizes = np.bincount(label, minlength=count).astype(np.int64)
    across = np.unique(label[edges], axis=0)
    across = across[across[:, 0] != across[:, 1]]
    reachable = int((sizes * _reach(across, label, count)).sum()) - size
    mutual = int((sizes * (sizes - 1)).sum())
    return (reachable - mutual) / reachable


def _reach(across: Array, label: Array, count: int) -> Array:
    """Count the nodes reachable from each strong component, its own included, over edges between components (no cycle)."""
    cuts = np.flatnonzero(np.diff(across[:, 0], prepend=-1)) if len(across) else np.empty(0, int)
    successors = {int(part[0, 0]): part[:, 1] for part in np.split(across, cuts[1:])} if len(across) else {}
    order = list(TopologicalSorter({c: successors.get(c, ()) for c in range(count)}).static_order())
    total = np.zeros(count, dtype=np.int64)
    width = max(64, _BITS // count * 8 // 64 * 64)  # nodes of a round, as bits
    for start in range(0, len(label), width):
        nodes = np.arange(start, min(start + width, len(label)))
        bits = np.zeros((count, -(-len(nodes) // 64)), dtype=np.uint64)
        place = nodes - start
        np.bitwise_or.at(bits, (label[nodes], place // 64), np.uint64(1) << (place % 64).astype(np.uint64))
        for component in order:  # successors come first
            if component in successors:
                bits[component] |= np.bitwise_or.reduce(bits[successors[component]], axis=0)
        total += np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
    return total


def geometry(data: EdgeList, *, quadruples: int = 100_000, sources: int = 300, seed: int = 0) -> Geometry:
    """Measure a graph and each of its relations; see :func:`delta_hyperbolicity` and :func:`krackhardt`."""

    def measure(edges: Array, quadruples: int, sources: int) -> tuple[float, Delta]:
        used, flat = np.unique(edges, return_inverse=True)
        local, size = flat.reshape(-1, 2), len(used)
        delta = delta_hyperbolicity(local, size, quadruples=quadruples, sources=sources, seed=seed)
        return krackhardt(local, size), delta

    relations = []
    if len(data.relations) > 1:
        counts = np.bincount(data.relation, minlength=len(data.relations))
        for number in np.argsort(-counts, kind="stable"):
            score, delta = measure(data.edges[data.relation == number], quadruples // 10, max(4, sources // 3))
            relations.append(RelationGeometry(data.relations[number], int(counts[number]), score, delta))
    score, delta = measure(data.edges, quadruples, sources)
    return Geometry(data.name, data.what, len(data.nodes), len(data.edges), delta, score, tuple(relations))


def describe(result: Geometry) -> str:
    """Text that ``hyrel geometry`` prints."""
    delta = result.delta
    share = "all" if delta.exact else "sampled"
    lines = [
        f"{result.name}: {result.nodes:,} nodes, {result.edges:,} {result.what}; largest component {delta.points:,} nodes",
        f"delta-hyperbolicity: worst {delta.worst:g}, mean {delta.mean:.4f} over {delta.quadruples:,} {share} quadruples; "
        f"diameter {delta.diameter:g}{'' if delta.exact else ' or more'}, relative delta {delta.relative:.3f} (0 is a tree)",
        f"Krackhardt hierarchy score: {result.krackhardt:.3f} (1 has no directed cycle, 0 is symmetric)",
        result.recommendation(),
    ]
    if result.relations:
        columns = ["relation", "edges", "Krackhardt", "worst delta", "mean delta", "relative delta"]
        rows = [
            [r.name, f"{r.edges:,}", f"{r.krackhardt:.3f}", f"{d.worst:g}", f"{d.mean:.4f}", f"{d.relative:.3f}"]
            for r in result.relations
            for d in [r.delta]
        ]
        lines += ["", render(columns, rows, "table").rstrip()]
    return "\n".join(lines)
