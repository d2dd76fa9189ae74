"""Why two phrases are, or are not, the same: the facts they share and the facts typical of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relsim.facts import Facts

__all__ = ["Evidence", "evidence"]

Fact = tuple[str, str, float]


@dataclass(frozen=True)
class Evidence:
    """Facts behind one pair of phrases, each as (head, tail, count) with the most counted first.

    Parameters
    ----------
    rel_a, rel_b
        The phrases.
    swapped
        Whether ``shared`` compares a with b, head and tail of b exchanged.
    shared
        Facts of both, written as a has them; the count is the smaller of the two.
    num_shared
        How many there are in all.
    only_a, only_b
        Typical facts of one phrase that the other lacks.
    """

    rel_a: str
    rel_b: str
    swapped: bool
    shared: tuple[Fact, ...]
    num_shared: int
    only_a: tuple[Fact, ...]
    only_b: tuple[Fact, ...]


def evidence(facts: Facts, a: int, b: int, *, swapped: bool = False, top: int = 10) -> Evidence:
    """Collect the facts two relations share and those typical of one of them.

    Parameters
    ----------
    facts
        The facts.
    a, b
        Relation ids.
    swapped
        Exchange head and tail of b before comparing.
    top
        How many facts of each kind to give.
    """
    one, two = _table(facts, a, False), _table(facts, b, swapped)
    shared = {pair: min(count, two[pair]) for pair, count in one.items() if pair in two}
    only_a = {pair: count for pair, count in one.items() if pair not in two}
    only_b = {(t, h) if swapped else (h, t): count for (h, t), count in two.items() if (h, t) not in one}

    def first(table: dict[tuple[int, int], float]) -> tuple[Fact, ...]:
        names = facts.entities
        rows = sorted((-count, names[h], names[t]) for (h, t), count in table.items())
        return tuple((h, t, -count) for count, h, t in rows[:top])

    return Evidence(
        rel_a=facts.relations[a],
        rel_b=facts.relations[b],
        swapped=swapped,
        shared=first(shared),
        num_shared=len(shared),
        only_a=first(only_a),
        only_b=first(only_b),
    )


def _table(facts: Facts, relation: int, swapped: bool) -> dict[tuple[int, int], float]:
    rows = np.flatnonzero(facts.relation.numpy() == relation)
    head, tail = facts.head.numpy()[rows].tolist(), facts.tail.numpy()[rows].tolist()
    pairs = zip(tail, head, strict=True) if swapped else zip(head, tail, strict=True)
    return dict(zip(pairs, facts.count.numpy()[rows].tolist(), strict=True))
