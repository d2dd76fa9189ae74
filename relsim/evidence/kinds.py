"""How a phrase stands to another: narrower or broader, and whether common tails mean anything at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Counts, Float, dot
from relsim.evidence.features import Pairs
from relsim.maths.rows import row_shares, row_sums

__all__ = ["Degeneracy", "degeneracy", "direction"]

# A narrower phrase has most of its facts in the other, which has clearly more.
_CONTAINED, _LARGER, _LEAST_SHARED = 0.5, 1.25, 10
# Evener than chance: 2 deviations (1 in 40). Clumped: 3.5, because the facts of real phrases clump by topic.
_EVEN, _CLUMPED = 2.0, -3.5
_DRAWS, _MOST_PAIRS, _MOST_FACTS = 400, 2000, 20_000
# Tails that agree by chance as often as this say nothing when they agree.
_CHANCE = 0.25


def direction(counts: Counts, at: Pairs, agreed: Float, *, swapped: bool = False, seed: int = 0) -> NDArray[np.int64]:
    """1 where i is narrower than j, -1 where it is broader, 0 where facts do not tell, int64 ``(P,)``.

    A smaller phrase that means the same has a random part of all facts of both. One that means something narrower has a
    part with a structure: one fact for each argument (the capital among the cities of a country), or only some
    arguments. The number of its different heads and of its different tails is held against random parts of equal size.
    A narrower phrase whose facts are a random part looks like a rarer synonym and is not called.

    Parameters
    ----------
    counts
        The counts.
    at
        Relation ids.
    agreed
        Common facts of each pair.
    swapped
        Exchange head and tail of j first.
    seed
        Of the random parts.
    """
    support = counts.facts.support.numpy()
    n_i, n_j = support[at[0]], support[at[1]]
    smaller, larger = np.minimum(n_i, n_j), np.maximum(n_i, n_j)
    worth = (agreed >= np.maximum(_CONTAINED * smaller, _LEAST_SHARED)) & (larger >= _LARGER * smaller)
    worth &= larger <= _MOST_FACTS
    out = np.zeros(len(n_i), dtype=np.int64)
    rows = np.flatnonzero(worth)
    rows = rows[np.argsort(-agreed[rows] / smaller[rows], kind="stable")][:_MOST_PAIRS]
    order = np.argsort(counts.facts.relation.numpy(), kind="stable")
    start = np.concatenate([[0], np.cumsum(support)])
    head, tail = counts.facts.head.numpy()[order], counts.facts.tail.numpy()[order]
    rng = np.random.default_rng(seed)
    for row in rows.tolist():
        i, j = int(at[0][row]), int(at[1][row])
        one = np.stack([head[start[i] : start[i + 1]], tail[start[i] : start[i + 1]]], axis=1)
        two = np.stack([head[start[j] : start[j + 1]], tail[start[j] : start[j + 1]]], axis=1)
        two = two[:, ::-1] if swapped else two
        few = one if len(one) < len(two) else two
        union, place = np.unique(np.concatenate([few, one, two]), axis=0, return_inverse=True)
        mine = np.zeros(len(union), dtype=np.bool_)
        mine[place.reshape(-1)[: len(few)]] = True
        if _structured(union, mine, rng):
            out[row] = 1 if len(one) < len(two) else -1
    return out


def _structured(union: NDArray[np.int64], mine: NDArray[np.bool_], rng: np.random.Generator) -> bool:
    draws = np.argsort(rng.random((_DRAWS, len(union))), axis=1)[:, : int(mine.sum())]
    for side in (0, 1):
        _, ids = np.unique(union[:, side], return_inverse=True)
        drawn = np.sort(ids[draws], axis=1)
        different = 1 + (np.diff(drawn, axis=1) > 0).sum(axis=1)
        spread = float(different.std())
        found = len(np.unique(ids[mine]))
        if spread > 0 and not _CLUMPED < (found - float(different.mean())) / spread < _EVEN:
            return True
    return False


class Degeneracy:
    """Of pairs ``(P,)``: how little the second arguments can tell.

    ``entropy``: the smaller entropy of the tails of both relations, in nats. ``chance``: how often a tail of one is a
    tail of the other by chance, ``sum_t p_i(t) p_j(t)``. ``lift``: the agreement found over that, NaN where either is
    not known. ``flag``: chance is at least 1/4, as with currencies and sexes.
    """

    def __init__(self, entropy: Float, chance: Float, rate: Float) -> None:
        self.entropy, self.chance = entropy, chance
        self.lift = np.divide(rate, chance, out=np.full_like(chance, np.nan), where=chance > 0)
        self.flag = chance >= _CHANCE


def degeneracy(counts: Counts, at: Pairs, rate: Float, *, swapped: bool = False) -> Degeneracy:
    """Entropy of the tails, agreement by chance, and lift over it.

    Parameters
    ----------
    counts
        The counts.
    at
        Relation ids, ``(P,)`` each.
    rate
        Agreement on common heads, ``(P,)``.
    swapped
        The tails of j are its heads.
    """
    shares, entropies = [], []
    for matrix in (counts.tail, counts.head if swapped else counts.tail):
        share = row_shares(matrix)
        surprise = share.copy()
        surprise.data = -share.data * np.log(share.data)
        shares.append(share)
        entropies.append(row_sums(surprise))
    chance = dot(shares[0], shares[1], at)
    return Degeneracy(np.minimum(entropies[0][at[0]], entropies[1][at[1]]), chance, rate)
