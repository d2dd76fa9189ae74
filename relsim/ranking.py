"""The table of ranked pairs: divergences, standard errors, agreement, kind, and the measure that decided."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim import baselines
from relsim.counts import Counts, Float, dot
from relsim.neural import Neural
from relsim.redundant import COLUMNS
from relsim.scoring import Kept
from relsim.tables import PairTable
from relsim.text import negated

__all__ = ["COUNT_MEASURE", "NEURAL_MEASURE", "POLARITY", "RICH_MEASURE", "SWAPPED", "rank_pairs"]

COUNT_MEASURE = "count KL + tokens"
RICH_MEASURE = "count KL"
NEURAL_MEASURE = "neural KL"
SWAPPED = ", arguments swapped"
POLARITY = "polarity"
# A direction is called only when the KL divergences differ by this many nats and by two standard errors.
_MARGIN = 1.0
# Below this many facts, sharing nothing says nothing: two halves of one relation often share no argument.
_FEW = 10
_BOOTSTRAP_ROWS = 20_000
_REPLICATES = 20


def rank_pairs(
    counts: Counts, kept: Kept, neural: Neural | None, *, min_facts: int, threshold: float, seed: int
) -> tuple[PairTable, dict[str, Float]]:
    """Build the rows of the kept pairs, most probable first, and the baselines' scores for each row.

    Parameters
    ----------
    counts, kept
        The counts and the pairs with their probabilities.
    neural
        Neural divergences where they decide.
    min_facts
        Facts from which a phrase belongs to the regime without text.
    threshold
        Probability from which a pair is redundant.
    seed
        Of the resampling behind the standard errors.
    """
    i, j = kept.i, kept.j
    facts = counts.facts
    support = facts.support.numpy()
    by_neural = neural.decides(i, j) if neural is not None else np.zeros(len(i), dtype=np.bool_)
    swap = (kept.swapped >= threshold) & (kept.swapped > kept.straight)
    by_neural &= ~swap
    p = np.where(swap, kept.swapped, kept.straight)
    order = np.lexsort((j, i, -p))
    i, j, p, swap, by_neural = i[order], j[order], p[order], swap[order], by_neural[order]
    kl_ab, kl_ba, shared, agree = (np.zeros(len(i)) for _ in range(4))
    for flag in (False, True):
        rows = np.flatnonzero(swap == flag)
        if not len(rows):
            continue
        at = (i[rows], j[rows])
        kl_ab[rows] = baselines.count_kl(counts, at, swapped=flag)
        kl_ba[rows] = baselines.count_kl(counts, at, swapped=flag, reverse=True)
        agree[rows], _ = baselines.agreement(counts, at, swapped=flag)
        other = counts.pair_swapped if flag else counts.pair
        shared[rows] = dot(counts.pair, other, at)
    effective = counts.total**2 / np.maximum(np.asarray(counts.fact_square), 1e-300)
    ess = np.minimum(effective[i], effective[j])
    stderr_ab, stderr_ba = _bootstrap(counts, i, j, swap, by_neural, seed)
    quantile = np.full(len(i), 1.96)
    if neural is not None:
        rows = np.flatnonzero(by_neural)
        a, b = neural.place[i[rows]], neural.place[j[rows]]
        kl_ab[rows], kl_ba[rows] = neural.kl[a, b], neural.kl[b, a]
        error = neural.similarity.stderr.numpy()
        stderr_ab[rows], stderr_ba[rows] = error[a, b], error[b, a]
        ess[rows] = np.minimum(neural.similarity.ess.numpy()[a], neural.similarity.ess.numpy()[b])
        low, high = (end.numpy() for end in neural.similarity.interval())
        wide = np.where(kl_ab[rows] >= kl_ba[rows], high[a, b] - low[a, b], high[b, a] - low[b, a])
        error_wide = np.where(kl_ab[rows] >= kl_ba[rows], stderr_ab[rows], stderr_ba[rows])
        quantile[rows] = np.divide(wide / 2, error_wide, out=np.zeros_like(wide), where=error_wide > 0)
    worst = np.maximum(kl_ab, kl_ba)
    stderr = np.where(kl_ab >= kl_ba, stderr_ab, stderr_ba)
    gap, noise = kl_ba - kl_ab, 2.0 * np.hypot(stderr_ab, stderr_ba)
    sure = np.abs(gap) > np.maximum(_MARGIN, np.nan_to_num(noise, nan=np.inf))
    tokens = baselines.token_overlap(counts, (i, j))
    common = baselines.argument_jaccard(counts, (i, j)) + np.where(swap, shared, 0.0)
    denied = np.array([negated(phrase) for phrase in facts.relations], dtype=np.bool_)
    opposed = denied[i] != denied[j]
    few = np.minimum(support[i], support[j]) < _FEW
    nothing = few & ~by_neural & ~opposed & (p < threshold) & (common == 0) & (tokens == 0)
    kind = np.select(
        [nothing, p < threshold, swap, sure & (gap > 0), sure],
        ["not enough evidence", "different", "inverse", "narrower", "broader"],
        "equivalent",
    )
    by_count = np.where(np.minimum(support[i], support[j]) >= min_facts, RICH_MEASURE, COUNT_MEASURE).astype(object)
    measure = np.where(by_neural, NEURAL_MEASURE, by_count + np.where(swap, SWAPPED, "").astype(object))
    measure = np.where(opposed, POLARITY, measure)
    names = np.array(facts.relations, dtype=object)
    values: list[NDArray[Any]] = [names[i], names[j], kind, p, np.exp(-worst), kl_ab, kl_ba, stderr]
    # KL is never below 0, and neither is the end of its interval.
    values += [np.maximum(worst - quantile * stderr, 0.0), worst + quantile * stderr, ess]
    values += [support[i], support[j], shared.astype(np.int64), agree, measure]
    scores = {name: _score(measure_of, counts, i, j, swap) for name, measure_of in baselines.MEASURES.items()}
    return PairTable(dict(zip(COLUMNS, values, strict=True))), scores


def _score(measure: Any, counts: Counts, i: NDArray[np.int64], j: NDArray[np.int64], swap: NDArray[np.bool_]) -> Float:
    out = np.zeros(len(i))
    for flag in (False, True):
        rows = np.flatnonzero(swap == flag)
        if len(rows):
            out[rows] = measure(counts, (i[rows], j[rows]), swapped=flag)
    return out


def _bootstrap(
    counts: Counts,
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    swap: NDArray[np.bool_],
    by_neural: NDArray[np.bool_],
    seed: int,
) -> tuple[Float, Float]:
    """Deviation of both count KLs over resampled mentions, for the most probable rows; NaN elsewhere."""
    out = np.full((2, len(i)), np.nan)
    wanted = np.flatnonzero(~by_neural)[:_BOOTSTRAP_ROWS]
    if not len(wanted):
        return out[0], out[1]
    rng = np.random.default_rng(seed)
    weight = counts.facts.count.double().numpy()
    total, square = np.zeros((2, len(wanted))), np.zeros((2, len(wanted)))
    for _ in range(_REPLICATES):
        # Mentions are resampled independently; the background stays that of the data but for the same noise.
        again = Counts(counts.facts, weight=rng.poisson(weight).astype(np.float64))
        for flag in (False, True):
            rows = np.flatnonzero(swap[wanted] == flag)
            if not len(rows):
                continue
            at = (i[wanted[rows]], j[wanted[rows]])
            for side, reverse in enumerate((False, True)):
                kl = baselines.count_kl(again, at, swapped=flag, reverse=reverse)
                total[side, rows] += kl
                square[side, rows] += kl**2
    variance = (square - total**2 / _REPLICATES) / (_REPLICATES - 1)
    out[:, wanted] = np.sqrt(np.maximum(variance, 0.0))
    return out[0], out[1]
