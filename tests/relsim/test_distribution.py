from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from relsim.distribution import FactDistribution
from relsim.model.softmax import softmax_nll


@pytest.fixture
def model() -> FactDistribution:
    return FactDistribution(12, 5, dim=4, hidden=8, seed=3).double()


def facts_batch(seed: int = 0, n: int = 40) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    triples = torch.unique(torch.stack([torch.randint(0, size, (n,), generator=g) for size in (12, 5, 12)], 1), dim=0)
    return {
        "head": triples[:, 0],
        "relation": triples[:, 1],
        "tail": triples[:, 2],
        "count": torch.rand(len(triples), generator=g) + 0.5,
    }


def scalar_log_prob(model: FactDistribution, h: int, r: int, t: int) -> float:
    """log P(h, t | r) from the formula, one multiplication at a time."""
    f = model.features().tolist()

    def network(net: nn.Module, x: list[float]) -> list[float]:
        for number, layer in enumerate((net.first, net.second, net.last)):
            weight, bias = layer.weight.tolist(), layer.bias.tolist()
            x = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
            x = x if number == 2 else [max(v, 0.0) for v in x]
        return x

    def log_softmax(x: list[float], index: int) -> float:
        logits = [sum(a * b for a, b in zip(x, row, strict=True)) for row in f]
        return logits[index] - math.log(sum(math.exp(v) for v in logits))

    rel = model.relation[r].tolist()
    both = [a + b for a, b in zip(rel, f[h], strict=True)]
    return log_softmax(network(model.head_network, rel), h) + log_softmax(network(model.tail_network, both), t)


def test_log_prob_is_the_formula(model: FactDistribution) -> None:
    h, r, t = torch.tensor([0, 7, 11]), torch.tensor([4, 0, 2]), torch.tensor([3, 7, 0])
    expected = [scalar_log_prob(model, *map(int, triple)) for triple in zip(h, r, t, strict=True)]
    torch.testing.assert_close(model.log_prob(h, r, t), torch.tensor(expected, dtype=torch.float64))


def test_joint_sums_to_one(model: FactDistribution) -> None:
    h, t = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    for relation in range(5):
        total = model.log_prob(h, torch.full_like(h, relation), t).exp().sum()
        assert total.item() == pytest.approx(1.0, abs=1e-12)


def test_all_relations_at_once_agree_with_one_at_a_time(model: FactDistribution) -> None:
    heads = torch.tensor([2, 9, 2])
    together = model.tail_natural_all(heads)
    for relation in range(5):
        one = model.tail_natural(heads, torch.full_like(heads, relation))
        torch.testing.assert_close(together[:, relation], one, rtol=1e-12, atol=1e-12)


def test_loss_is_the_weighted_mean_over_facts(model: FactDistribution) -> None:
    batch = facts_batch()
    log_prob = model.log_prob(batch["head"], batch["relation"], batch["tail"])
    expected = -(batch["count"].double() * log_prob).sum() / batch["count"].double().sum()
    torch.testing.assert_close(model.loss(batch), expected)
    doubled = {key: torch.cat([value, value]) for key, value in batch.items()}
    torch.testing.assert_close(model.loss(doubled), expected)
    total = batch | {"total": batch["count"].double().sum() * 2}
    torch.testing.assert_close(model.loss(total), expected / 2)


def test_every_entity_as_negative_is_the_full_softmax(model: FactDistribution) -> None:
    batch = facts_batch()
    exact, exact_gradient = value_and_gradient(model, batch)
    everything = batch | {"negatives": torch.arange(12), "correction": torch.zeros(12, dtype=torch.float64)}
    sampled, gradient = value_and_gradient(model, everything)
    assert sampled == pytest.approx(exact, abs=1e-12)
    torch.testing.assert_close(gradient, exact_gradient, rtol=1e-9, atol=1e-12)


def value_and_gradient(model: FactDistribution, batch: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    return float(loss.detach()), torch.cat([g.flatten() for g in gradients if g is not None])


def test_sampled_normaliser_is_unbiased() -> None:
    g = torch.Generator().manual_seed(0)
    natural, features = torch.randn(3, 4, generator=g).double(), torch.randn(30, 4, generator=g).double()
    row, target = torch.tensor([0, 0, 1, 2]), torch.tensor([3, 8, 8, 29])
    q = torch.rand(30, generator=g).double() + 0.1
    q /= q.sum()
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    normalisers = []
    for _ in range(1000):
        ids, copies = torch.unique(torch.multinomial(q, 6, replacement=True, generator=g), return_counts=True)
        correction = (copies / (6 * q[ids])).log()
        nll = softmax_nll(natural, row, target, weight, features, negatives=ids, correction=correction)
        # The nll is linear in the weights, with log Z of the row minus the observed logit as the coefficient.
        (coefficient,) = torch.autograd.grad(nll, weight)
        normalisers.append(coefficient + (natural[row] * features[target]).sum(1))
    drawn = torch.stack(normalisers).exp()
    truth = (natural @ features.T).exp().sum(1)[row]
    z = (drawn.mean(0) - truth) / (drawn.std(0) / len(drawn) ** 0.5)
    assert float(z.abs().max()) < 4.0


def test_only_observed_targets_among_the_negatives_keep_gradients_finite(model: FactDistribution) -> None:
    batch = {
        "head": torch.tensor([1]),
        "relation": torch.tensor([0]),
        "tail": torch.tensor([1]),
        "count": torch.ones(1),
        "negatives": torch.tensor([1]),
        "correction": torch.zeros(1),
    }
    value, _ = value_and_gradient(model, batch)
    assert value == pytest.approx(0.0, abs=1e-12)


def test_samples_follow_the_distribution(model: FactDistribution) -> None:
    n = 20_000
    heads, tails = model.sample(torch.tensor([1, 1]), n, generator=torch.Generator().manual_seed(0))
    assert heads.shape == tails.shape == (2, n)
    h, t = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    expected = model.log_prob(h, torch.ones_like(h), t).detach().exp() * n
    seen = torch.bincount(heads[0] * 12 + tails[0], minlength=144)
    keep = expected > 5
    chi2 = float(((seen - expected) ** 2 / expected)[keep].sum())
    assert chi2 < int(keep.sum()) + 4 * (2 * int(keep.sum())) ** 0.5
    again, _ = model.sample(torch.tensor([1, 1]), n, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, heads)


def test_any_entity_module_and_natural_map_can_be_handed_in() -> None:
    class Lorentz(nn.Module):
        """Points of the hyperboloid with the time coordinate negated: x . f is the Lorentzian inner product."""

        def __init__(self) -> None:
            super().__init__()
            self.space = nn.Parameter(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))

        def forward(self) -> torch.Tensor:
            return torch.cat([-(1 + self.space.square().sum(1, keepdim=True)).sqrt(), self.space], 1)

    class Lift(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([(1 + x[..., 1:].square().sum(-1, keepdim=True)).sqrt(), x[..., 1:]], -1)

    model = FactDistribution(6, 2, dim=99, hidden=8, entity=Lorentz(), natural=Lift())
    assert model.dim == 4
    x = model.tail_natural(torch.tensor([5]), torch.tensor([1]))
    assert (x * x * torch.tensor([-1.0, 1, 1, 1])).sum().item() == pytest.approx(-1.0, abs=1e-4)
    batch = facts_batch()
    batch = {key: value % 6 if key in ("head", "tail") else value for key, value in batch.items()}
    batch["relation"] = batch["relation"] % 2
    model.loss(batch).backward()
    assert model.entity.space.grad is not None
    assert float(model.entity.space.grad.abs().min()) > 0


def test_equal_seeds_give_equal_models() -> None:
    one, same, other = (FactDistribution(5, 2, dim=4, hidden=8, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.relation, other.relation)


@pytest.mark.parametrize("bad", [-1, 12])
def test_ids_out_of_range_are_refused(model: FactDistribution, bad: int) -> None:
    with pytest.raises(IndexError, match="expected 0 to 11"):
        model.log_prob(torch.tensor([bad]), torch.tensor([0]), torch.tensor([0]))
    batch = facts_batch()
    batch["negatives"], batch["correction"] = torch.tensor([bad]), torch.zeros(1)
    with pytest.raises(IndexError, match="negatives"):
        model.loss(batch)


def test_bad_arguments_are_refused(model: FactDistribution) -> None:
    with pytest.raises(IndexError, match="expected 0 to 4"):
        model.log_prob_head(torch.tensor([5]))
    with pytest.raises(TypeError, match="int64"):
        model.log_prob_head(torch.tensor([0.0]))
    with pytest.raises(KeyError, match="count"):
        model.loss({"head": torch.tensor([0]), "relation": torch.tensor([0]), "tail": torch.tensor([0])})
    with pytest.raises(ValueError, match="lengths"):
        model.loss({key: value[:0] for key, value in facts_batch().items()})
    with pytest.raises(ValueError, match="correction"):
        model.loss(facts_batch() | {"negatives": torch.tensor([0])})
    with pytest.raises(ValueError, match="n is 0"):
        model.sample(torch.tensor([0]), 0)
    with pytest.raises(ValueError, match="num_entities is 1"):
        FactDistribution(1, 1)
    with pytest.raises(ValueError, match="expected \\(7, dim\\)"):
        FactDistribution(7, 1, entity=model.entity)
