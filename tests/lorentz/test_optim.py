"""Riemannian optimisers against geoopt, textbook formulas in the ambient space, and torch for plain parameters."""

from __future__ import annotations

import copy

import geoopt
import pytest
import torch
from torch import Tensor, nn

from lorentz import math as lm
from lorentz.optim import RiemannianAdam, RiemannianSGD

from .tables import F64, normal, table

CURVATURES = (0.5, 1.0, 2.0)


class Ambient:
    def __init__(
        self, x: Tensor, k: float, *, lr: float, betas: tuple[float, float] | None, momentum: float = 0.0
    ) -> None:
        self.x, self.k, self.lr, self.betas, self.momentum = x.clone(), k, lr, betas, momentum
        self.m, self.v, self.step = torch.zeros_like(x), torch.zeros_like(x[:, :1]), 0

    def move(self, gradient: Tensor) -> None:
        x, k = self.x, self.k
        self.step += 1
        h = gradient * torch.tensor([-1.0] + [1.0] * (x.shape[1] - 1), dtype=F64)
        r = h + lm.minkowski(x, h, keepdim=True) * x / k
        if self.betas is None:
            self.m = self.momentum * self.m + r
            u = -self.lr * self.m
        else:
            b1, b2 = self.betas
            self.m = b1 * self.m + (1 - b1) * r
            self.v = b2 * self.v + (1 - b2) * lm.minkowski(r, r, keepdim=True)
            u = -self.lr * self.m / (1 - b1**self.step) / ((self.v / (1 - b2**self.step)).sqrt() + 1e-8)
        length = lm.minkowski(u, u, keepdim=True).sqrt() / k**0.5
        y = torch.cosh(length) * x + torch.sinh(length) / length * u
        self.m = self.m + lm.minkowski(y, self.m, keepdim=True) / (k - lm.minkowski(x, y, keepdim=True)) * (x + y)
        self.x = y


def objective(x: Tensor, target: Tensor, k: float) -> Tensor:
    return lm.dist(x, target, k=k).square().sum() + x[:, 0].sin().sum()


@pytest.mark.parametrize("kind", ["space", "ambient", "geoopt"])
@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("method", ["adam", "sgd", "momentum"])
def test_trajectory_is_that_of_the_ambient_formulas(kind: str, k: float, method: str) -> None:
    layer = table(k=k)
    target = layer.manifold.lift(normal(12, 4, seed=9))
    start = layer().detach()
    lr, momentum = (0.05, 0.0) if method == "adam" else (0.02, 0.8 * (method == "momentum"))
    if kind == "space":
        parameter = layer.weight
    else:
        parameter = geoopt.ManifoldParameter(
            start.clone(), manifold=layer.manifold if kind == "ambient" else geoopt.Lorentz(k)
        )
    optimizer = (
        RiemannianAdam([parameter], lr=lr) if method == "adam" else RiemannianSGD([parameter], lr=lr, momentum=momentum)
    )
    oracle = Ambient(start, k, lr=lr, betas=(0.9, 0.999) if method == "adam" else None, momentum=momentum)
    for _ in range(20):
        optimizer.zero_grad()
        objective(layer() if kind == "space" else parameter, target, k).backward()
        optimizer.step()
        x = oracle.x.clone().requires_grad_()
        objective(x, target, k).backward()
        oracle.move(x.grad)
    got = layer().detach() if kind == "space" else parameter.detach()
    assert (start - got).abs().max() > 0.1
    assert torch.allclose(got, oracle.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["adam", "sgd"])
def test_trajectory_is_geoopts(method: str) -> None:
    k = 2.0
    layer = table(k=k)
    target = layer.manifold.lift(normal(12, 4, seed=9))
    other = geoopt.ManifoldParameter(layer().detach().clone(), manifold=geoopt.Lorentz(k))
    if method == "adam":
        pair = RiemannianAdam(layer.parameters(), lr=0.05), geoopt.optim.RiemannianAdam([other], lr=0.05)
    else:
        pair = RiemannianSGD(layer.parameters(), lr=0.02), geoopt.optim.RiemannianSGD([other], lr=0.02)
    for _ in range(25):
        for x, optimizer in zip((layer, lambda: other), pair, strict=True):
            optimizer.zero_grad()
            objective(x(), target, k).backward()
            optimizer.step()
    assert torch.allclose(layer().detach(), other.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("method", ["adam", "sgd", "momentum"])
def test_other_parameters_get_torchs_optimisers(method: str, weight_decay: float) -> None:
    ours, theirs = nn.Linear(4, 3).double(), None
    theirs = copy.deepcopy(ours)
    momentum = 0.9 * (method == "momentum")
    if method == "adam":
        first = RiemannianAdam(ours.parameters(), lr=0.1, weight_decay=weight_decay)
        second: torch.optim.Optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=weight_decay)
    else:
        first = RiemannianSGD(ours.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
        second = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum)
    x = normal(6, 4)
    for _ in range(5):
        for layer, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            if optimizer is second and method != "adam":
                with torch.no_grad():
                    for p in theirs.parameters():
                        p.mul_(1 - 0.1 * weight_decay)
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    fused = RiemannianAdam(ours.parameters(), lr=0.1, fused=True)
    ours(x).sum().backward()
    fused.step()
    assert all(p.isfinite().all() for p in ours.parameters())


def test_closure_scheduler_and_groups() -> None:
    layer = table()
    optimizer = RiemannianSGD(layer.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = layer.manifold.dist0(layer()).square().sum()
        value.backward()
        return value

    losses = []
    for _ in range(3):
        losses.append(float(optimizer.step(closure).detach()))
        schedule.step()
    assert losses[0] > losses[1] > losses[2] > 0
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)


def test_bad_input_is_explained() -> None:
    layer = table(dtype=torch.float32)
    for options, message in (
        ({"lr": -1.0}, "lr is a number >= 0, got -1"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"betas": (0.9, 1.0)}, r"beta2 is in \[0, 1\), got 1"),
        ({"max_radius": 0.0}, "max_radius is a positive number"),
        ({"max_radius": 20.0}, "beyond what torch.float32 can hold at k = 1: at most 14"),
    ):
        with pytest.raises(ValueError, match=message):
            RiemannianAdam(layer.parameters(), **options)
    with pytest.raises(ValueError, match="momentum"):
        RiemannianSGD(layer.parameters(), momentum=1.5)
    with pytest.raises(TypeError, match=r"geoopt\.optim"):
        RiemannianAdam([geoopt.ManifoldParameter(torch.zeros(3), manifold=geoopt.PoincareBall())])
    far = table(dtype=torch.float32, std=1e6)
    optimizer = RiemannianAdam(far.parameters())
    far.weight.grad = torch.zeros_like(far.weight)
    with pytest.raises(ValueError, match=r"12 of 12 points .* lie beyond max_radius 10"):
        optimizer.step()
    plain = nn.Parameter(torch.zeros(3, 3))
    plain.grad = torch.eye(3).to_sparse(2)
    with pytest.raises(ValueError, match="by rows"):
        RiemannianSGD([plain]).step()


@pytest.mark.parametrize("sparse", [False, True])
def test_a_momentum_that_is_set_later_begins_at_nothing(sparse: bool) -> None:
    late, early = table(sparse=sparse), table(sparse=sparse)
    optimizers = [RiemannianSGD(late.parameters(), lr=0.1), RiemannianSGD(early.parameters(), lr=0.1, momentum=0.9)]
    goal = late(torch.arange(12)).detach().flip(0)
    for step in range(3):
        for layer, optimizer in zip((late, early), optimizers, strict=True):
            optimizer.zero_grad()
            lm.dist2(layer(torch.arange(12)), goal).sum().backward()
            optimizer.step()
        if step == 0:  # the first steps of both are those without a velocity
            torch.testing.assert_close(late.weight, early.weight)
            optimizers[0].param_groups[0]["momentum"] = 0.9
            optimizers[1].state[early.weight]["momentum_buffer"].zero_()
    torch.testing.assert_close(late.weight, early.weight)
