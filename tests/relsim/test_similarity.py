from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from relsim.distribution import FactDistribution
from relsim.kl.result import RelationSimilarity
from relsim.similarity import similarity


@pytest.fixture(scope="module")
def model() -> FactDistribution:
    model = FactDistribution(150, 6, dim=6, hidden=16, seed=2).double()
    with torch.no_grad():
        model.relation[5] = model.relation[4]
    return model


@pytest.fixture(scope="module")
def exact(model: FactDistribution) -> RelationSimilarity:
    return similarity(model, method="exact")


def test_exact_adds_up_and_has_no_error(model: FactDistribution, exact: RelationSimilarity) -> None:
    h, t = torch.cartesian_prod(torch.arange(150), torch.arange(150)).T
    with torch.no_grad():
        one, two = (model.log_prob(h, torch.full_like(h, r), t) for r in (0, 3))
    assert exact.kl[0, 3].item() == pytest.approx((one.exp() * (one - two)).sum().item(), abs=1e-10)
    torch.testing.assert_close(exact.kl, exact.head_kl + exact.tail_kl)
    assert not exact.stderr.any() and exact.warnings == () and exact.heads_used == 150
    low, high = exact.interval()
    assert torch.equal(low, exact.kl) and torch.equal(high, exact.kl)


def test_similarity_is_symmetric_and_one_for_equal_relations(exact: RelationSimilarity) -> None:
    assert torch.equal(exact.similarity, exact.similarity.T)
    assert exact.similarity[4, 5] == 1.0 == exact.similarity[2, 2]
    assert exact.similarity[0, 3].item() == pytest.approx(math.exp(-max(exact.kl[0, 3].item(), exact.kl[3, 0].item())))


def test_top_ranks_by_the_larger_divergence(exact: RelationSimilarity) -> None:
    pairs = exact.top(100, relations=list("abcdef"))
    assert len(pairs) == 15 and (pairs[0].first, pairs[0].second, pairs[0].similarity) == ("e", "f", 1.0)
    worst = [max(pair.kl_forward, pair.kl_backward) for pair in pairs]
    assert worst == sorted(worst)
    assert [pair.similarity for pair in pairs] == pytest.approx([math.exp(-w) for w in worst])
    assert exact.top(1)[0].first == 4
    with pytest.raises(ValueError, match="n is 0"):
        exact.top(0)
    with pytest.raises(ValueError, match="expected 6"):
        exact.top(1, relations=["a"])


@pytest.mark.parametrize("method", ["pooled", "ancestral"])
def test_estimates_agree_with_exact_within_their_errors(
    model: FactDistribution, exact: RelationSimilarity, method: str
) -> None:
    result = similarity(model, method=method, heads=60, samples=400)
    assert result.method == method and result.heads_used < 150
    error, unequal = (result.kl - exact.kl).abs(), result.stderr > 0
    assert float((error[unequal] / result.stderr[unequal]).max()) < 4.5
    assert float(error[~unequal].max()) == 0.0
    low, high = result.interval()
    assert float(((low <= exact.kl) & (exact.kl <= high)).double().mean()) > 0.8


def test_auto_takes_the_cheaper_of_two(model: FactDistribution, exact: RelationSimilarity) -> None:
    small = similarity(model, method="auto", heads=30)
    assert small.method == "exact" and torch.equal(small.kl, exact.kl)
    large = FactDistribution(7000, 2, dim=100, hidden=8)
    assert similarity(large, method="auto", heads=30, tails=20).method == "pooled"
    assert similarity(model, heads=150).method == "exact"


def test_equal_seeds_give_equal_bits(model: FactDistribution) -> None:
    for method in ("pooled", "ancestral"):
        one, same, other = (similarity(model, method=method, heads=30, seed=s) for s in (1, 1, 2))
        assert torch.equal(one.kl, same.kl) and torch.equal(one.stderr, same.stderr)
        assert not torch.equal(one.kl, other.kl)


def test_stopping_rule_reaches_its_goal(model: FactDistribution, exact: RelationSimilarity) -> None:
    apart = ~torch.eye(6, dtype=torch.bool)
    first = similarity(model, heads=15).stderr[apart]
    goal = float(first.median()) * 0.7
    stopped = similarity(model, heads=15, stop=f"se<{goal}")
    assert stopped.method == "pooled" and stopped.heads_used >= 40
    assert float(stopped.stderr[apart].median()) < goal < float(first.median())
    assert stopped.looks == 4  # 15, 30, 60 and 120 heads, were they needed
    narrow = similarity(model, heads=15)
    narrow_width = (narrow.interval()[1] - narrow.kl)[apart] / narrow.stderr[apart]
    wide_width = (stopped.interval()[1] - stopped.kl)[apart] / stopped.stderr[apart]
    finite = torch.isfinite(wide_width) & torch.isfinite(narrow_width)
    assert float((wide_width / narrow_width)[finite].nanmedian()) > 1.02  # each look has its share of the error
    certain = similarity(model, heads=15, stop="max se<1e-9")
    assert certain.method == "exact" and certain.heads_used > 150
    torch.testing.assert_close(certain.kl, exact.kl, rtol=0, atol=1e-5)
    assert float((stopped.kl - exact.kl).abs()[apart].median()) < 3 * goal


def test_few_effective_heads_are_flagged_and_get_no_interval(
    model: FactDistribution, exact: RelationSimilarity
) -> None:
    result = similarity(model, heads=4)
    assert float(result.ess.min()) < 10
    low, high = result.interval()
    few = (result.ess < 10)[:, None] & (result.stderr > 0)
    assert few.any() and torch.isinf(high[few]).all()
    assert result.lower is not None and torch.equal(low[few], result.lower[few]) and (low <= exact.kl).all()
    assert any("effective sample size below 10" in line for line in result.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "poled"}, "expected one of pooled, ancestral, exact, auto"),
        ({"stop": "top0"}, "'top5' .the 5 nearest"),
        ({"stop": "se<-1"}, "expected 'se<0.1'"),
        ({"stop": "se<1e"}, "expected 'se<0.1'"),
        ({"stop": "se<0.1", "method": "exact"}, "needs method='pooled'"),
        ({"heads": 0}, "heads is 0"),
        ({"tails": -1}, "tails is -1"),
        ({"method": "ancestral", "folder": "x"}, "folder keeps sums"),
        ({"method": "ancestral", "samples": 1}, "samples is 1"),
    ],
)
def test_bad_options_are_refused(model: FactDistribution, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity(model, **options)


def test_two_phases_are_the_default_for_many_entities_and_agree_with_exact() -> None:
    big = FactDistribution(900, 5, dim=8, hidden=16, seed=3)
    with torch.no_grad():
        big.entity.weight.mul_(1.5)
        big.relation.mul_(1.5)
    exact = similarity(big, method="exact")
    one, same = (similarity(big, heads=300, seed=1) for _ in range(2))
    assert one.method == "pooled" and torch.equal(one.kl, same.kl) and torch.equal(one.stderr, same.stderr)
    apart = ~torch.eye(5, dtype=torch.bool)
    assert float(((one.kl - exact.kl).abs() / one.stderr)[apart].max()) < 4.5
    assert one.lower is not None and (one.head_kl <= one.lower).all() and (one.lower <= exact.kl + 1e-9).all()
    whole = similarity(big, heads=900)
    assert torch.isinf(whole.ess).all()
    assert float((whole.kl - exact.kl).abs().max()) < float((one.kl - exact.kl).abs().max())
    stopped = similarity(big, heads=60, stop=f"se<{float(one.stderr[apart].median())}")
    assert stopped.method == "pooled" and stopped.looks > 1 and stopped.heads_used > 60
    assert float((stopped.kl - exact.kl).abs()[apart].median()) < 3 * float(one.stderr[apart].median())


def test_dropout_is_off_during_a_comparison_and_the_mode_comes_back() -> None:
    dropped = FactDistribution(150, 6, dim=6, hidden=16, seed=2, dropout=0.5).train()
    plain = FactDistribution(150, 6, dim=6, hidden=16, seed=2)
    for method in ("exact", "pooled", "ancestral"):
        one, two = (similarity(model, method=method, heads=30) for model in (dropped, plain))
        assert torch.equal(one.kl, two.kl) and dropped.training


def test_nearest_relations_are_certain_when_stop_says_so(model: FactDistribution, exact: RelationSimilarity) -> None:
    worst = torch.maximum(exact.kl, exact.kl.T).fill_diagonal_(torch.inf)
    for k in (1, 2, 5):
        result = similarity(model, heads=15, stop=f"top{k}", seed=k)
        assert result.certain(k).all()
        found = torch.maximum(result.kl, result.kl.T).fill_diagonal_(torch.inf).topk(k, largest=False).indices
        truth = worst.topk(k, largest=False).indices
        assert [set(row) for row in found.tolist()] == [set(row) for row in truth.tolist()]
    assert not similarity(model, heads=15).certain(2).all()
    assert exact.certain(3).all()
    with pytest.raises(ValueError, match="k is 0"):
        exact.certain(0)


def test_a_saved_similarity_is_read_back_whole(model: FactDistribution, tmp_path: Path) -> None:
    result = similarity(model, heads=15)
    result.save(tmp_path / "kl.safetensors")
    back = RelationSimilarity.load(tmp_path / "kl.safetensors")
    for name in ("kl", "stderr", "ess", "df", "head_kl", "tail_kl", "lower", "skewness"):
        assert torch.equal(getattr(back, name), getattr(result, name))
    assert (back.method, back.heads_used, back.looks, back.warnings) == (
        "pooled",
        result.heads_used,
        1,
        result.warnings,
    )
    assert [p.name for p in tmp_path.iterdir()] == ["kl.safetensors"]
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no saved similarity"):
        RelationSimilarity.load(tmp_path / "other.safetensors")


def test_bad_models_are_refused(model: FactDistribution, exact: RelationSimilarity) -> None:
    with pytest.raises(ValueError, match="at least 2 to compare"):
        similarity(FactDistribution(4, 1, dim=2, hidden=4))
    broken = FactDistribution(4, 2, dim=2, hidden=4)
    with torch.no_grad():
        broken.relation[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"\['relation'\] of the model are not finite"):
        similarity(broken)
    with pytest.raises(ValueError, match="level is 95"):
        exact.interval(95.0)
    with pytest.raises(ValueError, match="expected 'kl' or 'max'"):
        exact.interval(of="similarity")


def test_sizes_that_are_no_whole_numbers_are_refused() -> None:
    model = FactDistribution(5, 2, dim=3)
    for name in ("heads", "tails", "samples"):
        with pytest.raises(TypeError, match=f"{name} is 2.5, expected a whole number"):
            inspect.unwrap(similarity)(model, **{name: 2.5})  # without the checks of the tests
