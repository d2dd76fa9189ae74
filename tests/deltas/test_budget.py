"""Sizes under a budget: the nearest there is, and nothing where there is no size."""

from __future__ import annotations

import pytest

import deltas
from deltas import DeltaError, fit_budget, parse, plan

from .backbones import backbone


def count(name: str, options: dict[str, object], on: str) -> int:
    return plan(backbone(on), parse(name, options), heads=()).parameters


@pytest.mark.parametrize("on", ["bert", "lorentz"])
@pytest.mark.parametrize(
    "name", [name for name, cls in deltas.DELTAS.items() if cls.size and name not in ("VPT", "HypLoRA")]
)
def test_nearest(name: str, on: str) -> None:
    """No other size comes nearer."""
    budget = 2000
    options = fit_budget(backbone(on), name, budget)
    key, size = next(iter(options.items()))
    step = parse(name).size_step  # type: ignore[union-attr]
    off = abs(count(name, options, on) - budget)
    for other in (size - step, size + step):
        if other > 0:
            assert abs(count(name, {key: other}, on) - budget) >= off


def test_no_size() -> None:
    assert fit_budget(backbone("bert"), "BitFit", 10) == {}


def test_combination_shares_the_budget() -> None:
    options = fit_budget(backbone("bert"), "LoRA+BitFit", 3000)
    assert abs(count("LoRA+BitFit", options, "bert") - 3000) <= 128


def test_too_small() -> None:
    with pytest.raises(DeltaError, match=r"128 parameters at rank 1|256 parameters at rank 1"):
        fit_budget(backbone("bert"), "LoRA", 50)


@pytest.mark.parametrize("name", ["LoKr", "LoRA"])
def test_a_size_that_has_stopped_growing_is_not_made_larger(name: str) -> None:
    options = fit_budget(backbone("bert"), name, 10**9)
    (size,) = options.values()
    assert count(name, options, "bert") > count(name, {"rank": size - 1}, "bert")
    assert name == "LoRA" or (size <= 8 and count(name, {"rank": size + 1}, "bert") == count(name, options, "bert"))
