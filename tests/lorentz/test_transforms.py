"""Boosts, rotations and their factorisation against group laws, matrix exponentials and closed forms."""

from __future__ import annotations

import copy
import pickle
from math import pi, sinh

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorentz import Lorentz
from lorentz import math as lm
from lorentz.check import residual
from lorentz.transforms import (
    PARAMETRISATIONS,
    Boost,
    LorentzTransform,
    Rotation,
    boost,
    boost_matrix,
    nearest_lorentz,
    polar,
)

F64 = torch.float64
CURVATURES = (0.1, 1.0, 10.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def direction(n: int, length: float, seed: int = 0) -> Tensor:
    v = normal(n, seed=seed)
    return v / v.norm() * length


def orthogonal(n: int, *, det: int = 1, seed: int = 0) -> Tensor:
    q = torch.linalg.qr(normal(n, n, seed=seed))[0]
    if torch.linalg.det(q).sign() != det:
        q[:, 0] *= -1
    return q


def exact_boost(w: Tensor) -> Tensor:
    """Exponential of the symmetric generator, with 40 digits."""
    with mpmath.workdps(40):
        generator = mpmath.zeros(len(w) + 1)
        for i, value in enumerate(w.tolist(), 1):
            generator[0, i] = generator[i, 0] = value
        return torch.tensor([[float(v) for v in row] for row in mpmath.expm(generator).tolist()], dtype=F64)


def points(n: int, dim: int, radius: float, *, k: float = 1.0, seed: int = 0) -> Tensor:
    v = normal(n, dim - 1, seed=seed)
    v = torch.nn.functional.pad(v / v.norm(dim=-1, keepdim=True) * radius, (1, 0))
    return lm.expmap0(v, k=k)


@pytest.mark.parametrize("rapidity", [0.0, 1e-8, 1e-2, 1.0, 5.0])
@pytest.mark.parametrize("k", CURVATURES)
def test_boost_is_the_exponential_of_its_generator(rapidity: float, k: float) -> None:
    w, x = direction(5, rapidity), points(20, 6, 2.0, k=k)
    expected = exact_boost(w)
    scale = float(expected.abs().max())
    assert torch.allclose(boost_matrix(w), expected, rtol=0, atol=1e-14 * scale)
    y = x @ expected.T
    assert ((boost(x, w, k=k) - y).abs() <= 1e-13 * scale * x[:, :1]).all()
    moved = lm.dist(
        boost(lm.lift(torch.zeros(1, 5, dtype=F64), k=k), w, k=k), lm.lift(torch.zeros(1, 5, dtype=F64), k=k), k=k
    )
    assert float(moved) == pytest.approx(k**0.5 * rapidity, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 6), st.floats(0, 5), st.sampled_from(CURVATURES))
def test_boost_keeps_the_inner_product_and_has_an_inverse(seed: int, rapidity: float, radius: float, k: float) -> None:
    w = direction(4, rapidity, seed)
    x, y = points(8, 5, radius, k=k, seed=seed), points(8, 5, radius, k=k, seed=seed + 1)
    bx, by = boost(x, w, k=k), boost(y, w, k=k)
    error = (lm.minkowski(bx, by) - lm.minkowski(x, y)).abs()
    assert (error <= 1e-12 * bx[:, 0] * by[:, 0]).all()
    assert residual(bx, k=k) <= 1e-12
    assert ((boost(bx, -w, k=k) - x).abs() <= 1e-13 * bx[:, :1] * torch.cosh(torch.tensor(rapidity, dtype=F64))).all()


def test_boosts_of_one_direction_add_and_others_compose_with_a_rotation() -> None:
    x, u = points(9, 4, 1.5), direction(3, 1.0)
    assert torch.allclose(boost(boost(x, 0.7 * u), 1.1 * u), boost(x, 1.8 * u), rtol=1e-13)
    product = exact_boost(direction(3, 1.0, 1)) @ exact_boost(direction(3, 2.0, 2))
    factors = polar(product)
    assert (factors.rotation - torch.eye(3)).abs().max() > 0.1  # Wigner's rotation
    assert not factors.reflection


@pytest.mark.parametrize("rapidity", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("radius", [0.1, 2.0, 5.0])
def test_float32_boost_keeps_distances_to_rounding(rapidity: float, radius: float) -> None:
    x, y = (points(200, 9, radius, seed=s).float() for s in (0, 1))
    w = direction(8, rapidity).float()
    bx, by = boost(x, w), boost(y, w)
    assert bx.dtype == torch.float32
    bound = 2 * torch.finfo(torch.float32).eps * sinh(radius + rapidity)
    exact = lm.dist(lm.lift(x[:, 1:].double()), lm.lift(y[:, 1:].double()))
    assert (lm.dist(bx.double(), by.double()) - exact).abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16, torch.float16])
def test_results_stay_on_the_manifold_in_every_dtype(dtype: torch.dtype) -> None:
    manifold = Lorentz(2.0)
    layer = LorentzTransform(7, manifold=manifold, std=0.3)
    with torch.no_grad():
        assert layer.rotation.raw is not None
        layer.rotation.raw.normal_()
    x = manifold.lift(normal(50, 6).to(dtype))
    for model in (layer, copy.deepcopy(layer).to(dtype)):
        y = model(x)
        assert y.dtype == dtype
        assert residual(y, k=2.0) <= max(1e-5 if dtype.itemsize > 2 else 0, 4 * torch.finfo(dtype).eps)
    low = layer.to(torch.bfloat16).rotation.matrix()
    assert low.dtype == torch.float32
    assert torch.allclose(low.mT @ low, torch.eye(6), atol=1e-5)


def test_autocast_does_not_touch_a_rotation() -> None:
    layer = Rotation(9, manifold=Lorentz())
    x = lm.lift(torch.randn(20, 8))
    with torch.no_grad():
        assert layer.raw is not None
        layer.raw.normal_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, layer(x))


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_rotations_are_orthogonal_start_at_the_identity_and_move(name: str, n: int) -> None:
    torch.manual_seed(0)
    layer = Rotation(n + 1, manifold=Lorentz(), parametrisation=name).double()
    eye = torch.eye(n, dtype=F64)
    assert torch.allclose(layer.matrix(), eye, atol=1e-12)
    torch.nn.init.normal_(layer.raw)
    matrix = layer.matrix().detach()
    assert torch.allclose(matrix @ matrix.T, eye, atol=1e-12)
    assert float(torch.linalg.det(matrix)) == pytest.approx(1.0)
    if n > 1:
        assert (matrix - eye).abs().max() > 0.1
    x = points(6, n + 1, 2.0)
    assert torch.allclose(layer(x)[:, 1:], x[:, 1:] @ matrix.T, atol=1e-13)
    assert torch.allclose(layer(x)[:, 0], x[:, 0], rtol=1e-13)


def test_rotations_are_the_textbook_formulas() -> None:
    angle = torch.tensor(0.8, dtype=F64)
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    layers = {name: Rotation(3, manifold=Lorentz(), parametrisation=name).double() for name in PARAMETRISATIONS}
    layers["matrix_exp"].raw.data = angle.reshape(1)
    layers["cayley"].raw.data = -torch.tan(angle / 2).reshape(1)
    half = angle / 2  # two mirrors at half the angle
    layers["householder"].raw.data = torch.stack(
        [torch.stack([-half.sin(), half.cos()]), torch.tensor([0.0, 1.0], dtype=F64)], 1
    )
    for layer in layers.values():
        assert torch.allclose(layer.matrix(), turn, atol=1e-14)


@pytest.mark.parametrize("order", ["rotation_first", "boost_first"])
@pytest.mark.parametrize("rapidity", [0.0, 1e-8, 1e-3, 1.0, 10.0])
@pytest.mark.parametrize("det", [1, -1])
def test_polar_factors_come_back(order: str, rapidity: float, det: int) -> None:
    w, r = direction(4, rapidity), orthogonal(4, det=det, seed=3)
    turn = torch.block_diag(torch.ones(1, 1, dtype=F64), r)
    product = exact_boost(w) @ turn if order == "rotation_first" else turn @ exact_boost(w)
    factors = polar(product, order=order)
    assert (factors.rapidity - w).norm() <= 1e-14 * max(rapidity, 1e-8) * (1 + rapidity)
    assert torch.allclose(factors.rotation, r, atol=1e-15 * 10 ** max(1.0, rapidity / 2))
    assert torch.allclose(factors.rotation @ factors.rotation.T, torch.eye(4, dtype=F64), atol=1e-14)
    assert bool(factors.reflection) == (det < 0)
    layer = LorentzTransform.from_matrix(product, manifold=Lorentz(), order=order)
    assert layer.reflection == (det < 0)
    scale = float(product.abs().max())
    assert torch.allclose(layer.matrix(), product, rtol=0, atol=1e-11 * scale)
    x = points(7, 5, 1.0)
    assert torch.allclose(layer(x), x @ product.T, rtol=0, atol=1e-11 * scale)
    fresh = LorentzTransform(5, manifold=Lorentz(), order=order).double()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.matrix(), layer.matrix())


def test_polar_takes_batches_and_float32() -> None:
    w = normal(3, 2, 4)
    factors = polar(boost_matrix(w))
    assert torch.allclose(factors.rapidity, w, rtol=1e-12)
    assert factors.reflection.shape == (3, 2)
    single = polar(boost_matrix(w).float())
    assert single.rotation.dtype == torch.float32
    assert torch.allclose(single.rapidity, w.float(), rtol=1e-4)


def test_what_is_no_transform_is_refused_with_its_residual() -> None:
    matrix = boost_matrix(direction(3, 0.5))
    with pytest.raises(ValueError, match=r"max\|L\^T J L - J\| = 2e-06"):
        polar(torch.eye(4, dtype=F64) * (1 + 1e-6))
    broken = matrix.clone()
    broken[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"max\|L\^T J L - J\| = inf"):
        polar(broken)
    with pytest.raises(ValueError, match="reverses time"):
        polar(-matrix)
    with pytest.raises(ValueError, match="square"):
        polar(matrix[1:])
    with pytest.raises(ValueError, match="'rotation_first', 'boost_first'; got 'both'"):
        polar(matrix, order="both")
    with pytest.raises(ValueError, match=r"max\|R\^T R - I\|"):
        Rotation.from_matrix(torch.ones(3, 3), manifold=Lorentz())


@pytest.mark.parametrize("rows", ["space", "all"])
@pytest.mark.parametrize("det", [1, -1])
def test_nearest_transform_is_exact_for_one_and_locally_best_otherwise(rows: str, det: int) -> None:
    first = 1 if rows == "space" else 0
    exact = exact_boost(direction(4, 1.3)) @ torch.block_diag(torch.ones(1, 1, dtype=F64), orthogonal(4, det=det))
    found = nearest_lorentz(exact[first:])
    assert torch.allclose(found.matrix, exact, atol=1e-12)
    assert found.residual <= 1e-13
    noisy = (exact + 0.1 * normal(5, 5, seed=5))[first:]
    found = nearest_lorentz(noisy)
    best = (found.matrix[first:] - noisy).norm()
    assert found.residual == pytest.approx(float(best / noisy.norm()))
    assert best < (exact[first:] - noisy).norm()
    assert bool(polar(found.matrix).reflection) == (det < 0)
    for seed in range(40):
        skew = 1e-3 * normal(4, 4, seed=seed)
        turn = torch.block_diag(torch.ones(1, 1, dtype=F64), torch.linalg.matrix_exp(skew - skew.T))
        other = exact_boost(1e-3 * normal(4, seed=seed + 100)) @ found.matrix @ turn
        assert (other[first:] - noisy).norm() > best
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        nearest_lorentz(normal(3, 5))
    with pytest.raises(ValueError, match="not finite"):
        nearest_lorentz(noisy * float("nan"))


@pytest.mark.parametrize("rapidity", [0.0, 1e-5, 1.0])
def test_boost_gradients(rapidity: float) -> None:
    x, w = points(3, 4, 1.0).requires_grad_(), direction(3, rapidity).requires_grad_()
    k = torch.tensor(1.5, dtype=F64, requires_grad=True)
    for function, inputs in ((lambda x, w, k: boost(x, w, k=k), (x, w, k)), (boost_matrix, (w,))):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)
    # At rapidity 0 the derivative by w is that of a translation: time of the point.
    if rapidity == 0:
        (grad,) = torch.autograd.grad(boost(x, w)[:, 1].sum(), w)
        assert torch.allclose(grad, torch.stack([lm.lift(x[:, 1:])[:, 0].sum(), *torch.zeros(2, dtype=F64)]))


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("started", [False, True])
def test_transform_gradients(name: str, started: bool) -> None:
    torch.manual_seed(1)
    layer = LorentzTransform(4, manifold=Lorentz(), parametrisation=name).double()
    if started:
        for p in layer.parameters():
            torch.nn.init.normal_(p)
    x = points(2, 4, 1.0)
    names, values = zip(*((n, p.detach().clone().requires_grad_()) for n, p in layer.named_parameters()), strict=True)

    def call(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, values)
    assert torch.autograd.gradgradcheck(call, values)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_a_transform_is_learned(name: str) -> None:
    torch.manual_seed(2)
    truth = exact_boost(direction(3, 1.0)) @ torch.block_diag(torch.ones(1, 1, dtype=F64), orthogonal(3, seed=4))
    layer = LorentzTransform(4, manifold=Lorentz(), parametrisation=name).double()
    x = points(50, 4, 1.0)
    solver = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-16)

    def loss() -> Tensor:
        solver.zero_grad()
        value = (layer(x) - x @ truth.T).square().mean()
        value.backward()
        return value

    solver.step(loss)
    assert torch.allclose(layer.matrix(), truth, atol=1e-3)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_copies_pickles_states_and_frozen_layers_are_the_same_map(name: str) -> None:
    torch.manual_seed(3)
    layer = LorentzTransform(5, manifold=Lorentz(2.0), parametrisation=name, std=1.0)
    torch.nn.init.normal_(layer.rotation.raw)
    x = layer.manifold.lift(torch.randn(2, 3, 4))
    fresh = LorentzTransform(5, manifold=Lorentz(2.0), parametrisation=name)
    fresh.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert torch.equal(other(x), layer(x))
    frozen = copy.deepcopy(layer).freeze()
    assert torch.equal(frozen(x), layer(x))
    assert [n for n, _ in frozen.named_parameters()] == ["boost.rapidity"]
    assert torch.equal(pickle.loads(pickle.dumps(frozen))(x), layer(x))
    assert layer(x[:0]).shape == (0, 3, 5)
    assert layer(x[0, 0]).shape == (5,)


def test_bad_input_is_explained() -> None:
    manifold = Lorentz()
    with pytest.raises(TypeError, match="Lorentz"):
        Boost(3, manifold=1.0)
    with pytest.raises(ValueError, match="at least 2; got 1"):
        Rotation(1, manifold=manifold)
    with pytest.raises(ValueError, match="'householder'; got 'qr'"):
        LorentzTransform(3, manifold=manifold, parametrisation="qr")
    with pytest.raises(ValueError, match="got 'both'"):
        LorentzTransform(3, manifold=manifold, order="both")
    with pytest.raises(ValueError, match="std"):
        Boost(3, manifold=manifold, std=-1.0)
    for layer in (Boost, Rotation, LorentzTransform):
        with pytest.raises(ValueError, match="expects points of 5 coordinates, time first, and got 4"):
            layer(5, manifold=manifold)(torch.ones(2, 4))
    with pytest.raises(ValueError, match="a rapidity of 3 coordinates; got 4"):
        boost(torch.ones(2, 4), torch.zeros(4))
    assert boost(torch.full((1, 4), float("nan")), torch.zeros(3)).isnan().all()


def test_a_half_turn_is_a_limit_of_cayley_only() -> None:
    half = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=F64))
    layer = Rotation.from_matrix(half, manifold=Lorentz(), parametrisation="cayley")
    assert torch.allclose(layer.matrix(), half, atol=1e-15)
    exponential = Rotation(4, manifold=Lorentz()).double()
    exponential.raw.data = torch.tensor([pi, 0, 0], dtype=F64)
    assert torch.allclose(exponential.matrix(), half, atol=1e-14)


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_transform_compiles_in_one_graph_and_exports(name: str) -> None:
    torch.manual_seed(4)
    layer = LorentzTransform(5, manifold=Lorentz(2.0), parametrisation=name, std=1.0).double()
    torch.nn.init.normal_(layer.rotation.raw)
    x = layer.manifold.lift(normal(6, 4)).detach()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    eps = 8 * torch.finfo(F64).eps
    expected = torch.autograd.grad(layer(x).sin().sum(), list(layer.parameters()))
    assert torch.allclose(compiled(x), layer(x), rtol=eps, atol=eps)
    for got, want in zip(torch.autograd.grad(compiled(x).sin().sum(), list(layer.parameters())), expected, strict=True):
        assert torch.allclose(got, want, rtol=eps, atol=eps * float(want.abs().max()))
    assert torch.allclose(torch.export.export(layer, (x,)).module()(x), layer(x), rtol=eps, atol=eps)
