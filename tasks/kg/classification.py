"""Triple classification: true triples told from hard negatives by a threshold of the score for each relation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from tasks.data.kg import KnowledgeGraph
from tasks.errors import RunError, UsageError

from .ranking import both_directions
from .scorers import Scorer

__all__ = ["best_threshold", "classify", "require_negatives"]

Array = NDArray[np.float64]


def require_negatives(data: KnowledgeGraph) -> None:
    """Refuse a graph without hard negatives."""
    if missing := [f"{split}_negatives.txt" for split in ("valid", "test") if split not in data.negatives]:
        raise UsageError(
            f"{data.name} has no hard negatives to tell triples from: put {' and '.join(missing)} (head TAB relation TAB "
            f"tail) beside its splits, or leave triples out of --evaluate"
        )


def best_threshold(scores: Array, labels: NDArray[np.bool_]) -> float:
    """Score from which on to say true, with the most right answers: midway between two scores, or beyond them all.

    Of equally good ones the lowest.
    """
    order = np.argsort(scores, kind="stable")
    ranked, positive = scores[order], labels[order]
    # Right answers if the first i are called false.
    right = np.concatenate([[0], np.cumsum(~positive)]) + np.concatenate([np.cumsum(positive[::-1])[::-1], [0]])
    cut = np.concatenate([[True], ranked[1:] > ranked[:-1], [True]])
    i = int(np.argmax(np.where(cut, right, -1)))
    if i in (0, len(ranked)):
        return -np.inf if i == 0 else np.inf
    return float((ranked[i - 1] + ranked[i]) / 2)


def _scored(scorer: Scorer, data: KnowledgeGraph, split: str) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
    """Scores, labels and relations of the true and false triples of a split."""
    true: Tensor = getattr(data, split)
    triples = torch.cat([true, data.negatives[split]])
    device = next(scorer.parameters()).device
    scores = both_directions(scorer, *triples.to(device).unbind(1)).double().cpu().numpy()
    if not np.isfinite(scores).all():
        raise RunError("the model gives scores that are not finite; no triple can be classified")
    return scores, np.arange(len(triples)) < len(true), triples[:, 1].numpy()


def classify(scorer: Scorer, data: KnowledgeGraph, split: str) -> dict[str, float]:
    """Accuracy and F1 of thresholds by relation, fitted on validation triples, and the area under the ROC curve.

    The score is that of :func:`tasks.kg.ranking.both_directions`. A relation that validation lacks gets the threshold of all
    triples together. The area is that of the scores themselves, over all relations.
    """
    require_negatives(data)
    scores, labels, relations = _scored(scorer, data, "valid")
    threshold = np.full(data.num_relations, best_threshold(scores, labels))
    for relation in np.unique(relations):
        own = relations == relation
        threshold[relation] = best_threshold(scores[own], labels[own])
    scores, labels, relations = _scored(scorer, data, split)
    said = scores > threshold[relations]
    return {
        "triples_accuracy": float((said == labels).mean()),
        "triples_f1": float(f1_score(labels, said, zero_division=0.0)),
        "triples_roc_auc": float(roc_auc_score(labels, scores)),
    }
