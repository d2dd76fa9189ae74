from __future__ import annotations

import itertools
import math

import pytest
import torch

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import fit, held_out_nll, parameter_groups, refit_head, split_facts
from relsim.model.batches import FactBatches


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


def test_head_and_tail_are_stopped_apart() -> None:
    kept, watched = split_facts(small_facts(), 0.3, seed=0)
    assert len(kept) + len(watched) == len(small_facts()) and len(watched) == round(0.3 * len(small_facts()))
    model = FactDistribution(9, 3, dim=8, hidden=32)
    seen: list[tuple[float, float]] = []
    states: list[dict[str, torch.Tensor]] = []

    def callback(epoch: int, scalars: dict[str, float]) -> None:
        seen.append((scalars["held_out_head"], scalars["held_out_tail"]))
        states.append({name: value.clone() for name, value in model.state_dict().items()})

    options = {"epochs": 200, "seed": 0, "lr": 2e-2, "batch_size": 4, "held_out": watched, "patience": 5}
    report = fit(model, kept, callback=callback, **options)
    head, tail = (min(range(len(seen)), key=lambda epoch, k=k: seen[epoch][k]) + 1 for k in range(2))
    assert report.history == tuple(seen) and report.epochs == len(seen) < 200
    assert (report.head_epoch, report.best_epoch) == (head, tail) and head != tail
    assert report.epochs == max(head, tail) + 5
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("head_network")}
    assert all(torch.equal(value, states[tail - 1][name]) for name, value in own.items())
    assert report.held_out_tail == seen[tail - 1][1]
    assert held_out_nll(model, watched) == (report.held_out_head, report.held_out_tail)
    # The head network of its own best epoch, on the features of another: not worse than left unadapted.
    mixed = FactDistribution(9, 3, dim=8, hidden=32)
    network = {name: value for name, value in states[head - 1].items() if name.startswith("head_network")}
    mixed.load_state_dict(states[tail - 1] | network)
    assert report.held_out_head <= held_out_nll(mixed, watched)[0] + 1e-6


def test_refitted_head_is_better_and_nothing_else_moves() -> None:
    kept, watched = split_facts(small_facts(), 0.3, seed=0)
    model = FactDistribution(9, 3, dim=8, hidden=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = held_out_nll(model, watched)
    value = refit_head(model, kept, watched, lr=1e-2)
    after = held_out_nll(model, watched)
    assert value == pytest.approx(after[0], abs=1e-5) and after[0] < start[0] and after[1] == start[1]
    moved = {name for name, old in before.items() if not torch.equal(old, model.state_dict()[name])}
    assert moved and all(name.startswith("head_network") for name in moved)


def test_weight_decay_shrinks_networks_and_relations_but_not_entities() -> None:
    sizes = {}
    for decay in (0.0, 30.0):
        model = FactDistribution(9, 3, dim=8, hidden=32)
        fit(model, small_facts(), epochs=40, seed=0, weight_decay=decay)
        sizes[decay] = [float(p.detach().norm()) for p in (model.tail_network.second.weight, model.relation)]
    assert sizes[30.0][0] < 0.7 * sizes[0.0][0] and sizes[30.0][1] < 0.95 * sizes[0.0][1]
    groups = parameter_groups(model, 3.0)
    assert [group["weight_decay"] for group in groups] == [0.0, 1.0, 3.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    with pytest.raises(ValueError, match="weight_decay is -1"):
        fit(model, small_facts(), epochs=1, seed=0, weight_decay=-1.0)


def test_dropout_is_seeded_and_off_after_the_fit() -> None:
    one, two = (FactDistribution(9, 3, dim=4, hidden=8, dropout=0.5) for _ in range(2))
    state = torch.get_rng_state()
    for model in (one, two):
        fit(model, small_facts(), epochs=2, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    r = torch.tensor([0, 1])
    assert torch.equal(one.log_prob_head(r), one.log_prob_head(r))
    one.train()
    assert not torch.equal(one.log_prob_head(r), one.log_prob_head(r))


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
