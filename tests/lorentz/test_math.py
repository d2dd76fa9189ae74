"""lorentz.math against 60-digit arithmetic, geoopt in float64, and closed forms; more digits in test_digits.py."""

from __future__ import annotations

import inspect

import geoopt
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorentz import Lorentz
from lorentz import math as lm

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)


def points(
    radius: float, n: int = 20, dim: int = 6, *, k: float = 1.0, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(n, dim, dtype=torch.float64, generator=g)
    v = torch.cat([torch.zeros(n, 1), v / v.norm(dim=1, keepdim=True) * radius], 1)
    return lm.expmap0(v, k=k).to(dtype)


def step_from(x: Tensor, length: float, *, k: float = 1.0, seed: int = 1) -> Tensor:
    """Points at geodesic distance `length` from x, in random directions, by the textbook formula in float64."""
    x = lm.lift(x[:, 1:].double(), k=k)
    v = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v = v + lm.minkowski(x, v, keepdim=True) * x / k
    v = v / lm.minkowski(v, v, keepdim=True).sqrt()
    root = k**0.5
    return np.cosh(length / root) * x + root * np.sinh(length / root) * v


def oracle_dist(x: Tensor, y: Tensor, k: float = 1.0) -> list[float]:
    """Distance of the exact points that the space parts name, with 60 digits."""
    with mpmath.workdps(60):
        out = []
        for a, b in zip(x[:, 1:].tolist(), y[:, 1:].tolist(), strict=True):
            s, t = [mpmath.mpf(v) for v in a], [mpmath.mpf(v) for v in b]
            inner = sum(u * v for u, v in zip(s, t, strict=True))
            kk = mpmath.mpf(k)
            time = mpmath.sqrt((kk + sum(u * u for u in s)) * (kk + sum(v * v for v in t)))
            out.append(float(mpmath.sqrt(kk) * mpmath.acosh(mpmath.mpf(max(1, (time - inner) / kk)))))
        return out


@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0, 5.0, 8.0, 10.0])
@pytest.mark.parametrize("apart", [1e-4, 1e-2, 0.5, None])
def test_float32_distance_against_60_digits(radius: float, apart: float | None) -> None:
    x = points(radius, dtype=torch.float32)
    y = (-x if apart is None else step_from(x, apart)).float()
    y = lm.lift(y[:, 1:])
    expected = torch.tensor(oracle_dist(x, y), dtype=torch.float64)
    assert ((lm.dist(x, y).double() - expected).abs() / expected).max() <= 2e-7


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", [1e-2, 1.0, 4.0])
def test_distance_of_every_curvature(k: float, radius: float) -> None:
    x = points(radius * k**0.5, k=k)
    y = lm.lift(step_from(x, 0.3, k=k)[:, 1:], k=k)
    assert torch.allclose(lm.dist(x, y, k=k), torch.tensor(oracle_dist(x, y, k), dtype=torch.float64), rtol=1e-10)
    assert torch.allclose(lm.dist(x, y, k=k), torch.full((20,), 0.3, dtype=torch.float64), rtol=1e-7)


def test_distance_is_symmetric_to_the_bit_and_zero_at_itself() -> None:
    x, y = points(2.0, n=500), points(2.0, n=500, seed=3)
    assert torch.equal(lm.dist(x, y), lm.dist(y, x))
    assert torch.equal(lm.dist(x, x), torch.zeros(500, dtype=torch.float64))
    origin = Lorentz().origin(1, 7, dtype=torch.float64)
    assert torch.equal(lm.dist(origin, x), lm.dist(x, origin))
    assert torch.allclose(lm.dist(origin, x), torch.full((500,), 2.0, dtype=torch.float64), rtol=1e-12)
    assert lm.dist(origin, origin).item() == 0


@pytest.mark.parametrize("radius", [1e-3, 1.0, 5.0, 8.0])
@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
def test_gradient_of_distance_has_riemannian_norm_one(radius: float, k: float) -> None:
    x = points(radius, k=k, dtype=torch.float32)
    y = lm.lift(step_from(x, 1e-4 if radius < 8 else 1e-3, k=k)[:, 1:].float(), k=k)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(lm.dist(x, y, k=k).sum(), x)
    space = x.detach()[:, 1:].double()
    chart = grad[:, 1:].double() + grad[:, :1].double() * space / lm.lift(space, k=k)[:, :1]
    norm = (chart.square().sum(1) + (chart * space).sum(1).square() / k).sqrt()
    assert (norm - 1).abs().max() <= 1e-3


def test_gradient_of_distance_is_exactly_zero_at_equal_points() -> None:
    x = points(1.0, dtype=torch.float32).requires_grad_()
    (grad,) = torch.autograd.grad(lm.dist(x, x.detach()).sum(), x)
    assert torch.equal(grad, torch.zeros_like(x))


@pytest.mark.parametrize("radius", [1e-6, 1e-4, 1e-2, 1.0, 8.0, 15.0, 20.0])
def test_exp_and_log_at_the_origin_in_float32(radius: float) -> None:
    g = torch.Generator().manual_seed(0)
    v = torch.randn(50, 5, generator=g)
    v = torch.cat([torch.zeros(50, 1), v / v.norm(dim=1, keepdim=True) * radius], 1)
    back = lm.logmap0(lm.expmap0(v))
    assert ((back - v).norm(dim=1) / v.norm(dim=1)).max() <= 2e-7


@pytest.mark.parametrize("k", CURVATURES)
def test_exp_and_log_against_geoopt_in_float64(k: float) -> None:
    peer = geoopt.Lorentz(k=torch.tensor(k, dtype=torch.float64))
    x, y = points(1.0, k=k), points(1.5, k=k, seed=5)
    assert torch.allclose(lm.logmap(x, y, k=k), peer.logmap(x, y), atol=1e-9)
    v = lm.logmap(x, y, k=k)
    assert torch.allclose(lm.expmap(x, v, k=k), peer.expmap(x, v), atol=1e-9)
    assert torch.allclose(lm.expmap(x, v, k=k), y, rtol=1e-10)
    assert lm.minkowski(x, v).abs().max() < 1e-12 * float(x[:, 0].max()) ** 2
    assert torch.allclose(lm.minkowski(v, v).sqrt(), lm.dist(x, y, k=k), rtol=1e-10)


def test_log_of_the_point_itself_is_zero_and_exp_of_zero_is_the_point() -> None:
    x = points(3.0)
    assert torch.equal(lm.logmap(x, x), torch.zeros_like(x))
    assert torch.allclose(lm.expmap(x, torch.zeros_like(x)), x, rtol=1e-15)
    origin = Lorentz().origin(1, 7)
    assert torch.equal(lm.logmap0(origin), torch.zeros(1, 7))


@pytest.mark.parametrize("radius", [1.0, 5.0, 8.0])
def test_exp_of_log_reaches_the_point_in_float32(radius: float) -> None:
    x = points(radius, dtype=torch.float32)
    y = lm.lift(step_from(x, 0.5)[:, 1:].float())
    limit = 4 * 1.2e-7 * np.sinh(radius + 0.5)  # rounding the space part of one float32 point moves it by that much
    assert lm.dist(lm.expmap(x, lm.logmap(x, y)), y).max() <= limit


@pytest.mark.parametrize("k", CURVATURES)
def test_centroid_minimises_the_weighted_squared_distance(k: float) -> None:
    x = points(1.5, n=8, k=k)
    weight = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    c = lm.centroid(x, weight, k=k)
    cost = (weight * lm.sqdist(c, x, k=k)).sum()
    for seed in range(20):
        moved = lm.lift(
            c[1:] + 1e-3 * torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), k=k
        )
        assert (weight * lm.sqdist(moved, x, k=k)).sum() > cost
    many = lm.centroid(x, torch.stack([weight, 3 * weight]), k=k)
    assert torch.allclose(many, c.expand(2, -1), rtol=1e-12)
    assert torch.allclose(lm.centroid(x, k=k), lm.centroid(x, torch.ones(8, dtype=torch.float64), k=k), rtol=1e-14)


@pytest.mark.parametrize("radius", [10.0, 19.0, 25.0])
def test_centroids_far_out_are_the_point_and_the_middle(radius: float) -> None:
    x = points(radius, n=20)
    rounding = 4 * 1.2e-16 * np.sinh(radius)
    s = x[:, None, 1:].clone().requires_grad_()
    c = lm.centroid(lm.lift(s))
    assert float(lm.dist(c, x).detach().max()) <= rounding
    (slope,) = torch.autograd.grad(c[:, 1:].sum(), s)  # of the identity
    assert float((slope - 1).abs().max()) <= 1e-15 * np.sinh(radius)
    nearer = lm.lift(x[:, 1:] * (np.sinh(radius - 1) / np.sinh(radius)))
    beside = lm.lift(x[:, 1:] + 2 * x[:, 1:].roll(1, -1) / np.sinh(radius))
    for y in (nearer, beside):
        middle = lm.centroid(torch.stack([x, y], 1), torch.tensor([2.0, 2.0]))
        for end in (x, y):
            assert float((lm.dist(middle, end) - lm.dist(x, y) / 2).abs().max()) <= 4 * rounding
    each = lm.centroid(x, torch.eye(20, dtype=torch.float64))
    assert torch.isfinite(each).all() and (lm.dist0(each) <= lm.dist0(x) + 1e-12).all()


@pytest.mark.parametrize("radius", [0.0, 0.5, 0.9, 3.0])
def test_centroids_have_both_derivatives_near_and_far(radius: float) -> None:
    s = points(radius, n=3)[:, 1:] + 0.1 * points(1.0, n=3, seed=4)[:, 1:]
    s = torch.cat([s, -s]) if radius == 0.0 else s  # about the origin, where the sum has no direction
    w = torch.linspace(1.0, 2.0, len(s), dtype=torch.float64)
    w = torch.ones_like(w) if radius == 0.0 else w
    k = torch.tensor(0.7, dtype=torch.float64)
    given = tuple(t.requires_grad_() for t in (s.clone(), w, k))

    def run(s: torch.Tensor, w: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return lm.centroid(lm.lift(s, k=k), w, k=k)

    assert torch.autograd.gradcheck(run, given) and torch.autograd.gradgradcheck(run, given)


def test_weights_of_another_number_than_the_points_are_refused_with_both_shapes() -> None:
    x = points(1.0, n=8).reshape(2, 4, 7)
    for shape in ((3,), (2, 3), (5, 4), (2, 3, 5), (3, 2, 4), ()):
        with pytest.raises(
            ValueError, match=r"4 points, of shape \(2, 4, 7\), take weights of shape \(\.\.\., 4\)"
        ) as error:
            lm.centroid(x, torch.ones(shape))
        assert str(shape) in str(error.value)
    with pytest.raises(ValueError, match=r"shape \(\.\.\., n, d\); got shape \(7,\)"):
        lm.centroid(x[0, 0])
    for shape, out in (((4,), (2, 7)), ((2, 4), (2, 7)), ((2, 3, 4), (2, 3, 7)), ((1, 3, 4), (2, 3, 7))):
        assert lm.centroid(x, torch.ones(shape)).shape == out


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_operation_stays_on_the_hyperboloid_and_keeps_the_dtype(k: float, dtype: torch.dtype) -> None:
    x, y = points(1.5, k=k, dtype=dtype), points(0.7, k=k, dtype=dtype, seed=9)
    z = torch.randn(20, 7, dtype=dtype, generator=torch.Generator().manual_seed(1))
    results = {
        "lift": lm.lift(z, k=k),
        "expmap0": lm.expmap0(z, k=k),
        "expmap": lm.expmap(x, lm.logmap(x, y, k=k), k=k),
        "centroid": lm.centroid(x, k=k),
        "bounded space": lm.bounded_lift(z, scale=5.0, k=k),
        "bounded time": lm.bounded_lift(z, scale=5.0, k=k, bound="time"),
        "bounded at 0": lm.bounded_lift(torch.zeros(1, 7, dtype=dtype), scale=5.0, k=k, bound="time"),
    }
    limit = 1e-5 if dtype in (torch.float64, torch.float32) else 4 * torch.finfo(dtype).eps
    for name, out in results.items():
        assert out.dtype == dtype, name
        wide = out.double()
        assert ((lm.minkowski(wide, wide) + k).abs() <= limit * wide[..., 0] ** 2).all(), name


@pytest.mark.parametrize("bound", ["space", "time"])
def test_bounded_lift_is_bounded_as_stated(bound: str) -> None:
    k, scale = 2.0, 3.0
    z = 5 * torch.randn(1000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = lm.bounded_lift(z, scale=scale, k=k, bound=bound)
    gate = scale * torch.sigmoid(z[:, 0])
    if bound == "space":
        assert torch.allclose(y[:, 1:].norm(dim=1), gate, rtol=1e-12)
    else:
        assert torch.allclose(y[:, 0], gate + 1.1 * k**0.5, rtol=1e-12)
    assert torch.allclose(torch.nn.functional.normalize(y[:, 1:]), torch.nn.functional.normalize(z[:, 1:]), atol=1e-12)
    with pytest.raises(ValueError, match="'space' or 'time', got 'radius'"):
        lm.bounded_lift(z, scale=1.0, bound="radius")


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 10), st.floats(0, 6), st.floats(0, 6), st.integers(0, 1000))
def test_triangle_inequality_and_sqdist(k: float, r: float, s: float, seed: int) -> None:
    x, y, z = points(r, k=k, seed=seed), points(s, k=k, seed=seed + 1), points(1.0, k=k, seed=seed + 2)
    d = lm.dist(x, y, k=k)
    assert (d <= lm.dist(x, z, k=k) + lm.dist(z, y, k=k) + 1e-9).all()
    root = k**0.5
    assert torch.allclose(lm.sqdist(x, y, k=k), 2 * k * (torch.cosh(d / root) - 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "op", ["dist", "dist0", "dist2", "sqdist", "expmap0", "logmap0", "logmap", "expmap", "centroid", "bounded"]
)
def test_first_and_second_derivatives(op: str) -> None:
    x, y = points(1.0, n=3, dim=3), points(0.6, n=3, dim=3, seed=8)
    calls = {
        "dist": (lambda a, b: lm.dist(lm.lift(a), lm.lift(b), k=1.0), (x[:, 1:], y[:, 1:])),
        "dist0": (lambda a: lm.dist0(a, k=0.7), (x,)),
        "dist2": (lambda a, b: lm.dist2(a, b, k=0.7), (x, y)),
        "sqdist": (lambda a, b: lm.sqdist(a, b, k=1.0), (x, y)),
        "expmap0": (lambda a: lm.expmap0(a, k=0.7), (x,)),
        "logmap0": (lambda a: lm.logmap0(a, k=0.7), (x,)),
        "logmap": (lambda a, b: lm.logmap(a, b), (x, y)),
        "expmap": (lambda a, b: lm.expmap(a, b), (x, y)),
        "centroid": (lambda a: lm.centroid(a), (x,)),
        "bounded": (lambda a: lm.bounded_lift(a, scale=2.0, k=0.5, bound="time"), (x,)),
    }
    function, inputs = calls[op]
    inputs = tuple(v.clone().requires_grad_() for v in inputs)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_squared_distance_has_the_metric_as_its_second_derivative_where_the_points_meet() -> None:
    space = points(1.2, n=1, dim=3)[0, 1:]
    hessian = torch.autograd.functional.hessian(
        lambda s: lm.dist2(lm.lift(s, k=0.7), lm.lift(space, k=0.7), k=0.7), space
    )
    metric = torch.eye(3, dtype=torch.float64) - torch.outer(space, space) / (0.7 + space @ space)
    assert torch.allclose(hessian, 2 * metric, rtol=1e-12, atol=1e-12)


def test_gradient_reaches_a_learned_curvature() -> None:
    manifold = Lorentz(k=1.5, learnable=True)
    x, y = points(1.0, n=4), points(0.5, n=4, seed=2)
    lm.dist(x, y, k=manifold.k).sum().backward()
    assert manifold.rho is not None and manifold.rho.grad is not None
    step = 1e-6
    up, down = (lm.dist(x, y, k=1.5 * np.exp(s)).sum() for s in (step, -step))
    assert manifold.rho.grad.item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-6)


def test_any_dimension_may_be_the_coordinate_axis() -> None:
    x, y = points(1.0, n=5), points(2.0, n=5, seed=1)
    assert torch.allclose(lm.dist(x.T, y.T, dim=0), lm.dist(x, y))
    assert lm.dist(x, y, keepdim=True).shape == (5, 1)
    assert torch.allclose(lm.expmap0(x.T, dim=0).T, lm.expmap0(x))
    assert torch.allclose(lm.logmap(x.T, y.T, dim=0).T, lm.logmap(x, y))
    assert lm.dist(x[:0], y[:0]).shape == (0,)


@pytest.mark.parametrize("op", ["dist", "sqdist", "logmap", "expmap"])
@pytest.mark.parametrize("place", ["origin", "opposite"])
def test_second_derivatives_at_the_origin_and_between_opposite_points(op: str, place: str) -> None:
    y = points(0.6, n=3, dim=3, seed=8)
    x = lm.lift(torch.zeros(3, 3, dtype=torch.float64)) if place == "origin" else lm.lift(-y[:, 1:])
    inputs = tuple(v.clone().requires_grad_() for v in (x, y))
    assert torch.autograd.gradcheck(getattr(lm, op), inputs)
    assert torch.autograd.gradgradcheck(getattr(lm, op), inputs)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_whole_numbers_are_refused_not_rounded(dtype: torch.dtype) -> None:
    x = torch.tensor([[3, 2, 2], [1, 0, 0]]).to(dtype)
    one = {"lift": lm.lift, "dist0": lm.dist0, "expmap0": lm.expmap0, "logmap0": lm.logmap0, "centroid": lm.centroid}
    two = {"dist": lm.dist, "dist2": lm.dist2, "sqdist": lm.sqdist, "expmap": lm.expmap, "logmap": lm.logmap}
    for name, function in {**one, **two}.items():
        plain = inspect.unwrap(function)  # without the shape checks of the tests, which refuse it themselves
        with pytest.raises(TypeError, match=r"floating-point numbers, got torch\.\w+: convert by \.float\(\)"):
            plain(x, x) if name in two else plain(x)
