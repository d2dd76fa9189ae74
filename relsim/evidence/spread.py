"""How far the divergences of pairs scatter: over resampled mentions, or by the standard errors of a neural similarity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim import baselines
from relsim.evidence.counts import Counts, Float
from relsim.evidence.neural import Neural

__all__ = ["bootstrap", "neural_spread"]

_ROWS = 20_000
_REPLICATES = 20


def bootstrap(
    counts: Counts,
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    swap: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    seed: int,
) -> tuple[Float, Float]:
    """Deviation of both count KLs over resampled mentions, for the first wanted rows; NaN elsewhere.

    Not the error of the KL: that of counts also has a bias, up for few mentions and down by smoothing, as large or larger.

    Parameters
    ----------
    counts
        The counts.
    i, j, swap
        Relation ids and whether the arguments of j are exchanged, ``(P,)``.
    wanted
        Rows to compute; the first 20,000 of them are.
    seed
        Of the resampling.
    """
    out = np.full((2, len(i)), np.nan)
    rows_wanted = np.flatnonzero(wanted)[:_ROWS]
    if not len(rows_wanted):
        return out[0], out[1]
    rng = np.random.default_rng(seed)
    weight = counts.facts.count.double().numpy()
    total, square = np.zeros((2, len(rows_wanted))), np.zeros((2, len(rows_wanted)))
    for _ in range(_REPLICATES):
        # Mentions are resampled independently; the background stays that of the data but for the same noise.
        again = Counts(counts.facts, weight=rng.poisson(weight).astype(np.float64))
        for flag in (False, True):
            rows = np.flatnonzero(swap[rows_wanted] == flag)
            if not len(rows):
                continue
            at = (i[rows_wanted[rows]], j[rows_wanted[rows]])
            for side, reverse in enumerate((False, True)):
                kl = baselines.count_kl(again, at, swapped=flag, reverse=reverse)
                total[side, rows] += kl
                square[side, rows] += kl**2
    variance = (square - total**2 / _REPLICATES) / (_REPLICATES - 1)
    # A variance is not negative but for the rounding of the difference above.
    out[:, rows_wanted] = np.sqrt(np.maximum(variance, 0.0))
    return out[0], out[1]


def neural_spread(
    neural: Neural, i: NDArray[np.int64], j: NDArray[np.int64]
) -> tuple[Float, Float, Float, Float, Float, Float, Float]:
    """For pairs that the neural similarity covers: KL and standard error both ways, effective heads, and an interval.

    Its two ends are those of the larger divergence, as :meth:`relsim.RelationSimilarity.interval` gives them.
    """
    a, b = neural.place[i], neural.place[j]
    similarity = neural.similarity
    kl_ab, kl_ba = neural.kl[a, b], neural.kl[b, a]
    error = similarity.stderr.numpy()
    ess = similarity.ess.numpy()
    low, high = (end.numpy()[a, b] for end in similarity.interval(of="max"))
    return kl_ab, kl_ba, error[a, b], error[b, a], np.minimum(ess[a], ess[b]), low, high
