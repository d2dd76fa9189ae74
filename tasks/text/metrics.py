"""Scores of predictions."""

from __future__ import annotations

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from .config import METRICS

__all__ = ["scores"]


def scores(kind: str, label: np.ndarray, output: np.ndarray, classes: int) -> dict[str, float]:
    """Metrics of outputs, all to be maximised.

    ``accuracy``; ``f1`` of the positive class where there are two, macro otherwise; ``mcc``, Matthews correlation; or
    ``pearson`` and ``spearman``. Predictions that are all equal have a correlation of 0.

    Parameters
    ----------
    kind : ``"classification"`` or ``"regression"``
    label : (N,), indices of classes or targets of a regression
    output : float64 (N, C) logits, or (N, 1) predictions of a regression
    """
    if not np.isfinite(output).all():
        return dict.fromkeys(METRICS[kind], float("nan"))  # the runner says so
    if kind == "regression":
        found = output[:, 0]
        if np.ptp(found) == 0 or np.ptp(label) == 0:
            return {"pearson": 0.0, "spearman": 0.0}
        return {
            "pearson": float(pearsonr(found, label).statistic),
            "spearman": float(spearmanr(found, label).statistic),
        }
    found = output.argmax(1)
    average = "binary" if classes == 2 else "macro"
    one = len(np.union1d(label, found)) < 2  # sklearn warns, and gives 0
    return {
        "accuracy": float((found == label).mean()),
        "f1": float(f1_score(label, found, average=average, zero_division=0)),
        "mcc": 0.0 if one else float(matthews_corrcoef(label, found)),
    }
