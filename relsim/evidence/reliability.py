"""How far stated probabilities can be trusted, and which threshold gives a stated precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relsim.evidence.counts import Float
from relsim.maths.intervals import wilson

__all__ = ["Reliability", "Stated", "reliability", "threshold_for"]

_STATED = (0.8, 0.9, 0.95)
_SCORED = 0.2
_BINS = 10


@dataclass(frozen=True)
class Stated:
    """A stated precision, how many pairs it selects, the precision found and its 95 % Wilson interval."""

    precision: float
    pairs: int
    found: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the stated precision lies inside the interval of the one found."""
        return self.low <= self.precision <= self.high


@dataclass(frozen=True)
class Reliability:
    """Quality of probabilities on labelled pairs.

    Parameters
    ----------
    base_rate, pairs
        Share of positive pairs, and number of pairs.
    brier_skill, log_skill
        ``1 - score / score of the base rate``: 0 for stating the base rate, 1 for certainty that is right.
    error
        Mean difference of stated and found share over ten bins of equal size among the ``scored`` pairs with p >= .2.
    stated
        For .8, .9, .95, the pairs above ``threshold_for(p, ., least=0)``; a precision that no pair reaches is missing.
    """

    base_rate: float
    pairs: int
    brier_skill: float
    log_skill: float
    error: float
    scored: int
    stated: tuple[Stated, ...]


def threshold_for(p: Float, precision: float, *, least: float = 0.5) -> float:
    """Smallest threshold above which the probabilities themselves promise a precision.

    The smallest t among p with ``mean(p[p >= t]) >= precision`` and ``t >= least``; 1 when no pair promises it.

    Parameters
    ----------
    p
        Probabilities ``(n,)``.
    precision
        Inside (0, 1).
    least
        No pair below it is called redundant, however sure the others are.

    Raises
    ------
    ValueError
        For a precision outside (0, 1).
    """
    if not 0.0 < precision < 1.0:
        raise ValueError(f"precision is {precision}, expected between 0 and 1, such as 0.9")
    ranked = -np.sort(-np.asarray(p, dtype=np.float64))
    ranked = ranked[ranked >= least]
    # A threshold takes all of equal probability.
    last = np.append(ranked[1:] < ranked[:-1], True) if len(ranked) else np.zeros(0, dtype=np.bool_)
    good = np.flatnonzero((np.cumsum(ranked) >= precision * np.arange(1, len(ranked) + 1)) & last)
    return float(ranked[good[-1]]) if len(good) else 1.0


def reliability(label: Float, p: Float) -> Reliability:
    """Judge probabilities by labels.

    Parameters
    ----------
    label
        0 or 1, ``(n,)``.
    p
        Probabilities, ``(n,)``.

    Raises
    ------
    ValueError
        When all labels are equal: there is no skill to measure.

    References
    ----------
    Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    label, p = np.asarray(label, dtype=np.float64), np.asarray(p, dtype=np.float64)
    base = float(label.mean()) if len(label) else 0.0
    if not 0.0 < base < 1.0:
        raise ValueError("labels are all equal, expected positive and negative pairs")
    safe = np.clip(p, 1e-12, 1.0 - 1e-12)
    loss = -float(np.mean(label * np.log(safe) + (1.0 - label) * np.log1p(-safe)))
    least = -(base * np.log(base) + (1.0 - base) * np.log1p(-base))
    chosen = np.flatnonzero(p >= _SCORED)
    chosen = chosen[np.argsort(p[chosen], kind="stable")]
    bins = [part for part in np.array_split(chosen, _BINS) if len(part)]
    off = sum(len(part) * abs(float(p[part].mean() - label[part].mean())) for part in bins)
    stated = []
    for precision in _STATED:
        taken = p >= threshold_for(p, precision, least=0.0)
        if count := int(taken.sum()):
            hits = float(label[taken].sum())
            low, high = wilson(np.array([hits]), np.array([float(count)]))
            stated.append(Stated(precision, count, hits / count, float(low[0]), float(high[0])))
    return Reliability(
        base_rate=base,
        pairs=len(p),
        brier_skill=1.0 - float(np.mean((p - label) ** 2)) / (base * (1.0 - base)),
        log_skill=1.0 - loss / least,
        error=off / len(chosen) if len(chosen) else 0.0,
        scored=len(chosen),
        stated=tuple(stated),
    )
