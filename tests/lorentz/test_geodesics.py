"""Geodesics and the Busemann function by the laws they obey; digits are counted in test_digits.py."""

from __future__ import annotations

from collections.abc import Callable
from math import cosh, sinh

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorentz import Lorentz, boost, boost_matrix, tangent, wrapped_normal
from lorentz import math as lm
from lorentz.geodesics import busemann, geodesic, geodesic_unit
from lorentz.models import to_half_space
from lorentz.transport import transport, transport_from_origin

F64 = torch.float64
CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)

few = settings(max_examples=30, deadline=None)
seeds, curvatures, spreads = st.integers(0, 10**6), st.sampled_from(CURVATURES), st.floats(0.01, 2.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def points(n: int, size: int = 5, *, k: float = 1.0, std: float = 1.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return wrapped_normal((n, size), std=std * k**0.5, k=k, dtype=F64, generator=g)


def tangents(x: Tensor, *, k: float = 1.0, seed: int = 9) -> Tensor:
    return transport_from_origin(x, torch.nn.functional.pad(normal(*x[..., 1:].shape, seed=seed), (1, 0)), k=k)


@few
@given(seeds, curvatures, spreads, st.floats(-1.0, 2.0))
def test_distance_grows_in_proportion_along_a_geodesic(seed: int, k: float, std: float, t: float) -> None:
    x, y = points(6, k=k, std=std, seed=seed), points(6, k=k, std=std, seed=seed + 1)
    z = geodesic(t, x, y, k=k)
    d = lm.dist(x, y, k=k)
    assert torch.allclose(lm.dist(x, z, k=k), abs(t) * d, rtol=1e-9, atol=1e-9)
    assert torch.allclose(lm.dist(z, y, k=k), abs(1 - t) * d, rtol=1e-9, atol=1e-9)
    assert torch.allclose(z, lm.expmap(x, t * lm.logmap(x, y, k=k), k=k), rtol=1e-8, atol=1e-8)
    assert torch.allclose(z, geodesic(1 - t, y, x, k=k), rtol=1e-12)


@few
@given(seeds, curvatures, spreads)
def test_the_middle_is_the_centroid_of_equal_weights(seed: int, k: float, std: float) -> None:
    x, y = points(6, k=k, std=std, seed=seed), points(6, k=k, std=std, seed=seed + 1)
    assert torch.allclose(geodesic(0.5, x, y, k=k), lm.centroid(torch.stack([x, y], -2), k=k), rtol=1e-9, atol=1e-9)


def test_the_ends_are_the_points_and_equal_points_stay() -> None:
    x, y = points(6), points(6, seed=1)
    assert torch.equal(geodesic(0.0, x, y), x) and torch.equal(geodesic(1.0, x, y), y)
    for t in (-3.0, 0.5, 40.0):
        assert torch.allclose(geodesic(t, x, x), x, rtol=1e-14)
    zero = torch.zeros_like(x)
    assert torch.allclose(geodesic_unit(2.0, x, zero), x, rtol=1e-15)


@few
@given(seeds, curvatures, spreads, st.floats(-3.0, 3.0))
def test_unit_geodesics_run_at_unit_speed_whatever_the_length_of_the_direction(
    seed: int, k: float, std: float, t: float
) -> None:
    x = points(6, k=k, std=std, seed=seed)
    u, length = tangents(x, k=k, seed=seed), t * k**0.5
    y = geodesic_unit(length, x, u, k=k)
    assert torch.allclose(lm.dist(x, y, k=k), torch.full((6,), abs(length), dtype=F64), rtol=1e-8, atol=1e-8)
    assert torch.allclose(y, geodesic_unit(length, x, 5 * u, k=k), rtol=1e-12)
    unit = u / tangent.norm(x, u, k=k, keepdim=True)
    root = k**0.5
    plain = cosh(length / root) * x + root * sinh(length / root) * unit
    assert torch.allclose(y, plain, rtol=1e-9, atol=1e-9 * float(x.abs().max()))


@few
@given(seeds, curvatures, spreads)
def test_laws_of_exponential_logarithm_and_transport(seed: int, k: float, std: float) -> None:
    x, y = points(6, k=k, std=std, seed=seed), points(6, k=k, std=std, seed=seed + 1)
    d, v = lm.dist(x, y, k=k), lm.logmap(x, y, k=k)
    assert torch.allclose(lm.expmap(x, v, k=k), y, rtol=1e-8, atol=1e-8)
    assert torch.allclose(tangent.norm(x, v, k=k), d, rtol=1e-9, atol=1e-9)
    u, w = tangents(x, k=k, seed=seed), tangents(x, k=k, seed=seed + 1)
    moved = [transport(x, y, a, k=k) for a in (u, w)]
    before, after = tangent.inner(x, u, w, k=k), tangent.inner(y, *moved, k=k)
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-9)
    assert torch.allclose(transport(x, y, v, k=k), -lm.logmap(y, x, k=k), rtol=1e-8, atol=1e-8)


@few
@given(seeds, curvatures, spreads, st.floats(0.0, 3.0))
def test_boosts_are_isometries_of_distance_geodesic_and_centroid(seed: int, k: float, std: float, size: float) -> None:
    x, y = points(6, k=k, std=std, seed=seed), points(6, k=k, std=std, seed=seed + 1)
    w = torch.nn.functional.normalize(normal(4, seed=seed), dim=0) * size
    matrix = boost_matrix(w).mT
    bx, by = x @ matrix, y @ matrix
    close = {"rtol": 1e-7, "atol": 1e-7}
    assert torch.allclose(lm.dist(bx, by, k=k), lm.dist(x, y, k=k), **close)
    assert torch.allclose(geodesic(0.3, bx, by, k=k), geodesic(0.3, x, y, k=k) @ matrix, **close)
    assert torch.allclose(lm.centroid(bx, k=k), lm.centroid(x, k=k) @ matrix, **close)
    assert torch.allclose(boost(x, w, k=k), bx, **close)


@few
@given(seeds, curvatures, spreads)
def test_busemann_is_one_lipschitz_and_the_limit_of_distances(seed: int, k: float, std: float) -> None:
    x, y = points(50, k=k, std=std, seed=seed), points(50, k=k, std=std, seed=seed + 1)
    w = normal(4, seed=seed)
    b, c = busemann(x, w, k=k), busemann(y, 3 * w, k=k)
    assert ((b - c).abs() <= lm.dist(x, y, k=k) * (1 + 1e-12) + 1e-12).all()
    origin = lm.lift(torch.zeros(4, dtype=F64), k=k)
    assert busemann(origin, w, k=k) == 0
    reach = 18.0 * k**0.5
    far = geodesic_unit(reach, origin, torch.nn.functional.pad(w, (1, 0)), k=k)
    assert torch.allclose(b, lm.dist(x, far, k=k) - reach, rtol=1e-6, atol=1e-6)


@few
@given(seeds, curvatures, st.floats(-15.0, 15.0))
def test_busemann_falls_by_the_distance_along_every_geodesic_to_its_ideal_point(seed: int, k: float, t: float) -> None:
    root, w = k**0.5, torch.nn.functional.normalize(normal(4, seed=seed), dim=0)
    origin = lm.lift(torch.zeros(4, dtype=F64), k=k)
    on_ray = geodesic_unit(t * root, origin, torch.nn.functional.pad(w, (1, 0)), k=k)
    assert float(busemann(on_ray, w, k=k)) == pytest.approx(-t * root, rel=1e-9, abs=1e-12)
    # From any x the geodesic to the ideal point w leaves along the projection of (1, w), which is light-like.
    x = points(6, k=k, seed=seed)
    ray = tangent.project(x, torch.cat([torch.ones(6, 1, dtype=F64), w.expand(6, 4)], -1), k=k)
    s = 3.0 * root
    fall = busemann(geodesic_unit(s, x, ray, k=k), w, k=k) - busemann(x, w, k=k)
    assert torch.allclose(fall, torch.full((6,), -s, dtype=F64), rtol=1e-8)


def test_busemann_has_a_gradient_of_length_one() -> None:
    x = points(20, k=2.0).requires_grad_()
    (grad,) = torch.autograd.grad(busemann(x, normal(4), k=2.0).sum(), x)
    x = x.detach()
    assert torch.allclose(
        tangent.norm(x, tangent.riemannian_gradient(x, grad, k=2.0), k=2.0), torch.ones(20, dtype=F64)
    )


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize(
    "op", ["geodesic", "equal points", "geodesic_unit", "busemann", "inner", "norm", "project", "gradient"]
)
def test_derivatives_with_respect_to_points_parameter_and_k(op: str, k: float) -> None:
    x, y = points(2, 4, k=k), points(2, 4, k=k, seed=1)
    u, v, w = tangents(x, k=k), tangents(x, k=k, seed=2), normal(2, 3, seed=5)
    t = torch.tensor(0.3, dtype=F64)
    calls: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "geodesic": (geodesic, (t, x, y)),
        "equal points": (geodesic, (t, x, x)),
        "geodesic_unit": (geodesic_unit, (t, x, u)),
        "busemann": (busemann, (x, w)),
        "inner": (tangent.inner, (x, u, v)),
        "norm": (tangent.norm, (x, u)),
        "project": (tangent.project, (x, y)),
        "gradient": (tangent.riemannian_gradient, (x, y)),
    }
    function, given_ = calls[op]
    inputs = tuple(a.clone().requires_grad_() for a in (*given_, torch.tensor(k, dtype=F64)))
    run = lambda *a: function(*a[:-1], k=a[-1])  # noqa: E731
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_parameters_broadcast_and_a_misplaced_one_is_refused() -> None:
    x, y = points(5), points(5, seed=1)
    t = torch.linspace(0, 1, 3, dtype=F64)
    many = geodesic(t[:, None, None], x, y)
    assert many.shape == (3, 5, 5) and torch.equal(many[1], geodesic(0.5, x, y))
    assert torch.equal(geodesic(t[:, None, None], x.T, y.T, dim=0).mT, many)
    assert torch.equal(geodesic_unit(t[:, None, None], x.T, y.T, dim=0).mT, geodesic_unit(t[:, None, None], x, y))
    each = torch.rand(5, 1, dtype=F64)
    assert torch.equal(geodesic(each.T, x.T, y.T, dim=0).T, geodesic(each, x, y))
    for call in (geodesic, geodesic_unit):
        with pytest.raises(
            ValueError, match=r"size 1 along the coordinates, dim -1; got shape \(5,\).*t.unsqueeze\(-1\)"
        ):
            call(each[:, 0], x, y)
    assert geodesic(0.5, x.float(), y.float()).dtype == torch.float32


def test_directions_of_another_size_are_refused_and_none_is_not_a_number() -> None:
    x = points(5)
    assert torch.equal(busemann(x.T, normal(4)[:, None], dim=0), busemann(x, normal(4)))
    assert busemann(x, normal(3, 1, 4)).shape == (3, 5) and busemann(x, normal(4), keepdim=True).shape == (5, 1)
    for w in (normal(5), normal(4, 1)):
        with pytest.raises(ValueError, match="points of 5 coordinates, time first, take directions of 4"):
            busemann(x, w)
    with pytest.raises(ValueError, match="along dim 0"):
        busemann(x.T, normal(4), dim=0)
    assert busemann(x, torch.zeros(4)).isnan().all()


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("learnable", [False, True])
def test_operations_compile_in_one_graph(learnable: bool) -> None:
    manifold = Lorentz(2.0, learnable=learnable)
    x, y = points(5, k=2.0), points(5, k=2.0, seed=1)

    def everything(x: Tensor, y: Tensor) -> Tensor:
        u = manifold.logmap(x, y)
        z = (
            manifold.geodesic(0.3, x, y)
            + manifold.geodesic_unit(0.7, x, u)
            + manifold.centroid(torch.stack([x, y], -2))
        )
        v = manifold.transp(x, y, u) + manifold.egrad2rgrad(x, y) + manifold.transp0(y, manifold.transp0back(x, u))
        ball = manifold.to_klein(x) + manifold.to_poincare(y) + to_half_space(x, k=manifold.k)
        sizes = manifold.norm(x, u) + manifold.dist2(x, y) + manifold.dist0(x) + manifold.busemann(x, y[0, 1:])
        return torch.cat([z, v, ball, sizes[:, None]], -1)

    want = everything(x, y)
    got = torch.compile(everything, fullgraph=True, backend="aot_eager")(x, y)
    assert torch.allclose(
        got, want, rtol=8 * torch.finfo(F64).eps, atol=8 * torch.finfo(F64).eps * float(want.detach().abs().max())
    )
