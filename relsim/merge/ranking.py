"""The table of ranked pairs: probability, kind, divergences with standard errors, agreement, and what decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim import baselines
from relsim.evidence.counts import Counts, Float
from relsim.evidence.guard import CONTRADICTED, POLARITY, VOICE, Guard, Judged
from relsim.evidence.kinds import degeneracy, direction
from relsim.evidence.reliability import threshold_for
from relsim.evidence.scoring import Kept
from relsim.evidence.spread import bootstrap, neural_spread
from relsim.merge.result import COLUMNS
from relsim.merge.review import REVIEWED, Review
from relsim.merge.tables import PairTable

__all__ = ["Ranked", "rank_pairs"]

# A direction is called from divergences only when they differ by this many nats and by two standard errors.
_MARGIN = 1.0
# Below this many facts, sharing nothing says nothing: two halves of one relation often share no argument.
_FEW = 10


@dataclass(frozen=True)
class Ranked:
    """Rows of the kept pairs, most probable first; baselines and details for each row; the threshold used."""

    pairs: PairTable
    baselines: dict[str, Float]
    details: dict[str, NDArray[Any]]
    threshold: float


def rank_pairs(
    counts: Counts,
    kept: Kept,
    guard: Guard,
    *,
    threshold: float,
    precision: float | None = None,
    review: Review | None = None,
    seed: int = 0,
) -> Ranked:
    """Decide the kept pairs, both ways round, and describe each as it was decided.

    Parameters
    ----------
    counts, kept
        The counts and the pairs.
    guard
        Says how probable a pair is and by what evidence.
    threshold
        Probability from which a pair is redundant.
    precision
        Choose the threshold instead so that the probabilities promise this precision.
    review
        Marks of a reader; they recalibrate the probabilities and replace those of the marked pairs.
    seed
        Of resampling.
    """
    facts = counts.facts
    straight, turned = guard.judge((kept.i, kept.j)), guard.judge((kept.i, kept.j), swapped=True)
    p, p_turned = straight.p, turned.p
    if review is not None:
        slope = review.recalibration(facts.relations, kept.i, kept.j, p)
        # Marks move what was estimated; what evidence holds down stays down.
        p = np.where(straight.held | straight.vetoed, np.minimum(slope(p), p), slope(p))
        p_turned = np.where(turned.held | turned.vetoed, np.minimum(slope(p_turned), p_turned), slope(p_turned))
        accepted, rejected = review.rows(facts.relations, kept.i, kept.j)
        p[accepted], p[rejected] = 1.0, 0.0
        # A mark speaks of the phrases as they stand.
        p_turned[accepted | rejected] = 0.0
    if precision is not None:
        threshold = threshold_for(np.maximum(p, p_turned), precision)
    swap = (p_turned >= threshold) & (p_turned > p)
    p = np.where(swap, p_turned, p)
    order = np.lexsort((kept.j, kept.i, -p))
    i, j, p, swap = kept.i[order], kept.j[order], p[order], swap[order]
    decided = np.where(swap, turned.decided_by[order], straight.decided_by[order])
    if review is not None:
        marked = (accepted | rejected)[order]
        decided[marked] = REVIEWED
    # Said of the comparison shown, or of the other one had it been chosen but for that.
    held = np.select(
        [np.where(swap, turned.held[order], straight.held[order]), turned.held[order]],
        ["too few common facts", "as an inverse: too few common facts"],
        "",
    ).astype(object)
    telling = _telling(straight, turned, order, swap)
    by_neural = np.zeros(len(i), dtype=np.bool_)
    if guard.neural is not None:
        by_neural = ~swap & guard.neural.decides(i, j)
    kl_ab, kl_ba, ess = np.zeros(len(i)), np.zeros(len(i)), np.zeros(len(i))
    entropy, lift, flag = np.zeros(len(i)), np.zeros(len(i)), np.zeros(len(i), dtype=np.bool_)
    way = np.zeros(len(i), dtype=np.int64)
    for turn in (False, True):
        rows = np.flatnonzero(swap == turn)
        if not len(rows):
            continue
        at = i[rows], j[rows]
        kl_ab[rows] = baselines.count_kl(counts, at, swapped=turn)
        kl_ba[rows] = baselines.count_kl(counts, at, swapped=turn, reverse=True)
        tails = degeneracy(counts, at, telling["rate"][rows], swapped=turn)
        entropy[rows], lift[rows], flag[rows] = tails.entropy, tails.lift, tails.flag
        way[rows] = direction(counts, at, telling["agreed"][rows], swapped=turn, seed=seed)
    effective = counts.total**2 / np.maximum(np.asarray(counts.fact_square), 1e-300)
    ess = np.minimum(effective[i], effective[j])
    stderr_ab, stderr_ba = bootstrap(counts, i, j, swap, ~by_neural, seed)
    # A KL of counts is biased by more than mentions scatter: no interval around it would hold the relations' divergence.
    ends = np.full((2, len(i)), np.nan)
    if guard.neural is not None:
        rows = np.flatnonzero(by_neural)
        wide = neural_spread(guard.neural, i[rows], j[rows])
        kl_ab[rows], kl_ba[rows], stderr_ab[rows], stderr_ba[rows], ess[rows] = wide[:5]
        ends[:, rows] = wide[5:]
    worst, stderr = np.maximum(kl_ab, kl_ba), np.where(kl_ab >= kl_ba, stderr_ab, stderr_ba)
    gap, noise = kl_ba - kl_ab, 2.0 * np.hypot(stderr_ab, stderr_ba)
    # Count KLs differ between a frequent and a rare synonym too: only neural ones tell a direction.
    sure = by_neural & (np.abs(gap) > np.maximum(_MARGIN, np.nan_to_num(noise, nan=np.inf)))
    # Structure in the facts says more than a difference of divergences, which a rare phrase also has.
    side = np.where(way != 0, way, np.where(sure, np.sign(gap), 0)).astype(np.int64)
    support = facts.support.numpy()
    nothing = (
        (np.minimum(support[i], support[j]) < _FEW)
        & (p < threshold)
        & (baselines.token_overlap(counts, (i, j)) == 0)
        & (baselines.argument_jaccard(counts, (i, j)) + np.where(swap, telling["agreed"], 0.0) == 0)
    )
    fixed = np.array(
        [str(word).startswith((CONTRADICTED, POLARITY, VOICE, REVIEWED)) for word in decided], dtype=np.bool_
    )
    directed = (p >= threshold) & (side != 0) | (way != 0)
    kind = np.select(
        [nothing & ~fixed, fixed & (p < threshold), swap & ((way == 0) | fixed), directed & ~fixed & (side > 0),
         directed & ~fixed & (side < 0), p < threshold],
        ["not enough evidence", "different", "inverse", "narrower", "broader", "different"],
        "equivalent",
    )  # fmt: skip
    names = np.array(facts.relations, dtype=object)
    values: list[NDArray[Any]] = [names[i], names[j], kind, p, np.exp(-worst), kl_ab, kl_ba, stderr]
    # KL is never below 0, and neither is the end of its interval.
    values += [np.maximum(ends[0], 0.0), ends[1], ess]
    values += [support[i], support[j], telling["agreed"].astype(np.int64), telling["rate"], decided]
    details = {
        "contradiction": telling["verdict"], "agreement_low": telling["low"], "agreement_high": telling["high"],
        "agreement_of_halves": telling["halves"], "shared_arguments": telling["shared"],
        "tail_entropy": entropy, "tail_lift": lift, "degenerate": flag, "held": held,
    }  # fmt: skip
    scores = {name: _score(measure, counts, i, j, swap) for name, measure in baselines.MEASURES.items()}
    return Ranked(PairTable(dict(zip(COLUMNS, values, strict=True))), scores, details, threshold)


def _telling(
    straight: Judged, turned: Judged, order: NDArray[np.int64], swap: NDArray[np.bool_]
) -> Mapping[str, NDArray[Any]]:
    """Contradiction evidence of each row, of the comparison and the argument that tells more."""
    one, two = straight.found.telling, turned.found.telling
    out: dict[str, NDArray[Any]] = {
        name: np.where(swap, getattr(two, name)[order], getattr(one, name)[order])
        for name in ("shared", "agreed", "rate", "low", "high", "halves")
    }
    out["verdict"] = np.where(swap, turned.found.verdict[order], straight.found.verdict[order])
    return out


def _score(measure: Any, counts: Counts, i: NDArray[np.int64], j: NDArray[np.int64], swap: NDArray[np.bool_]) -> Float:
    out = np.zeros(len(i))
    for flag in (False, True):
        rows = np.flatnonzero(swap == flag)
        if len(rows):
            out[rows] = measure(counts, (i[rows], j[rows]), swapped=flag)
    return out
