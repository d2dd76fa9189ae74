"""A dozen of the thousand random trainings, and that the watch on them notices what it is there for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks.fuzz_cases import Case, draw
from benchmarks.fuzz_model import OURS
from benchmarks.lorentz_fuzz import train
from lorentz import LorentzLinear

# The last three reach extremes: a gate all but shut, attention all but dropped, weights under autocast.
SEEDS = (0, 1, 3, 5, 6, 8, 11, 14, 22, 206, 587, 92)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_training_stays_finite_and_on_the_hyperboloid(seed: int) -> None:
    outcome = train(draw(seed))
    assert (outcome.not_finite, outcome.off_manifold) == ("", ""), draw(seed)


def test_the_seeds_cover_every_precision_task_source_and_optimiser() -> None:
    cases = [draw(seed) for seed in SEEDS]
    assert {case.precision for case in cases} == {"float64", "float32", "bfloat16", "autocast", "float16"}
    assert {case.task for case in cases} == {"classes", "distances", "edges"}
    assert {case.source for case in cases} == {"points", "table", "tokens"}
    assert {case.optimizer for case in cases} == {"RiemannianAdam", "RiemannianSGD", "Adam"}
    assert {layer.kind for case in cases for layer in case.layers} >= {"linear", "attention", "batch_norm", "boost"}


def test_a_seed_is_one_training_whatever_ran_before() -> None:
    assert draw(5) == draw(5) != draw(6)
    first = train(draw(5))
    torch.rand(7)
    again = train(draw(5))
    assert replace(first, seconds=0.0) == replace(again, seconds=0.0)


def planted() -> Case:
    """A small case of two linear layers in float32."""
    for seed in range(1000):
        case = draw(seed)
        kinds = [layer.kind for layer in case.layers]
        if case.precision == "float32" and kinds[:2] == ["linear", "linear"] and case.task != "edges":
            return case
    raise AssertionError


class Fault(LorentzLinear):
    """Goes wrong from the third call on: the first instance made does."""

    made = 0
    calls = 0
    what = ""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.first = not type(self).made
        type(self).made += 1

    def forward(self, x: Tensor, *, addend: Tensor | None = None) -> Tensor:
        y = super().forward(x, addend=addend)
        if not self.first:
            return y
        type(self).calls += 1
        if type(self).calls < 3:
            return y
        if self.what == "output":
            return y * float("nan")
        if self.what == "gradient":  # 0 * inf in the backward pass
            return y + 0 * (self.weight * 0).square().sum().sqrt()
        return y * 1.01


@pytest.mark.parametrize("what", ["output", "gradient", "off"])
def test_a_planted_fault_is_found_where_and_when_it_happens(what: str) -> None:
    fault = type("Fault", (Fault,), {"what": what, "made": 0, "calls": 0})
    outcome = train(planted(), SimpleNamespace(**{**vars(OURS), "Linear": fault}))
    name = f"body.{[layer.kind for layer in planted().layers].index('linear')}"
    if what == "output":
        assert outcome.not_finite == f"step 3: output of {name} (Fault)"
    elif what == "gradient":
        assert outcome.not_finite.startswith("step 3: gradient of ")
    else:
        assert outcome.not_finite == ""
        assert outcome.off_manifold.startswith(f"step 3: {name}: residual ")


def test_an_optimiser_that_breaks_a_parameter_is_found() -> None:
    class Breaks(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            self.param_groups[0]["params"][0].data.fill_(float("inf"))

    kit = SimpleNamespace(**{**vars(OURS), "optimizers": {planted().optimizer: Breaks}})
    case = replace(planted(), momentum=0.0)
    assert train(case, kit).not_finite.startswith("step 1: ")
    assert "after the step" in train(case, kit).not_finite
