from __future__ import annotations

import copy

import pytest
import torch

from relsim.distribution import FactDistribution
from relsim.kl.candidates import Screen
from relsim.kl.topk import Neighbours, nearest
from relsim.similarity import similarity

GROUPS, EACH = 9, 3


@pytest.fixture(scope="module")
def model() -> FactDistribution:
    """Nine groups of three relations that are alike, the groups some nats apart."""
    model = FactDistribution(500, GROUPS * EACH, dim=10, hidden=24, seed=4)
    with torch.no_grad():
        model.entity.weight.mul_(1.6)
        centre = model.relation[::EACH].repeat_interleave(EACH, 0) * 1.4
        model.relation.copy_(centre + 0.3 * model.relation)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def worst(model: FactDistribution) -> torch.Tensor:
    kl = similarity(model, method="exact").kl
    return torch.maximum(kl, kl.T).fill_diagonal_(torch.inf)


def agrees(found: Neighbours, worst: torch.Tensor, k: int) -> None:
    ranked = worst.sort(1)
    # Only ties within rounding may stay unproven.
    tied = ranked.values[:, k] - ranked.values[:, k - 1] < 1e-3
    assert (found.certain | tied).all() and float(found.certain.double().mean()) > 0.9
    for row, truth in zip(found.ids[found.certain], ranked.indices[found.certain, :k], strict=True):
        assert set(row.tolist()) == set(truth.tolist())
    value = worst.gather(1, found.ids)
    assert (found.low <= value + 1e-9).all() and (value <= found.high + 1e-9).all()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_sets_are_those_of_enumeration_and_the_bounds_hold(
    model: FactDistribution, worst: torch.Tensor, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relsim.kl.topk._MANY", 1.0)
    agrees(nearest(model, k, heads=16), worst, k)


def test_few_pairs_are_summed_where_groups_are_clear(model: FactDistribution, worst: torch.Tensor) -> None:
    found = nearest(model, EACH - 1, heads=32)
    agrees(found, worst, EACH - 1)
    assert found.pairs >= GROUPS * EACH * (EACH - 1) / 2
    assert found.share == found.pairs / (27 * 26 / 2) < 0.15


def test_an_effort_that_is_spent_leaves_bounds_that_hold_and_sets_that_are_true(
    model: FactDistribution, worst: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relsim.kl.topk._MANY", 1.0)
    whole, part = nearest(model, 4, heads=16), nearest(model, 4, heads=16, effort=1e-9)
    assert part.cells < whole.cells and not part.certain.all() and whole.certain.double().mean() > 0.9
    truth = worst.sort(1).indices[:, :4]
    for row, found in zip(part.ids[part.certain], truth[part.certain], strict=True):
        assert set(row.tolist()) == set(found.tolist())
    value = worst.gather(1, part.ids)
    assert (part.low <= value + 1e-9).all() and (value <= part.high + 1e-9).all()
    with pytest.raises(ValueError, match="effort is 0"):
        nearest(model, 4, effort=0.0)


def test_without_remembered_sums_and_with_short_lists_the_sets_are_the_same(
    model: FactDistribution, worst: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relsim.kl.topk._KNOWN", 0)
    monkeypatch.setattr("relsim.kl.topk._MANY", 1.0)
    whole = Screen.candidates
    # Lists cut to the guessed nearest k + 1 must be found too short and made anew.
    monkeypatch.setattr(
        Screen, "candidates", lambda self, rows, k, limit: whole(self, rows, k, 0.0 if limit is None else limit)
    )
    agrees(nearest(model, 3, heads=4), worst, 3)


def test_enumeration_takes_over_where_bounds_rule_little_out(model: FactDistribution, worst: torch.Tensor) -> None:
    found = nearest(model, 20, heads=4)
    assert found.share == 1.0 and found.cells == 27 * 500
    agrees(found, worst, 20)
    everything = nearest(model, 26)
    assert everything.certain.all() and everything.ids.shape == (27, 26)


def test_lower_bounds_of_the_screen_hold(model: FactDistribution) -> None:
    exact = similarity(model, method="exact").kl
    screen = Screen(model, 24, seed=0)
    rows = screen.candidates(torch.arange(27), 3, None)
    tight = []
    for i, row in enumerate(rows):
        assert (row.low <= exact[i, row.ids] + 1e-9).all()
        others = (
            torch.ones(27, dtype=torch.bool).index_fill_(0, row.ids, False).index_fill_(0, torch.tensor([i]), False)
        )
        assert (exact[i, others] >= row.floor - 1e-9).all()
        tight.append(row.low / exact[i, row.ids].clamp(min=1e-3))
    assert float(torch.cat(tight).median()) > 0.4


def test_an_exact_tie_is_not_called_proven(model: FactDistribution, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relsim.kl.topk._MANY", 1.0)
    tied = copy.deepcopy(model)
    tied.relation[1] = tied.relation[0]
    one, two = nearest(tied, 1, heads=16), nearest(tied, 2, heads=16)
    assert one.ids[:2, 0].tolist() == [1, 0] and one.certain[:2].all()  # equal relations are nearest to each other
    assert float(one.low[0, 0]) <= 0.0 <= float(one.high[0, 0]) < 1e-3
    assert not one.certain[2]  # as far from one as from the other
    assert two.certain[2] and set(two.ids[2].tolist()) == {0, 1}


def test_a_tolerance_allows_near_ties(
    model: FactDistribution, worst: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relsim.kl.topk._MANY", 1.0)
    strict, loose = (nearest(model, 4, tolerance=t, heads=16) for t in (0.0, 2.0))
    assert loose.certain.all() and loose.cells < strict.cells
    best = worst.topk(4, largest=False).values[:, -1:]
    assert (worst.gather(1, loose.ids) <= best + 2.0).all()


def test_bad_options_are_refused(model: FactDistribution) -> None:
    with pytest.raises(ValueError, match="k is 27, expected 1 to 26"):
        nearest(model, 27)
    with pytest.raises(ValueError, match=r"tolerance is -1\.0"):
        nearest(model, 2, tolerance=-1.0)
