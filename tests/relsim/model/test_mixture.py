"""The back-off mixture against sums over dictionaries, and against planted weights."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import fit
from relsim.model.entitytypes import entity_types, given_types, induced_types
from relsim.model.mixture import PARTS, BackOff, _em
from relsim.model.warmstart import warm_start


def facts_of(seed: int, n: int = 150, entities: int = 12, relations: int = 3) -> Facts:
    rng = np.random.default_rng(seed)
    rows = np.unique(np.stack([rng.integers(0, size, n) for size in (entities, relations, entities)], 1), axis=0)
    head, relation, tail = (torch.from_numpy(np.ascontiguousarray(rows[:, i])) for i in range(3))
    count = torch.from_numpy(rng.integers(1, 4, len(rows)).astype(np.float32))
    names = [f"e{i}" for i in range(entities)], [f"r{i}" for i in range(relations)]
    return Facts(head, relation, tail, count, *names)


@pytest.fixture
def mixture() -> BackOff:
    facts = facts_of(0)
    types = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    return BackOff(FactDistribution(12, 3, dim=4, hidden=8), facts, types=types, smoothing=5.0)


def by_hand(mixture: BackOff, h: int, r: int, t: int) -> dict[str, tuple[float, float]]:
    """P(h | r) and P(t | h, r) of the count and the type part from dictionaries."""
    facts, types, a = mixture.facts, mixture.types.tolist(), mixture.smoothing
    rows = list(
        zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), facts.count.tolist(), strict=True)
    )
    total = sum(row[3] for row in rows if row[1] == r)

    def share(side: int, e: int) -> float:
        return (0.5 + sum(row[3] for row in rows if row[side] == e)) / (0.5 * 12 + sum(row[3] for row in rows))

    def counted(side: int, e: int) -> float:
        own = sum(row[3] for row in rows if row[1] == r and row[side] == e)
        return (own + a * share(side, e)) / (total + a)

    def mass(side: int, kind: int) -> float:
        return sum(share(side, e) for e in range(12) if types[e] == kind)

    def typed(side: int, kind: int) -> float:
        own = sum(row[3] for row in rows if row[1] == r and types[row[side]] == kind)
        return (own + a * mass(side, kind)) / (total + a)

    both = Counter()
    for row in rows:
        if row[1] == r and types[row[0]] == types[h]:
            both[types[row[2]]] += row[3]
    tail_type = (both[types[t]] + a * typed(2, types[t])) / (sum(both.values()) + a)
    return {
        "count": (counted(0, h), counted(2, t)),
        "type": (
            typed(0, types[h]) * share(0, h) / mass(0, types[h]),
            tail_type * share(2, t) / mass(2, types[t]),
        ),
    }


def test_parts_are_their_formulas(mixture: BackOff) -> None:
    for h, r, t in [(0, 0, 11), (5, 1, 5), (11, 2, 0)]:
        head = mixture.head_parts(torch.tensor([r]))[:, 0, h]
        tail = mixture.tail_parts(torch.tensor([h]), torch.tensor([r]))[:, 0, t]
        for name, (of_head, of_tail) in by_hand(mixture, h, r, t).items():
            k = PARTS.index(name)
            assert (float(head[k]), float(tail[k])) == pytest.approx((of_head, of_tail), rel=1e-12)


def test_parts_and_mixture_sum_to_one(mixture: BackOff) -> None:
    mixture.fit(facts_of(1))
    r, h = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 0, 11, 4])
    for parts in (mixture.head_parts(r), mixture.tail_parts(h, r)):
        assert parts.shape == (3, 4, 12)
        torch.testing.assert_close(parts.sum(2)[1:], torch.ones(2, 4, dtype=torch.float64))
    for log_prob in (mixture.log_prob_head(r), mixture.log_prob_tail(h, r)):
        torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0)


def test_nll_is_that_of_the_dense_rows(mixture: BackOff) -> None:
    held = facts_of(2)
    mixture.fit(held)
    rows = torch.arange(len(held))
    weight = held.count.double() / held.count.double().sum()
    head = mixture.log_prob_head(held.relation)[rows, held.head]
    tail = mixture.log_prob_tail(held.head, held.relation)[rows, held.tail]
    assert mixture.nll(held) == pytest.approx((-float(weight @ head), -float(weight @ tail)), rel=1e-12)


def test_mixture_is_at_least_as_likely_as_each_part_on_the_facts_it_was_fitted_to(mixture: BackOff) -> None:
    held = facts_of(3)
    nll = mixture.fit(held).part_nll(held)
    for side in range(2):
        assert nll["mixture"][side] <= min(nll[name][side] for name in PARTS)


def test_common_weights_are_the_best_of_a_grid() -> None:
    g = torch.Generator().manual_seed(0)
    p, weight = torch.rand(200, 3, generator=g).double(), torch.rand(200, generator=g).double()
    even, nothing = torch.full((1, 3), 1 / 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)
    found = _em(p, torch.zeros(200, dtype=torch.int64), weight, even, nothing)[0]
    value = float(weight @ (p @ found).log())
    steps = torch.linspace(0, 1, 51, dtype=torch.float64)
    grid = torch.stack([torch.stack([a, b, 1 - a - b]) for a in steps for b in steps if a + b <= 1 + 1e-9]).clamp(min=0)
    best = float((weight @ (p @ grid.T).clamp(min=1e-300).log()).max())
    assert best - 1e-4 < value and float(found.sum()) == pytest.approx(1.0)


def test_planted_weights_are_found_for_each_relation_and_shared_where_it_is_rare() -> None:
    g = torch.Generator().manual_seed(1)
    truth = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64)
    parts = torch.softmax(2 * torch.randn(3, 40, generator=g).double(), 1)
    relation, rows = [], []
    for r, n in ((0, 20_000), (1, 20_000), (2, 0)):
        if n:
            e = torch.multinomial(truth[r] @ parts, n, replacement=True, generator=g)
            rows.append(parts[:, e].T)
            relation.append(torch.full((n,), r))
    probability, group = torch.cat(rows), torch.cat(relation)
    fake = BackOff.__new__(BackOff)
    fake.prior, fake.facts = 20.0, facts_of(0)
    found = fake._maximise(probability, group, torch.ones(len(group), dtype=torch.float64))
    torch.testing.assert_close(found[:2], truth, atol=0.03, rtol=0)
    torch.testing.assert_close(found[2], truth.mean(0), atol=0.03, rtol=0)


def test_given_types_are_the_most_frequent_ones() -> None:
    ids = [torch.tensor(column) for column in ([0, 0, 1], [0, 1, 0], [1, 2, 0])]
    count = torch.tensor([5.0, 1.0, 1.0])
    facts = Facts(*ids, count, ["a", "b", "c", "never"], ["r", "s"])  # type: ignore[misc]
    typed = replace(facts, head_type=torch.tensor([7, 3, 2]), tail_type=torch.tensor([2, 4, 3]))
    assert given_types(typed).tolist() == entity_types(typed).tolist() == [7, 2, 4, 8]
    with pytest.raises(ValueError, match="use induced_types"):
        given_types(facts)


def test_induced_types_are_the_same_at_every_call() -> None:
    """Also of facts whose table has singular values of 0, where a Krylov method draws anew."""
    triples = [(f"p{i}", f"r{k}", f"c{i * (3 + k) % 9}") for i in range(60) for k in range(4)]
    first, *others = (induced_types(Facts.from_triples(triples)).tolist() for _ in range(4))
    assert all(other == first for other in others)
    assert len(set(first)) == 4


def test_induced_types_find_planted_groups() -> None:
    rng = np.random.default_rng(0)
    rows = {(f"p{rng.integers(30)}", f"r{rng.integers(3)}", f"c{rng.integers(30)}") for _ in range(600)}
    rows |= {(f"c{rng.integers(30)}", "in", f"x{rng.integers(30)}") for _ in range(300)}
    facts = Facts.from_triples(sorted(rows))
    types = induced_types(facts, types=3, dim=8)
    kind = np.array([name[0] for name in facts.entities])
    agree = sum(int(np.bincount(types[torch.from_numpy(kind == k)].numpy()).max()) for k in "pcx")
    assert agree >= 0.95 * len(kind) and len(set(types.tolist())) == 3


def test_bad_arguments_are_refused(mixture: BackOff) -> None:
    facts = facts_of(0)
    with pytest.raises(ValueError, match="the model has \\(11, 3\\)"):
        BackOff(FactDistribution(11, 3, dim=4, hidden=8), facts)
    for wrong in ({"smoothing": 0.0}, {"prior": -1.0}, {"smoothing": math.nan}):
        with pytest.raises(ValueError, match="expected above 0"):
            BackOff(mixture.dist, facts, **wrong)
    with pytest.raises(ValueError, match="types"):
        BackOff(mixture.dist, facts, types=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="no likelihood"):
        mixture.nll(facts_of(0, n=1).select([]))
    with pytest.raises(ValueError, match="types is 0"):
        induced_types(facts, types=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Nations", "UMLS", "Kinship", "CoDEx-S", "NELL-995-h100", "CoDEx-M", "FB15k-237"])
def test_on_facts_that_no_weight_was_fitted_to_the_mixture_is_as_likely_as_its_best_part(
    name: str, data_dir: Path
) -> None:
    plain = data_dir / "kg" / name / "train.txt"
    with plain.open() if plain.exists() else gzip.open(f"{plain}.gz", "rt") as stream:
        facts = Facts.from_triples(line.rstrip("\r\n").split("\t") for line in stream)
    kept, rest = facts.split(0.2, seed=0)
    valid, test = rest.split(0.5, seed=1)
    model = FactDistribution(facts.num_entities, facts.num_relations)
    warm_start(model, kept)
    fit(model, kept, epochs=6, seed=0, weight_decay=1.0, held_out=valid, patience=2)
    nll = BackOff(model, kept).fit(valid).part_nll(test)
    assert sum(nll["mixture"]) <= min(sum(nll[part]) for part in PARTS)
    assert all(nll["mixture"][side] <= min(nll[part][side] for part in PARTS) + 0.02 for side in range(2))


def test_an_argument_without_a_type_does_not_vote() -> None:
    facts = Facts.from_triples([("ann", "knows", "bob"), ("ann", "likes", "cy"), ("ann", "met", "di")])
    types = ["", "PERSON"]
    typed = replace(facts, types=types, head_type=torch.tensor([0, 1, 0]), tail_type=torch.zeros(3, dtype=torch.long))
    found = given_types(typed)
    place = {name: k for k, name in enumerate(facts.entities)}
    assert found[place["ann"]] == 1 and {int(found[place[name]]) for name in ("bob", "cy", "di")} == {2}
