"""Scores of probes: trees and depths that distances predict, beside those of the treebank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import rankdata

from tasks.data.treebank import Sentence

__all__ = ["LENGTHS", "depth_scores", "distance_scores", "spanning_edges", "spearman_rows"]

LENGTHS = range(5, 51)  # words of the sentences whose rank correlations count


def spanning_edges(distances: np.ndarray, words: np.ndarray) -> set[tuple[int, int]]:
    """Edges, smaller place first, of the minimum spanning tree of some words of a sentence (n, n)."""
    if len(words) < 2:
        return set()
    part = distances[np.ix_(words, words)].astype(np.float64)
    tree = minimum_spanning_tree(part - part.min() + 1.0).tocoo()  # scipy takes a 0 for no edge
    pairs = zip(words[tree.row].tolist(), words[tree.col].tolist(), strict=True)
    return {(min(pair), max(pair)) for pair in pairs}


def spearman_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman correlation of each row of two arrays (m, n), with mean ranks on ties; 0 where a row is constant."""
    a, b = (rankdata(x, axis=-1) - (x.shape[-1] + 1) / 2 for x in (first, second))
    norm = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), norm, out=np.zeros_like(norm), where=norm > 0)


def _by_length(values: Iterable[tuple[int, float]]) -> float:
    """Mean over the lengths of the mean over the sentences of a length; 0 where no sentence is of such a length."""
    found: dict[int, list[float]] = defaultdict(list)
    for length, value in values:
        if length in LENGTHS:
            found[length].append(value)
    return float(np.mean([np.mean(some) for some in found.values()])) if found else 0.0


def distance_scores(sentences: Sequence[Sentence], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """``uuas`` and ``dspr`` of predicted distances (n, n) of each sentence.

    ``uuas`` is the share of the treebank's edges without punctuation that the minimum spanning tree of the other words has,
    direction aside, over all edges of all sentences. ``dspr`` is Spearman's correlation between predicted and true distances
    from a word to all words of its sentence, averaged over the words, then over the sentences of each length from 5 to 50,
    then over the lengths.

    References
    ----------
    Hewitt and Manning, NAACL 2019, section 4.1.
    """
    right = total = 0
    correlations = []
    for one, distances in zip(sentences, predicted, strict=True):
        words = np.flatnonzero(~one.punctuation)
        below = words[(one.heads[words] >= 0) & ~one.punctuation[one.heads[words]]]
        gold = {(min(w, h), max(w, h)) for w, h in zip(below.tolist(), one.heads[below].tolist(), strict=True)}
        right += len(gold & spanning_edges(distances, words))
        total += len(gold)
        correlations.append((len(one.words), float(spearman_rows(distances, one.distances).mean())))
    return {"uuas": right / max(total, 1), "dspr": _by_length(correlations)}


def depth_scores(sentences: Sequence[Sentence], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """``root_accuracy`` and ``nspr`` of predicted depths (n,) of each sentence.

    ``root_accuracy`` is the share of sentences of two words or more, punctuation not counted, in which the word of least
    depth is the root; ``nspr`` Spearman's correlation between predicted and true depths of the words of a sentence, averaged
    over the sentences of each length from 5 to 50, then over the lengths.

    References
    ----------
    Hewitt and Manning, NAACL 2019, section 4.2.
    """
    right = total = 0
    correlations = []
    for one, depths in zip(sentences, predicted, strict=True):
        words = np.flatnonzero(~one.punctuation)
        if len(words) > 1:
            right += int(one.heads[words[depths[words].argmin()]] < 0)
            total += 1
        correlations.append((len(one.words), float(spearman_rows(depths[None], one.depths[None])[0])))
    return {"root_accuracy": right / max(total, 1), "nspr": _by_length(correlations)}
