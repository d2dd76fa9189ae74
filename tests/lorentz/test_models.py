"""Balls and half space: isometries by their own distance formulas, inverse to each other, straight Klein geodesics."""

from __future__ import annotations

import geoopt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorentz import geodesics, models, wrapped_normal
from lorentz import math as lm

F64 = torch.float64
CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
NAMES = ("poincare", "klein", "half_space")


def points(n: int, size: int, *, k: float = 1.0, std: float = 1.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return wrapped_normal((n, size), std=std * k**0.5, k=k, dtype=F64, generator=g)


def klein_distance(p: Tensor, q: Tensor, k: float) -> Tensor:
    p, q = p / k**0.5, q / k**0.5
    inner = 1 - (p * q).sum(-1)
    return k**0.5 * torch.acosh(inner / ((1 - (p * p).sum(-1)) * (1 - (q * q).sum(-1))).sqrt())


def half_space_distance(p: Tensor, q: Tensor, k: float) -> Tensor:
    return 2 * k**0.5 * torch.asinh((p - q).norm(dim=-1) / (2 * (p[..., -1] * q[..., -1]).sqrt()))


@pytest.mark.parametrize("k", CURVATURES)
def test_every_model_is_an_isometry(k: float) -> None:
    x, y = points(30, 4, k=k), points(30, 4, k=k, seed=1)
    want = lm.dist(x, y, k=k)
    ball = geoopt.PoincareBall(c=torch.tensor(1 / k, dtype=F64))
    assert torch.allclose(ball.dist(models.to_poincare(x, k=k), models.to_poincare(y, k=k)), want, rtol=1e-9)
    assert torch.allclose(klein_distance(models.to_klein(x, k=k), models.to_klein(y, k=k), k), want, rtol=1e-9)
    got = half_space_distance(models.to_half_space(x, k=k), models.to_half_space(y, k=k), k)
    assert torch.allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16, torch.float16])
def test_there_and_back_stays_on_the_hyperboloid_in_every_dtype(k: float, name: str, dtype: torch.dtype) -> None:
    there, back = getattr(models, f"to_{name}"), getattr(models, f"from_{name}")
    x = lm.lift(points(30, 4, k=k, std=0.5)[:, 1:].to(dtype), k=k)
    y = back(there(x, k=k), k=k)
    assert there(x, k=k).dtype == y.dtype == dtype
    limit = 1e-5 if dtype in (F64, torch.float32) else 4 * torch.finfo(dtype).eps
    wide = y.double()
    assert ((lm.minkowski(wide, wide) + k).abs() <= limit * wide[:, 0] ** 2).all()
    time = float(x[:, 0].max()) / k**0.5
    # A rounding of ball coordinates moves a point by eps * cosh^2(r), in the Klein ball.
    moved = lm.dist(lm.lift(x[:, 1:].double(), k=k), lm.lift(wide[:, 1:], k=k), k=k)
    assert moved.max() <= 4 * torch.finfo(dtype).eps * time**2 * k**0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_origin_has_its_place(name: str) -> None:
    origin = lm.lift(torch.zeros(1, 3, dtype=F64), k=2.0)
    place = torch.tensor([[0.0, 0.0, 1.0 if name == "half_space" else 0.0]], dtype=F64)
    assert torch.equal(getattr(models, f"to_{name}")(origin, k=2.0), place)
    assert torch.equal(getattr(models, f"from_{name}")(place, k=2.0), origin)


def test_a_place_outside_the_model_has_no_point() -> None:
    k = 4.0
    for back in (models.from_poincare, models.from_klein):
        inside, on, beyond = torch.tensor([[1.9, 0.0], [2.0, 0.0], [1.5, 1.5]], dtype=F64)
        assert back(inside, k=k).isfinite().all()
        assert back(on, k=k).isnan().all() and back(beyond, k=k).isnan().all()
    for height in (0.0, -1.0, float("nan")):
        assert models.from_half_space(torch.tensor([0.5, height], dtype=F64)).isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_any_axis_and_any_number_of_dimensions(name: str) -> None:
    there, back = getattr(models, f"to_{name}"), getattr(models, f"from_{name}")
    x = points(24, 5, k=0.5)
    y = there(x, k=0.5)
    for shape in ((2, 3, 4, 5), (24, 5)):
        turned = x.reshape(shape).movedim(-1, 0)
        assert torch.equal(there(turned, k=0.5, dim=0).movedim(0, -1).reshape(24, 4), y)
        assert torch.equal(
            back(there(turned, k=0.5, dim=0), k=0.5, dim=0).movedim(0, -1).reshape(24, 5), back(y, k=0.5)
        )
    assert there(x[:0]).shape == (0, 4) and back(y[0]).shape == (5,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", CURVATURES)
def test_derivatives_with_respect_to_points_and_k(name: str, k: float) -> None:
    there, back = getattr(models, f"to_{name}"), getattr(models, f"from_{name}")
    x = points(2, 4, k=k)
    y = there(x, k=k)
    kk = torch.tensor(k, dtype=F64, requires_grad=True)
    for function, value in ((there, x), (back, y)):
        value = value.clone().requires_grad_()
        run = lambda a, k, f=function: f(a, k=k)  # noqa: E731
        assert torch.autograd.gradcheck(run, (value, kk))
        assert torch.autograd.gradgradcheck(run, (value, kk))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CURVATURES), st.floats(0.1, 2.5), st.floats(-0.5, 1.5))
def test_klein_geodesics_are_straight_lines(seed: int, k: float, std: float, t: float) -> None:
    x, y = points(5, 4, k=k, std=std, seed=seed), points(5, 4, k=k, std=std, seed=seed + 1)
    a, b, c = (models.to_klein(p, k=k) for p in (x, y, geodesics.geodesic(t, x, y, k=k)))
    way = (b - a) / (b - a).norm(dim=-1, keepdim=True)
    beside = (c - a) - ((c - a) * way).sum(-1, keepdim=True) * way
    assert (beside.norm(dim=-1) <= 1e-13 * k**0.5 / (b - a).norm(dim=-1) * k**0.5).all()
