from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.kl.mixture_kl import mixture_kl, mixture_log_prob
from relsim.kl.mixture_similarity import mixture_similarity
from relsim.similarity import similarity


def case(seed: int, n: int = 5, entities: int = 30, dim: int = 4, spread: float = 1.5) -> tuple[torch.Tensor, ...]:
    """Natural parameters, features, sparse count rows (the last one empty) and weights."""
    g = torch.Generator().manual_seed(seed)
    natural, features = (spread * torch.randn(size, dim, generator=g).double() for size in (n, entities))
    counts = torch.rand(n, entities, generator=g).double() * (torch.rand(n, entities, generator=g) < 0.2)
    counts[:, 0] += 0.1
    counts = counts / counts.sum(1, keepdim=True)
    weight = torch.rand(n, generator=g).double() * 0.95
    counts[-1], weight[-1] = 0.0, 0.0
    return natural, features, counts, weight


def enumerated(
    natural: torch.Tensor, features: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """KL of all pairs from the probabilities of all events."""
    p = weight[:, None] * counts + (1.0 - weight)[:, None] * torch.softmax(natural @ features.T, 1)
    return (p[:, None] * (p.log()[:, None] - p.log()[None])).sum(2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_mixtures_agree_with_enumeration(seed: int) -> None:
    natural, features, counts, weight = case(seed)
    sparse = counts.to_sparse().coalesce()
    expected = enumerated(natural, features, counts, weight)
    kl = mixture_kl(natural, features, sparse, weight)
    torch.testing.assert_close(kl, expected, rtol=0, atol=1e-10)
    assert not kl.diagonal().any() and (kl >= 0.0).all()
    prob = weight[:, None] * counts + (1.0 - weight)[:, None] * torch.softmax(natural @ features.T, 1)
    torch.testing.assert_close(mixture_log_prob(natural, features, sparse, weight).exp(), prob, rtol=1e-11, atol=1e-13)


def test_events_that_the_neural_part_gives_almost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    natural, features, counts, weight = case(3, spread=6.0)  # log-probabilities down to about -400
    monkeypatch.setattr("relsim.kl.mixture_kl._BLOCK", 20)  # four events at a time
    kl = mixture_kl(natural, features, counts.to_sparse().coalesce(), weight)
    with mpmath.workdps(60):
        rows = []
        for i in range(5):
            logits = [mpmath.fdot(natural[i].tolist(), f.tolist()) for f in features]
            total = mpmath.fsum(mpmath.exp(v) for v in logits)
            w = mpmath.mpf(weight[i].item())
            rows.append(
                [w * c + (1 - w) * mpmath.exp(v) / total for v, c in zip(logits, counts[i].tolist(), strict=True)]
            )
        for i in range(5):
            for j in range(5):
                value = mpmath.fsum(p * mpmath.log(p / q) for p, q in zip(rows[i], rows[j], strict=True))
                assert float(kl[i, j]) == pytest.approx(float(value), rel=1e-11, abs=1e-12)


def test_without_counts_it_is_the_exponential_family() -> None:
    natural, features, counts, _ = case(1)
    kl = mixture_kl(natural, features, counts.to_sparse().coalesce(), torch.zeros(5).double())
    torch.testing.assert_close(kl, enumerated(natural, features, counts, torch.zeros(5).double()), rtol=0, atol=1e-11)


def test_near_and_exact_duplicates_keep_their_digits() -> None:
    natural, features, counts, weight = case(2)
    natural[1], counts[1], weight[1] = natural[0], counts[0], weight[0]
    natural[2], counts[2], weight[2] = natural[0] * (1.0 + 1e-6), counts[0], weight[0]
    kl = mixture_kl(natural, features, counts.to_sparse().coalesce(), weight)
    assert kl[0, 1] == kl[1, 0] == 0.0
    with mpmath.workdps(50):
        rows = []
        for i in (0, 2):
            logits = [mpmath.fdot(natural[i].tolist(), f.tolist()) for f in features]
            total, w = mpmath.fsum(mpmath.exp(v) for v in logits), mpmath.mpf(weight[i].item())
            rows.append(
                [w * c + (1 - w) * mpmath.exp(v) / total for v, c in zip(logits, counts[i].tolist(), strict=True)]
            )
        value = mpmath.fsum(p * mpmath.log(p / q) for p, q in zip(*rows, strict=True))
    assert 0.0 < float(value) < 1e-8
    assert float(kl[0, 2]) == pytest.approx(float(value), rel=1e-4)


def test_bad_input_is_refused() -> None:
    natural, features, counts, weight = case(0)
    sparse = counts.to_sparse().coalesce()
    with pytest.raises(TypeError, match=r"natural is torch\.float32"):
        mixture_kl(natural.float(), features, sparse, weight)
    with pytest.raises(ValueError, match="not a coalesced sparse"):
        mixture_kl(natural, features, counts, weight)
    with pytest.raises(ValueError, match="expected 0 <= weight < 1"):
        mixture_kl(natural, features, sparse, weight + 1.0)
    with pytest.raises(ValueError, match="a row without counts needs weight 0"):
        mixture_kl(natural, features, sparse, weight + 0.01)
    with pytest.raises(ValueError, match="have shapes"):
        mixture_kl(natural, features, sparse, weight[:4])


@pytest.fixture(scope="module")
def small() -> tuple[FactDistribution, Facts]:
    g = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.randint(0, n, (120,), generator=g) for n in (20, 4, 20)], 1).unique(dim=0)
    names = [f"e{i:02}" for i in range(20)], [f"r{i}" for i in range(4)]
    facts = Facts(rows[:, 0], rows[:, 1], rows[:, 2], torch.rand(len(rows), generator=g) + 0.5, *names)
    model = FactDistribution(20, 4, dim=5, hidden=8, seed=1).double()
    with torch.no_grad():
        model.relation.mul_(1.5)
    return model, facts


def test_mixed_relations_agree_with_enumeration_of_all_facts(small: tuple[FactDistribution, Facts]) -> None:
    model, facts = small
    at_head, at_tail = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.6, 0.0, 0.9], [0.5, 0.2, 0.7, 0.4]))
    result = mixture_similarity(model, facts, head_weight=at_head, tail_weight=at_tail, heads=20)
    table = torch.zeros(4, 20, 20, dtype=torch.float64)
    table[facts.relation, facts.head, facts.tail] = facts.count.double()
    r, h = torch.cartesian_prod(torch.arange(4), torch.arange(20)).T
    with torch.no_grad():
        neural_head = model.log_prob_head(torch.arange(4)).exp()
        neural_tail = model.log_prob_tail(h, r).exp().view(4, 20, 20)
    heads = table.sum(2)
    head = at_head[:, None] * heads / heads.sum(1, keepdim=True) + (1 - at_head)[:, None] * neural_head
    share = torch.where(heads > 0, at_tail[:, None], 0.0)[:, :, None]
    tail = share * table / heads[:, :, None].clamp(min=1e-300) + (1 - share) * neural_tail
    joint = (head[:, :, None] * tail).flatten(1)
    expected = (joint[:, None] * (joint.log()[:, None] - joint.log()[None])).sum(2)
    torch.testing.assert_close(result.kl, expected, rtol=0, atol=1e-10)
    assert result.method == "exact" and not result.stderr.any()
    pooled = mixture_similarity(model, facts, head_weight=at_head, tail_weight=at_tail, heads=12)
    apart = ~torch.eye(4, dtype=torch.bool)
    assert float(((pooled.kl - expected).abs() / pooled.stderr)[apart].max()) < 5.0
    assert pooled.lower is not None and (pooled.lower <= expected + 1e-12).all()


def test_weights_of_zero_leave_the_fitted_distribution(small: tuple[FactDistribution, Facts]) -> None:
    model, facts = small
    none = torch.zeros(4, dtype=torch.float64)
    mixed = mixture_similarity(model, facts, head_weight=none, tail_weight=none, heads=20)
    torch.testing.assert_close(mixed.kl, similarity(model, method="exact").kl, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="the model has"):
        mixture_similarity(FactDistribution(7, 4, dim=2), facts, head_weight=none, tail_weight=none)
