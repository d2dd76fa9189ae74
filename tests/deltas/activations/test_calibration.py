"""Bits by sensitivity: the allocation against all others, and what calibrating leaves alone."""

from __future__ import annotations

import copy
import itertools
import random

import pytest
import torch
from torch import Tensor, nn

from deltas import DeltaError
from deltas.activations import ActivationCompressor, Policy, allocate

from .networks import gradient, made


def cost(bits: dict[str, int], sensitivity: dict[str, float]) -> float:
    return sum(sensitivity[name] / (2**b - 1) ** 2 for name, b in bits.items())


@pytest.mark.parametrize("seed", range(20))
def test_an_allocation_keeps_the_budget_and_is_near_the_best_of_all(seed: int) -> None:
    rng = random.Random(seed)
    sizes = {f"t{i}": rng.choice([100, 200, 400, 800]) for i in range(5)}
    sensitivity = {name: 10 ** rng.uniform(-3, 3) for name in sizes}
    budget = rng.choice([2.5, 4.0, 6.0])

    def bytes_of(bits: dict[str, int]) -> int:
        return sum(sizes[name] * b for name, b in bits.items())

    found = allocate(sizes, sensitivity, budget=budget, levels=(8, 4, 2))
    limit = budget * sum(sizes.values())
    assert bytes_of(found) <= limit
    every = [dict(zip(sizes, bits, strict=True)) for bits in itertools.product((8, 4, 2), repeat=len(sizes))]
    best = min(cost(bits, sensitivity) for bits in every if bytes_of(bits) <= limit)
    # A greedy step is as large as a tensor: it is the best of what leaves the room of the largest tensor free.
    room = limit - 4 * max(sizes.values())
    loose = min((cost(bits, sensitivity) for bits in every if bytes_of(bits) <= room), default=float("inf"))
    assert best <= cost(found, sensitivity) <= loose * (1 + 1e-9)


def test_enough_budget_gives_the_most_bits_and_equal_tensors_equal_ones() -> None:
    sizes, same = {"a": 10, "b": 10}, {"a": 1.0, "b": 1.0}
    assert allocate(sizes, same, budget=8.0, levels=(8, 4)) == {"a": 8, "b": 8}
    assert allocate(sizes, same, budget=4.0, levels=(8, 4)) == {"a": 4, "b": 4}
    assert allocate(sizes, {"a": 1.0, "b": 9.0}, budget=6.0, levels=(8, 4)) == {"a": 4, "b": 8}


@pytest.mark.parametrize("name", ["bert", "convolution", "lorentz"])
def test_calibrating_keeps_the_budget_is_no_worse_than_equal_bits_and_says_what_happens(name: str) -> None:
    model, loss = made(name)
    model.eval()
    compressor = ActivationCompressor(model, bits=4, policy=Policy(min_numel=64))
    found = compressor.calibrate(loss)
    assert found.average <= 4 and found.error <= found.uniform
    assert compressor.levels == dict(found.levels) and set(found.levels.values()) <= {8, 4, 2}
    want = gradient(model, loss())
    errors = []
    for _ in range(8):
        with compressor:
            value = loss()
        errors.append(float((gradient(model, value) - want).norm() / want.norm()))
    assert found.error / 3 < sorted(errors)[4] < found.error * 3
    bits = {label for label in compressor.stats().lines if label.split()[0] in ("8", "4", "2")}
    assert len(bits) > 1  # not all alike, or there was nothing to choose


class Chance(nn.Module):
    """Dropout and running statistics: two things that a pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Dropout(0.4), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x)


def test_calibrating_leaves_gradients_buffers_generators_and_the_number_of_passes_alone() -> None:
    model = Chance()
    x = torch.randn(100, 32)
    model(x).sum().backward()
    kept = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    buffers, state = copy.deepcopy(dict(model.named_buffers())), torch.get_rng_state()
    compressor = ActivationCompressor(model, policy=Policy(min_numel=64))
    compressor.forwards = 7
    compressor.calibrate(lambda: (model(x) ** 2).sum())
    assert torch.equal(torch.get_rng_state(), state) and compressor.forwards == 7 and model.training
    assert all(torch.equal(a, b) for a, b in zip(kept, (p.grad for p in model.parameters()), strict=True))
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_one_forward_pass_and_a_backward_pass_a_tensor() -> None:
    model, loss = made("convolution")
    calls = []

    def counted() -> Tensor:
        calls.append(1)
        return loss()

    found = ActivationCompressor(model, policy=Policy(min_numel=64)).calibrate(counted)
    assert len(calls) == 1 and found.passes == len(found.sensitivity) + 3


def test_mistakes_are_named() -> None:
    model, loss = made("convolution")
    with pytest.raises(DeltaError, match="needs the model"):
        ActivationCompressor().calibrate(loss)
    compressor = ActivationCompressor(model)
    with pytest.raises(DeltaError, match="below the least level, 4"):
        compressor.calibrate(loss, budget=3.0, levels=(8, 4))
    with pytest.raises(DeltaError, match=r"levels are \[5\]; give some of 8, 4, 2, 1"):
        compressor.calibrate(loss, levels=(5,))
    with pytest.raises(DeltaError, match="nothing is quantised"):
        ActivationCompressor(model, policy=Policy(min_numel=10**9)).calibrate(loss)
    model.requires_grad_(False)
    with pytest.raises(DeltaError, match="no parameter of the model gets a gradient"):
        compressor.calibrate(loss)
