from __future__ import annotations

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim.distribution import FactDistribution
from relsim.divergence import head_kl, head_prob, tail_kl
from relsim.kl.ancestral import ancestral_kl
from relsim.kl.pool import HeadPool, capped, draw_pool, every_head, inclusion_probability, own_heads, systematic
from relsim.kl.sums import TailSums
from relsim.maths.expfamily import bregman_kl, centred_kl, moments

E, R = 12, 5


@pytest.fixture(scope="module")
def model() -> FactDistribution:
    return spread_out(FactDistribution(E, R, dim=4, hidden=8, seed=0).double())


def spread_out(model: FactDistribution, factor: float = 1.3) -> FactDistribution:
    """A fresh model is nearly uniform; larger vectors make its relations differ by some nats."""
    with torch.no_grad():
        model.entity.weight.mul_(factor)
        model.relation.mul_(factor)
    return model


def oracle(model: FactDistribution) -> tuple[torch.Tensor, torch.Tensor]:
    """Head and tail KL by enumeration of all (h, t): log-softmax and loops, nothing of the code under test."""
    with torch.no_grad():
        features, relation = model.features(), model.relation
        log_head = [torch.log_softmax(features @ model.head_network(relation[r]), 0) for r in range(len(relation))]
        log_tail = [
            [
                torch.log_softmax(features @ model.tail_network(relation[r] + features[h]), 0)
                for h in range(len(features))
            ]
            for r in range(len(relation))
        ]
    head, tail = torch.zeros(2, len(relation), len(relation), dtype=torch.float64)
    for i in range(len(relation)):
        for j in range(len(relation)):
            for h in range(len(features)):
                p = log_head[i][h].exp()
                head[i, j] += p * (log_head[i][h] - log_head[j][h])
                for t in range(len(features)):
                    tail[i, j] += p * log_tail[i][h][t].exp() * (log_tail[i][h][t] - log_tail[j][h][t])
    return head, tail


@pytest.fixture(scope="module")
def truth(model: FactDistribution) -> tuple[torch.Tensor, torch.Tensor]:
    head, tail = oracle(model)
    assert 0.3 < float((head + tail).median()) < 30  # the case is neither trivial nor saturated
    return head, tail


def test_exact_is_the_oracle(model: FactDistribution, truth: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(head_kl(model), truth[0], rtol=0, atol=1e-10)
    tail = tail_kl(model, every_head(head_prob(model)), dtype=torch.float64)
    torch.testing.assert_close(tail.kl, truth[1], rtol=0, atol=1e-10)
    assert not tail.variance.any()
    # All heads were enumerated: the lower bound is the value, less rounding.
    torch.testing.assert_close(tail.lower, truth[1], rtol=0, atol=1e-10)
    assert (tail.lower <= truth[1]).all()


def test_single_precision_logits_stay_far_inside_the_stated_error() -> None:
    model = spread_out(FactDistribution(300, 20, dim=50, hidden=64, seed=0), 4.0)
    pool = every_head(head_prob(model))
    exact, single = (tail_kl(model, pool, dtype=dtype).kl for dtype in (torch.float64, torch.float32))
    assert float(exact.max()) > 10.0
    features = model.features().detach()
    largest = (features - features.mean(0)).norm(dim=1).max() * model.tail_natural_all(torch.arange(220)).norm(
        dim=2
    ).max()
    assert float((single - exact).abs().max()) < 5e-7 * largest.item()  # half of what the docstring states


def test_a_pool_of_all_heads_is_exact(model: FactDistribution, truth: tuple[torch.Tensor, torch.Tensor]) -> None:
    pool = draw_pool(head_prob(model), E, generator=torch.Generator().manual_seed(0))
    tail = tail_kl(model, pool, dtype=torch.float64)
    torch.testing.assert_close(tail.kl, truth[1], rtol=0, atol=1e-10)
    assert not tail.variance.any() and torch.isinf(tail.ess).all()


def test_sums_over_some_heads_are_lower_bounds(
    model: FactDistribution, truth: tuple[torch.Tensor, torch.Tensor]
) -> None:
    for seed in range(20):
        pool = draw_pool(head_prob(model), 5, generator=torch.Generator().manual_seed(seed))
        tail = tail_kl(model, pool, dtype=torch.float64)
        by_hand = torch.einsum("im,mij->ij", head_prob(model)[:, pool.heads], conditional_kl(model)[pool.heads])
        torch.testing.assert_close(tail.lower, by_hand, rtol=0, atol=1e-10)
        assert (tail.lower <= truth[1]).all() and float(off_diagonal(tail.lower).min()) > 0.0


def off_diagonal(x: torch.Tensor) -> torch.Tensor:
    return x[..., ~torch.eye(x.shape[-1], dtype=torch.bool)]


def conditional_kl(model: FactDistribution) -> torch.Tensor:
    """D[h, i, j], the divergence of the tails given head h, by summation."""
    with torch.no_grad():
        log_tail = torch.log_softmax(model.tail_natural_all(torch.arange(model.num_entities)) @ model.features().T, 2)
    return (log_tail.exp()[:, :, None] * (log_tail[:, :, None] - log_tail[:, None])).sum(3)


@pytest.fixture(scope="module")
def many_pools() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimates, standard errors, degrees of freedom, effective sizes of 220 pools of 40 of 200 heads; the truth."""
    model = spread_out(FactDistribution(200, 4, dim=6, hidden=16, seed=2).double(), 0.8)
    probability, divergence = head_prob(model), conditional_kl(model)
    truth = torch.einsum("ih,hij->ij", probability, divergence)
    generator, rows = torch.Generator().manual_seed(0), torch.arange(4)
    estimates, errors, df, ess = [], [], [], []
    inclusion = inclusion_probability(probability, 40)
    for _ in range(220):
        pool = draw_pool(probability, 40, generator=generator, inclusion=inclusion)
        sums = TailSums.zeros(4)
        for k, h in enumerate(pool.heads.tolist()):
            sums.add(rows, divergence[h], pool.weight[:, k], pool.variance[:, k])
        estimate, variance = sums.estimate()
        estimates.append(estimate)
        errors.append(variance.sqrt())
        df.append(pool.df)
        ess.append(pool.ess)
    direct = tail_kl(model, pool, dtype=torch.float64)
    torch.testing.assert_close(direct.kl, estimate, rtol=0, atol=1e-10)
    torch.testing.assert_close(direct.variance.sqrt(), variance.sqrt(), rtol=1e-6, atol=1e-9)
    whole = TailSums.zeros(4)
    for part in torch.arange(len(pool.heads)).split(7):
        whole.add_block(divergence[pool.heads[part]].clone(), pool.weight[:, part].T, pool.variance[:, part].T)
    for one, two in zip(whole.estimate(), (estimate, variance), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole.skewness(), sums.skewness(), rtol=1e-6, atol=1e-9)
    deviation = pool.variance.sqrt().T[:, :, None] * (divergence[pool.heads] - estimate)
    by_hand = (deviation**3).sum(0) / (deviation**2).sum(0).clamp(min=1e-30) ** 1.5
    expected = (by_hand - torch.diag(by_hand.diagonal())).sum(1) / 3.0
    torch.testing.assert_close(sums.skewness(), expected, rtol=1e-6, atol=1e-9)
    return torch.stack(estimates), torch.stack(errors), torch.stack(df), torch.stack(ess), truth


def test_pooled_is_unbiased_and_its_standard_error_calibrated(many_pools: tuple[torch.Tensor, ...]) -> None:
    estimates, errors, _, ess, truth = many_pools
    n = len(estimates)
    assert 15.0 < float(ess.mean()) < 200.0
    bias = off_diagonal(estimates - truth)
    z = bias.mean(0) / (bias.std(0) / n**0.5)
    # A ratio estimator has a bias of order variance / (ess) beside the noise of 220 pools.
    assert float(z.abs().max()) < 4.5
    ratio = off_diagonal(errors).square().mean(0).sqrt() / bias.std(0)
    assert float(ratio.min()) > 0.85 and float(ratio.max()) < 1.35


def test_intervals_cover_as_they_say(many_pools: tuple[torch.Tensor, ...]) -> None:
    from scipy import stats

    estimates, errors, df, _, truth = many_pools
    quantile = torch.as_tensor(stats.t.ppf(0.975, df.numpy()))[:, :, None]
    covered = off_diagonal((estimates - truth).abs() <= quantile * errors).double().mean(0)
    assert 0.93 <= float(covered.mean()) <= 0.98
    assert float(covered.min()) > 0.88


def test_ancestral_is_unbiased_and_its_standard_error_calibrated(
    model: FactDistribution, truth: tuple[torch.Tensor, torch.Tensor]
) -> None:
    generator = torch.Generator().manual_seed(0)
    runs = [
        ancestral_kl(model, 30, generator=generator, dtype=torch.float64, reuse_heads=bool(k % 2)) for k in range(60)
    ]
    for part, expected in (("head", truth[0]), ("tail", truth[1])):
        drawn = off_diagonal(torch.stack([getattr(run, part) for run in runs]) - expected)
        assert float((drawn.mean(0) / (drawn.std(0) / len(runs) ** 0.5)).abs().max()) < 4.5
    total = off_diagonal(torch.stack([run.head + run.tail for run in runs]))
    claimed = off_diagonal(torch.stack([run.variance for run in runs])).mean(0)
    ratio = claimed.sqrt() / total.std(0)
    assert float(ratio.min()) > 0.75 and float(ratio.max()) < 1.35
    assert all(not run.variance.diagonal().any() and not run.head.diagonal().any() for run in runs)


def planted_twins(gap: float, dtype: torch.dtype = torch.float64) -> FactDistribution:
    model = spread_out(FactDistribution(E, R, dim=4, hidden=8, seed=0).to(dtype))
    with torch.no_grad():
        model.relation[3] = model.relation[1] * (1.0 + gap)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_relations_have_exactly_zero_divergence(dtype: torch.dtype) -> None:
    model = planted_twins(0.0, dtype)
    pool = draw_pool(head_prob(model), 6, generator=torch.Generator().manual_seed(0))
    tail = tail_kl(model, pool)
    for matrix in (head_kl(model), tail.kl, tail.variance):
        assert matrix[1, 3] == matrix[3, 1] == 0.0
        assert not matrix.diagonal().any()


@pytest.mark.parametrize("gap", [1e-7, 1e-4, 1e-2])
def test_near_duplicates_have_all_their_digits(gap: float) -> None:
    model = planted_twins(gap)
    head, tail = head_kl(model), tail_kl(model, every_head(head_prob(model))).kl
    assert head.min() >= 0.0 and tail.min() >= 0.0
    for i, j in ((1, 3), (3, 1)):
        expected_head, expected_tail = many_digits(model, i, j)
        assert 0.0 < expected_tail < 1e-2
        assert float(head[i, j]) == pytest.approx(expected_head, rel=1e-6)
        assert float(tail[i, j]) == pytest.approx(expected_tail, rel=1e-6)


def many_digits(model: FactDistribution, i: int, j: int) -> tuple[float, float]:
    """Head and tail KL of one pair from the model's natural parameters, in 40 digits."""
    heads = torch.arange(E)
    with torch.no_grad(), mpmath.workdps(40):
        features = mpmath.matrix(model.features().tolist())

        def log_softmax(x: torch.Tensor) -> list[mpmath.mpf]:
            logits = list(features * mpmath.matrix(x.tolist()))
            total = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in logits))
            return [v - total for v in logits]

        def kl(p: list[mpmath.mpf], q: list[mpmath.mpf]) -> mpmath.mpf:
            return mpmath.fsum(mpmath.exp(a) * (a - b) for a, b in zip(p, q, strict=True))

        one, two = (log_softmax(model.head_natural(torch.tensor([r]))[0]) for r in (i, j))
        rows = [model.tail_natural(heads, torch.full_like(heads, r)) for r in (i, j)]
        tails = [kl(log_softmax(x), log_softmax(y)) for x, y in zip(*rows, strict=True)]
        return float(kl(one, two)), float(mpmath.fsum(mpmath.exp(p) * d for p, d in zip(one, tails, strict=True)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-9, 1), st.integers(2, 40))
def test_the_two_forms_agree_and_the_centred_one_is_never_negative(seed: int, exponent: float, entities: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, features = torch.randn(1, 3, generator=g).double(), torch.randn(entities, 3, generator=g).double()
    other = x + 10.0**exponent * torch.randn(1, 3, generator=g).double()
    both = torch.cat([x, other])
    plain = bregman_kl(both, *moments(both, features), torch.arange(2))
    centred = torch.cat([centred_kl(x, other, features), centred_kl(other, x, features)])
    assert (centred >= 0).all()
    torch.testing.assert_close(torch.stack([plain[0, 1], plain[1, 0]]), centred, rtol=1e-9, atol=1e-13)


def test_chunks_do_not_change_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    x, features = torch.randn(7, 3, generator=g).double(), torch.randn(9, 3, generator=g).double()
    wanted = torch.tensor([True, False, False, False, False, True, True])
    whole = moments(x, features)
    monkeypatch.setattr("relsim.maths.expfamily._ROWS", 2)
    monkeypatch.setattr("relsim.maths.expfamily._TAILS", 4)
    partition, mean = moments(x, features, mean_of=wanted)
    torch.testing.assert_close(partition, torch.logsumexp(x @ features.T, 1))
    torch.testing.assert_close(mean, whole[1][wanted])
    torch.testing.assert_close(mean, torch.softmax(x @ features.T, 1)[wanted] @ features)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 29))
def test_inclusion_probabilities_are_a_design(seed: int, size: int) -> None:
    logits = 3.0 * torch.randn(4, 30, generator=torch.Generator().manual_seed(seed)).double()
    pi = inclusion_probability(torch.softmax(logits, 1), size)
    assert float(pi.sum()) == pytest.approx(size)
    assert float(pi.min()) > 0.0 and float(pi.max()) <= 1.0


def test_heads_are_drawn_with_the_probabilities_of_the_design() -> None:
    probability = torch.softmax(2.0 * torch.randn(4, 30, generator=torch.Generator().manual_seed(0)).double(), 1)
    pi, generator = inclusion_probability(probability, 8), torch.Generator().manual_seed(1)
    hits = torch.zeros(30, dtype=torch.float64)
    for _ in range(1500):
        pool = draw_pool(probability, 8, generator=generator, inclusion=pi)
        assert len(pool.heads.unique()) == len(pool.heads) and abs(len(pool.heads) - 8) <= 1
        hits[pool.heads] += 1
    z = (hits / 1500 - pi) / (pi * (1 - pi) / 1500).clamp(min=1e-12).sqrt()
    assert float(z.abs().max()) < 4.0


def test_a_rare_relation_gets_its_heads() -> None:
    # 30 relations share the same 100 heads, one relation has 100 heads of its own.
    probability = torch.zeros(31, 200, dtype=torch.float64)
    probability[:30, :100], probability[30, 100:] = 0.01, 0.01
    pool = draw_pool(probability, 60, generator=torch.Generator().manual_seed(0))
    assert float(pool.ess.min()) > 10.0
    by_mixture = 60 / 31  # heads that sampling on the mixture would have given the rare one
    assert int((pool.heads >= 100).sum()) > 4 * by_mixture


def test_a_pool_that_missed_the_uncertain_heads_does_not_call_itself_certain() -> None:
    # Half of the mass on one certain head, half spread thinly: the expected variance factor is known.
    probability = torch.cat([torch.full((1, 1), 0.5), torch.full((1, 400), 0.5 / 400)], 1).double()
    inclusion = torch.cat([torch.ones(1), torch.full((400,), 0.01)]).double()
    expected = 400 * (0.5 / 400) ** 2 * 99
    for seed in range(20):
        pool = draw_pool(probability, 5, generator=torch.Generator().manual_seed(seed), inclusion=inclusion)
        assert float(pool.ess[0]) <= 1.0 / expected * (1 + 1e-12)
        assert float(pool.variance.sum()) >= 0.5 * expected


def test_one_heavy_head_has_an_infinite_standard_error() -> None:
    weight = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    endless = torch.full_like(weight, torch.inf)
    pool = HeadPool(torch.tensor([4]), weight, endless, weight[:, 0], weight[:, 0], weight)
    model = spread_out(FactDistribution(E, 2, dim=4, hidden=8, seed=0))
    variance = tail_kl(model, pool).variance
    assert torch.isinf(variance[0, 1]) and variance[0, 0] == 0.0


def test_ancestral_needs_two_samples(model: FactDistribution) -> None:
    with pytest.raises(ValueError, match="no standard error"):
        ancestral_kl(model, 1, generator=torch.Generator())
    with pytest.raises(ValueError, match="expected 1 to 11"):
        inclusion_probability(head_prob(model), 12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 39), st.floats(0.1, 6.0))
def test_capped_sizes_are_what_repeated_capping_gives(seed: int, total: int, spread: float) -> None:
    size = torch.exp(spread * torch.randn(40, generator=torch.Generator().manual_seed(seed)).double())
    expected, certain = torch.zeros(40).double(), torch.zeros(40, dtype=torch.bool)
    while True:  # the definition: whatever exceeds 1 becomes certain, the rest shares what is left
        expected = torch.where(certain, 0.0, size)
        expected = torch.where(certain, 1.0, expected * (total - int(certain.sum())) / expected.sum())
        if not bool((expected > 1.0).any()):
            break
        certain |= expected > 1.0
    torch.testing.assert_close(capped(size, float(total)), expected, rtol=1e-9, atol=1e-12)


def test_systematic_draws_have_their_size_and_their_certain_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    for total in (3, 17, 30):
        pi = capped(torch.rand(40, generator=generator).double() ** 4, float(total))
        for _ in range(30):
            drawn = systematic(pi, torch.randperm(40, generator=generator), generator=generator)
            assert len(drawn) == len(drawn.unique()) == total
            assert set((pi >= 1.0).nonzero().squeeze(1).tolist()) <= set(drawn.tolist())


def test_own_heads_estimate_the_sum_they_were_drawn_for() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.softmax(2.5 * torch.randn(2, 60, generator=generator).double(), 1)
    value = torch.randn(60, generator=generator).double() + 3.0
    truth, runs = weight @ value, []
    for _ in range(400):
        second, variance = own_heads(weight, 12, generator=generator)
        assert (second > 0.0).sum(1).tolist() == [12, 12]
        estimate = second @ value
        runs.append(torch.stack([estimate, (variance * (value - estimate[:, None]) ** 2).sum(1)]))
    estimate, claimed = torch.stack(runs).unbind(1)
    deviation = estimate.std(0)
    assert float(((estimate.mean(0) - truth) / (deviation / 20.0)).abs().max()) < 4.0
    assert (
        float((claimed.mean(0).sqrt() / deviation).min()) > 0.9
        and float((claimed.mean(0).sqrt() / deviation).max()) < 1.15
    )
