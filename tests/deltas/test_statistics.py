"""Batch norms below a delta: their running statistics move in training, and belong to the delta."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltas
from deltas import BitFit, DeltaError, LoRA
from deltas.storage import fingerprint
from lorentz import Lorentz, LorentzBatchNorm, LorentzLinear

ROLES = {"q": "linear"}


class Euclidean(nn.Module):
    """A linear layer and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x))
        return y


class Hyperbolic(nn.Module):
    """The same of points."""

    def __init__(self) -> None:
        super().__init__()
        self.manifold = Lorentz(k=1.0)
        self.linear = LorentzLinear(5, 5, manifold=self.manifold)
        self.norm = LorentzBatchNorm(5, manifold=self.manifold)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(self.manifold.lift(x)))
        return y


@pytest.fixture(params=[Euclidean, Hyperbolic])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    made = request.param()
    for _ in range(3):  # statistics that are those of no start
        made(torch.randn(8, 4))
    return made.eval()


def train(model: Any, handle: deltas.Handle, steps: int = 3) -> None:
    optimiser = torch.optim.SGD(handle.parameters(), lr=0.1)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(2.0 + torch.randn(8, 4)).square().sum().backward()
        optimiser.step()
    model.eval()


def statistics(model: Any) -> dict[str, Tensor]:
    return {path: buffer.clone() for path, buffer in model.named_buffers() if path.startswith("norm.")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[path], b[path]) for path in a)


def test_stored_and_loaded_onto_the_same_backbone(model: Any, tmp_path: Path) -> None:
    fresh, x = deepcopy(model), torch.randn(6, 4)
    want = fingerprint(model)
    handle = deltas.attach(model, LoRA(rank=2, roles=("q",)), host=ROLES)
    train(model, handle)
    assert not equal(statistics(model), statistics(fresh))
    assert fingerprint(model) == want
    handle.save(tmp_path)
    deltas.load(fresh, tmp_path, host=ROLES)
    torch.testing.assert_close(fresh(x), model(x), rtol=0, atol=0)


def test_out_and_in_again(model: Any, tmp_path: Path) -> None:
    plain, x = deepcopy(model), torch.randn(6, 4)
    handle = deltas.attach(model, LoRA(rank=2, roles=("q",)), host=ROLES)
    train(model, handle)
    tuned = model(x)
    with handle.disable():
        assert equal(statistics(model), statistics(plain))
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)
        handle.save(tmp_path)
    torch.testing.assert_close(model(x), tuned, rtol=0, atol=0)
    handle.detach()
    assert equal(statistics(model), statistics(plain))
    handle.attach()
    torch.testing.assert_close(model(x), tuned, rtol=0, atol=0)
    deltas.load(plain, tmp_path, host=ROLES)  # stored while it was off
    torch.testing.assert_close(plain(x), tuned, rtol=0, atol=0)


def test_several_deltas_have_the_statistics_in_common(model: Any) -> None:
    """What the backbone had comes back with the last of them, in either order."""
    before = statistics(model)
    one = deltas.attach(model, LoRA(rank=1, roles=("q",)), host=ROLES, name="one")
    train(model, one)
    two = deltas.attach(model, LoRA(rank=1, roles=("q",)), host=ROLES, name="two")
    train(model, two)
    moved = statistics(model)
    one.detach()
    assert equal(statistics(model), moved)
    two.detach()
    assert equal(statistics(model), before)


def test_a_delta_that_is_merged_for_good_leaves_them(model: Any) -> None:
    handle = deltas.attach(model, LoRA(rank=1, roles=("q",)), host=ROLES)
    train(model, handle)
    moved = statistics(model)
    handle.merge(forget=True)
    assert equal(statistics(model), moved)


def test_a_backbone_with_other_statistics_is_another(model: Any, tmp_path: Path) -> None:
    deltas.attach(model, BitFit(), host=ROLES).save(tmp_path)
    deltas.handles(model)["default"].detach()
    train(model, deltas.attach(model, BitFit(), host=ROLES))
    other = deepcopy(model)
    deltas.handles(other)["default"].merge(forget=True)
    with pytest.raises(DeltaError, match="another backbone"):
        deltas.load(other, tmp_path, host=ROLES)


def test_in_half_precision(tmp_path: Path) -> None:
    """A model whose dtype changes under a delta: its statistics, rounded, have not moved."""
    torch.manual_seed(0)
    model = Euclidean()
    model(torch.randn(8, 4))
    handle = deltas.attach(model.eval(), LoRA(rank=1, roles=("q",)), host=ROLES)
    model.to(torch.bfloat16)
    assert not any(key.startswith("norm") for key in handle.values())
    train_in = torch.randn(8, 4, dtype=torch.bfloat16)
    model.train()(train_in)
    assert "norm.running_mean" in handle.values()
    handle.detach()
    assert model.norm.running_mean.dtype == torch.bfloat16
