"""Starting values, local scaling and inverse relations against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.kl.localscale import local_scaling
from relsim.model.inverses import with_inverses
from relsim.model.warmstart import _leading, _ppmi, entity_vectors, relation_vectors, warm_start


def twins(seed: int = 0) -> Facts:
    """Six relations between four groups of entities: r0 and r1 join the same groups, and so do r2 and r3."""
    rng = np.random.default_rng(seed)
    ends = [("a", "b"), ("a", "b"), ("c", "d"), ("c", "d"), ("b", "a"), ("d", "a")]
    rows = {
        (f"{h}{rng.integers(20)}", f"r{r}", f"{t}{rng.integers(20)}")
        for r, (h, t) in enumerate(ends)
        for _ in range(150)
    }
    return Facts.from_triples(sorted(rows))


def test_ppmi_is_the_formula() -> None:
    rows, columns = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 2, 2])
    table = _ppmi(rows, columns, torch.tensor([2.0, 1.0, 1.0, 3.0, 1.0]), (2, 3)).toarray()
    counts = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 4.0]])
    with np.errstate(divide="ignore"):
        pmi = np.log(counts * counts.sum() / np.outer(counts.sum(1), counts.sum(0)))
    np.testing.assert_allclose(table, np.maximum(pmi, 0.0), rtol=1e-12)


def test_leading_vectors_are_those_of_the_full_decomposition() -> None:
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((60, 40)))[0] for _ in range(2))
    table = (u * 0.7 ** np.arange(40)) @ v.T
    found = _leading(table, 5, 0)
    expected = (u[:, :5] ** 2) * 0.7 ** np.arange(5)
    np.testing.assert_allclose(found**2, expected, atol=1e-8)


def test_relations_with_like_arguments_start_alike() -> None:
    vectors = relation_vectors(twins(), 8, length=3.0)
    assert vectors.shape == (6, 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((6,), 3.0))
    cosine = (vectors @ vectors.T / 9.0).fill_diagonal_(-1.0)
    assert cosine.argmax(1).tolist()[:4] == [1, 0, 3, 2]


def test_entities_of_a_group_start_alike() -> None:
    facts = twins()
    vectors = entity_vectors(facts, 6)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    cosine = (vectors @ vectors.T).fill_diagonal_(-1.0)
    nearest = cosine.argmax(1).tolist()
    assert all(facts.entities[e][0] == facts.entities[n][0] for e, n in enumerate(nearest))


def test_warm_start_repeats_and_leaves_the_networks() -> None:
    facts = twins()
    one, two, cold = (FactDistribution(facts.num_entities, 6, dim=10, hidden=8) for _ in range(3))
    for model in (one, two):
        warm_start(model, facts)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(one.head_network.first.weight, cold.head_network.first.weight)
    assert not torch.equal(one.entity.weight, cold.entity.weight) and not torch.equal(one.relation, cold.relation)
    length = cold.relation.norm(dim=1).median()
    torch.testing.assert_close(one.relation.norm(dim=1), length.expand(6), rtol=1e-5, atol=0)


def test_a_foreign_entity_module_is_left_as_it_is() -> None:
    class Frozen(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(size, 5))

        def forward(self) -> torch.Tensor:
            return self.table

    facts = twins()
    model = FactDistribution(facts.num_entities, 6, hidden=8, entity=Frozen(facts.num_entities))
    warm_start(model, facts)
    assert torch.equal(model.features(), torch.ones(facts.num_entities, 5))


def test_more_dimensions_than_relations_and_entities_without_facts() -> None:
    rows = [("a", "r", "b"), ("b", "r", "c")]
    facts = Facts.from_triples([*rows, ("x", "s", "y")]).select([0])
    model = FactDistribution(facts.num_entities, 1, dim=12, hidden=4)
    warm_start(model, facts)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    torch.testing.assert_close(model.entity.weight.norm(dim=1), torch.ones(5))
    with pytest.raises(ValueError, match="the model has \\(5, 2\\)"):
        warm_start(FactDistribution(5, 2, dim=4, hidden=4), facts)


def test_local_scaling_is_the_formula_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    d = rng.random((7, 7)) * 3
    d = d + d.T
    found = local_scaling(d, neighbours=3, floor=0.01)
    for i in range(7):
        for j in range(7):
            if i != j:
                near = [np.mean(sorted(np.log(d[k, m] + 0.01) for m in range(7) if m != k)[:3]) for k in (i, j)]
                assert found[i, j] == pytest.approx(sum(near) / 2 - np.log(d[i, j] + 0.01), rel=1e-12)
    assert np.array_equal(found, found.T) and np.isposinf(np.diag(found)).all()


def test_local_scaling_does_not_see_the_density_of_a_region() -> None:
    rng = np.random.default_rng(1)
    points = rng.standard_normal((6, 2))
    both = np.concatenate([points, 1e-2 * points + 1e3])
    d = np.linalg.norm(both[:, None] - both[None], axis=2)
    found = local_scaling(d, neighbours=5, floor=1e-12)
    apart = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(found[:6, :6][apart], found[6:, 6:][apart], rtol=1e-6, atol=1e-6)
    for wrong in (d[:3], d + np.arange(12), -d):
        with pytest.raises(ValueError, match="expected"):
            local_scaling(wrong)
    with pytest.raises(ValueError, match="neighbours is 0"):
        local_scaling(d, neighbours=0)


def test_inverses_are_the_facts_read_backwards() -> None:
    facts = twins()
    both = with_inverses(facts)
    n, r = len(facts), facts.num_relations
    assert len(both) == 2 * n and both.num_relations == 2 * r and both.relations[r] == "inverse of r0"
    assert torch.equal(both.head[n:], facts.tail) and torch.equal(both.tail[n:], facts.head)
    assert torch.equal(both.relation[n:], facts.relation + r) and torch.equal(both.count[:n], both.count[n:])
