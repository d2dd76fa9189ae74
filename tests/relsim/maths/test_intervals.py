from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from relsim.kl.modelerror import model_error
from relsim.kl.pool import draw_pool, inclusion_probability
from relsim.kl.result import RelationSimilarity
from relsim.kl.sequential import Goal
from relsim.kl.sums import TailSums
from relsim.maths.intervals import shrunken_skewness, skewed_interval, wilson


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_without_skewness_it_is_students_interval() -> None:
    low, high = skewed_interval(numbers(5.0), numbers(0.3), numbers(7.0), numbers(0.0), level=0.9)
    expected = stats.t.interval(0.9, 7.0, loc=5.0, scale=0.3)
    assert (low.item(), high.item()) == pytest.approx(expected, rel=1e-12)
    wide = skewed_interval(numbers(5.0), numbers(0.3), numbers(7.0), numbers(0.0), level=0.9, looks=4)
    assert wide[1].item() == pytest.approx(stats.t.ppf(1 - 0.1 / 8, 7.0, loc=5.0, scale=0.3), rel=1e-12)


@pytest.mark.parametrize("skewness", [1e-12, 0.05, 0.2, 0.3])
def test_the_ends_solve_johnsons_equation(skewness: float) -> None:
    low, high = skewed_interval(numbers(2.0), numbers(0.5), numbers(40.0), numbers(skewness), level=0.95)
    t = stats.t.ppf(0.975, 40.0)
    for end, target in ((low, t), (high, -t)):
        z = (2.0 - end.item()) / 0.5
        assert z + skewness / 6 + skewness * z * z / 3 == pytest.approx(target, rel=1e-9)
    assert high.item() - 2.0 >= 2.0 - low.item()  # the long tail is above


def test_heavy_tails_have_no_upper_end_and_certainty_no_width() -> None:
    low, high = skewed_interval(numbers(2.0, 2.0), numbers(0.5, 0.0), numbers(40.0, 1.0), numbers(0.6, 9.0), level=0.95)
    assert math.isinf(high[0].item()) and math.isfinite(low[0].item())
    assert low[1] == high[1] == 2.0


def test_skewness_is_shared_between_relations() -> None:
    assert shrunken_skewness(numbers(0.4, 0.0)).tolist() == pytest.approx([1.3 * 0.3, 1.3 * 0.1])
    assert shrunken_skewness(numbers(-0.4, 0.0)).tolist() == [0.0, 0.0]


def covered(sigma: float, pools: int) -> tuple[float, float]:
    """Coverage and share of refused intervals on lognormal conditional divergences, 12 relations of 2000 heads."""
    g, size = torch.Generator().manual_seed(0), 12
    prob = torch.softmax(2.0 * torch.randn(size, 2000, generator=g).double(), 1)
    divergence = torch.exp(sigma * torch.randn(2000, size, size, generator=g).double())
    divergence[:, range(size), range(size)] = 0.0
    truth, apart = torch.einsum("ih,hij->ij", prob, divergence), ~torch.eye(size, dtype=torch.bool)
    inclusion, hits, refused = inclusion_probability(prob, 200), 0, 0
    for _ in range(pools):
        pool = draw_pool(prob, 200, generator=g, inclusion=inclusion)
        sums = TailSums.zeros(size)
        sums.add_block(divergence[pool.heads], pool.weight.T, pool.variance.T)
        mean, variance = sums.estimate()
        skewness = shrunken_skewness(sums.skewness())[:, None]
        low, high = skewed_interval(mean, variance.sqrt(), pool.df[:, None], skewness, level=0.95)
        told = torch.isfinite(high) & apart
        hits += int(((low <= truth) & (truth <= high) & told).sum())
        refused += int((~torch.isfinite(high) & apart).sum())
    total = pools * size * (size - 1)
    return hits / max(total - refused, 1), refused / total


def test_intervals_cover_when_tails_are_moderate_and_are_refused_when_they_are_heavy() -> None:
    coverage, refused = covered(0.5, 60)
    assert 0.93 <= coverage <= 0.97 and refused < 0.1
    _, refused = covered(1.5, 20)
    assert refused > 0.95


def result(kl: torch.Tensor, stderr: float) -> RelationSimilarity:
    size, error = len(kl), torch.full_like(kl, stderr)
    many = torch.full((size,), 50.0, dtype=torch.float64)
    return RelationSimilarity(kl, error, many, many, kl, torch.zeros_like(kl), "pooled", 9, 1, ())


def test_the_interval_of_the_larger_direction_holds_both() -> None:
    kl = torch.tensor([[0.0, 2.0], [5.0, 0.0]], dtype=torch.float64)
    low, high = result(kl, 0.1).interval(of="max")
    plain = result(kl, 0.1).interval()
    assert low[0, 1] == low[1, 0] == plain[0][1, 0] and high[0, 1] == plain[1][1, 0]


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("se<0.1", Goal("median", 0.1)),
        (" max se < 2e-2 ", Goal("largest", 0.02)),
        ("top5", Goal("top", 5.0)),
        ("top 12", Goal("top", 12.0)),
    ],
)
def test_goals_are_read(text: str, goal: Goal) -> None:
    assert Goal.parse(text) == goal


@pytest.mark.parametrize("text", ["top0", "top", "se<", "se<0", "se<inf", "se>1", "", "top5.5"])
def test_other_goals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected 'se<0\.1'"):
        Goal.parse(text)


def test_sampling_and_model_error_are_told_apart() -> None:
    g, truth = torch.Generator().manual_seed(0), torch.tensor([[0.0, 3.0], [6.0, 0.0]], dtype=torch.float64)
    # 4000 models that differ by 0.5 (and by 0 in the second pair), each estimated with standard error 0.2.
    spread = torch.tensor([[0.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    noise = [torch.randn(2, 2, 2, generator=g).double() for _ in range(4000)]
    results = [result(truth + spread * a + 0.2 * b, 0.2) for a, b in noise]
    found = model_error(results)
    assert found.sampling[0, 1].item() == pytest.approx(0.2)
    assert found.model[0, 1].item() == pytest.approx(0.5, rel=0.05)
    assert abs(found.between[1, 0].item()) < 0.005
    assert found.kl[1, 0].item() == pytest.approx(6.0, abs=0.02)
    assert found.stderr[0, 1].item() == pytest.approx(((0.25 + 0.04) / 4000) ** 0.5, rel=0.05)
    with pytest.raises(ValueError, match="1 similarity given"):
        model_error(results[:1])
    with pytest.raises(ValueError, match=r"cover \[2, 3\] relations"):
        model_error([results[0], result(torch.zeros(3, 3, dtype=torch.float64), 0.1)])


def test_wilson_is_the_interval_of_scipy() -> None:
    hits, trials = np.array([0.0, 1, 7, 20, 20]), np.array([5.0, 9, 30, 33, 20])
    low, high = wilson(hits, trials)
    for k, n, a, b in zip(hits, trials, low, high, strict=True):
        found = stats.binomtest(int(k), int(n)).proportion_ci(method="wilson")
        assert (a, b) == pytest.approx((found.low, found.high), abs=1e-4)
    assert (wilson(np.zeros(1), np.zeros(1))[0][0], wilson(np.zeros(1), np.zeros(1))[1][0]) == (0.0, 1.0)
