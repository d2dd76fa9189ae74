"""What holds for every layer: one suite over the registry. Compilation and export are in test_conformance_export."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lorentz
from lorentz import Lorentz, LorentzLinear, check_manifold

from .registry import CASES, DIM, Case, Index, Points, Space

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
WIDE, LOW = (torch.float64, torch.float32), (torch.bfloat16, torch.float16)
SPREADS = (0.0, 1e-6, 0.5, 10.0)

every = pytest.mark.parametrize("case", CASES, ids=str)
precisions = pytest.mark.parametrize("precision", [*WIDE, *LOW, "autocast"], ids=str)


def those(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [case for case in CASES if wanted(case)], ids=str)


def names_of(case: Case, kind: type) -> list[str]:
    return [name for name, drawn in case.inputs.items() if isinstance(drawn, kind)]


def takes_points(case: Case) -> bool:
    return bool(names_of(case, Points))


def floats(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in inputs.items() if x.is_floating_point()}


FIXED = {case.name for case in CASES if not [*case.layer().parameters()] and not floats(case.draw(case.layer()))}


def learns(case: Case) -> bool:
    return case.name not in FIXED


def dtype_of(precision: torch.dtype | str) -> torch.dtype:
    return precision if isinstance(precision, torch.dtype) else torch.float32


def autocast(precision: torch.dtype | str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast")


def variables(
    case: Case, layer: nn.Module, inputs: dict[str, Tensor]
) -> tuple[Callable[[Sequence[Tensor], dict[str, Tensor]], Tensor], list[Tensor], dict[str, Tensor]]:
    """The layer as a function of all its parameters and float inputs and of its buffers, and their values."""
    parameters, free = dict(layer.named_parameters()), floats(inputs)

    def function(values: Sequence[Tensor], buffers: dict[str, Tensor]) -> Tensor:
        own = dict(zip(parameters, values, strict=False))
        given = {**inputs, **dict(zip(free, values[len(own) :], strict=True))}
        return case.call(lambda **kw: torch.func.functional_call(layer, (own, buffers), kwargs=kw), given)

    values = [v.detach().clone().requires_grad_() for v in (*parameters.values(), *free.values())]
    return function, values, {name: b.clone() for name, b in layer.named_buffers()}


def missing(home: Any, cases: Iterable[Case]) -> set[type]:
    """Public modules without a case; a manifold is no layer."""
    public = {getattr(home, name) for name in home.__all__}
    layers = {c for c in public if inspect.isclass(c) and issubclass(c, nn.Module) and not issubclass(c, Lorentz)}
    return layers - {type(case.layer()) for case in cases}


def test_every_public_layer_has_a_case() -> None:
    assert not missing(lorentz, CASES)
    others = [case for case in CASES if not isinstance(case.layer(), LorentzLinear)]
    assert missing(lorentz, others) == {LorentzLinear}
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.because for case in CASES if not case.exports_onnx)


@every
@pytest.mark.parametrize("k", CURVATURES)
@precisions
def test_the_result_is_finite_and_on_the_hyperboloid(case: Case, k: float, precision: torch.dtype | str) -> None:
    dtype = dtype_of(precision)
    layer = case.layer(k, dtype=dtype)
    spread = (*SPREADS, 1e3) if dtype in WIDE else SPREADS
    with autocast(precision):
        y = case.call(layer, case.draw(layer, batch=(len(spread),), spread=spread, dtype=dtype)).detach()
    assert torch.isfinite(y).all()
    if case.returns_points:
        time, space = y[..., 0].double(), y[..., 1:].double()
        k_out = float(getattr(layer, "manifold_out", layer.manifold).k.detach())
        error = (space.square().sum(-1) + k_out - time * time) / (time * time)
        assert time.min() > 0 and error.abs().max() <= (1e-5 if dtype in WIDE else 4 * torch.finfo(dtype).eps)


@every
@precisions
def test_the_result_has_the_dtype_of_the_input_and_its_digits(case: Case, precision: torch.dtype | str) -> None:
    dtype = dtype_of(precision)
    layer = case.layer(2.0, dtype=dtype)
    inputs = case.draw(layer, batch=(8,), dtype=dtype)
    with autocast(precision):
        y = case.call(layer, inputs)
    assert y.dtype == (dtype if learns(case) else torch.get_default_dtype())
    exact = copy.deepcopy(layer).double()
    want = case.call(exact, {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()})
    if not case.random:  # else float64 draws other numbers
        eps = torch.finfo(torch.bfloat16 if precision == "autocast" else dtype).eps
        size = want.abs().amax(-1, keepdim=True) if case.returns_points else want.abs().max()
        assert ((y.double() - want).abs() / size).max() <= 4 * eps * case.layers


@every
@precisions
def test_check_manifold_sees_what_returns_points(case: Case, precision: torch.dtype | str) -> None:
    layer = case.layer(2.0, dtype=dtype_of(precision))
    with autocast(precision):
        inputs = case.draw(layer, dtype=dtype_of(precision))
        report = check_manifold(layer, **inputs, **case.options, on_failure="report")
    assert report.failures == []
    assert ("" in report.layers) == case.returns_points


@those(learns)
def test_first_derivatives_of_all_parameters_inputs_and_k(case: Case) -> None:
    layer = case.layer(0.7)
    function, values, buffers = variables(case, layer, case.draw(layer, batch=(2,)))
    assert any(name.endswith("rho") for name, _ in layer.named_parameters()) or not hasattr(layer, "manifold")
    many = sum(value.numel() for value in values) > 200  # then along random directions of inputs and outputs
    assert torch.autograd.gradcheck(lambda *v: function(v, buffers), values, fast_mode=many)


@those(learns)
def test_second_derivatives_of_all_parameters_inputs_and_k(case: Case) -> None:
    """Every entry of the Hessian's product with a random direction equals the central difference of gradients along it."""
    layer = case.layer(0.7)
    function, values, buffers = variables(case, layer, case.draw(layer, batch=(2,)))
    generator = torch.Generator().manual_seed(0)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    weight, direction = normal(function(values, buffers).detach()), [normal(value) for value in values]

    def gradients(step: float) -> tuple[Tensor, ...]:
        at = [(v.detach() + step * d).requires_grad_() for v, d in zip(values, direction, strict=True)]
        return torch.autograd.grad((function(at, buffers) * weight).sum(), at, materialize_grads=True)

    first = torch.autograd.grad((function(values, buffers) * weight).sum(), values, create_graph=True)
    along = torch.stack([(g * d).sum() for g, d in zip(first, direction, strict=True)]).sum()
    linear = not along.requires_grad
    second = (
        list(map(torch.zeros_like, values)) if linear else torch.autograd.grad(along, values, materialize_grads=True)
    )
    step = 1e-5
    ahead, behind = gradients(step), gradients(-step)
    largest = max(float(s.abs().max()) for s in second)
    for got, a, b in zip(second, ahead, behind, strict=True):
        torch.testing.assert_close(got, (a - b) / (2 * step), rtol=1e-5, atol=1e-7 * max(1.0, largest))


@those(learns)
def test_functional_gradients_equal_those_of_autograd(case: Case) -> None:
    layer = case.layer(0.7)
    function, values, buffers = variables(case, layer, case.draw(layer))
    got = torch.func.grad(lambda v, b: function(v, b).sin().sum())(values, buffers)
    want = torch.autograd.grad(function(values, buffers).sin().sum(), values)
    torch.testing.assert_close(list(got), list(want), rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore:There is a performance drop .*_scaled_dot_product:UserWarning")
@those(lambda case: case.per_row and not case.random)
def test_vmap_over_the_batch_equals_one_row_at_a_time_with_its_gradients(case: Case) -> None:
    layer = case.layer(0.7)
    inputs, parameters = case.draw(layer), dict(layer.named_parameters())

    def one(values: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, values, kwargs={**row, **case.options})

    axes = case.batched(dict.fromkeys(inputs), lambda _: 0)
    rows = [case.batched(inputs, operator.itemgetter(i)) for i in range(3)]
    want = torch.stack([one(parameters, row) for row in rows])
    torch.testing.assert_close(torch.func.vmap(one, (None, axes))(parameters, inputs), want, rtol=1e-12, atol=1e-13)
    if parameters:
        slopes = torch.func.vmap(torch.func.grad(lambda v, row: one(v, row).sin().sum()), (None, axes))(
            parameters, inputs
        )
        for i, row in enumerate(rows):
            want = torch.autograd.grad(one(parameters, row).sin().sum(), list(parameters.values()))
            torch.testing.assert_close([g[i] for g in slopes.values()], list(want), rtol=1e-11, atol=1e-12)


@those(learns)
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    layer = case.layer(0.7)
    case.call(layer, case.draw(layer)).sin().sum().backward()
    assert not [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]


@every
def test_a_copy_is_independent(case: Case) -> None:
    layer = case.layer(0.7)
    inputs = case.draw(layer)
    before = case.call(layer, inputs).detach()
    other = copy.deepcopy(layer)
    assert torch.equal(case.call(other, inputs), before)
    mine, theirs = ([*module.state_dict().values()] for module in (layer, other))  # held: freed memory is used again
    assert not {p.data_ptr() for p in mine} & {p.data_ptr() for p in theirs}
    for parameter in other.parameters():
        assert getattr(parameter, "manifold", None) in (None, getattr(other, "manifold", None))
        parameter.data += 1
    assert torch.equal(case.call(layer, inputs), before)


@every
def test_pickle_returns_the_same_layer(case: Case) -> None:
    layer = case.layer(0.7)
    inputs = case.draw(layer)
    other = pickle.loads(pickle.dumps(layer))
    assert torch.equal(case.call(other, inputs), case.call(layer, inputs))
    assert other.training == case.train
    for mine, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        assert getattr(theirs, "manifold", None) is (other.manifold if hasattr(mine, "manifold") else None)


@every
def test_the_state_makes_a_fresh_layer_equal_to_the_bit(case: Case) -> None:
    layer, fresh = case.layer(0.7), case.layer(0.7, seed=5)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("rho"):
                parameter += 0.3
    inputs = case.draw(layer)
    if layer.state_dict() and not case.random:
        assert not torch.equal(case.call(fresh, inputs), case.call(layer, inputs))
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(case.call(fresh, inputs), case.call(layer, inputs))


@every
def test_any_rank_of_batch(case: Case) -> None:
    layer = case.layer(0.7)
    inputs = case.draw(layer, batch=(2, 1, 3))
    flat = case.batched(inputs, lambda x: x.flatten(0, 2))
    want = case.call(layer, flat)
    torch.testing.assert_close(case.call(layer, inputs).flatten(0, 2), want, rtol=1e-13, atol=1e-14)
    if case.per_row and not case.random:
        one = case.call(layer, case.batched(flat, operator.itemgetter(0)))
        torch.testing.assert_close(one, want[0], rtol=1e-13, atol=1e-14)


@every
@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_an_empty_batch_has_an_empty_result_and_finite_gradients(case: Case, batch: tuple[int, ...]) -> None:
    layer = case.layer(0.7)
    inputs = {name: x.requires_grad_(x.is_floating_point()) for name, x in case.draw(layer, batch=batch).items()}
    y = case.call(layer, inputs)
    assert y.shape == (*batch, *case.call(layer, case.draw(layer)).shape[1:])
    if y.requires_grad:
        y.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
    assert all(torch.isfinite(b).all() for b in layer.buffers())


@those(lambda case: case.sized or len(names_of(case, Points)) > 1)
@pytest.mark.parametrize("size", [DIM - 1, DIM + 1])
def test_points_of_a_wrong_size_are_refused_with_both_sizes_and_the_fix(case: Case, size: int) -> None:
    layer = case.layer()
    for name in names_of(case, Points):
        inputs = case.draw(layer)
        inputs[name] = case.draw(layer, dim=size)[name]
        refused(case, layer, inputs, DIM, size)


@those(lambda case: bool(names_of(case, Space)))
@pytest.mark.parametrize("wrong", [1, -1, None])
def test_an_addend_of_a_wrong_size_is_refused_with_both_sizes_and_the_fix(case: Case, wrong: int | None) -> None:
    layer = case.layer()
    for name in names_of(case, Space):
        inputs = case.draw(layer)
        size = inputs[name].shape[-1]
        given = 1 if wrong is None else size + wrong
        inputs[name] = inputs[name][..., :1].expand(*inputs[name].shape[:-1], given)
        refused(case, layer, inputs, size, given)


def refused(case: Case, layer: nn.Module, inputs: dict[str, Tensor], size: int, given: int) -> None:
    bare = inspect.unwrap(type(layer).forward)  # without the shape checks of the tests, which would come first
    with pytest.raises(ValueError, match=rf"(?=.*\b{size}\b)(?=.*\b{given}\b)") as raised:
        case.call(functools.partial(bare, layer), inputs)
    assert re.search("lift|space_of", str(raised.value)) and "\n" not in str(raised.value)


@those(takes_points)
@pytest.mark.parametrize("where", ["coordinate", "point"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_gives_nan_out(case: Case, where: str, dtype: torch.dtype) -> None:
    layer = case.layer(dtype=dtype)
    for name in names_of(case, Points):
        inputs = case.draw(layer, dtype=dtype)
        spoiled = inputs[name][1].view(-1, DIM)[-1]
        spoiled[2 if where == "coordinate" else slice(None)] = torch.nan
        y = case.call(layer, inputs)
        last = y[1].reshape(-1, y.shape[-1])[-1] if y.ndim > 1 else y[1:2]
        assert (last[0] if case.returns_points else last).isnan().all(), name
        assert not case.per_row or torch.isfinite(y[[0, 2]]).all()


@those(learns)
def test_nan_in_a_parameter_gives_nan_out(case: Case) -> None:
    for name, parameter in case.layer().named_parameters():
        layer = case.layer()
        layer.get_parameter(name).data.view(-1)[0] = torch.nan
        inputs = {n: torch.zeros_like(x) if n in names_of(case, Index) else x for n, x in case.draw(layer).items()}
        assert case.call(layer, inputs).isnan().any() or not parameter.numel(), name


@those(takes_points)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_origin_is_an_ordinary_input(case: Case, dtype: torch.dtype) -> None:
    layer = case.layer(0.7, dtype=dtype)
    inputs = {
        name: x.requires_grad_(x.is_floating_point())
        for name, x in case.draw(layer, spread=(0.0,), dtype=dtype).items()
    }
    y = case.call(layer, inputs)
    assert torch.isfinite(y).all()
    y.sin().sum().backward()
    assert all(torch.isfinite(v.grad).all() for v in (*layer.parameters(), *floats(inputs).values()))


@every
def test_repr_shows_the_sizes(case: Case) -> None:
    layer = case.layer(dim=13)
    assert repr(layer).startswith(type(layer).__name__ + "(")
    assert ("13" in layer.extra_repr()) == case.sized
