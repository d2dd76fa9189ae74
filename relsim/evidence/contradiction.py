"""Contradiction evidence: whether two relations say the same where they speak of the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Counts, Float, dot
from relsim.maths.intervals import wilson
from relsim.maths.rows import row_sums

__all__ = ["VERDICTS", "Contradiction", "Coverage", "Side", "contradiction", "disjoint_by_construction"]

VERDICTS = ("contradicted", "agrees", "not enough evidence", "off")
# A rate counts as clearly lower when the end of its interval stays below this share of the yardstick: of 487 pairs of
# independent samples of one WD50K relation with enough shared arguments, none is vetoed at .7.
_CLEARLY = 0.7
# Fewer comparisons say nothing; a yardstick below this could be met by anything.
_LEAST_POSSIBLE, _LEAST_YARDSTICK = 5, 0.4
_GRID = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_LARGEST = 64
_CHUNK = 1 << 15
_LEAST_EXPECTED, _LEAST_PAIRS, _ALMOST_NOTHING = 3.0, 10, 0.01


class Coverage:
    """What independent samples of one relation would look like on one argument, for every relation.

    With ``a_h`` other arguments of argument h, two samples that keep every fact with probability c agree on shared
    arguments at the rate ``sum_h a_h c^2 / sum_h E min(A_h, B_h)``, A and B binomial(a_h, c); and a sample has the share
    ``mean_h 1 - (1 - c)^a_h`` of the arguments. Both are tabulated over c; c is then read from the share seen.

    Parameters
    ----------
    arguments
        Sparse ``(R, E)``: how many other arguments each relation has with each argument.
    """

    def __init__(self, arguments: Any) -> None:
        from scipy import sparse, stats

        self.matrix = sparse.csr_matrix(arguments)
        size = self.matrix.shape[0]
        self.distinct = np.diff(self.matrix.indptr).astype(np.float64)
        row = np.repeat(np.arange(size), np.diff(self.matrix.indptr))
        sums = np.bincount(row, weights=self.matrix.data, minlength=size)
        # Mean number of other arguments, at least 1 where there is any.
        self.mean = np.divide(sums, self.distinct, out=np.ones(size), where=self.distinct > 0)
        many = np.minimum(self.matrix.data.astype(np.int64), _LARGEST)
        value, place = np.unique(many, return_inverse=True)
        self.rate = np.ones((size, len(_GRID)))
        self.share = np.zeros((size, len(_GRID)))
        for g, c in enumerate(_GRID):
            smaller = np.array([np.square(stats.binom.sf(np.arange(k), k, c)).sum() for k in value.tolist()])
            both = np.bincount(row, weights=(value * c * c)[place], minlength=size)
            least = np.bincount(row, weights=smaller[place], minlength=size)
            self.rate[:, g] = np.divide(both, least, out=np.ones(size), where=least > 0)
            seen = np.bincount(row, weights=(1.0 - (1.0 - c) ** value)[place], minlength=size)
            self.share[:, g] = np.divide(seen, self.distinct, out=np.zeros(size), where=self.distinct > 0)

    def halves(self, ids: NDArray[np.int64], share: Float) -> Float:
        """Rate at which two samples of relation ids ``(P,)`` agree, at the coverage that has this share ``(P,)``."""
        table = self.share[ids]
        upper = np.clip((table < share[:, None]).sum(axis=1), 1, len(_GRID) - 1)
        rows = np.arange(len(ids))
        x0, x1 = table[rows, upper - 1], table[rows, upper]
        part = np.clip(np.divide(share - x0, x1 - x0, out=np.ones_like(share), where=x1 > x0), 0.0, 1.0)
        rate = self.rate[ids]
        return np.asarray(rate[rows, upper - 1] * (1.0 - part) + rate[rows, upper] * part)

    def least(self, ids: NDArray[np.int64], share: Float) -> Float:
        """Least rate that samples of the relation behind ids ``(P,)`` can reach, however small a part was seen.

        What was seen of a relation may itself be a sample. If an argument truly has K others and a share q of the
        arguments was met again, a mean m of others a argument needs ``(K - 1) / K <= 2 (m - 1) / q``, so that one in K,
        ``1 - 2 (m - 1) / q``, is what chance alone brings. 0 for a relation with many values.
        """
        floor = 1.0 - 2.0 * np.divide(self.mean[ids] - 1.0, share, out=np.ones_like(share), where=share > 0)
        return np.asarray(np.minimum(np.maximum(floor, 0.0), self.halves(ids, share)))


@dataclass(frozen=True)
class Side:
    """Evidence from one argument for pairs ``(P,)``.

    Parameters
    ----------
    shared
        Arguments that both relations have.
    possible, agreed
        ``sum over shared arguments min(number of others)``, and how many others are the same.
    rate, low, high
        ``agreed / possible`` (NaN without any) and its 95 % Wilson interval.
    halves
        Rate that two independent samples of one of the relations reach at the same coverage, the larger one of the two.
    yardstick
        What a synonym must reach at the least: the same, had only a part of the relation been seen. 0: not known.
    """

    shared: Float
    possible: Float
    agreed: Float
    rate: Float
    low: Float
    high: Float
    halves: Float
    yardstick: Float

    @property
    def decidable(self) -> NDArray[np.bool_]:
        """Whether there are enough shared arguments, and a yardstick to hold them against."""
        return (self.possible >= _LEAST_POSSIBLE) & (self.yardstick >= _LEAST_YARDSTICK)

    @property
    def deficit(self) -> Float:
        """``log((agreed + 1) / (halves * possible + 1))``, at most 0: agreement above the yardstick proves nothing."""
        return np.minimum(np.log((self.agreed + 1.0) / (self.halves * self.possible + 1.0)), 0.0)


@dataclass(frozen=True)
class Contradiction:
    """Evidence from the first and from the second argument for pairs ``(P,)``, or that it is off."""

    head: Side
    tail: Side
    off: bool

    @property
    def verdict(self) -> NDArray[Any]:
        """One of ``VERDICTS`` a pair; one side that contradicts is enough."""
        vetoed, decided = (np.zeros(len(self.head.possible), dtype=np.bool_) for _ in range(2))
        for side in (self.head, self.tail):
            vetoed |= side.decidable & (side.high < _CLEARLY * side.yardstick)
            decided |= side.decidable
        words = np.select([vetoed, decided], [VERDICTS[0], VERDICTS[1]], VERDICTS[2]).astype(object)
        return np.full(len(words), VERDICTS[3], dtype=object) if self.off else words

    @property
    def expected(self) -> Float:
        """Common facts that two samples of one relation would have at this coverage, ``(P,)``: the larger side's."""
        return np.asarray(np.maximum(*(side.halves * side.possible for side in (self.head, self.tail))))

    def take(self, rows: NDArray[np.int64]) -> Contradiction:
        """Keep some pairs."""
        names = Side.__dataclass_fields__
        sides = [Side(*(getattr(side, name)[rows] for name in names)) for side in (self.head, self.tail)]
        return Contradiction(sides[0], sides[1], self.off)

    @property
    def telling(self) -> Side:
        """The side that can say more of each pair: with the higher yardstick, then with more comparisons."""
        head, tail = self.head, self.tail
        first = (head.yardstick > tail.yardstick) | (
            (head.yardstick == tail.yardstick) & (head.possible >= tail.possible)
        )
        names = Side.__dataclass_fields__
        return Side(*(np.where(first, getattr(head, name), getattr(tail, name)) for name in names))


def contradiction(
    counts: Counts, at: tuple[NDArray[np.int64], NDArray[np.int64]], *, swapped: bool = False, off: bool = False
) -> Contradiction:
    """Compare what two relations say of the arguments that both have.

    Parameters
    ----------
    counts
        The counts; only which facts exist is used.
    at
        Relation ids i and j, ``(P,)`` each.
    swapped
        Exchange head and tail of j first.
    off
        The relations were made disjoint, so that agreement is zero by construction: no verdict.
    """
    i, j = at
    coverage = counts.coverage
    agreed = dot(counts.pair, counts.pair_swapped if swapped else counts.pair, at)
    sides = []
    for mine, other in (("head", "tail" if swapped else "head"), ("tail", "head" if swapped else "tail")):
        sides.append(_side(coverage[mine], coverage[other], i, j, agreed))
    return Contradiction(sides[0], sides[1], off)


def _side(one: Coverage, two: Coverage, i: NDArray[np.int64], j: NDArray[np.int64], agreed: Float) -> Side:
    shared, possible = np.zeros(len(i)), np.zeros(len(i))
    for start in range(0, len(i), _CHUNK):
        part = slice(start, start + _CHUNK)
        less = one.matrix[i[part]].minimum(two.matrix[j[part]]).tocsr()
        shared[part] = np.diff(less.indptr)
        possible[part] = row_sums(less)
    q_j = np.divide(shared, one.distinct[i], out=np.zeros_like(shared), where=one.distinct[i] > 0)
    q_i = np.divide(shared, two.distinct[j], out=np.zeros_like(shared), where=two.distinct[j] > 0)
    rate = np.divide(agreed, possible, out=np.full_like(shared, np.nan), where=possible > 0)
    low, high = wilson(agreed, possible)
    # A phrase that means the same as a functional one is functional: the stricter of the two yardsticks holds.
    halves = np.maximum(one.halves(i, q_j), two.halves(j, q_i))
    least = np.maximum(one.least(i, q_j), two.least(j, q_i))
    return Side(shared, possible, agreed, rate, low, high, halves, least)


def disjoint_by_construction(nearest: Contradiction) -> bool:
    """Whether the relations look as if one had been cut into parts: near ones share arguments but never a fact.

    True when at least ten of the pairs should agree three times or more each, and all of them together agree on less
    than one in a hundred of what two samples of one relation would.

    Parameters
    ----------
    nearest
        Evidence on each relation's most similar partner.
    """
    expected = nearest.expected
    told = expected >= _LEAST_EXPECTED
    return bool(told.sum() >= _LEAST_PAIRS and nearest.head.agreed[told].sum() < _ALMOST_NOTHING * expected[told].sum())
