"""Optimisers: the rows of sparse gradients, and states that are copied or saved."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from lorentz.optim import RiemannianAdam, RiemannianSGD

from .tables import normal, table


@pytest.mark.parametrize("points", [True, False])
@pytest.mark.parametrize("method", ["adam", "momentum", "sgd"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_sparse_rows_are_the_dense_algorithm_over_the_steps_in_which_they_occur(
    points: bool, method: str, weight_decay: float
) -> None:
    def make(sparse: bool, rows: int) -> nn.Module:
        return table(rows, sparse=sparse) if points else nn.Embedding(rows, 4, sparse=sparse).double()

    def optimize(layer: nn.Module) -> torch.optim.Optimizer:
        if method == "adam":
            return RiemannianAdam(layer.parameters(), lr=0.1, weight_decay=weight_decay)
        return RiemannianSGD(
            layer.parameters(), lr=0.1, momentum=0.9 * (method == "momentum"), weight_decay=weight_decay
        )

    batches = [[0, 3, 3], [3, 5], [0], [5, 5, 1], [3, 0]]
    layer = make(True, 8)
    initial = layer.weight.detach().clone()
    optimizer = optimize(layer)
    weights = normal(8, 5)

    def loss(x: Tensor, index: Tensor) -> Tensor:
        return (x * weights[index, : x.shape[1]]).sum() + x.square().sum()

    for rows in batches:
        optimizer.zero_grad()
        index = torch.tensor(rows)
        loss(layer(index), index).backward()
        assert layer.weight.grad.is_sparse
        optimizer.step()
    for row in range(8):
        alone = make(False, 1)
        with torch.no_grad():
            alone.weight.copy_(initial[row : row + 1])
        single = optimize(alone)
        for rows in batches:
            if row in rows:
                single.zero_grad()
                sum(loss(alone(torch.tensor([0])), torch.tensor([row])) for r in rows if r == row).backward()
                single.step()
        assert torch.allclose(layer.weight[row], alone.weight[0], rtol=1e-10, atol=1e-12)
    assert torch.equal(layer.weight[[2, 4, 6, 7]], initial[[2, 4, 6, 7]])


def test_a_dense_step_may_follow_sparse_ones() -> None:
    layer = table(4, sparse=True)
    optimizer = RiemannianAdam(layer.parameters(), lr=0.1)
    layer(torch.tensor([1])).sum().backward()
    optimizer.step()
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    assert optimizer.state[layer.weight]["step"].flatten().tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("method", [RiemannianAdam, lambda p, **o: RiemannianSGD(p, momentum=0.9, **o)])
def test_states_and_copies_continue_to_the_bit(sparse: bool, method) -> None:  # type: ignore[no-untyped-def]
    layer = nn.ModuleDict({"points": table(sparse=sparse), "plain": nn.Linear(5, 2).double()})

    def groups(layer: nn.ModuleDict) -> list[dict[str, object]]:
        return [{"params": layer["points"].parameters(), "lr": 0.05}, {"params": layer["plain"].parameters()}]

    def train(layer: nn.ModuleDict, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for step in range(steps):
            optimizer.zero_grad()
            layer["plain"](layer["points"](torch.tensor([step % 3, 4, 7]))).square().sum().backward()
            optimizer.step()

    optimizer = method(groups(layer), lr=0.01, weight_decay=0.01)
    train(layer, optimizer, 4)
    copied = copy.deepcopy((layer, optimizer))
    pickled = pickle.loads(pickle.dumps((layer, optimizer)))
    loaded = copy.deepcopy(layer), None
    loaded = loaded[0], method(groups(loaded[0]), lr=1.0)
    loaded[1].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(layer, optimizer, 4)
    for other in (copied, pickled, loaded):
        train(*other, 4)
        for a, b in zip(layer.parameters(), other[0].parameters(), strict=True):
            assert torch.equal(a, b)
    # A copy of the optimiser alone has parameters without their attribute; it still knows the points.
    alone = copy.deepcopy(optimizer)
    assert len(alone._manifolds) == 1
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sparse", [False, True])
def test_moments_of_low_precision_points_are_float32_also_when_loaded(dtype: torch.dtype, sparse: bool) -> None:
    def step(layer: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        (layer(torch.tensor([0, 3, 3])).float() * normal(3, 5, seed=seed, dtype=torch.float32)).sum().backward()
        optimizer.step()

    layer = table(dtype=dtype, sparse=sparse)
    optimizer = RiemannianAdam(layer.parameters(), lr=0.05)
    for seed in range(3):
        step(layer, optimizer, seed)
    other = copy.deepcopy(layer)
    loaded = RiemannianAdam(other.parameters(), lr=1.0)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3, 6):
        step(layer, optimizer, seed)
        step(other, loaded, seed)
    for name, value in optimizer.state[layer.weight].items():
        assert value.dtype == torch.float32
        assert torch.equal(value, loaded.state[other.weight][name])
    assert torch.equal(layer.weight, other.weight)


@pytest.mark.parametrize("points", [True, False])
def test_a_dense_step_follows_a_sparse_one(points: bool) -> None:
    layer = (table(6, sparse=True) if points else nn.Embedding(6, 4, sparse=True)).double()
    optimizer = RiemannianAdam(layer.parameters(), lr=0.1)
    layer(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = layer.weight.detach().clone()
    layer.weight.square().sum().backward()
    optimizer.step()
    assert ((layer.weight != before).any(1)).all() and layer.weight.isfinite().all()
    state = optimizer.state[layer.weight]
    assert state["step"].flatten().tolist() == [1, 2, 2, 1, 1, 1]
