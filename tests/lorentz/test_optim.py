"""Riemannian optimisers against geoopt, textbook formulas in the ambient space, and torch for plain parameters."""

from __future__ import annotations

import copy
import pickle

import geoopt
import pytest
import torch
from torch import Tensor, nn

from lorentz import Lorentz, LorentzEmbedding
from lorentz import math as lm
from lorentz.optim import RiemannianAdam, RiemannianSGD
from lorentz.optim_chart import Chart, squared_norm, travel_

F64 = torch.float64
CURVATURES = (0.5, 1.0, 2.0)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def table(
    n: int = 12, dim: int = 5, *, k: float = 1.0, std: float = 0.7, dtype: torch.dtype = F64, sparse: bool = False
) -> LorentzEmbedding:
    layer = LorentzEmbedding(n, dim, manifold=Lorentz(k), sparse=sparse).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(std * normal(n, dim - 1))
    return layer


class Ambient:
    """Riemannian Adam and SGD with the ambient formulas of the literature, in float64."""

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


def test_nan_stays_in_its_row() -> None:
    layer = table()
    optimizer = RiemannianAdam(layer.parameters(), lr=0.1)
    layer.weight.grad = normal(12, 4, seed=3)
    layer.weight.grad[2] = float("nan")
    optimizer.step()
    bad = layer.weight.isnan().any(1)
    assert bad.tolist() == [row == 2 for row in range(12)]


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
