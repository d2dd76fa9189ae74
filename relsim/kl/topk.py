"""The nearest relations of each relation, proven: only pairs that bounds cannot rule out are summed, and only so far."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.divergence import evaluating, head_kl, head_prob, tail_kl
from relsim.kl.candidates import Candidates, Screen
from relsim.kl.pool import every_head
from relsim.maths.expfamily import moments

__all__ = ["Neighbours", "nearest"]

_MANY = 0.15  # share of pairs from which enumerating everything is cheaper
_KNOWN = 1 << 27  # cells whose sums are kept at most
_MEANS = 1 << 28  # coordinates of own means that are kept at most
_VAGUE = 0.9  # probability of the heads summed below which a divergence is too vague to rule others out by
_FIRST = 64  # heads in the first block of a pair; each further block doubles what has been summed


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest of R relations by ``max(KL(P_i || P_j), KL(P_j || P_i))``.

    Parameters
    ----------
    ids
        int64 ``(R, k)``, nearest first by the middle of the bounds.
    low, high
        float64 ``(R, k)``: bounds of the larger divergence, in nats, with no chance in them.
    certain
        bool ``(R,)``: whether the set is proven. Without a limit on the effort, False only for ties within rounding.
    pairs
        Unordered pairs that were looked at beyond the shared heads.
    share
        The same as a share of all pairs.
    cells
        (relation, head) cells whose E tails were summed.
    """

    ids: Tensor
    low: Tensor
    high: Tensor
    certain: Tensor
    pairs: int
    share: float
    cells: int


@torch.no_grad()
def nearest(
    dist: FactDistribution,
    k: int,
    *,
    tolerance: float = 0.0,
    heads: int = 64,
    effort: float | None = None,
    seed: int = 0,
) -> Neighbours:
    r"""Find and prove the k nearest relations of every relation, without comparing all pairs in full.

    :class:`relsim.kl.candidates.Screen` gives every pair a lower bound. Pairs that this does not rule out are summed over
    the heads of i in falling order of ``P(h|i)``; the heads still to come add at least 0 and at most
    ``sum P(h|i) (|x_i| + |x_j|) diam(f)``. Both stop as soon as the sets are separated. No ``R x R`` matrix is held
    unless R is small.

    Parameters
    ----------
    dist
        A fitted model.
    k
        Neighbours a relation, from 1 to R - 1.
    tolerance
        Nats by which a relation that is left out may be nearer than one that is listed, at least 0.
    heads
        Heads a relation in the lower bounds of all pairs.
    effort
        Stop once this share of all R x E sums over tails is spent, above 0, whatever is proven by then (``certain``).
        None goes on to the end.
    seed
        Of a draw by which these bounds choose tails; the sets found do not depend on it.

    Raises
    ------
    ValueError
        For k out of range.
    """
    size = dist.num_relations
    if not 1 <= k < size:
        raise ValueError(f"k is {k}, expected 1 to {size - 1}: the model has {size} relations")
    if not tolerance >= 0.0:
        raise ValueError(f"tolerance is {tolerance}, expected nats, at least 0")
    if effort is not None and not effort > 0.0:
        raise ValueError(f"effort is {effort}, expected a share of the sums above 0, such as 0.1, or None")
    with evaluating(dist) as dist:
        search = _Search(dist, Screen(dist, heads, seed=seed), k, tolerance)
        if search.close() > _MANY:
            return _by_enumeration(dist, k, tolerance)
        search.run(math.inf if effort is None else effort * size * dist.num_entities)
        return search.result()


def _by_enumeration(dist: FactDistribution, k: int, tolerance: float) -> Neighbours:
    """All pairs at all heads, which is cheaper where bounds rule little out."""
    prob, head = head_prob(dist), head_kl(dist)
    tail = tail_kl(dist, every_head(prob), head=head, dtype=torch.float32)
    worst = torch.maximum(head + tail.kl, (head + tail.kl).T).fill_diagonal_(torch.inf)
    slack = torch.maximum(tail.kl - tail.lower, (tail.kl - tail.lower).T)
    ids = torch.argsort(worst, dim=1, stable=True)
    low, high = ((worst + sign * slack).gather(1, ids) for sign in (-1.0, 1.0))
    size = len(worst)
    others = low[:, k : size - 1].amin(1) if k < size - 1 else torch.full((size,), torch.inf).double()
    certain = high[:, :k].amax(1) <= others + tolerance
    return Neighbours(ids[:, :k], low[:, :k], high[:, :k], certain, size * (size - 1) // 2, 1.0, prob.numel())


@dataclass(eq=False)
class _Pair:
    """What is known of one unordered pair (a, b); each list has the direction from a to b first."""

    low: float
    high: float
    guess: float
    head: list[float]
    total: list[float]  # sum over the first heads
    mass: list[float]  # probability of these heads
    rest: list[float]  # upper bound of the sum over the others
    used: list[int]  # number of these heads

    def ends(self) -> list[float]:
        return [h + t + r for h, t, r in zip(self.head, self.total, self.rest, strict=True)]

    def bound(self, slack: float) -> None:
        sums = [h + t for h, t in zip(self.head, self.total, strict=True)]
        self.low = max(self.low, max(sums) - slack)
        self.high = min(self.high, max(self.ends()) + slack)
        # The heads summed so far, taken for all.
        self.guess = max(h + t / m for h, t, m in zip(self.head, self.total, self.mass, strict=True) if m > 0.0)
        self.guess = min(max(self.guess, self.low), self.high)


class _Search:
    def __init__(self, dist: FactDistribution, screen: Screen, k: int, tolerance: float) -> None:
        self.dist, self.screen, self.k, self.tolerance = dist, screen, k, tolerance
        self.features, self.radius = screen.features, screen.radius
        self.norms: dict[int, Tensor] = {}
        self.ranked: dict[int, tuple[Tensor, Tensor]] = {}
        # Log-partitions already summed, while they fit: many pairs need the same ones.
        shape = dist.num_relations, dist.num_entities
        self.known = torch.full(shape, torch.nan) if shape[0] * shape[1] <= _KNOWN else None
        self.own: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows: list[Candidates] = screen.candidates(torch.arange(shape[0]), k, None)
        self.pairs: dict[tuple[int, int], _Pair] = {}
        for i, row in enumerate(self.rows):
            self._enter(i, row)
        self.cells, self.largest = screen.cells, screen.largest

    def _enter(self, i: int, row: Candidates) -> None:
        """Make or improve the records of the listed pairs."""
        columns = (value.tolist() for value in (row.ids, row.low, row.guess, row.head))
        for j, low, guess, head in zip(*columns, strict=True):
            key, side = (min(i, j), max(i, j)), int(i > j)
            if key not in self.pairs:
                both = [torch.nan, torch.nan]
                self.pairs[key] = _Pair(
                    0.0, torch.inf, 0.0, both, [0.0, 0.0], [0.0, 0.0], [torch.inf, torch.inf], [0, 0]
                )
            pair = self.pairs[key]
            pair.head[side], pair.low, pair.guess = head, max(pair.low, low), max(pair.guess, guess)

    def close(self) -> float:
        """Share of all pairs that are no farther, by their lower bounds, than the guessed k nearest of one of the two."""
        size = len(self.rows)
        reach = [sorted(known)[self.k - 1][0] for known, _ in map(self._state, range(size))]
        count = sum(pair.low < max(reach[a], reach[b]) for (a, b), pair in self.pairs.items())
        return count / (size * (size - 1) / 2)

    def run(self, limit: float) -> None:
        """Look further at whatever keeps some relation's nearest k from being proven, until ``limit`` cells are summed."""
        unproven = list(range(len(self.rows)))
        while unproven and self.cells < limit:
            wanted: dict[int, set[int]] = defaultdict(set)
            for i in unproven:
                for j in self._critical(i):
                    ends = (min(i, j), max(i, j))
                    side = self._open_side(ends)
                    if side is not None:
                        wanted[ends[side]].add(ends[1 - side])
            for i, others in wanted.items():
                if self.cells >= limit:
                    break
                self._extend(i, sorted(others))
            unproven = [i for i in unproven if self._critical(i)]

    def _state(self, i: int) -> tuple[list[tuple[float, float, float, int]], float]:
        """``(guess, low, high, j)`` of the candidates of i, nearest first, and the least that all others have."""
        known = []
        for j in self.rows[i].ids.tolist():
            pair = self.pairs[min(i, j), max(i, j)]
            known.append((pair.guess, pair.low, pair.high, j))
        return sorted(known), self.rows[i].floor

    def _critical(self, i: int) -> list[int]:
        """The candidates of i that must be looked at further before its nearest k are proven."""
        known, floor = self._state(i)
        members, rivals = known[: self.k], known[self.k :]
        worst, best = max(m[2] for m in members), min([floor, *(r[1] for r in rivals)])
        if worst <= best + self.tolerance:
            return []
        reach = max(m[0] for m in members)
        if reach > floor:  # the list itself is too short
            self.rows[i] = self.screen.candidates(torch.tensor([i]), self.k, 2.0 * reach)[0]
            self._enter(i, self.rows[i])
            return self._critical(i)
        held = [
            m[3]
            for m in members
            if m[2] > best + self.tolerance and self._open_side((min(i, m[3]), max(i, m[3]))) is not None
        ]
        # What the nearest are worth decides which rivals matter: look at them first.
        vague = [j for j in held if max(self.pairs[min(i, j), max(i, j)].mass) < _VAGUE]
        if vague:
            return vague
        close = [r[3] for r in rivals if r[1] + self.tolerance < reach]
        return held + [j for j in close if self._open_side((min(i, j), max(i, j))) is not None]

    def _open_side(self, ends: tuple[int, int]) -> int | None:
        """The direction whose next heads can move the bounds of a pair: the one with the larger upper end, if any."""
        pair = self.pairs[ends]
        for side in (0, 1):
            if pair.head[side] != pair.head[side]:  # listed from the other end only
                one, two = torch.tensor([ends[side]]), ends[1 - side]
                pair.head[side] = float(self.screen.head_kl(one)[0, two])
        upper = pair.ends()
        side = int(upper[1] > upper[0] or (upper[1] == upper[0] and pair.head[1] > pair.head[0]))
        return side if pair.used[side] < self.dist.num_entities else None

    def _extend(self, i: int, others: list[int]) -> None:
        """Sum the next heads of i, for the given other relations."""
        prob, order = self._ranked(i)
        groups: dict[int, list[int]] = defaultdict(list)
        for j in others:
            groups[self.pairs[min(i, j), max(i, j)].used[int(i > j)]].append(j)
        for used, group in groups.items():
            heads = order[used : max(_FIRST, 2 * used)]
            total = self._sum(i, group, used, heads, prob[heads])
            left = torch.ones(len(prob), dtype=torch.bool).index_fill_(0, order[: used + len(heads)], False)
            for j, value in zip(group, total, strict=True):
                pair, side = self.pairs[min(i, j), max(i, j)], int(i > j)
                pair.total[side] += value
                pair.used[side] += len(heads)
                pair.mass[side] += float(prob[heads].sum())
                pair.rest[side] = float(prob[left] @ (self._norm(i) + self._norm(j))[left]) * 2.0 * self.radius
                pair.bound(2e-6 * self.largest * self.radius)

    def _own(self, i: int, start: int, heads: Tensor) -> tuple[Tensor, Tensor]:
        """``A_i - x_i . mu_i (n,)`` and ``mu_i (n, d)`` at heads of i, ``start`` of which come before them in its order."""
        rest, mean = self.own.get(i, (torch.empty(0).double(), torch.empty(0, self.dist.dim)))
        stop = start + len(heads)
        if len(rest) < stop:
            known = max(start, len(rest))
            new = heads[known - start :]
            natural = self.dist.tail_natural(new, torch.full_like(new, i)).float()
            partition, fresh = moments(natural, self.features)
            self._remember(torch.full_like(new, i), new, partition)
            self.cells += len(new)
            found = partition - (natural.double() * fresh).sum(1), fresh.float()
            if known > len(rest):  # what comes before was too much to keep
                return found
            rest, mean = torch.cat([rest, found[0]]), torch.cat([mean, found[1]])
            if sum(kept.numel() for _, kept in self.own.values()) + found[1].numel() <= _MEANS:
                self.own[i] = rest, mean
        return rest[start:stop], mean[start:stop]

    def _sum(self, i: int, others: list[int], start: int, heads: Tensor, prob: Tensor) -> list[float]:
        """``sum_h P(h|i) D_ij(h)`` over the heads that follow the first ``start`` of i."""
        rest, mean = self._own(i, start, heads)
        ids, where = torch.tensor(others).repeat_interleave(len(heads)), heads.repeat(len(others))
        natural = self.dist.tail_natural(where, ids).float()
        across = torch.full((len(ids),), torch.nan).double() if self.known is None else self.known[ids, where].double()
        missing = torch.isnan(across)
        new, _ = moments(natural[missing], self.features, mean_of=torch.zeros(int(missing.sum()), dtype=torch.bool))
        across[missing] = new
        self._remember(ids[missing], where[missing], new)
        self.cells += len(new)
        inner = (natural.view(len(others), len(heads), -1) * mean).sum(2, dtype=torch.float64)
        divergence = across.view(len(others), -1) - rest - inner
        return (divergence @ prob).tolist()

    def _remember(self, relation: Tensor, head: Tensor, partition: Tensor) -> None:
        if self.known is not None:
            self.known[relation, head] = partition.float()

    def _ranked(self, i: int) -> tuple[Tensor, Tensor]:
        """``P(h | i)`` of all heads, and the heads by falling probability."""
        if i in self.ranked:
            return self.ranked[i]
        prob = self.screen.head_row(i)
        found = prob, torch.argsort(prob, descending=True, stable=True)
        if self.known is not None:
            self.ranked[i] = found
        return found

    def _norm(self, r: int) -> Tensor:
        if r not in self.norms:
            blocks = torch.split(torch.arange(self.dist.num_entities), 4096)
            norm = [self.dist.tail_natural(h, torch.full_like(h, r)).norm(dim=1) for h in blocks]
            self.norms[r] = torch.cat(norm).double()
            self.largest = max(self.largest, float(self.norms[r].max()))
        return self.norms[r]

    def result(self) -> Neighbours:
        """The nearest k as they stand."""
        size = len(self.rows)
        ids = torch.empty(size, self.k, dtype=torch.int64)
        low, high = torch.empty(2, size, self.k, dtype=torch.float64)
        certain = torch.empty(size, dtype=torch.bool)
        for i in range(size):
            known, floor = self._state(i)
            members, rivals = known[: self.k], known[self.k :]
            certain[i] = max(m[2] for m in members) <= min([floor, *(r[1] for r in rivals)]) + self.tolerance
            for place, (_, least, most, j) in enumerate(members):
                ids[i, place], low[i, place], high[i, place] = j, least, most
        pairs = sum(max(pair.used) > 0 for pair in self.pairs.values())
        return Neighbours(ids, low, high, certain, pairs, pairs / (size * (size - 1) / 2), self.cells)
