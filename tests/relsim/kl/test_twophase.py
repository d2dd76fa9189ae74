from __future__ import annotations

import pytest
import torch

from relsim.distribution import FactDistribution
from relsim.divergence import TailEstimate, centred_features, head_kl, head_prob, tail_kl
from relsim.kl.pool import every_head
from relsim.kl.tails import TailSample, draw_tails, heaviest_tails
from relsim.kl.twophase import Sizes, two_phase_kl
from relsim.maths.expfamily import moments

E, R = 600, 6


@pytest.fixture(scope="module")
def model() -> FactDistribution:
    """Six relations that differ by some nats; the last two are equal, the fourth is nearly the third."""
    model = FactDistribution(E, R, dim=12, hidden=32, seed=1)
    with torch.no_grad():
        model.entity.weight.mul_(1.4)
        model.relation.mul_(1.4)
        model.relation[3] = model.relation[2] * (1.0 + 1e-4)
        model.relation[5] = model.relation[4]
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def exact(model: FactDistribution) -> torch.Tensor:
    truth = tail_kl(model, every_head(head_prob(model)), dtype=torch.float64).kl
    assert 0.5 < float(truth[0, 1]) < 20.0
    return truth


def drawn(model: FactDistribution, sizes: Sizes, seed: int) -> TailEstimate:
    generator = torch.Generator().manual_seed(seed)
    return two_phase_kl(model, head_prob(model), sizes, head=head_kl(model), generator=generator)


def test_exact_sums_everywhere_take_all_error_of_crude_cheap_sums_away(
    model: FactDistribution, exact: torch.Tensor
) -> None:
    crude = drawn(model, Sizes(E, 5, 3, 40, 20), 0)
    result = drawn(model, Sizes(E, 5, 3, E, E), 0)
    torch.testing.assert_close(result.kl, exact, rtol=0, atol=1e-4)
    assert float((crude.kl - exact).abs().max()) > 0.05  # which were far off
    assert float(result.variance.max()) < 1e-8
    # Heads that a relation has with less than 1e-5 are left out of the lower bounds.
    assert (result.lower <= exact + 1e-9).all() and float((result.lower - exact).abs().max()) < 1e-2


def test_estimates_are_unbiased_and_their_standard_errors_calibrated(
    model: FactDistribution, exact: torch.Tensor
) -> None:
    runs = [drawn(model, Sizes(150, 24, 12, 30, 24), seed) for seed in range(60)]
    apart = exact > 0.1
    error = torch.stack([run.kl for run in runs])[:, apart] - exact[apart]
    deviation = error.std(0)
    assert float((error.mean(0) / (deviation / len(runs) ** 0.5)).abs().max()) < 4.5
    claimed = torch.stack([run.variance for run in runs])[:, apart].mean(0).sqrt()
    assert 0.8 < float((claimed / deviation).min()) and float((claimed / deviation).max()) < 1.5  # noqa: SIM300
    assert 0.95 < float((claimed / deviation).median()) < 1.25
    assert all((run.lower <= exact).all() and (run.kl >= 0.0).all() for run in runs)


@pytest.mark.parametrize("seed", range(4))
def test_equal_and_nearly_equal_relations(model: FactDistribution, exact: torch.Tensor, seed: int) -> None:
    result = drawn(model, Sizes(150, 8, 4, 30, 24), seed)
    assert result.kl[4, 5] == result.kl[5, 4] == 0.0 and result.variance[4, 5] == 0.0
    assert not result.kl.diagonal().any() and not result.variance.diagonal().any()
    for i, j in ((2, 3), (3, 2)):
        assert 0.0 < float(exact[i, j]) < 1e-4
        assert float(result.kl[i, j]) == pytest.approx(float(exact[i, j]), rel=0.5)
        assert abs(float(result.kl[i, j] - exact[i, j])) < 5.0 * float(result.variance[i, j].sqrt())


def test_sampled_tails_are_unbiased_for_normalisers_and_heaviest_ones_bound_them(model: FactDistribution) -> None:
    prob, features = head_prob(model), centred_features(model, torch.float32)
    heads = torch.arange(0, E, 40)
    natural = model.tail_natural_all(heads)
    partition = moments(natural.flatten(0, 1), features)[0].view(len(heads), R).T
    ratios = []
    for seed in range(40):
        sample, own = draw_tails(model, prob, features, 60, 30, generator=torch.Generator().manual_seed(seed))
        assert sample.features.shape == (R, 60, 12) and own.features.shape == (R, 30, 12)
        ratios.append((sample.moments(natural.transpose(0, 1), mean=False)[0].double() - partition).exp())
    ratio = torch.stack(ratios)
    z = (ratio.mean(0) - 1.0) / (ratio.std(0) / len(ratios) ** 0.5)
    assert float(z.abs().max()) < 4.5 and 0.005 < float(ratio.std(0).median()) < 0.2
    best = heaviest_tails(model, prob, features, 60, generator=torch.Generator().manual_seed(0))
    bound, _ = best.moments(natural.transpose(0, 1), mean=False)
    assert (bound < partition).all() and float((partition - bound).median()) < 2.5


def test_moments_of_a_sample_of_all_tails_are_the_moments(model: FactDistribution) -> None:
    features = centred_features(model, torch.float32)
    everything = TailSample(features.expand(R, -1, -1), torch.zeros(R, E))
    natural = model.tail_natural_all(torch.arange(7))
    partition, mean = everything.moments(natural.transpose(0, 1))
    expected, expected_mean = moments(natural.double().flatten(0, 1), features.double())
    torch.testing.assert_close(partition.T.double().flatten(), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(mean.transpose(0, 1).double().flatten(0, 1), expected_mean, rtol=1e-4, atol=1e-5)
