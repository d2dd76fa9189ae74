"""Suites against the definitions of their gold, counted by hand from the facts they were made from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from relsim.evaluation.suites import KINDS, SUITES, Suite, biased, capped, disjoint, kinds, make_suite, overlapping
from relsim.facts import Facts

Triple = tuple[str, str, str]


def source(seed: int = 0) -> Facts:
    """Three large relations of 120 facts, one of 7; few heads have most facts."""
    rng = np.random.default_rng(seed)
    rows = set()
    for relation, size in (("a", 120), ("b", 120), ("c #1", 120), ("small", 7)):
        while len([row for row in rows if row[1] == relation]) < size:
            head, tail = int(30 * rng.random() ** 2), int(rng.integers(30, 60))
            rows.add((f"e{head:02}", relation, f"e{tail:02}"))
    return Facts.from_triples(sorted(rows))


def triples(facts: Facts, relation: int | None = None) -> set[Triple]:
    keep = range(len(facts)) if relation is None else (facts.relation == relation).nonzero().squeeze(1).tolist()
    names = facts.entities
    return {
        (names[facts.head[n]], facts.relations[facts.relation[n]].split(" #")[0], names[facts.tail[n]]) for n in keep
    }


def pairs(suite: Suite, relation: int) -> set[tuple[str, str]]:
    return {(h, t) for h, _, t in triples(suite.facts, relation)}


def groups(suite: Suite) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, name in enumerate(suite.facts.relations):
        if " #" in name:
            found.setdefault(name.rsplit(" #", 1)[0], []).append(number)
    return found


def test_disjoint_parts_are_a_partition() -> None:
    facts = source()
    suite = disjoint(facts, seed=1, least=100)
    assert triples(suite.facts) == triples(facts) and len(suite.facts) == len(facts)
    assert suite.facts.num_relations == 3 * 4 + 1
    assert suite.facts.support.sort().values.tolist() == [7] + [30] * 12
    expected = {pair for own in groups(suite).values() for pair in itertools.combinations(own, 2)}
    assert set(zip(suite.first.tolist(), suite.second.tolist(), strict=True)) == expected
    assert set(suite.kind.tolist()) == {KINDS.index("equivalent")}
    assert int(suite.gold().sum()) == 2 * len(expected) and len(suite.queries) == 12


def test_a_source_relation_with_a_part_like_name_keeps_its_parts_apart() -> None:
    suite = disjoint(source(), seed=0, least=100)
    assert len(groups(suite)["c #1"]) == 4


def test_equal_seeds_give_equal_suites_and_others_do_not() -> None:
    facts = source()
    for name, make in (("disjoint", disjoint), ("overlapping", overlapping), ("biased", biased), ("kinds", kinds)):
        one, same, other = (make(facts, seed=s, least=100).facts for s in (3, 3, 4))
        assert torch.equal(one.head, same.head) and torch.equal(one.tail, same.tail), name
        assert [pairs_of.tolist() for pairs_of in (one.head, one.tail)] != [other.head.tolist(), other.tail.tolist()], (
            name
        )


def test_what_one_relation_becomes_does_not_depend_on_the_others() -> None:
    facts = source()
    whole = disjoint(facts, seed=5, least=100)
    alone = disjoint(facts.select([0]), seed=5, least=100)
    for part in range(4):
        assert pairs(whole, part) == pairs(alone, part)


def test_copies_are_independent_draws() -> None:
    facts = source()
    suite = overlapping(facts, seed=0, least=100, parts=40, share=0.5)
    own = [pairs(suite, r) for r in groups(suite)["a"]]
    assert {len(copy) for copy in own} == {60}
    shared = [len(x & y) for x, y in itertools.combinations(own, 2)]
    # Hypergeometric: mean 30 and variance 60 * .5 * .5 * 60 / 119 of each overlap.
    assert abs(np.mean(shared) - 30.0) < 4 * (60 * 0.25 * 60 / 119 / 40) ** 0.5 + 0.3


def test_capped_parts_have_the_cap_and_share_nothing() -> None:
    facts = source()
    suite = capped(facts, seed=0, cap=30)
    assert sorted(suite.facts.support.tolist()) == [7] + [30] * 12
    smaller = capped(facts, seed=0, cap=10)
    assert sorted(smaller.facts.support.tolist()) == [7] + [10] * 12
    for own in groups(smaller).values():
        assert len(set.union(*(pairs(smaller, r) for r in own))) == 40
    assert triples(smaller.facts) < triples(facts)


def test_bias_orders_the_parts_by_degree() -> None:
    facts = source()
    degree = np.bincount(torch.cat([facts.head, facts.tail]).numpy(), minlength=facts.num_entities)
    by_name = dict(zip(facts.entities, degree, strict=True))

    def means(bias: float) -> list[float]:
        suite = biased(facts, seed=0, least=100, bias=bias)
        return [float(np.mean([by_name[h] for h, _ in pairs(suite, r)])) for r in groups(suite)["a"]]

    full, half = means(1.0), means(0.5)
    assert full == sorted(full)
    assert full[3] - full[0] > half[3] - half[0] > 0
    # With full bias the bands do not overlap.
    suite = biased(facts, seed=0, least=100, bias=1.0)
    bands = [[by_name[h] for h, _ in pairs(suite, r)] for r in groups(suite)["a"]]
    assert all(max(low) <= min(high) for low, high in itertools.pairwise(bands))


def test_kinds_are_what_they_are_called() -> None:
    facts = source()
    suite = kinds(facts, seed=0, least=100, share=0.4)
    names = suite.facts.relations
    for relation, own in groups(suite).items():
        one, two, inverse, narrow = (pairs(suite, r) for r in own)
        whole = {(h, t) for h, r, t in triples(facts) if r == relation.split(" #")[0]}
        swapped = {(t, h) for h, t in inverse}
        assert one | two | swapped | narrow <= whole
        assert len(one) + len(two) + len(swapped) + len(narrow) == len(one | two | swapped | narrow)
        side = max((0, 1), key=lambda s: len({pair[s] for pair in whole}))
        kept = {pair[side] for pair in narrow}
        mass = sum(pair[side] in kept for pair in whole)
        assert kept < {pair[side] for pair in whole} and mass <= 0.7 * len(whole)
        found = {
            (names[i][-1], names[j][-1]): KINDS[k]
            for i, j, k in zip(suite.first, suite.second, suite.kind, strict=True)
            if i in own
        }
        assert found == {
            ("1", "2"): "equivalent",
            ("1", "3"): "inverse",
            ("2", "3"): "inverse",
            ("1", "4"): "broader",
            ("2", "4"): "broader",
        }


def test_entities_without_facts_are_left_out() -> None:
    suite = capped(source(), seed=0, cap=10)
    used = torch.cat([suite.facts.head, suite.facts.tail]).unique()
    assert used.tolist() == list(range(suite.facts.num_entities))


@pytest.mark.parametrize("name", [n for n in SUITES if n not in ("capped-50", "capped-200")])
def test_every_named_suite_can_be_made(name: str) -> None:
    rows = [(f"e{h:02}", r, f"e{t:02}") for r in "ab" for h in range(25) for t in range(25, 42)]
    suite = make_suite(name, Facts.from_triples(rows), seed=0)
    assert suite.name == name and len(suite.first) == len(suite.second) == len(suite.kind) > 0
    assert bool((suite.first < suite.second).all())


def test_bad_arguments_are_refused() -> None:
    facts = source()
    with pytest.raises(ValueError, match="no relation has 400 facts \\(the largest has 120\\)"):
        disjoint(facts, seed=0)
    with pytest.raises(KeyError, match="expected one of disjoint"):
        make_suite("disjont", facts, seed=0)
    for wrong in ({"share": 0.0}, {"share": 1.5}):
        with pytest.raises(ValueError, match="share"):
            overlapping(facts, seed=0, least=100, **wrong)
    with pytest.raises(ValueError, match="share"):
        kinds(facts, seed=0, least=100, share=1.0)
    with pytest.raises(ValueError, match="bias"):
        biased(facts, seed=0, least=100, bias=2.0)
    with pytest.raises(ValueError, match="cap is 0"):
        capped(facts, seed=0, cap=0)
    with pytest.raises(ValueError, match="parts"):
        disjoint(facts, seed=0, least=100, parts=1)
    with pytest.raises(ValueError, match="least"):
        disjoint(facts, seed=0, least=0)
