from __future__ import annotations

import itertools
import math

import pytest
import torch

from relsim.batches import FactBatches
from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import fit, held_out_nll, split_facts


def planted(seed: int, entities: int = 10, relations: int = 3) -> torch.Tensor:
    """A random P(h, t | r), float64 (R, E, E)."""
    g = torch.Generator().manual_seed(seed)
    head = torch.softmax(1.5 * torch.randn(relations, entities, generator=g).double(), 1)
    tail = torch.softmax(1.5 * torch.randn(relations, entities, entities, generator=g).double(), 2)
    return head[:, :, None] * tail


def as_facts(joint: torch.Tensor, counts: torch.Tensor) -> Facts:
    """Facts with the counts of an (R, E, E) table, zeros left out."""
    relation, head, tail = (counts > 0).nonzero().T
    names = [f"e{i}" for i in range(joint.shape[1])], [f"r{i}" for i in range(joint.shape[0])]
    return Facts(head, relation, tail, counts[relation, head, tail].float(), *names)


def test_recovers_a_planted_distribution() -> None:
    joint = planted(0)
    g = torch.Generator().manual_seed(1)
    draws = torch.multinomial(joint.flatten(1), 20_000, replacement=True, generator=g)
    counts = torch.stack([torch.bincount(row, minlength=100) for row in draws]).view(3, 10, 10)
    model = FactDistribution(10, 3, dim=16, hidden=64)
    # The held-out set is the true distribution itself, so its likelihood cannot be below the entropy.
    truth = as_facts(joint, joint)
    report = fit(model, as_facts(joint, counts), epochs=80, seed=0, lr=1e-2, batch_size=8, held_out=truth)
    entropy = -(joint * joint.log()).sum().item() / 3
    assert 0.0 < report.held_out_head + report.held_out_tail - entropy < 0.02
    head = joint.sum(2)
    assert report.held_out_head == pytest.approx(-(head * head.log()).sum().item() / 3, abs=0.005)


def small_facts() -> Facts:
    rows = [(f"e{h}", f"r{r}", f"e{(h * (r + 1)) % 9}") for h, r in itertools.product(range(9), range(3))]
    return Facts.from_triples(rows)


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    def run(seed: int) -> tuple[list[torch.Tensor], tuple[float, ...]]:
        model = FactDistribution(9, 3, dim=4, hidden=8)
        report = fit(model, small_facts(), epochs=3, seed=seed, batch_size=4, negatives=5)
        return list(model.parameters()), report.train_loss

    (a, loss_a), (b, loss_b), (c, _) = run(0), run(0), run(1)
    assert loss_a == loss_b
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])


def test_early_stopping_restores_the_best_epoch() -> None:
    facts = small_facts()
    kept, watched = split_facts(facts, 0.3, seed=0)
    assert len(kept) + len(watched) == len(facts) and len(watched) == round(0.3 * len(facts))
    model = FactDistribution(9, 3, dim=8, hidden=32)
    seen: list[float] = []
    report = fit(
        model,
        kept,
        epochs=200,
        seed=0,
        lr=2e-2,
        batch_size=4,
        held_out=watched,
        patience=5,
        callback=lambda epoch, scalars: seen.append(scalars["held_out_head"] + scalars["held_out_tail"]),
    )
    assert report.epochs == len(seen) < 200
    assert report.best_epoch == seen.index(min(seen)) + 1 == report.epochs - 5
    assert held_out_nll(model, watched) == (report.held_out_head, report.held_out_tail)


def test_held_out_likelihood_is_that_of_the_model() -> None:
    facts, model = small_facts(), FactDistribution(9, 3, dim=4, hidden=8)
    expected = -model.log_prob(facts.head, facts.relation, facts.tail).mean().item()
    assert sum(held_out_nll(model, facts, block=5)) == pytest.approx(expected, abs=1e-5)


def test_batches_cover_every_fact_once_and_depend_on_their_arguments_alone() -> None:
    facts = small_facts()
    batches = FactBatches(facts, batch_size=4, negatives=6)
    rows = [batches.batch(1, index, 7) for index in range(len(batches))]
    seen = sorted(
        (int(h), int(r), int(t)) for b in rows for h, r, t in zip(b["head"], b["relation"], b["tail"], strict=True)
    )
    assert seen == sorted(zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), strict=True))
    batches.batch(0, 0, 7)
    again = batches.batch(1, 2, 7)
    assert all(torch.equal(again[key], value) for key, value in rows[2].items())
    assert not torch.equal(batches.batch(2, 2, 7)["head"], again["head"])
    assert float(again["total"]) == pytest.approx(len(facts) / len(batches))


def test_negatives_are_drawn_as_often_as_their_correction_says() -> None:
    batches = FactBatches(small_facts(), batch_size=100, negatives=6)
    copies = torch.zeros(1000, 9, dtype=torch.float64)
    for epoch in range(1000):
        batch = batches.batch(epoch, 0, 0)
        copies[epoch, batch["negatives"]] = batch["correction"].exp()
    # E[copies / (draws q)] = 1 for every entity
    z = (copies.mean(0) - 1.0) / (copies.std(0) / 1000**0.5)
    assert float(z.abs().max()) < 4.0


def test_full_softmax_below_the_stated_entity_count() -> None:
    assert "negatives" not in FactBatches(small_facts()).batch(0, 0, 0)
    assert "negatives" in FactBatches(small_facts(), exact_below=8).batch(0, 0, 0)


def test_bad_arguments_are_refused() -> None:
    model, facts = FactDistribution(9, 3, dim=4, hidden=8), small_facts()
    empty = torch.empty(0, dtype=torch.int64)
    nothing = Facts(empty, empty, empty, empty.float(), facts.entities, facts.relations)
    with pytest.raises(ValueError, match="nothing to fit"):
        fit(model, nothing, epochs=1, seed=0)
    with pytest.raises(ValueError, match="no likelihood"):
        held_out_nll(model, nothing)
    with pytest.raises(ValueError, match="build it from these facts"):
        fit(FactDistribution(8, 3, dim=4, hidden=8), facts, epochs=1, seed=0)
    with pytest.raises(ValueError, match="epochs is 0"):
        fit(model, facts, epochs=0, seed=0)
    with pytest.raises(ValueError, match="needs held_out"):
        fit(model, facts, epochs=1, seed=0, patience=2)
    with pytest.raises(ValueError, match="fraction"):
        fit(model, facts, epochs=1, seed=0, held_out=1.5)
    with pytest.raises(ValueError, match="at least 1 group"):
        fit(model, facts, epochs=1, seed=0, batch_size=0)


def test_a_diverging_fit_stops_before_it_spoils_the_model() -> None:
    model, facts = FactDistribution(9, 3, dim=4, hidden=8), small_facts()
    with torch.no_grad():
        model.relation[1, 0] = math.nan
    before = model.entity.weight.detach().clone()
    with pytest.raises(FloatingPointError, match="try lr below"):
        fit(model, facts, epochs=1, seed=0)
    assert torch.equal(model.entity.weight, before)


def test_one_fact_and_a_held_out_share_cannot_both_be_had() -> None:
    facts = Facts.from_triples([("a", "r", "b")])
    report = fit(FactDistribution(2, 1, dim=2, hidden=4), facts, epochs=1, seed=0, held_out=0.1)
    assert math.isnan(report.held_out_head) and report.history == ()
