"""What does not cancel, against 60-digit arithmetic on the exact points that the space parts name, to radius 20."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from lorentz import geodesics, models, tangent
from lorentz import math as lm
from lorentz import transport as pt

F64 = torch.float64
CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
RADII = (1e-3, 0.5, 3.0, 8.0, 15.0, 20.0)  # in units of sqrt(k)
Vector = list[mpf]


@pytest.fixture(autouse=True)
def digits() -> Iterator[None]:
    with mpmath.workdps(60):
        yield


def normal(n: int, size: int, seed: int) -> Tensor:
    return torch.randn(n, size, dtype=F64, generator=torch.Generator().manual_seed(seed))


def points(radius: float, k: float, *, n: int = 8, size: int = 5, seed: int = 0) -> Tensor:
    """Points whose coordinates are float32 numbers, held in float64."""
    way = torch.nn.functional.normalize(normal(n, size, seed)) * radius * k**0.5
    return lm.expmap0(torch.nn.functional.pad(way, (1, 0)), k=k).float().double()


def tangents(x: Tensor, k: float, seed: int) -> Tensor:
    """Tangent vectors at x, of length about 2."""
    return pt.transport_from_origin(x, torch.nn.functional.pad(normal(*x[:, 1:].shape, seed), (1, 0)), k=k)


def neighbours(x: Tensor, k: float, seed: int = 3) -> Tensor:
    y = lm.expmap(x, 1e-3 * k**0.5 * tangents(x, k, seed), k=k)
    return torch.cat([y[:4], points(float(lm.dist0(x[0], k=k)) / k**0.5, k, seed=seed)[4:]])


def exact(x: Tensor, k: float) -> Vector:
    s = [mpf(v) for v in x[1:].tolist()]
    return [mpmath.sqrt(mpf(k) + dot(s, s)), *s]


def exact_tangent(x: Vector, u: Tensor) -> Vector:
    s = [mpf(v) for v in u[1:].tolist()]
    return [dot(x[1:], s) / x[0], *s]


def dot(a: Vector, b: Vector) -> mpf:
    return sum((p * q for p, q in zip(a, b, strict=True)), mpf(0))


def product(a: Vector, b: Vector) -> mpf:
    return dot(a[1:], b[1:]) - a[0] * b[0]


def combine(*terms: tuple[mpf, Vector]) -> Vector:
    return [sum((c * v[i] for c, v in terms), mpf(0)) for i in range(len(terms[0][1]))]


def length(v: Vector) -> mpf:
    return mpmath.sqrt(product(v, v))


def off(x: Vector, got: Tensor, want: Vector) -> float:
    """Length of the difference of a computed tangent vector and the true one, relative to the true one."""
    return float(length(combine((mpf(1), exact_tangent(x, got)), (mpf(-1), want))) / length(want))


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
def test_inner_products_and_transport(k: float, radius: float) -> None:
    x = points(radius, k)
    y = neighbours(x, k)
    u, v = tangents(x, k, 5), tangents(x, k, 6)
    inner, norm, moved = tangent.inner(x, u, v, k=k), tangent.norm(x, u, k=k), pt.transport(x, y, u, k=k)
    back, there = pt.transport_to_origin(x, u, k=k), pt.transport_from_origin(x, u, k=k)
    for i in range(len(x)):
        a, b = exact(x[i], k), exact(y[i], k)
        p, q = exact_tangent(a, u[i]), exact_tangent(a, v[i])
        bound = 2e-15 * (1 + float(a[0]) / k**0.5)  # rounding float64 coordinates of a tangent vector does as much
        assert abs(inner[i].item() - product(p, q)) <= bound * length(p) * length(q)
        assert abs(norm[i].item() - length(p)) <= bound * length(p)
        share = product(b, p) / (k - product(a, b))
        assert off(b, moved[i], combine((mpf(1), p), (share, a), (share, b))) <= bound
        origin = [mpmath.sqrt(mpf(k)), *[mpf(0)] * 5]
        share = product(origin, p) / (k - product(a, origin))
        assert off(origin, back[i], combine((mpf(1), p), (share, a), (share, origin))) <= bound
        at_origin = [mpf(0), *p[1:]]
        share = product(a, at_origin) / (k - product(a, origin))
        assert off(a, there[i], combine((mpf(1), at_origin), (share, a), (share, origin))) <= bound


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
def test_logarithm_and_exponential_at_a_point(k: float, radius: float) -> None:
    x = points(radius, k)
    y = neighbours(x, k)
    v = tangents(x, k, 7)
    log, exp = lm.logmap(x, y, k=k), lm.expmap(x, v, k=k)
    for i in range(len(x)):
        a, b, p = exact(x[i], k), exact(y[i], k), exact_tangent(exact(x[i], k), v[i])
        time = float(a[0]) / k**0.5
        angle = mpmath.acosh(-product(a, b) / k)
        want = combine((angle / mpmath.sinh(angle), b), (-angle / mpmath.tanh(angle), a))
        assert off(a, log[i], want) <= 4e-15 * (1 + time * max(1.0, float(1 / angle), float(angle)))
        angle = length(p) / mpmath.sqrt(mpf(k))
        want = combine((mpmath.cosh(angle), a), (mpmath.sinh(angle) / angle, p))
        moved = combine((mpf(1), exact(exp[i], k)), (mpf(-1), want))
        # Between points the Lorentzian length of the difference is the distance; rounding of want moves it by eps * time.
        assert mpmath.sqrt(abs(product(moved, moved))) <= 1e-14 * (1 + float(want[0])) * float(mpmath.cosh(angle))


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
def test_projection_and_riemannian_gradient(k: float, radius: float) -> None:
    x, g = points(radius, k), normal(8, 6, 9)
    projected, gradient = tangent.project(x, g, k=k), tangent.riemannian_gradient(x, g, k=k)
    for i in range(len(x)):
        a, v = exact(x[i], k), [mpf(c) for c in g[i].tolist()]
        for got, ambient in ((projected[i], v), (gradient[i], [-v[0], *v[1:]])):
            want = combine((mpf(1), ambient), (product(a, ambient) / k, a))
            largest = max(map(abs, want))
            rest = 4e-15 * dot(a, a) / k  # of g, whose terms of the product may cancel
            assert max(abs(mpf(c) - w) for c, w in zip(got.tolist(), want, strict=True)) <= 1e-15 * largest + rest


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
def test_float32_distances_and_busemann(k: float, radius: float) -> None:
    x = points(radius, k)
    y = neighbours(x, k).float().double()
    towards = x[:, 1:]
    w = torch.cat(
        [normal(3, 5, 4), towards[3:5], -towards[5:6], (towards + 1e-3 * radius * normal(8, 5, 8))[6:]]
    ).float()
    low, other = x.float(), y.float()
    radii, squares, bus = lm.dist0(low, k=k), lm.dist2(low, other, k=k), geodesics.busemann(low, w, k=k)
    root = mpmath.sqrt(mpf(k))
    for i in range(len(x)):
        a, b, way = exact(x[i], k), exact(y[i], k), [mpf(v) for v in w[i].tolist()]
        assert radii.dtype == squares.dtype == bus.dtype == torch.float32
        assert abs(radii[i].item() / (root * mpmath.acosh(a[0] / root)) - 1) <= 1e-7
        assert abs(squares[i].item() / (k * mpmath.acosh(-product(a, b) / k) ** 2) - 1) <= 1e-7
        along = dot(way, a[1:]) / mpmath.sqrt(dot(way, way))
        want = root * mpmath.log((a[0] - along) / root)
        assert abs(bus[i].item() - want) <= 1e-7 * abs(want)


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
def test_other_models_in_float32(k: float, radius: float) -> None:
    x = points(radius, k)
    ball, klein, half = (
        convert(x.float(), k=k) for convert in (models.to_poincare, models.to_klein, models.to_half_space)
    )
    root = mpmath.sqrt(mpf(k))
    for i in range(len(x)):
        time, *space = exact(x[i], k)
        height = root / (time - space[-1])
        for j, s in enumerate(space):
            assert abs(ball[i, j].item() / (root * s / (time + root)) - 1) <= 1e-7
            assert abs(klein[i, j].item() / (root * s / time) - 1) <= 1e-7
            want = height if j == len(space) - 1 else s / root * height
            assert abs(half[i, j].item() / want - 1) <= 1e-7


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("t", [-0.7, 0.0, 0.3, 1.0, 1.6])
def test_geodesic_between_points(k: float, radius: float, t: float) -> None:
    x = points(radius, k)
    y = neighbours(x, k)
    got = geodesics.geodesic(t, x, y, k=k)
    for i in range(len(x)):
        a, b = exact(x[i], k), exact(y[i], k)
        angle = mpmath.acosh(-product(a, b) / k)
        here, there = (mpmath.sinh(part * angle) / mpmath.sinh(angle) for part in (1 - mpf(t), mpf(t)))
        want = combine((here, a), (there, b))
        reach = float(abs(here) * a[0] + abs(there) * b[0]) / k**0.5
        moved = mpmath.acosh(max(mpf(1), -product(exact(got[i], k), want) / k))
        # Rounding of coordinates of this size, and of the argument of sinh.
        assert moved <= 4e-16 * reach + 2e-15 * (1 + angle)
