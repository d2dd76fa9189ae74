"""Suites with a known answer, made from the facts of any knowledge base: which relations are really one, and in which way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relsim.facts import Facts

__all__ = ["KINDS", "SUITES", "Suite", "biased", "capped", "disjoint", "kinds", "make_suite", "overlapping"]

Ids = NDArray[np.int64]

KINDS = ("equivalent", "narrower", "broader", "inverse")


@dataclass(frozen=True, eq=False)
class Suite:
    """Facts in which some relations were made from one, and the pairs of which that is so.

    Parameters
    ----------
    name
        Name of the suite, as in :data:`SUITES`.
    facts
        The facts; a made relation is called ``NAME #1``, ``NAME #2``, ...
    first, second
        int64 ``(G,)``, ``first < second``: relation ids of the gold pairs.
    kind
        int8 ``(G,)``: index into :data:`KINDS` of what ``first`` is to ``second``. All other pairs are different.
    """

    name: str
    facts: Facts
    first: Ids
    second: Ids
    kind: NDArray[np.int8]

    @property
    def queries(self) -> Ids:
        """Relations with at least one gold partner, ascending."""
        return np.unique(np.concatenate([self.first, self.second]))

    def gold(self) -> NDArray[np.bool_]:
        """Symmetric ``(R, R)``: True at the gold pairs of any kind."""
        size = self.facts.num_relations
        gold = np.zeros((size, size), dtype=np.bool_)
        gold[self.first, self.second] = gold[self.second, self.first] = True
        return gold


@dataclass(frozen=True)
class _Part:
    """Rows of the source that make one relation, and what it is to the other parts of its relation."""

    rows: Ids
    role: str = "whole"  # "whole", "narrow" (a part of the whole's distribution) or "inverse" (arguments swapped)


Parts = Callable[[Ids, np.random.Generator], list[_Part]]


def _build(name: str, facts: Facts, least: int, seed: int, parts: Parts) -> Suite:
    """Replace every relation with at least ``least`` facts by its parts; the others stay as they are."""
    if least < 1:
        raise ValueError(f"least is {least}, expected at least 1 fact a relation that is split")
    order = np.argsort(facts.relation.numpy(), kind="stable")
    support = facts.support.numpy()
    rows = np.split(order, np.cumsum(support)[:-1]) if len(support) else []
    made: list[tuple[str, _Part, int]] = []
    for r, own in enumerate(rows):
        if support[r] < least:
            made.append((facts.relations[r], _Part(own), -1))
            continue
        # One generator a relation: the parts of one do not depend on how much was drawn for those before it.
        pieces = parts(own, np.random.default_rng([seed, r]))
        made += [(f"{facts.relations[r]} #{n}", piece, r) for n, piece in enumerate(pieces, 1)]
    if not any(source >= 0 for _, _, source in made):
        raise ValueError(
            f"no relation has {least} facts (the largest has {support.max(initial=0)}), expected one to split"
        )
    columns: dict[str, list[Ids]] = {"head": [], "tail": [], "relation": []}
    head, tail = facts.head.numpy(), facts.tail.numpy()
    for number, (_, piece, _) in enumerate(made):
        swap = piece.role == "inverse"
        columns["head"].append((tail if swap else head)[piece.rows])
        columns["tail"].append((head if swap else tail)[piece.rows])
        columns["relation"].append(np.full(len(piece.rows), number))
    count = facts.count.numpy()[np.concatenate([piece.rows for _, piece, _ in made])]
    first, second, kind = _pairs(made)
    return Suite(name, _facts(columns, count, facts.entities, [label for label, _, _ in made]), first, second, kind)


def _facts(
    columns: dict[str, list[Ids]], count: NDArray[np.float32], entities: list[str], relations: list[str]
) -> Facts:
    """Facts over the entities that still occur."""
    import torch

    head, tail, relation = (np.concatenate(columns[name]) for name in ("head", "tail", "relation"))
    used, place = np.unique(np.concatenate([head, tail]), return_inverse=True)
    head, tail = place[: len(head)], place[len(head) :]
    order = np.lexsort((tail, head, relation))
    return Facts(
        head=torch.from_numpy(head[order]),
        relation=torch.from_numpy(relation[order]),
        tail=torch.from_numpy(tail[order]),
        count=torch.from_numpy(count[order]),
        entities=[entities[e] for e in used],
        relations=relations,
    )


def _pairs(made: list[tuple[str, _Part, int]]) -> tuple[Ids, Ids, NDArray[np.int8]]:
    found: list[tuple[int, int, int]] = []
    for i, (_, a, source) in enumerate(made):
        for j in range(i + 1, len(made)):
            _, b, other = made[j]
            if source < 0 or other != source:
                break  # the parts of one relation stand together
            roles = {a.role, b.role}
            if roles == {"whole"} or roles == {"inverse"}:
                found.append((i, j, KINDS.index("equivalent")))
            elif roles == {"whole", "inverse"}:
                found.append((i, j, KINDS.index("inverse")))
            elif roles == {"whole", "narrow"}:
                found.append((i, j, KINDS.index("narrower" if a.role == "narrow" else "broader")))
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2].astype(np.int8)


def disjoint(facts: Facts, *, seed: int, least: int = 400, parts: int = 4) -> Suite:
    """Every relation with at least ``least`` facts cut at random into ``parts`` that share no fact.

    Parameters
    ----------
    facts
        The source.
    seed
        Decides the cuts; equal seeds give equal suites.
    least, parts
        At least 1 and 2.

    Raises
    ------
    ValueError
        When no relation has so many facts.
    """
    return _build("disjoint", facts, least, seed, lambda own, rng: _cut(rng.permutation(own), parts))


def _cut(rows: Ids, parts: int) -> list[_Part]:
    if not 2 <= parts <= len(rows):
        raise ValueError(f"parts is {parts}, expected from 2 to the {len(rows)} facts of the relation")
    return [_Part(np.sort(piece)) for piece in np.array_split(rows, parts)]


def overlapping(facts: Facts, *, seed: int, least: int = 400, parts: int = 4, share: float = 0.5) -> Suite:
    """Every such relation copied ``parts`` times, each copy an independent draw of a share of its facts.

    Parameters as in :func:`disjoint`; ``share`` in (0, 1] is the part of the facts that each copy has.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share is {share}, expected 0 < share <= 1")
    return _build(
        "overlapping",
        facts,
        least,
        seed,
        lambda own, rng: [
            _Part(np.sort(rng.choice(own, max(1, round(share * len(own))), replace=False))) for _ in range(parts)
        ],
    )


def capped(facts: Facts, *, seed: int, cap: int = 50, parts: int = 4) -> Suite:
    """The disjoint suite of relations with at least ``parts * cap`` facts, each part cut down to ``cap`` facts.

    Relations with fewer facts stay whole, as in :func:`disjoint`.
    """
    if cap < 1:
        raise ValueError(f"cap is {cap}, expected at least 1 fact a part")
    return _build(
        f"capped-{cap}",
        facts,
        parts * cap,
        seed,
        lambda own, rng: _cut(rng.permutation(own)[: parts * cap], parts),
    )


def biased(facts: Facts, *, seed: int, least: int = 400, parts: int = 4, bias: float = 0.5) -> Suite:
    """The disjoint suite, with parts that differ in how often their heads occur in all facts.

    Facts are ordered by ``bias * rank of the head's degree + (1 - bias) * chance`` and cut into ``parts``.

    Parameters as in :func:`disjoint`; ``bias`` from 0 (:func:`disjoint`) to 1 (parts of one degree band each).
    """
    if not 0.0 <= bias <= 1.0:
        raise ValueError(f"bias is {bias}, expected from 0 to 1")
    head = facts.head.numpy()
    degree = np.bincount(np.concatenate([head, facts.tail.numpy()]), minlength=facts.num_entities)[head]

    def parts_of(own: Ids, rng: np.random.Generator) -> list[_Part]:
        chance = rng.random(len(own))
        rank = np.argsort(np.lexsort((chance, degree[own]))) / len(own)
        return _cut(own[np.argsort(bias * rank + (1.0 - bias) * rng.permutation(chance))], parts)

    return _build("biased", facts, least, seed, parts_of)


def kinds(facts: Facts, *, seed: int, least: int = 400, share: float = 0.3) -> Suite:
    """Equivalent, narrower and inverse relations: every such relation cut into four disjoint parts.

    Two quarters stay as they are (equivalent to each other). The third has its arguments swapped (inverse of both).
    The fourth keeps the facts of some arguments only: heads or tails, whichever it has more values of, are drawn in
    turn until the kept ones make up ``share`` of the relation (narrower than both). Narrower against inverse has no
    gold kind and is no gold pair.

    Parameters as in :func:`disjoint`; ``share`` in (0, 1) is the mass that the narrower relation keeps.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share is {share}, expected 0 < share < 1")
    head, tail = facts.head.numpy(), facts.tail.numpy()

    def parts_of(own: Ids, rng: np.random.Generator) -> list[_Part]:
        one, two, swapped, rest = _cut(rng.permutation(own), 4)
        side = max((head, tail), key=lambda ids: len(np.unique(ids[own])))
        values, size = np.unique(side[own], return_counts=True)
        order = rng.permutation(len(values))
        chosen = values[order[np.cumsum(size[order]) - size[order] < share * len(own)]]
        narrow = rest.rows[np.isin(side[rest.rows], chosen)]
        made = [one, two, _Part(swapped.rows, "inverse")]
        return [*made, _Part(narrow, "narrow")] if len(narrow) else made

    return _build("kinds", facts, least, seed, parts_of)


SUITES: dict[str, Callable[..., Suite]] = {
    "disjoint": disjoint,
    "overlapping": overlapping,
    "capped-10": lambda facts, *, seed: capped(facts, seed=seed, cap=10),
    "capped-50": lambda facts, *, seed: capped(facts, seed=seed, cap=50),
    "capped-200": lambda facts, *, seed: capped(facts, seed=seed, cap=200),
    "biased": biased,
    "kinds": kinds,
}


def make_suite(name: str, facts: Facts, *, seed: int) -> Suite:
    """Make a suite by its name in :data:`SUITES`.

    Raises
    ------
    KeyError
        For an unknown name; says which exist.
    """
    if name not in SUITES:
        raise KeyError(f"unknown suite {name!r}, expected one of {', '.join(SUITES)}")
    return SUITES[name](facts, seed=seed)
