"""The manifold, the linear layer, the embedding and the watch on them."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import geoopt
import pytest
import torch

from lorentz import Lorentz, LorentzEmbedding, LorentzLinear, LorentzMultiheadAttention
from lorentz import math as lm
from lorentz.check import check_manifold, residual, safe_radius, watch
from lorentz.linear import VARIANTS

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)


def test_k_is_kept_to_the_bit_and_the_curvature_is_its_negative_inverse() -> None:
    for learnable in (False, True):
        manifold = Lorentz(k=0.1, learnable=learnable)
        assert float(manifold.k.detach()) == 0.1
        assert float(manifold.curvature.detach()) == -10.0
        assert float(manifold.to(torch.bfloat16).k.detach()) == 0.1
    assert isinstance(Lorentz(), geoopt.Lorentz)
    assert [n for n, _ in Lorentz(learnable=True).named_parameters()] == ["rho"]


@pytest.mark.parametrize("k", [0.0, -1.0, float("nan"), float("inf")])
def test_a_curvature_that_is_none_is_refused(k: float) -> None:
    with pytest.raises(ValueError, match="k must be a positive finite number"):
        Lorentz(k)


@pytest.mark.parametrize("variant", VARIANTS)
def test_linear_is_the_papers_equation(variant: str) -> None:
    torch.manual_seed(0)
    manifold, out = Lorentz(2.0), Lorentz(0.5)
    layer = LorentzLinear(6, 5, manifold=manifold, manifold_out=out, variant=variant, scale=4.0).double()
    torch.nn.init.normal_(layer.bias)
    x = lm.lift(torch.randn(7, 5, dtype=torch.float64), k=2.0)
    z = x @ layer.weight.T + layer.bias
    if variant == "unbounded":
        space = z
    else:
        gate = 4.0 / (1 + torch.exp(-z[:, :1]))
        norm = gate if variant == "paper" else ((gate + 1.1 * 0.5**0.5) ** 2 - 0.5).sqrt()
        space = norm * z[:, 1:] / z[:, 1:].norm(dim=1, keepdim=True)
    expected = torch.cat([(0.5 + space.square().sum(1, keepdim=True)).sqrt(), space], 1)
    assert torch.allclose(layer(x), expected, rtol=1e-7)  # the scale is a float32 parameter made double


def test_unbounded_linear_contains_a_boost_and_a_rotation() -> None:
    rapidity = 0.8
    boost = torch.eye(4, dtype=torch.float64)
    boost[0, 0] = boost[1, 1] = torch.cosh(torch.tensor(rapidity, dtype=torch.float64))
    boost[0, 1] = boost[1, 0] = torch.sinh(torch.tensor(rapidity, dtype=torch.float64))
    rotation = torch.block_diag(torch.eye(1), torch.linalg.qr(torch.randn(3, 3))[0]).double()
    layer = LorentzLinear(4, 4, manifold=Lorentz(), bias=False, variant="unbounded").double()
    x, y = lm.lift(torch.randn(2, 9, 3, dtype=torch.float64)).unbind()
    for matrix in (boost, rotation, boost @ rotation):
        layer.weight.data = matrix[1:]
        assert torch.allclose(layer(x), x @ matrix.T, atol=1e-6)  # the rotation is orthogonal to float32
        assert torch.allclose(lm.dist(layer(x), layer(y)), lm.dist(x, y), atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_linear_output_is_on_the_manifold(variant: str, k: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    manifold = Lorentz(k)
    layer = LorentzLinear(9, 17, manifold=manifold, variant=variant, activation=torch.relu, dropout=0.1).to(dtype)
    x = manifold.lift(torch.randn(3, 4, 8, dtype=dtype))
    x[0] = manifold.origin(4, 9, dtype=dtype)
    y = layer(x, addend=torch.randn(3, 4, 16, dtype=dtype))
    assert y.dtype == dtype and y.shape == (3, 4, 17)
    limit = 1e-5 if dtype in (torch.float64, torch.float32) else 4 * torch.finfo(dtype).eps
    assert residual(y, k=k) <= limit
    y.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_linear_on_the_origin_with_zero_weights_returns_the_origin_with_finite_gradients() -> None:
    for variant in VARIANTS:
        layer = LorentzLinear(4, 4, manifold=Lorentz(), variant=variant)
        torch.nn.init.zeros_(layer.weight)
        y = layer(Lorentz().origin(2, 4))
        assert torch.equal(y, Lorentz().origin(2, 4))
        y.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_a_residual_enters_by_the_addend_only() -> None:
    layer = LorentzLinear(4, 4, manifold=Lorentz(), variant="unbounded", bias=False).double()
    x, extra = lm.lift(torch.randn(5, 3, dtype=torch.float64)), torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(layer(x, addend=extra)[:, 1:], x @ layer.weight.T + extra)
    nothing = torch.zeros_like(extra)
    for variant in VARIANTS:
        layer = LorentzLinear(4, 4, manifold=Lorentz(), variant=variant).double()
        assert torch.equal(layer(x, addend=nothing), layer(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_low_precision_the_stored_time_is_not_trusted(variant: str) -> None:
    layer = LorentzLinear(4, 4, manifold=Lorentz(), variant=variant).bfloat16()
    x = lm.lift(torch.randn(5, 3, dtype=torch.bfloat16))
    drifted = x.clone()
    drifted[:, 0] *= 1.5
    assert torch.equal(layer(x), layer(drifted))
    with torch.autocast("cpu", torch.bfloat16):
        y = LorentzLinear(4, 4, manifold=Lorentz(), variant=variant)(x.float())
    assert y.dtype == torch.float32 and residual(y) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("at_zero", [False, True])
def test_linear_first_and_second_derivatives(variant: str, at_zero: bool) -> None:
    torch.manual_seed(0)
    manifold = Lorentz(0.7, learnable=True)
    layer = LorentzLinear(5, 4, manifold=manifold, variant=variant, scale=2.0).double()
    names = [name for name, _ in layer.named_parameters()]
    x = manifold.lift(torch.randn(3, 2, 4, dtype=torch.float64)).detach()
    addend = torch.randn(3, 2, 3, dtype=torch.float64)
    if at_zero and variant == "unbounded":  # the bounded variants have no derivative where they have no direction
        layer.weight.data.zero_(), addend.zero_()

    def call(x: torch.Tensor, addend: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,), {"addend": addend})

    inputs = [v.detach().clone().requires_grad_() for v in (x, addend, *layer.parameters())]
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)
    grad = torch.func.grad(lambda a: call(inputs[0], a, *inputs[2:]).sin().sum())(inputs[1])
    (expected,) = torch.autograd.grad(call(*inputs).sin().sum(), inputs[1])
    assert torch.allclose(grad, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 1, "out_features": 4}, "at least 2; got in_features=1"),
        ({"in_features": 4, "out_features": 4, "variant": "papre"}, "got 'papre'"),
        ({"in_features": 4, "out_features": 4, "dropout": 1.0}, r"\[0, 1\), got 1.0"),
        ({"in_features": 4, "out_features": 4, "scale": 0.0}, "must be positive, got 0.0"),
    ],
)
def test_linear_refuses_what_cannot_work(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LorentzLinear(**arguments, manifold=Lorentz())  # type: ignore[arg-type]


def test_wrong_sizes_are_named_with_the_fix() -> None:
    with pytest.raises(ValueError, match=r"expects points of 4 coordinates.*got 3.*manifold.lift"):
        LorentzLinear(4, 4, manifold=Lorentz())(torch.randn(2, 3))


def test_embedding_looks_up_points_with_sparse_and_padded_rows() -> None:
    manifold = Lorentz(2.0)
    table = LorentzEmbedding(10, 5, manifold=manifold, padding_idx=-1, sparse=True, std=1.0)
    index = torch.tensor([[1, 9], [1, 3]])
    points = table(index)
    assert points.shape == (2, 2, 5)
    assert torch.equal(points[..., 1:], table.weight[index])
    assert residual(points, k=2.0) < 1e-6
    assert torch.equal(points[0, 1], manifold.origin(5))
    points[..., 0].sum().backward()
    grad = table.weight.grad
    assert grad.is_sparse
    assert torch.equal(grad.to_dense().abs().sum(1) > 0, torch.tensor([i in (1, 3) for i in range(10)]))
    assert torch.equal(table(), manifold.lift(table.weight))
    with pytest.raises(ValueError, match="outside the 10 rows"):
        LorentzEmbedding(10, 5, manifold=manifold, padding_idx=10)


def test_points_know_their_manifold_after_copying() -> None:
    table = LorentzEmbedding(4, 3, manifold=Lorentz(2.0))
    for other in (table, copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert other.weight.manifold is other.manifold
        assert float(other.manifold.k) == 2.0
    assert copy.deepcopy(table).weight.manifold is not table.manifold


def test_watch_finds_the_layer_that_left_the_manifold() -> None:
    class Broken(LorentzLinear):
        def forward(self, x: torch.Tensor, *, addend: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(x) + 0.1

    manifold = Lorentz()
    model = torch.nn.Sequential(LorentzLinear(4, 4, manifold=manifold), Broken(4, 4, manifold=manifold))
    x = manifold.lift(torch.randn(8, 3))
    with watch(model) as report:
        model(x)
    assert report.layers["0"].residual < 1e-6 < 1e-2 < report.layers["1"].residual == report.residual
    assert report.layers["0"].on_manifold and not report.layers["1"].on_manifold
    assert 0 < report.radius_p99 < 10
    assert "OFF THE MANIFOLD" in str(report).splitlines()[2]
    assert not any(m._forward_hooks for m in model.modules())
    with watch(torch.nn.Linear(2, 2)) as report:
        pass
    assert not report
    with pytest.raises(ValueError, match=r"layers off the manifold: 1: residual .*, allowed 1.0e-05"):
        check_manifold(model, x)
    with pytest.warns(UserWarning, match="1: residual"):
        check_manifold(model, x, on_failure="warn")
    assert model.training and check_manifold(model[0], x).residual < 1e-6


def test_check_warns_of_points_that_the_dtype_cannot_resolve_and_of_nan() -> None:
    table = LorentzEmbedding(100, 4, manifold=Lorentz(2.0), std=1.0)
    with torch.no_grad():
        table.weight[:25] = 1e6
    with pytest.warns(UserWarning, match="25.0% of the points"):
        report = check_manifold(table)
    far = report.layers[""]
    assert far.near_limit == 0.25 and far.radius[0] < far.radius[1] == pytest.approx(far.radius[2])
    assert far.radius[2] == pytest.approx(2**0.5 * math.asinh(1e6 * 3**0.5 / 2**0.5))
    with torch.no_grad():
        table.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="residual nan"):
        check_manifold(table)
    assert safe_radius(torch.float32) == pytest.approx(10.4, abs=0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_vectors_too_long_or_too_short_are_nan_or_the_origin_but_never_a_lie(variant: str) -> None:
    layer = LorentzLinear(3, 3, manifold=Lorentz(), variant=variant, bias=False)
    x = lm.lift(torch.tensor([[1e30, 0.0], [float("nan"), 0.0]]))
    assert torch.isnan(layer(x)[1]).any() and not torch.isfinite(layer(x)[0]).all()
    z = torch.tensor([[0.0, 1e-20, 0.0], [0.0, 1e20, 0.0]], requires_grad=True)
    y = lm.bounded_lift(z, scale=2.0)
    assert torch.equal(y[0].detach(), Lorentz().origin(3)) and torch.isnan(y[1]).any()
    (grad,) = torch.autograd.grad(y[0].sum(), z)
    assert torch.isfinite(grad[0]).all()


def test_the_padding_row_gets_no_gradient_in_any_way_of_looking_up() -> None:
    table = LorentzEmbedding(4, 3, manifold=Lorentz(), padding_idx=1, std=1.0)
    table()[:, 1:].sum().backward()
    assert torch.equal(table.weight.grad.abs().sum(1) > 0, torch.tensor([True, False, True, True]))


@pytest.mark.parametrize("variant", [*VARIANTS, "attention"])
def test_jacobians_by_batched_backward_passes(variant: str) -> None:
    """``jacrev`` without grad mode, and torch's older vectorised jacobian, against one row at a time."""
    torch.manual_seed(0)
    manifold = Lorentz(1.0)
    layer = LorentzMultiheadAttention(5, 2, manifold=manifold) if variant == "attention" else None
    layer = layer or LorentzLinear(5, 4, manifold=manifold, variant=variant)
    layer = layer.double()
    s = torch.randn(1, 3, 4, dtype=torch.float64)
    f = lambda s: layer(manifold.lift(s))  # noqa: E731
    rows = torch.autograd.functional.jacobian(f, s)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's attention has no batched backward pass
        torch.testing.assert_close(torch.func.jacrev(f)(s), rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(torch.autograd.functional.jacobian(f, s, vectorize=True), rows)


@pytest.mark.compiled
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_addend_is_broadcast(variant: str) -> None:
    manifold = Lorentz(1.0)
    layer, x = LorentzLinear(5, 4, manifold=manifold, variant=variant), manifold.lift(torch.randn(2, 3, 4))
    addend = torch.randn(3, 1, 3)[0]
    torch.testing.assert_close(layer(x, addend=addend), layer(x, addend=addend.expand(2, 3, 3)))


def test_a_table_in_the_place_of_another_is_one_of_points() -> None:
    table = LorentzEmbedding(5, 4, manifold=Lorentz(1.0))
    table.weight = torch.nn.Parameter(torch.randn(7, 3))
    assert table.weight.manifold is table.manifold


def test_a_functional_call_without_ties_leaves_a_shared_curvature() -> None:
    """As the documentation says: torch restores a module of several names only so."""
    torch.manual_seed(0)
    manifold = Lorentz(2.0, learnable=True)
    layer, rho = LorentzMultiheadAttention(5, 2, manifold=manifold), manifold.rho
    x = manifold.lift(torch.randn(2, 3, 4)).detach()
    given = {name: p.detach().clone() for name, p in layer.named_parameters()}
    given["manifold.rho"] += 0.5
    found = torch.func.functional_call(layer, given, (x,), tie_weights=False)
    assert manifold.rho is rho and rho is not None and rho.item() == 0
    with torch.no_grad():
        rho.add_(0.5)
    torch.testing.assert_close(layer(x), found)
