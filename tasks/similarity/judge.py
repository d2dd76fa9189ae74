"""How well a score finds the gold pairs of a suite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim.evaluation.suites import Suite

__all__ = ["judge"]


def judge(suite: Suite, score: NDArray[np.float64]) -> dict[str, float]:
    """Average precision and area under the curve over all pairs, recall at 1 and precision at 3 over the queries.

    Parameters
    ----------
    suite : gold pairs of any kind count
    score : (R, R), symmetric, larger means more alike; the diagonal is left out

    Raises
    ------
    ValueError : the score is of another size, not symmetric, or not a number somewhere.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    gold = suite.gold()
    if score.shape != gold.shape or np.isnan(score).any() or not np.array_equal(score, score.T):
        raise ValueError(f"score has shape {score.shape}, expected a symmetric {gold.shape} without NaN")
    i, j = np.triu_indices(len(gold), 1)
    others = score.astype(np.float64, copy=True)
    np.fill_diagonal(others, -np.inf)
    queries = suite.queries
    nearest = np.argsort(-others[queries], axis=1, kind="stable")[:, :3]
    hit = gold[queries[:, None], nearest]
    return {
        "ap": float(average_precision_score(gold[i, j], score[i, j])),
        "auc": float(roc_auc_score(gold[i, j], score[i, j])),
        "r@1": float(hit[:, 0].mean()),
        "p@3": float(hit.mean()),
    }
