"""Optimisers where numbers end: far out, across the whole ball, in low precision, with gradients that overflow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lorentz import Lorentz, LorentzEmbedding
from lorentz import math as lm
from lorentz.optim import RiemannianAdam, RiemannianSGD
from lorentz.optim_chart import Chart, squared_norm, travel_

from .tables import F64, normal, table


@pytest.mark.parametrize("radius", [0.0, 1e-6, 1.0, 8.0])
def test_gradient_norm_and_step_length_do_not_cancel(radius: float) -> None:
    s = normal(50, 6)
    s = (s / s.norm(dim=1, keepdim=True) * torch.sinh(torch.tensor(radius, dtype=F64))).float()
    p = normal(50, 6, seed=1).float()
    p = p / squared_norm(p.double(), s.double(), 1.0).sqrt().float()
    assert torch.allclose(squared_norm(p, s, 1.0), torch.ones(50, 1), rtol=1e-3 if radius == 8 else 2e-6)
    before, moved = lm.lift(s), s.clone()
    assert travel_(moved, p, 0.3, Chart(1.0, 10.0)) == 0
    # Rounding of float32 coordinates alone moves a point by 6e-8 sinh(radius).
    assert torch.allclose(
        lm.dist(before, lm.lift(moved)), torch.tensor(0.3), atol=1e-6 + 1e-6 * float(s.norm(dim=1).max())
    )


def outwards(optimizer_of, dtype: torch.dtype, steps: int) -> tuple[LorentzEmbedding, torch.optim.Optimizer, list[int]]:  # type: ignore[no-untyped-def]
    layer = table(64, 9, std=0.1, dtype=dtype)
    optimizer, counts = optimizer_of(layer.parameters()), []
    for _ in range(steps):
        optimizer.zero_grad()
        (-layer.manifold.dist0(layer())).sum().backward()
        optimizer.step()
        counts.append(optimizer.clipped)
    return layer, optimizer, counts


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("lr", [0.3, 1.0])
def test_points_pushed_outwards_stop_at_the_radius_and_are_counted(dtype: torch.dtype, lr: float) -> None:
    layer, optimizer, counts = outwards(lambda p: RiemannianAdam(p, lr=lr), dtype, 100)
    cap = 10.0 if dtype == torch.float32 else 25.0
    radius = layer.manifold.dist0(layer().detach())
    assert torch.allclose(radius, torch.full_like(radius, cap), rtol=1e-5)
    assert counts[0] == 0
    assert counts[-1] == 64
    assert all(t.isfinite().all() for t in optimizer.state[layer.weight].values())


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.01, 0.1])
def test_three_thousand_steps_outwards(lr: float) -> None:
    layer, _, counts = outwards(lambda p: RiemannianAdam(p, lr=lr), torch.float32, 3000)
    assert layer.weight.isfinite().all()
    assert counts[-1] == 64


def test_points_come_back_from_the_radius() -> None:
    layer, _, _ = outwards(lambda p: RiemannianAdam(p, lr=0.3), torch.float32, 40)
    optimizer = RiemannianAdam(layer.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        layer.manifold.dist0(layer()).square().sum().backward()
        optimizer.step()
    assert layer.manifold.dist0(layer().detach()).max() < 0.2
    assert optimizer.clipped == 0


@pytest.mark.parametrize("length", [15.0, 1e3, 1e12])
def test_a_step_across_the_ball_is_stopped_and_counted(length: float) -> None:
    s = normal(5, 3).float()
    p = normal(5, 3, seed=1).float()
    p = p / squared_norm(p, s, 1.0).sqrt()
    assert travel_(s, p, -length, Chart(1.0, 4.0)) == 5
    assert torch.allclose(lm.dist(lm.lift(s), lm.lift(torch.zeros_like(s))), torch.tensor(4.0), rtol=1e-5)
    assert p.isfinite().all()


@pytest.mark.parametrize("method", [RiemannianAdam, RiemannianSGD])
def test_weight_decay_shrinks_the_radius_and_transports_along(method) -> None:  # type: ignore[no-untyped-def]
    layer = table(k=2.0)
    before = layer().detach()
    optimizer = method(layer.parameters(), lr=0.1, weight_decay=0.5)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    radius = layer.manifold.dist0
    assert torch.allclose(radius(layer().detach()), 0.95 * radius(before), rtol=1e-12)
    assert torch.allclose(
        nn.functional.normalize(layer.weight.detach()), nn.functional.normalize(before[:, 1:]), rtol=1e-12
    )
    # Norms and angles of what is transported stay.
    s, p, other = normal(6, 4), normal(6, 4, seed=1), normal(6, 4, seed=2)
    before_norm = squared_norm(p, s, 2.0)
    rest = s.clone()
    travel_(s, p, 0.0, Chart(2.0, 20.0), shrink=0.3)
    travel_(rest, other, 0.0, Chart(2.0, 20.0), shrink=0.3)
    assert torch.allclose(squared_norm(p, s, 2.0), before_norm, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [RiemannianAdam, RiemannianSGD])
def test_low_precision_points_move_in_float32(dtype: torch.dtype, method) -> None:  # type: ignore[no-untyped-def]
    layer = table(dtype=dtype)
    optimizer = method(layer.parameters(), lr=0.05)
    before = float(layer.manifold.dist0(layer().detach().float()).mean())
    for _ in range(10):
        optimizer.zero_grad()
        layer.manifold.dist0(layer()).square().sum().backward()
        optimizer.step()
    assert layer.weight.dtype == dtype
    assert float(layer.manifold.dist0(layer().detach().float()).mean()) < 0.8 * before


def test_learnable_curvature_single_points_and_empty_tables() -> None:
    manifold = Lorentz(1.0, learnable=True)
    layer = LorentzEmbedding(3, 4, manifold=manifold)
    point = nn.Parameter(torch.tensor([0.5, 0.2]))
    point.manifold = manifold
    empty = nn.Parameter(torch.zeros(0, 3))
    empty.manifold = manifold
    optimizer = RiemannianAdam([*layer.parameters(), point, empty], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (manifold.dist0(layer()).sum() + manifold.dist0(manifold.lift(point)) + empty.sum()).backward()
        optimizer.step()
    assert float(manifold.k.detach()) != 1.0
    assert float(manifold.dist0(manifold.lift(point)).detach()) < 0.53


@pytest.mark.parametrize("method", [RiemannianAdam, RiemannianSGD])
def test_a_radius_that_was_accepted_shrinks_with_a_learned_k(method) -> None:  # type: ignore[no-untyped-def]
    manifold = Lorentz(1.0, learnable=True)
    layer = LorentzEmbedding(6, 4, manifold=manifold)
    optimizer = method(layer.parameters(), lr=1.0, max_radius=14.0)
    for k in (1.0, 0.25):
        with torch.no_grad():
            manifold.rho.fill_(k).log_()
        for _ in range(40):
            optimizer.zero_grad()
            (-manifold.dist0(layer()).sum()).backward()
            manifold.rho.grad = None
            optimizer.step()
        radius = manifold.dist0(layer().detach().double()).max().detach()
        assert float(radius) == pytest.approx(14.0 * k**0.5, rel=1e-4)
        assert optimizer.clipped == 6
    with pytest.raises(ValueError, match=r"beyond what torch\.float32 can hold at k = 0\.25: at most 7"):
        method(layer.parameters(), max_radius=14.0)


@pytest.mark.parametrize("method", [RiemannianAdam, RiemannianSGD])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_size_may_be_a_tensor(method, sparse: bool) -> None:  # type: ignore[no-untyped-def]
    results = []
    for lr in (0.1, torch.tensor(0.1)):
        torch.manual_seed(0)
        layer, plain = LorentzEmbedding(6, 4, manifold=Lorentz(), sparse=sparse), nn.Linear(3, 3)
        optimizer = method([*layer.parameters(), *plain.parameters()], lr=lr, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            optimizer.zero_grad()
            points = layer(torch.tensor([0, 2, 2, 5]))
            (layer.manifold.dist0(points).sum() + plain(points[:, 1:]).square().sum()).backward()
            optimizer.step()
            schedule.step()
        results.append([p.detach() for p in (*layer.parameters(), *plain.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_nan_stays_in_its_row() -> None:
    layer = table()
    optimizer = RiemannianAdam(layer.parameters(), lr=0.1)
    layer.weight.grad = normal(12, 4, seed=3)
    layer.weight.grad[2] = float("nan")
    optimizer.step()
    bad = layer.weight.isnan().any(1)
    assert bad.tolist() == [row == 2 for row in range(12)]


def random_gradient(layer: LorentzEmbedding, size: float) -> torch.Tensor:
    return size * normal(*layer.weight.shape, seed=1, dtype=layer.weight.dtype)


@pytest.mark.parametrize("k", [0.1, 10.0])
@pytest.mark.parametrize("std", [0.0, 0.7, 300.0])
@pytest.mark.parametrize("size", [1e-40, 1e-12, 1e8, 1e15, 1e19, 1e25, 1e30])
@pytest.mark.parametrize("method", ["adam", "sgd", "momentum"])
def test_any_finite_gradient_leaves_points_and_moments_finite(k: float, std: float, size: float, method: str) -> None:
    layer = table(k=k, std=std, dtype=torch.float32)
    optimizer = (
        RiemannianAdam(layer.parameters(), lr=1.0)
        if method == "adam"
        else RiemannianSGD(layer.parameters(), lr=1.0, momentum=0.9 * (method == "momentum"))
    )
    cap = 10 * k**0.5
    for step in range(4):
        layer.weight.grad = random_gradient(layer, size if step != 2 else 1.0)
        optimizer.step()
        assert layer.weight.isfinite().all()
        assert layer.manifold.dist0(layer().detach()).max() <= cap * (1 + 1e-5)
        assert all(value.isfinite().all() for value in optimizer.state[layer.weight].values())


def test_a_gradient_whose_square_overflows_counts_as_none_and_is_counted() -> None:
    layer, other = table(dtype=torch.float32), table(dtype=torch.float32)
    optimizers = [RiemannianAdam(x.parameters(), lr=0.1) for x in (layer, other)]
    for size in (1.0, 1e25, 1.0):
        layer.weight.grad = random_gradient(layer, 1.0)
        layer.weight.grad[3] *= size
        other.weight.grad = random_gradient(other, 1.0)
        other.weight.grad[3] *= 0.0 if size > 1 else 1.0
        for optimizer in optimizers:
            optimizer.step()
        assert optimizers[0].overflowed == (size > 1)
        assert optimizers[1].overflowed == 0
    assert torch.equal(layer.weight, other.weight)


@pytest.mark.parametrize("size", [1e3, 1e12, 1e25, 1e36])
def test_a_huge_gradient_ends_where_the_geodesic_meets_the_radius(size: float) -> None:
    s = normal(9, 4, dtype=torch.float32)
    p = size * normal(9, 4, seed=1, dtype=torch.float32)
    wide, velocity = s.double(), -p.double() / size
    # The end of a geodesic that long has the direction of its velocity and its start, to float32.
    unit = velocity + (velocity * wide).sum(1, keepdim=True) * wide
    unit /= ((velocity * velocity).sum(1) + (velocity * wide).sum(1) ** 2).sqrt()[:, None]
    assert travel_(s, p, -1.0, Chart(1.0, 9.0)) == 9
    assert torch.allclose(lm.dist(lm.lift(s), lm.lift(torch.zeros_like(s))), torch.tensor(9.0), rtol=1e-5)
    expected = nn.functional.normalize(unit + wide, dim=1)
    assert torch.allclose(nn.functional.normalize(s.double(), dim=1), expected, atol=1e-5)


@pytest.mark.parametrize("method", [RiemannianAdam, RiemannianSGD])
def test_an_infinite_gradient_is_no_finite_one(method) -> None:  # type: ignore[no-untyped-def]
    layer = table()
    optimizer = method(layer.parameters(), lr=0.1)
    layer.weight.grad = normal(12, 4, seed=3)
    layer.weight.grad[2, 1] = float("inf")
    optimizer.step()
    assert (~layer.weight.isfinite().all(1)).tolist() == [row == 2 for row in range(12)]
    assert optimizer.overflowed == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_whose_squares_pass_float16_move_low_precision_points(dtype: torch.dtype) -> None:
    layer, wide = table(dtype=dtype), table(dtype=torch.float32)
    with torch.no_grad():
        wide.weight.copy_(layer.weight)
    gradient = random_gradient(layer, 3000.0)
    for x in (layer, wide):
        optimizer = RiemannianAdam(x.parameters(), lr=0.05)
        x.weight.grad = gradient.to(x.weight.dtype)
        optimizer.step()
    assert torch.equal(layer.weight, wide.weight.to(dtype))
