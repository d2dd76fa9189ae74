"""From measures to a probability: small logistic models whose coefficients are package data with their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from relsim.evidence.counts import Float

__all__ = ["Calibration", "fit_logistic", "load_calibration"]


@dataclass(frozen=True)
class Calibration:
    """``p = 1 / (1 + exp(-(intercept + sum_i weight_i feature_i)))`` for one regime.

    Parameters
    ----------
    features, weights
        Names of the features and the weight of each.
    intercept
        Log-odds at features 0.
    provenance
        What it was fitted on and how well it did on data it had not seen.
    """

    features: tuple[str, ...]
    weights: tuple[float, ...]
    intercept: float
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def probability(self, values: Mapping[str, Float]) -> Float:
        """Probability for arrays of feature values of one shape.

        Raises
        ------
        KeyError
            When a feature of the model is not among ``values``.
        """
        total: Any = self.intercept
        for name, weight in zip(self.features, self.weights, strict=True):
            total = total + weight * values[name]
        # exp of a negative number only: no overflow at either end.
        small = np.exp(-np.abs(total))
        return np.asarray(np.where(total >= 0, 1.0, small) / (1.0 + small))


@cache
def load_calibration(regime: str) -> Calibration:
    """Load the model of a regime, such as "facts" or "neural", from the package.

    Raises
    ------
    ValueError
        For a regime the package has no coefficients for.
    """
    stored = json.loads(files("relsim.evidence").joinpath("calibration.json").read_text("utf-8"))["regimes"]
    if regime not in stored:
        raise ValueError(f"no calibration for regime {regime!r}, expected one of {', '.join(stored)}")
    entry = stored[regime]
    weights = entry["weights"]
    return Calibration(tuple(weights), tuple(weights.values()), entry["intercept"], entry["provenance"])


def fit_logistic(
    features: Mapping[str, Float],
    label: Float,
    *,
    weight: Float | None = None,
    ridge: float = 1.0,
    sign: Mapping[str, int] | None = None,
) -> Calibration:
    """Fit a logistic model by Newton's method, the features standardised inside so that the ridge treats all alike.

    A feature whose weight comes out with the wrong sign is left out, the worst first, and the rest fitted again: a
    divergence that speaks for a merge would be an accident of the sample.

    Parameters
    ----------
    features
        Name to float64 ``(n,)``.
    label
        0 or 1, ``(n,)``.
    weight
        Weight of each case ``(n,)``; 1 when left out.
    ridge
        Penalty ``ridge / 2 * sum(w ** 2)`` on the standardised weights, not on the intercept.
    sign
        Feature to the sign its weight must have, 1 or -1; features that are not named may have either.

    Raises
    ------
    ValueError
        When the labels are all equal.
    """
    if len(set(np.unique(label))) < 2:
        raise ValueError("labels are all equal, expected positive and negative cases")
    names = tuple(features)
    while True:
        model, scaled = _newton({name: features[name] for name in names}, label, weight, ridge)
        wrong = {name: abs(w) for name, w in scaled.items() if w * (sign or {}).get(name, 0) < 0}
        if not wrong:
            return model
        names = tuple(name for name in names if name != max(wrong, key=wrong.__getitem__))


def _newton(
    features: Mapping[str, Float], label: Float, weight: Float | None, ridge: float
) -> tuple[Calibration, dict[str, float]]:
    """The model, and its weights on the standardised features."""
    names = tuple(features)
    if not names:
        raise ValueError("no feature has a weight of the sign it must have")
    raw = np.stack([np.asarray(features[name], dtype=np.float64) for name in names], axis=1)
    mean, scale = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = np.concatenate([np.ones((len(raw), 1)), (raw - mean) / scale], axis=1)
    case = np.ones(len(x)) if weight is None else weight
    penalty = np.diag([0.0] + [ridge] * len(names))
    beta = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-(x @ beta)))
        gradient = x.T @ (case * (label - p)) - penalty @ beta
        hessian = (x * (case * p * (1.0 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        # A full Newton step overshoots from far away; the cap keeps the exponent in range.
        beta += step / max(1.0, float(np.abs(step).max()) / 2.0)
        if np.abs(step).max() < 1e-10:
            break
    weights = beta[1:] / scale
    model = Calibration(names, tuple(weights.tolist()), float(beta[0] - weights @ mean))
    return model, dict(zip(names, beta[1:].tolist(), strict=True))
