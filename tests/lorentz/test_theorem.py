"""Theorem of Chen et al. (2022): linear maps of a tangent space are rotations at most; LorentzLinear holds boosts too."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lorentz import Lorentz, LorentzLinear
from lorentz import math as lm
from lorentz.factorisation import boost, boost_matrix

F64 = torch.float64


def sample(n: int, dim: int, *, seed: int = 0, radius: float = 2.0) -> Tensor:
    """Points of radii up to `radius`."""
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(n, dim - 1, dtype=F64, generator=g)
    v = v / v.norm(dim=1, keepdim=True) * radius * torch.rand(n, 1, dtype=F64, generator=g)
    return lm.expmap0(torch.nn.functional.pad(v, (1, 0)))


def tangent_map(x: Tensor, matrix: Tensor) -> Tensor:
    """exp_o(M log_o(x)): the linear layer of hyperbolic networks that work in the tangent space."""
    return lm.expmap0(torch.nn.functional.pad(lm.logmap0(x)[:, 1:] @ matrix.T, (1, 0)))


def tangent_bias(x: Tensor, bias: Tensor) -> Tensor:
    """The usual bias: parallel transport of a tangent at the origin to x, then exp_x (a Moebius translation)."""
    u = torch.nn.functional.pad(bias.expand(len(x), -1), (1, 0))
    origin = torch.zeros_like(x)
    origin[:, 0] = 1
    v = u + lm.minkowski(x, u, keepdim=True) / (1 - lm.minkowski(origin, x, keepdim=True)) * (x + origin)
    return lm.expmap(x, v)


def distortion(function, x: Tensor, y: Tensor) -> float:  # type: ignore[no-untyped-def]
    """Worst change of a distance."""
    return float((lm.dist(function(x), function(y)) - lm.dist(x, y)).abs().max())


def rotation(n: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=torch.Generator().manual_seed(seed)))[0]


def test_orthogonal_tangent_maps_are_rotations_of_space() -> None:
    x, r = sample(200, 5), rotation(4)
    expected = torch.cat([x[:, :1], x[:, 1:] @ r.T], 1)
    assert torch.allclose(tangent_map(x, r), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_tangent_map_is_an_isometry(seed: int) -> None:
    x, y = sample(200, 5, seed=1), sample(200, 5, seed=2)
    g = torch.Generator().manual_seed(seed)
    matrix = rotation(4, seed) @ torch.diag(1 + 0.3 * torch.rand(4, dtype=F64, generator=g))
    assert distortion(lambda p: tangent_map(p, matrix), x, y) > 0.1
    assert distortion(lambda p: tangent_map(p, rotation(4, seed)), x, y) < 1e-12


def test_a_tangent_map_fixes_the_origin_so_its_best_fit_to_a_boost_is_worse_the_larger_the_rapidity() -> None:
    origin = lm.lift(torch.zeros(1, 3, dtype=F64))
    assert torch.equal(tangent_map(origin, torch.randn(3, 3, dtype=F64)), origin)
    x = torch.cat([origin, sample(300, 4, seed=3)])
    errors = []
    for rapidity in (0.25, 0.5, 1.0, 2.0, 3.0):
        target = boost(x, torch.tensor([rapidity, 0, 0], dtype=F64))
        # Least squares of geodesic distance, from the least squares solution in the tangent space.
        start = torch.linalg.lstsq(lm.logmap0(x)[:, 1:], lm.logmap0(target)[:, 1:]).solution.mT
        matrix = start.clone().requires_grad_()
        solver = torch.optim.LBFGS([matrix], max_iter=60, line_search_fn="strong_wolfe")

        def loss(matrix: Tensor = matrix, target: Tensor = target, solver: torch.optim.LBFGS = solver) -> Tensor:
            solver.zero_grad()
            value = lm.dist(tangent_map(x, matrix), target).square().mean()
            value.backward()
            return value

        before = float(loss().detach())
        solver.step(loss)
        fitted = float(loss().detach())
        assert fitted <= before
        distance = lm.dist(tangent_map(x, matrix.detach()), target)
        # The origin is a hard floor: it stays, and the boost takes it away by the rapidity.
        assert float(distance[0]) == pytest.approx(rapidity, rel=1e-12)
        errors.append(fitted**0.5)
    assert all(later > 1.3 * earlier for earlier, later in pairwise(errors))
    assert errors[0] > 0.1


def test_the_usual_bias_moves_the_origin_and_is_no_isometry() -> None:
    bias = torch.tensor([0.8, 0, 0], dtype=F64)
    origin = lm.lift(torch.zeros(1, 3, dtype=F64))
    moved = tangent_bias(origin, bias)
    assert torch.allclose(moved, boost(origin, bias), rtol=1e-13)
    x, y = sample(200, 4, seed=4), sample(200, 4, seed=5)
    with_bias = distortion(lambda p: tangent_bias(p, bias), x, y)
    assert with_bias > 0.1
    # It is the gyrotranslation from the right; from the left it would be the boost, which is an isometry.
    assert distortion(lambda p: boost(p, bias), x, y) < 1e-12
    assert float((lm.dist(tangent_bias(x, bias), x) - 0.8).abs().max()) < 1e-12


@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("det", [1, -1])
@pytest.mark.parametrize("variant", ["unbounded", "paper", "sigmoid_time"])
def test_only_the_unbounded_linear_layer_is_every_lorentz_transform(k: float, det: int, variant: str) -> None:
    turn = rotation(4, 7)
    turn[:, 0] *= det * torch.linalg.det(turn).sign()
    matrix = boost_matrix(torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=F64)) @ torch.block_diag(
        torch.ones(1, 1, dtype=F64), turn
    )
    manifold = Lorentz(k)
    layer = LorentzLinear(5, 5, manifold=manifold, bias=False, variant=variant).double()
    with torch.no_grad():
        layer.weight.copy_(matrix[1:] if variant == "unbounded" else matrix)
    x = manifold.lift(sample(100, 5, seed=6)[:, 1:])
    expected = x @ matrix.T
    y = layer(x).detach()
    error = float(((y - expected).abs() / expected[:, :1]).max())
    if variant == "unbounded":
        assert error <= 1e-12
    else:
        assert error > 0.05
        bound = manifold.dist0(y).max()
        assert bound < manifold.dist0(expected).max()
