"""Which pairs of relations to keep: every pair is scored, block by block, and the best of each phrase stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.calibration import load_calibration
from relsim.evidence.counts import Counts, Float
from relsim.evidence.features import count_features
from relsim.phrases.text import negated

__all__ = ["Kept", "keep_best"]

_BLOCK_CELLS = 1 << 22


@dataclass(frozen=True)
class Kept:
    """Pairs i < j, their screening score straight and with the arguments of j exchanged, and how many were scored."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    straight: Float
    swapped: Float
    examined: int


def keep_best(
    counts: Counts,
    *,
    top: int,
    min_facts: int = 50,
    neural: tuple[NDArray[np.int64], Float] | None = None,
    always: Sequence[tuple[int, int]] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Kept:
    """Score all pairs cheaply and keep, for every phrase, its ``top`` most probable partners of either direction.

    A pair of which one phrase is negated and the other is not has probability 0.

    Memory is a few blocks of about four million cells, whatever the number of relations; time grows with its square.

    Parameters
    ----------
    counts
        The counts.
    top
        Partners to keep a phrase.
    min_facts
        Pairs in which both phrases have as many facts are scored by the calibration for many facts.
    neural
        Relation ids ``(M,)`` and their probabilities ``(M, M)``, which replace the count regime's where known.
    always
        Pairs of relation ids to keep whatever their score.
    progress
        Called with "pairs", phrases done, phrases in all.
    """
    size = counts.facts.num_relations
    height = max(1, _BLOCK_CELLS // max(size, 1))
    place = np.full(size, -1)
    if neural is not None:
        place[neural[0]] = np.arange(len(neural[0]))
    rich = counts.facts.support.numpy() >= min_facts
    denied = np.array([negated(phrase) for phrase in counts.facts.relations], dtype=np.bool_)
    keys: list[NDArray[np.int64]] = []
    found: list[tuple[Float, ...]] = []
    for start in range(0, size, height):
        rows = np.arange(start, min(start + height, size))
        straight, swapped = (_probability(counts, rows, rich, flag) for flag in (False, True))
        if neural is not None:
            inside, known = rows[place[rows] >= 0], neural[0]
            straight[np.ix_(inside - start, known)] = neural[1][place[inside]]
        # What is denied is not what is claimed, however alike the arguments.
        opposed = denied[rows][:, None] != denied
        straight[opposed] = swapped[opposed] = 0.0
        best = np.maximum(straight, swapped)
        best[rows - start, rows] = -1.0
        count = min(top, size - 1)
        partner = np.argpartition(-best, count - 1, axis=1)[:, :count] if count else np.empty((len(rows), 0), np.int64)
        i, j = np.repeat(rows, count), partner.reshape(-1)
        keys.append(np.minimum(i, j) * size + np.maximum(i, j))
        found.append((straight[i - start, j], swapped[i - start, j]))
        if progress is not None:
            progress("pairs", int(rows[-1]) + 1, size)
    if always and keys:
        i, j = np.array(always, dtype=np.int64).T
        keys.append(np.minimum(i, j) * size + np.maximum(i, j))
        features = [count_features(counts, (i, j), swapped=flag) for flag in (False, True)]
        found.append(tuple(load_calibration("screen").probability(values) for values in features))
    if not keys:
        none = np.zeros(0)
        return Kept(none.astype(np.int64), none.astype(np.int64), none, none, 0)
    key, first = np.unique(np.concatenate(keys), return_index=True)
    straight, swapped = (np.concatenate([pair[side] for pair in found])[first] for side in (0, 1))
    return Kept(key // size, key % size, straight, swapped, size * (size - 1) // 2)


def _probability(counts: Counts, rows: NDArray[np.int64], rich: NDArray[np.bool_], swapped: bool) -> Float:
    features = count_features(counts, rows, swapped=swapped)
    few = load_calibration("screen").probability(features)
    if not rich[rows].any():
        return few
    return np.where(rich[rows][:, None] & rich, load_calibration("screen many facts").probability(features), few)
