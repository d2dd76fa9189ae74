"""Splits of edges and of labelled nodes: the published ones, and fresh ones in the same proportions.

The published splits of link prediction, Airport and Disease are drawn by numpy's legacy generator with seed 1234, whose
stream numpy keeps fixed. Drawn in the same order from the same sorted lists they are equal pair by pair; the lists are
sorted by source and target here, as those of a canonical sparse matrix are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.data.graphs import Graph
from tasks.errors import UsageError

__all__ = ["PUBLISHED_SEED", "LinkSplit", "published_nodes", "split_links", "split_nodes"]

Array = np.ndarray
PUBLISHED_SEED = 1234
VALID, TEST = 0.05, 0.1
LISTED = 30_000_000  # pairs that are listed and shuffled, as published; above, negatives are drawn

# Share of a class for validation and test; the others train. Planetoid's sets take numbers of nodes instead.
SHARES = {"Airport": (0.15, 0.15), "Disease-LP": (0.1, 0.6), "Disease-NC": (0.1, 0.6)}
OWN_SHARES = (0.15, 0.15)
TRAIN_A_CLASS, VALID_NODES, TEST_NODES = 20, 500, 1000
PLANETOID = ("Cora", "Citeseer", "PubMed")


@dataclass(frozen=True)
class LinkSplit:
    """Pairs of nodes (M, 2), source <= target: training edges, and edges and non-edges of validation and test."""

    train: Array
    valid: Array
    valid_false: Array
    test: Array
    test_false: Array


def split_links(edges: Array, nodes: int, *, seed: int) -> LinkSplit:
    """Draw 5 % of the edges for validation and 10 % for the test, and as many pairs of nodes that are no edge.

    Both lists, sorted, are shuffled by one legacy generator, edges first; validation is the first part, test the second. As
    published, a node beside itself counts as a pair, as an edge where there is a loop and as a non-edge elsewhere.
    """
    draw = np.random.RandomState(seed)
    order = np.arange(len(edges))
    draw.shuffle(order)
    shuffled = edges[order]
    valid, test = int(len(edges) * VALID), int(len(edges) * TEST)
    if not valid:
        raise UsageError(f"{len(edges)} edges are too few to hold {VALID:.0%} of them back for validation")
    wanted = valid + test
    keys = edges[:, 0] * nodes + edges[:, 1]
    if nodes * (nodes + 1) // 2 <= LISTED:
        row, column = np.triu_indices(nodes)
        none = np.flatnonzero(~np.isin(row * nodes + column, keys, assume_unique=True))
        draw.shuffle(none)  # the draws of a shuffle depend on the length alone, not on what is shuffled
        chosen = none[:wanted]
        false = np.stack([row[chosen], column[chosen]], 1)
    else:
        drawn = np.sort(draw.randint(0, nodes, (4 * wanted, 2)), 1)
        drawn = np.unique(drawn, axis=0)
        drawn = drawn[~np.isin(drawn[:, 0] * nodes + drawn[:, 1], keys)]
        draw.shuffle(drawn)
        false = drawn[:wanted]
    if len(false) < wanted:
        raise UsageError(
            f"{wanted} edges are held back and only {len(false)} pairs of nodes that are no edge were found: the graph "
            "is too dense for link prediction by this split"
        )
    return LinkSplit(shuffled[wanted:], shuffled[:valid], false[:valid], shuffled[valid:wanted], false[valid:])


def published_nodes(labels: Array, valid: float, test: float, *, seed: int) -> dict[str, Array]:
    """Published split of labelled nodes of two classes, and what it does to more.

    Nodes whose label is not 0 and nodes whose label is not 1 are shuffled, in this order, and each list is cut at the same
    numbers. With two classes the lists are the classes. With more, a node of label 2 or above is in both, and may serve in
    two parts.
    """
    draw = np.random.RandomState(seed)
    lists = [np.flatnonzero(labels != 0), np.flatnonzero(labels != 1)]
    for part in lists:
        draw.shuffle(part)
    shorter = min(map(len, lists))
    first, second = round(valid * shorter), round(test * shorter)
    return {
        "valid": np.concatenate([part[:first] for part in lists]),
        "test": np.concatenate([part[first : first + second] for part in lists]),
        "train": np.concatenate([part[first + second :] for part in lists]),
    }


def _fresh_nodes(graph: Graph, labels: Array, seed: int) -> dict[str, Array]:
    """Draw each class by itself; no node serves twice."""
    draw = np.random.default_rng(seed)
    by_class = [draw.permutation(np.flatnonzero(labels == c)) for c in range(graph.classes)]
    if graph.name in PLANETOID:
        rest = draw.permutation(np.concatenate([part[TRAIN_A_CLASS:] for part in by_class]))
        return {
            "train": np.concatenate([part[:TRAIN_A_CLASS] for part in by_class]),
            "valid": rest[:VALID_NODES],
            "test": rest[VALID_NODES : VALID_NODES + TEST_NODES],
        }
    parts: dict[str, list[Array]] = {"valid": [], "test": [], "train": []}
    shares = SHARES.get(graph.name, OWN_SHARES)
    for part in by_class:
        first, second = (round(share * len(part)) for share in shares)
        parts["valid"].append(part[:first])
        parts["test"].append(part[first : first + second])
        parts["train"].append(part[first + second :])
    return {split: np.concatenate(chosen) for split, chosen in parts.items()}


def split_nodes(graph: Graph, *, seed: int | None) -> tuple[dict[str, Array], list[str]]:
    """Nodes of the ``train``, ``valid`` and ``test`` split, and what is to be warned of.

    Parameters
    ----------
    seed : of a fresh split in the published proportions, each class by itself; None for the published one, and for a graph
        without one a fresh one with seed 0
    """
    if graph.labels is None:
        raise UsageError(f"{graph.name} has no labels, so its nodes cannot be classified; --problem lp needs none")
    if graph.classes < 1:
        raise UsageError(f"no node of {graph.name} has a label (-1 is none), so its nodes cannot be classified")
    labels, warnings = graph.labels, []
    if seed is not None:
        parts = _fresh_nodes(graph, labels, seed)
    elif graph.parts is not None:
        parts = graph.parts
    elif graph.name in SHARES:
        parts = published_nodes(labels, *SHARES[graph.name], seed=PUBLISHED_SEED)
    else:
        parts = _fresh_nodes(graph, labels, 0)
    known = {split: part[labels[part] >= 0] for split, part in parts.items()}
    for split, part in known.items():
        if not len(part):
            raise UsageError(f"the {split} split of {graph.name} holds no labelled node")
        if lost := len(parts[split]) - len(part):
            warnings.append(f"{lost} nodes of the {split} split of {graph.name} have no label and are left out")
        for other, word in (("train", "training"), ("valid", "validation")):
            if (
                other != split
                and (other, split) != ("valid", "train")
                and (leaked := int(np.isin(part, known[other]).sum()))
            ):
                warnings.append(
                    f"{leaked} of {len(part)} {split} nodes of the split of {graph.name} are {word} nodes too; "
                    f"--split_seed N draws a split without"
                )
    return known, warnings
