"""Every public operation of the manifold: geoopt's where geoopt is right, along any axis, honest about NaN; sampling."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import geoopt
import pytest
import torch
from torch import Tensor

from lorentz import Lorentz, wrapped_normal
from lorentz import math as lm

F64 = torch.float64
CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)

# name: (call, which of the inputs x, y (points), u, v (tangent at x), z (tangent at the origin) it takes)
OPERATIONS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "dist": (lambda m, x, y, **a: m.dist(x, y, **a), "xy"),
    "dist0": (lambda m, x, **a: m.dist0(x, **a), "x"),
    "projx": (lambda m, x, **a: m.projx(x, **a), "x"),
    "expmap": (lambda m, x, u, **a: m.expmap(x, u, **a), "xu"),
    "retr": (lambda m, x, u, **a: m.retr(x, u, **a), "xu"),
    "expmap0": (lambda m, z, **a: m.expmap0(z, **a), "z"),
    "logmap": (lambda m, x, y, **a: m.logmap(x, y, **a), "xy"),
    "logmap0": (lambda m, x, **a: m.logmap0(x, **a), "x"),
    "logmap0back": (lambda m, x, **a: m.logmap0back(x, **a), "x"),
    "inner": (lambda m, x, u, v, **a: m.inner(x, u, v, **a), "xuv"),
    "squared norm": (lambda m, x, u, **a: m.inner(x, u, **a), "xu"),
    "inner0": (lambda m, x, **a: m.inner0(x, **a), "x"),
    "proju": (lambda m, x, y, **a: m.proju(x, y, **a), "xy"),
    "egrad2rgrad": (lambda m, x, y, **a: m.egrad2rgrad(x, y.clone(), **a), "xy"),
    "transp": (lambda m, x, y, u, **a: m.transp(x, y, u, **a), "xyu"),
    "transp0": (lambda m, x, z, **a: m.transp0(x, z, **a), "xz"),
    "transp0back": (lambda m, x, u, **a: m.transp0back(x, u, **a), "xu"),
    "transp_follow_expmap": (lambda m, x, u, v, **a: m.transp_follow_expmap(x, u, v, **a), "xuv"),
    "transp_follow_retr": (lambda m, x, u, v, **a: m.transp_follow_retr(x, u, v, **a), "xuv"),
    "expmap_transp": (lambda m, x, u, v, **a: torch.stack(m.expmap_transp(x, u, v, **a)), "xuv"),
    "retr_transp": (lambda m, x, u, v, **a: torch.stack(m.retr_transp(x, u, v, **a)), "xuv"),
    "geodesic_unit": (
        lambda m, x, u, dim=-1: m.geodesic_unit(
            torch.tensor(0.7, dtype=x.dtype), x, u / m.inner(x, u, dim=dim, keepdim=True).sqrt(), dim=dim
        ),
        "xu",
    ),
}
# what geoopt.Lorentz has under no such name, or in another form
OWN: dict[str, tuple[Callable[..., Tensor], str]] = {
    "dist2": (lambda m, x, y, **a: m.dist2(x, y, **a), "xy"),
    "sqdist": (lambda m, x, y, **a: m.sqdist(x, y, **a), "xy"),
    "norm": (lambda m, x, u, **a: m.norm(x, u, **a), "xu"),
    "minkowski": (lambda m, x, y, **a: m.minkowski(x, y, **a), "xy"),
    "geodesic": (lambda m, x, y, **a: m.geodesic(0.3, x, y, **a), "xy"),
    "lift": (lambda m, x, dim=-1: m.lift(x.narrow(dim, 1, 4), dim=dim), "x"),
    "busemann": (lambda m, x, z, dim=-1: m.busemann(x, z.narrow(dim, 1, 4), dim=dim), "xz"),
    "to_poincare": (lambda m, x, **a: m.to_poincare(x, **a), "x"),
    "from_poincare": (lambda m, x, **a: m.from_poincare(m.to_poincare(x, **a), **a), "x"),
    "to_klein": (lambda m, x, **a: m.to_klein(x, **a), "x"),
    "from_klein": (lambda m, x, **a: m.from_klein(m.to_klein(x, **a), **a), "x"),
}
SCALARS = {"dist", "dist0", "dist2", "sqdist", "inner", "squared norm", "inner0", "norm", "minkowski", "busemann"}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def inputs(manifold: Lorentz, *, dtype: torch.dtype = F64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    root = float(manifold.k.detach()) ** 0.5
    x, y = (manifold.random_normal(6, 5, std=0.8 * root, dtype=F64, generator=g).detach() for _ in range(2))
    z, z1, z2 = (torch.nn.functional.pad(root * torch.randn(6, 4, dtype=F64, generator=g), (1, 0)) for _ in range(3))
    u, v = (manifold.transp0(x, a).detach() for a in (z1, z2))
    return {name: value.to(dtype) for name, value in zip("xyzuv", (x, y, z, u, v), strict=True)}


def peer(k: float) -> geoopt.Lorentz:
    return geoopt.Lorentz(k=torch.tensor(k, dtype=F64))


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_geoopts_in_float64(name: str, k: float, learnable: bool) -> None:
    manifold, (call, takes) = Lorentz(k, learnable=learnable), OPERATIONS[name]
    given = [inputs(manifold)[c] for c in takes]
    got, want = call(manifold, *given), call(peer(k), *given)
    assert got.shape == want.shape
    assert torch.allclose(got, want, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", [*OPERATIONS, *OWN])
def test_operations_work_along_any_axis_with_any_number_of_dimensions(name: str) -> None:
    manifold, (call, takes) = Lorentz(0.5), {**OPERATIONS, **OWN}[name]
    given = [inputs(manifold)[c] for c in takes]
    want = call(manifold, *given)
    for shape, dim in (((6, 5), 0), ((2, 3, 5), 1), ((2, 3, 5), -2), ((1, 2, 3, 5), 0)):
        got = call(manifold, *(a.reshape(shape).movedim(-1, dim) for a in given), dim=dim)
        pair = name.endswith("_transp")
        if name not in SCALARS:
            got = got.movedim(dim if dim < 0 or not pair else dim + 1, -1)
        assert torch.allclose(got.reshape(want.shape), want, rtol=1e-13)
    assert call(manifold, *(a[0] for a in given)).shape == (want[:, 0] if pair else want[0]).shape
    assert call(manifold, *(a[:0] for a in given)).numel() == 0
    if name in SCALARS - {"busemann"}:
        assert torch.equal(call(manifold, *given, keepdim=True), want[:, None])


@pytest.mark.parametrize("name", [*OPERATIONS, *OWN])
def test_not_a_number_in_is_not_a_number_out(name: str) -> None:
    manifold, (call, takes) = Lorentz(2.0), {**OPERATIONS, **OWN}[name]
    for c in takes:
        given = inputs(manifold)
        given[c][2, 0 if name == "inner0" else 3] = float("nan")
        out = call(manifold, *(given[c] for c in takes))
        out = out[:, None] if name in SCALARS else out.reshape(-1, *out.shape[-2:])[-1]
        assert out[2].isnan().any()
        assert out[[0, 1, 3, 4, 5]].isfinite().all()


@pytest.mark.parametrize("name", [*OPERATIONS, *OWN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_stays_and_the_error_is_its_rounding(name: str, dtype: torch.dtype) -> None:
    manifold, (call, takes) = Lorentz(2.0), {**OPERATIONS, **OWN}[name]
    given = inputs(manifold, dtype=dtype)
    for c in "xyuv":  # the times that the rounded space parts name
        given[c] = manifold.projx(given[c]) if c in "xy" else manifold.proju(given["x"], given[c])
    got = call(manifold, *(given[c] for c in takes))
    want = call(manifold, *(given[c].double() for c in takes))
    assert got.dtype == dtype
    size = float(want.abs().max())
    factor = 8 if name in ("geodesic_unit", "from_klein", "from_poincare", "expmap_transp", "retr_transp") else 2
    assert (got.double() - want).abs().max() <= factor * torch.finfo(dtype).eps * size


def test_nothing_of_geoopts_is_left_untested() -> None:
    surface = {
        name
        for name, _ in inspect.getmembers(geoopt.Lorentz, callable)
        if not name.startswith("_") and not hasattr(torch.nn.Module, name)
    }
    elsewhere = {
        "assert_check_point", "assert_check_point_on_manifold", "assert_check_vector", "assert_check_vector_on_tangent",
        "check_point", "check_point_on_manifold", "check_vector", "check_vector_on_tangent",
        "component_inner", "origin", "pack_point", "unpack_tensor", "random", "random_normal",
    }  # fmt: skip
    assert surface == ({*OPERATIONS} - {"squared norm"}) | {"norm", "dist2"} | elsewhere


def test_inherited_names_keep_their_meaning() -> None:
    manifold = Lorentz(2.0)
    given = inputs(manifold)
    x, u, v = given["x"], given["u"], given["v"]
    assert torch.equal(manifold.component_inner(x, u, v), manifold.inner(x, u, v, keepdim=True))
    assert torch.allclose(manifold.dist2(x, given["y"]), manifold.dist(x, given["y"]).square(), rtol=1e-14)
    assert manifold.unpack_tensor(x) is x and manifold.pack_point(x) is x
    assert manifold.name == "Lorentz" and manifold.ndim == 1 and manifold.dtype is None
    assert repr(manifold) == "Lorentz(k=2) manifold"
    grad = given["y"].clone()
    manifold.egrad2rgrad(x, grad)
    assert torch.equal(grad, given["y"])  # geoopt's flips the sign of its time in place
    with pytest.raises(TypeError, match=r"needs its point.*norm\(x, u\)"):
        manifold.norm(u)


@pytest.mark.parametrize("k", [0.1, 1.0, 5.0, 10.0])
@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16, torch.float16])
def test_checks_accept_what_rounding_does_and_nothing_else(k: float, dtype: torch.dtype) -> None:
    manifold, root = Lorentz(k), k**0.5
    for radius in (0.0, 1.0, 8.0):
        way = torch.nn.functional.normalize(torch.randn(20, 4, dtype=F64)) * radius * root
        x = manifold.expmap0(torch.nn.functional.pad(way, (1, 0))).to(dtype)
        x = manifold.projx(x)
        assert manifold.check_point_on_manifold(x)
        manifold.assert_check_point_on_manifold(x)
        u = manifold.transp0(x, torch.nn.functional.pad(torch.randn(20, 4).to(dtype), (1, 0)))
        assert manifold.check_vector_on_tangent(x, u, explain=True) == (True, None)
        drift = 1 + 40 * max(torch.finfo(dtype).eps, 1e-5)
        for bad in (torch.cat([x[:, :1] * drift, x[:, 1:]], 1), torch.cat([-x[:, :1], x[:, 1:]], 1)):
            assert not manifold.check_point_on_manifold(bad)
        bad = torch.cat([u[:, :1] + drift * u.norm(dim=1, keepdim=True), u[:, 1:]], 1)
        assert not manifold.check_vector_on_tangent(x, bad)
        manifold.assert_check_vector_on_tangent(x, u)


def test_checks_say_what_is_wrong_and_what_to_do() -> None:
    manifold = Lorentz(2.0)
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    ok, reason = manifold.check_point_on_manifold(features, explain=True)
    assert not ok and "off the hyperboloid of k = 2: worst" in reason and "lift" in reason
    with pytest.raises(ValueError, match="off the hyperboloid of k = 2"):
        manifold.assert_check_point_on_manifold(features)
    x = manifold.lift(features)
    with pytest.raises(ValueError, match=r"'u' is not tangent at 'x'.*proju projects"):
        manifold.assert_check_vector_on_tangent(x, torch.ones_like(x))
    spoilt = x.clone()
    spoilt[1, 2] = float("nan")
    assert not manifold.check_point_on_manifold(spoilt) and not manifold.check_vector_on_tangent(spoilt, x)
    for size in ((3, 1), ()):
        assert not manifold.check_point(torch.ones(size)) and not manifold.check_vector(torch.ones(size))
        with pytest.raises(ValueError, match="ends in the coordinates, time first, at least 2; got shape"):
            manifold.assert_check_point(torch.ones(size))
        with pytest.raises(ValueError, match="at least 2; got shape"):
            manifold.assert_check_vector(torch.ones(size))
        with pytest.raises(ValueError, match="at least 2; got shape"):
            manifold.origin(*size)
    assert manifold.check_point(x) and manifold.check_point_on_manifold(x[:0])


@pytest.mark.parametrize("k", CURVATURES)
def test_random_points_have_the_deviation_that_was_asked_for(k: float) -> None:
    manifold, n = Lorentz(k), 20000
    g = torch.Generator().manual_seed(0)
    std = torch.tensor([0.01, 0.3, 1.0, 2.0], dtype=F64) * k**0.5
    mean = manifold.random_normal(5, std=k**0.5, dtype=F64, generator=g)
    for centre in (None, mean):
        x = manifold.random_normal(n, 5, mean=0.0 if centre is None else centre, std=std, dtype=F64, generator=g)
        v = manifold.logmap0(x) if centre is None else manifold.transp0back(centre, manifold.logmap(centre, x))
        v = v[:, 1:] / std
        # Five standard errors of a mean, of a variance and of a covariance.
        assert v.mean(0).abs().max() <= 5 / n**0.5
        covariance = v.T @ v / n
        assert (covariance - torch.eye(4)).abs().max() <= 5 * (2 / n) ** 0.5
        kurtosis = v.pow(4).mean(0)
        assert (kurtosis - 3).abs().max() <= 5 * (96 / n) ** 0.5


def test_random_points_and_origins_come_in_the_shape_dtype_and_order_that_was_asked_for() -> None:
    manifold = Lorentz(2.0)
    for make in (manifold.random, manifold.random_normal, manifold.origin):
        assert make(3, 4).shape == make((3, 4)).shape == (3, 4) and make(4).shape == (4,)
        for dtype in (F64, torch.float32, torch.bfloat16, torch.float16):
            x = make(7, 4, dtype=dtype)
            assert x.dtype == dtype and type(x) is Tensor and manifold.check_point_on_manifold(x)
    assert torch.equal(manifold.origin(2, 3, seed=7), torch.tensor([[2.0**0.5, 0, 0]]).expand(2, 3))
    a, b = (manifold.random_normal(3, 4, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(manifold.random_normal(3, 4, std=0.0), manifold.origin(3, 4))
    mean = manifold.random_normal(3, 4, dtype=F64)
    assert torch.allclose(manifold.random_normal(2, 3, 4, mean=mean, std=0.0), mean.expand(2, 3, 4), rtol=1e-14)


def test_random_points_are_differentiable_in_mean_deviation_and_k() -> None:
    manifold = Lorentz(2.0, learnable=True)
    mean, std = (torch.tensor(v, dtype=F64, requires_grad=True) for v in ([0.3, -0.2, 0.5], 0.7))

    def run(mean: Tensor, std: Tensor, rho: Tensor) -> Tensor:
        k = 2.0 * rho.exp()
        g = torch.Generator().manual_seed(0)
        return wrapped_normal((2, 4), mean=lm.lift(mean, k=k), std=std, k=k, generator=g)

    assert torch.autograd.gradcheck(run, (mean, std, torch.zeros((), dtype=F64, requires_grad=True)))
    manifold.random_normal(3, 4).sum().backward()
    assert manifold.rho is not None and manifold.rho.grad is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": 0.5}, "mean is a point of the manifold, or 0 for the origin; got 0.5"),
        ({"mean": torch.ones(3)}, r"mean broadcasts to \(5, 4\), got shape \(3,\)"),
        ({"mean": torch.ones(2, 5, 4)}, r"mean broadcasts to \(5, 4\)"),
        ({"std": -1.0}, "std is a deviation, >= 0; got -1.0"),
        ({"std": torch.tensor([1.0, -1.0, 2.0])}, r"std is a deviation, >= 0; got tensor\(\[ 1., -1.,  2.\]\)"),
        ({"std": torch.ones(4)}, r"std broadcasts to \(5, 3\), got shape \(4,\)"),
    ],
)
def test_random_points_that_cannot_be_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lorentz().random_normal(5, 4, **given)


@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("optimizer", [geoopt.optim.RiemannianAdam, geoopt.optim.RiemannianSGD])
def test_geoopts_optimisers_move_points_as_on_geoopts_manifold(
    k: float, optimizer: type[torch.optim.Optimizer]
) -> None:
    start = wrapped_normal((9, 4), k=k, dtype=F64, generator=torch.Generator().manual_seed(0))
    target = wrapped_normal((9, 4), k=k, dtype=F64, generator=torch.Generator().manual_seed(1))
    ends = []
    for manifold in (Lorentz(k), peer(k)):
        point = geoopt.ManifoldParameter(start.clone(), manifold=manifold)
        # No momentum for SGD: geoopt starts its buffer with the Euclidean gradient, which is not tangent.
        steps = optimizer([point], lr=0.05, stabilize=5)
        for _ in range(12):
            steps.zero_grad()
            lm.dist2(point, target, k=k).sum().backward()
            steps.step()
        ends.append(point.detach())
    assert (ends[0] - start).abs().max() > 0.1
    assert torch.allclose(ends[0], ends[1], rtol=1e-6, atol=1e-6)


def test_second_moments_of_geoopts_optimiser_do_not_turn_negative_far_out() -> None:
    x = lm.expmap0(torch.nn.functional.pad(torch.nn.functional.normalize(torch.randn(200, 4)) * 10, (1, 0)))
    grad = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = Lorentz(), geoopt.Lorentz()
    assert (ours.component_inner(x, ours.egrad2rgrad(x, grad)) >= 0).all()
    assert (theirs.component_inner(x, theirs.egrad2rgrad(x, grad.clone())) < 0).any()


def test_scaled_and_product_manifolds_of_geoopt_take_it() -> None:
    manifold = Lorentz(2.0)
    x, y = inputs(manifold)["x"], inputs(manifold)["y"]
    scaled = geoopt.Scaled(manifold, 3.0)
    for name, power in (("dist", 1), ("dist2", 2), ("sqdist", 2)):
        assert torch.allclose(getattr(scaled, name)(x, y), 3.0**power * getattr(manifold, name)(x, y))
    w = torch.ones(4, dtype=F64)
    assert torch.allclose(scaled.busemann(x, w), 3 * manifold.busemann(x, w))
    assert torch.allclose(scaled.expmap(x, scaled.logmap(x, y)), y)
    spread = scaled.dist0(scaled.random_normal(4000, 2, std=0.6))
    assert float(spread.square().mean().sqrt()) == pytest.approx(0.6, rel=0.05)
    product = geoopt.ProductManifold((manifold, 5), (geoopt.PoincareBall(), 3))
    both = torch.cat([x.float(), torch.zeros(6, 3)], 1), torch.cat([y.float(), torch.full((6, 3), 0.1)], 1)
    ball = geoopt.PoincareBall().dist(both[0][:, 5:], both[1][:, 5:])
    assert torch.allclose(product.dist(*both), (manifold.dist(x, y).float() ** 2 + ball**2).sqrt(), rtol=1e-5)
    assert torch.allclose(product.expmap(both[0], product.logmap(*both)), both[1], atol=1e-5)
