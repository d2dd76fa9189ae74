from __future__ import annotations

import itertools

import numpy as np
import pytest

from relsim import Facts, redundancy
from relsim.evidence.contradiction import Coverage, contradiction, disjoint_by_construction
from relsim.evidence.counts import Counts

Rows = list[tuple[str, str, str]]


def of(facts: Facts, *pairs: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([facts.relations.index(pair[k]) for pair in pairs]) for k in (0, 1))  # type: ignore[return-value]


def lives() -> Rows:
    """Born and residence: both functional, one in four live where they were born; and a true synonym of born."""
    rng = np.random.default_rng(0)
    home = rng.integers(0, 30, 200)
    away = np.where(rng.random(200) < 0.24, home, rng.integers(0, 30, 200))
    rows = [(f"p{i}", "born in", f"c{home[i]}") for i in range(0, 150)]
    rows += [(f"p{i}", "native of", f"c{home[i]}") for i in range(60, 200)]
    return rows + [(f"p{i}", "lives in", f"c{away[i]}") for i in range(20, 180)]


def test_counts_of_a_pair_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    facts = Facts.from_triples([(f"h{a}", f"r{r}", f"t{b}") for r, a, b in rng.integers(0, 9, (300, 3))])
    i, j = np.triu_indices(facts.num_relations, 1)
    for swapped in (False, True):
        found = contradiction(Counts(facts), (i, j), swapped=swapped)
        sets: list[dict[int, set[int]]] = [{} for _ in facts.relations]
        turned: list[dict[int, set[int]]] = [{} for _ in facts.relations]
        for h, r, t in zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), strict=True):
            sets[r].setdefault(h, set()).add(t)
            turned[r].setdefault(t, set()).add(h)
        other = turned if swapped else sets
        for k, (a, b) in enumerate(zip(i.tolist(), j.tolist(), strict=True)):
            shared = sets[a].keys() & other[b].keys()
            possible = sum(min(len(sets[a][h]), len(other[b][h])) for h in shared)
            agreed = sum(len(sets[a][h] & other[b][h]) for h in shared)
            assert (found.head.shared[k], found.head.possible[k], found.head.agreed[k]) == (
                len(shared),
                possible,
                agreed,
            )
            rate = agreed / possible if possible else np.nan
            assert found.head.rate[k] == pytest.approx(rate, abs=1e-12, nan_ok=True)


def test_rate_of_samples_is_that_of_sampling() -> None:
    """Two samples of a relation, drawn again and again, agree at the rate in the table."""
    rng = np.random.default_rng(2)
    others = rng.integers(1, 6, 40)
    facts = Facts.from_triples([(f"h{h}", "r", f"t{h} {k}") for h, n in enumerate(others) for k in range(n)])
    coverage = Counts(facts).coverage["head"]
    head = facts.head.numpy()
    for c in (0.3, 0.6):
        agreed = possible = 0.0
        for _ in range(3000):
            one, two = rng.random((2, len(head))) < c
            a, b = np.bincount(head[one], minlength=60), np.bincount(head[two], minlength=60)
            agreed, possible = agreed + (one & two).sum(), possible + np.minimum(a, b).sum()
        share = float(np.mean(1 - (1 - c) ** others))
        got = coverage.halves(np.array([0]), np.array([share]))[0]
        assert got == pytest.approx(agreed / possible, abs=0.01)


def test_a_functional_relation_must_agree_always() -> None:
    coverage = Coverage(np.eye(7)[None, 0])
    np.testing.assert_allclose(coverage.halves(np.zeros(3, dtype=int), np.array([0.1, 0.5, 1.0])), 1.0)
    assert coverage.least(np.array([0]), np.array([0.3]))[0] == 1.0


def test_low_agreement_vetoes_and_high_agreement_proves_nothing() -> None:
    facts = Facts.from_triples(lives())
    found = contradiction(Counts(facts), of(facts, ("born in", "native of"), ("born in", "lives in")))
    assert found.verdict.tolist() == ["agrees", "contradicted"]
    assert found.head.rate == pytest.approx([1.0, 0.27], abs=0.08)
    result = redundancy(facts)
    rows = {frozenset((row["rel_a"], row["rel_b"])): row for row in result.pairs}
    assert rows[frozenset(("born in", "native of"))]["kind"] == "equivalent"
    veto = rows[frozenset(("born in", "lives in"))]
    assert (veto["kind"], veto["decided_by"]) == ("different", "contradiction")
    assert veto["p_redundant"] <= 0.01
    assert not any({"born in", "lives in"} <= set(cluster.members) for cluster in result.clusters)


def test_too_few_shared_arguments_say_nothing() -> None:
    rows = [(f"p{i}", "born in", f"c{i}") for i in range(20)] + [(f"p{i}", "lives in", f"d{i}") for i in range(16, 40)]
    facts = Facts.from_triples(rows)
    found = contradiction(Counts(facts), of(facts, ("born in", "lives in")))
    assert found.head.possible[0] == 4
    assert found.verdict.tolist() == ["not enough evidence"]


def test_a_relation_with_many_values_is_not_vetoed_by_chance() -> None:
    """Two thin samples of one relation with ten values an argument rarely agree; that is no contradiction."""
    rng = np.random.default_rng(3)
    full = [(f"a{h}", f"b{t}") for h, t in itertools.product(range(60), range(10))]
    vetoed = 0
    for _ in range(30):
        rows = [
            (h, name, t)
            for name in ("x", "y")
            for (h, t), keep in zip(full, rng.random(600) < 0.15, strict=True)
            if keep
        ]
        facts = Facts.from_triples(rows)
        found = contradiction(Counts(facts), of(facts, ("x", "y")))
        assert found.head.rate[0] < 0.5
        vetoed += found.verdict[0] == "contradicted"
    assert vetoed == 0


def parts() -> Facts:
    """Twelve relations of many values, each cut into two disjoint parts."""
    rng = np.random.default_rng(4)
    rows: Rows = []
    for r in range(12):
        facts = {(f"h{r} {a}", f"t{r} {b}") for a, b in rng.integers(0, 12, (110, 2))}
        rows += [(h, f"r{r} part {k % 2}", t) for k, (h, t) in enumerate(sorted(facts))]
    return Facts.from_triples(rows)


def test_parts_of_relations_switch_the_evidence_off() -> None:
    facts = parts()
    pairs = of(facts, *((f"r{r} part 0", f"r{r} part 1") for r in range(12)))
    assert disjoint_by_construction(contradiction(Counts(facts), pairs))
    result = redundancy(facts)
    assert any("cut into parts" in warning for warning in result.warnings)
    assert set(result.details["contradiction"]) == {"off"}
    on = redundancy(facts, contradiction="on")
    assert "off" not in set(on.details["contradiction"])
    assert not any("cut into parts" in warning for warning in on.warnings)


def test_overlapping_relations_leave_it_on() -> None:
    assert set(redundancy(Facts.from_triples(lives())).details["contradiction"]) <= {
        "contradicted", "agrees", "not enough evidence"
    }  # fmt: skip
    assert set(redundancy(Facts.from_triples(lives()), contradiction="off").details["contradiction"]) == {"off"}
    with pytest.raises(ValueError, match="contradiction is 'maybe'"):
        redundancy(Facts.from_triples(lives()), contradiction="maybe")
