"""Activation compression of whole models: the forward pass to the bit, the gradient near, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltas
from deltas.activations import ActivationCompressor, Policy

from .networks import MODELS, both, drawn, error, gradient, made

every = pytest.mark.parametrize("name", MODELS)


@every
@pytest.mark.parametrize("bits", [8, 2])
def test_the_forward_pass_is_the_same_to_the_bit_and_the_gradient_near(name: str, bits: int) -> None:
    plain, want, packed, got, _ = both(name, bits=bits, policy=Policy(min_numel=64))
    assert torch.equal(plain, packed)
    assert torch.isfinite(got).all()
    if bits == 8:
        assert error(got, want) < 0.05


@every
def test_with_everything_exact_the_gradient_is_that_of_torch(name: str) -> None:
    """Attention apart, which is computed anew, nothing is changed: equal to the bit without it."""
    _, want, _, got, compressor = both(name, policy=Policy(min_numel=10**9), attention=False)
    assert torch.equal(got, want)
    assert 1 <= compressor.stats().ratio < 1.05  # small parts of larger storages are held without the rest
    _, want, _, got, _ = both(name, policy=Policy(min_numel=10**9))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("name", ["graph", "convolution", "bert"])
def test_fewer_bits_are_fewer_bytes_and_more_noise(name: str) -> None:
    found = {bits: both(name, bits=bits, policy=Policy(min_numel=64)) for bits in (8, 4, 2)}
    errors = [error(got, want) for _, want, _, got, _ in found.values()]
    held = [compressor.stats().held for *_, compressor in found.values()]
    assert errors == sorted(errors) and held == sorted(held, reverse=True)


def test_the_mean_over_roundings_comes_nearer_to_the_gradient() -> None:
    model, loss = made("convolution")
    model.eval()
    want = gradient(model, loss())
    compressor = ActivationCompressor(model, bits=4, policy=Policy(min_numel=64))
    draws = []
    for _ in range(36):
        with compressor:
            value = loss()
        draws.append(gradient(model, value))
    alone = sum(error(draw, want) for draw in draws) / len(draws)
    assert error(torch.stack(draws).mean(0), want) < alone / 4  # independent and unbiased: a sixth


def test_rounding_depends_on_seed_and_pass_alone() -> None:
    model, loss = made("bert")
    model.eval()

    def found(seed: int, forwards: int) -> Tensor:
        compressor = ActivationCompressor(model, seed=seed, policy=Policy(min_numel=64))
        compressor.forwards = forwards
        torch.rand(seed + forwards + 1)
        with compressor:
            value = loss()
        return gradient(model, value)

    assert torch.equal(found(0, 5), found(0, 5))
    assert not torch.equal(found(0, 5), found(0, 6)) and not torch.equal(found(0, 5), found(1, 5))


def test_a_stopped_training_goes_on_with_the_number_of_passes() -> None:
    model, loss = made("graph")
    compressor = ActivationCompressor(model, policy=Policy(min_numel=64))
    for _ in range(3):
        with compressor:
            loss()
    assert compressor.forwards == 3


# who owns what


def test_a_tensor_that_several_layers_save_is_held_once() -> None:
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
    x = drawn(100, 64).requires_grad_() * 2
    compressor = ActivationCompressor(layers, policy=Policy(min_numel=64))
    with compressor:
        y = sum(layer(x) for layer in layers) + (x.T @ x).sum()  # a transposed view shows the same numbers
    stats = compressor.stats()
    assert stats.lines["4 bits"].entries == 1
    assert stats.lines["4 bits"].plain == 100 * 64 * 4
    y.sum().backward()


def test_views_of_other_shapes_show_the_same_numbers() -> None:
    layer = nn.Linear(64, 64)
    compressor = ActivationCompressor(layer, policy=Policy(min_numel=64))
    with compressor:
        layer(torch.sigmoid(drawn(8, 16, 64).requires_grad_()).view(-1, 64))
    line = compressor.stats().lines["4 bits"]
    assert line.entries == 1 and line.plain == 8 * 16 * 64 * 4


def test_names_do_not_depend_on_sizes() -> None:
    """Bits that were chosen on one batch mean the same tensors on another, of which some are small."""
    model = nn.Identity()
    compressor = ActivationCompressor(model, policy=Policy(min_numel=5000))

    def labels(rows: int) -> set[str]:
        with compressor:
            a, b = (model(drawn(rows, width).requires_grad_() * 1) for width in (100, 1000))
            (a * a).sum() + (b * b).sum()
        return {label for label in compressor.stats().lines if "bits" in label}

    compressor.levels = {":0": 8, ":1": 8, ":2": 2, ":3": 2}
    assert labels(64) == {"8 bits", "2 bits"}
    assert labels(32) == {"2 bits"}


def test_points_that_are_turned_or_cut_stay_exact() -> None:
    x = (drawn(64, 65).abs() + 1).requires_grad_()
    compressor = ActivationCompressor(bits=2, policy=Policy(min_numel=64, marked=8))
    with compressor:
        y = Doubled.apply(x)
        (y.T * y.T).sum() + (y[:, 1:] * y[:, 1:]).sum()
    lines = compressor.stats().lines
    assert lines["exact: marked by its function"].entries >= 1 and "2 bits" not in lines


def test_an_address_that_is_used_again_is_another_tensor() -> None:
    x = drawn(64, 64).requires_grad_()
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        total = sum(((x * i) ** 2).sum() for i in range(40))  # temporaries die, and their memory is used again
    (got,) = torch.autograd.grad(total, x)
    assert error(got, 2 * x.detach() * sum(i * i for i in range(40))) < 0.02


def test_parameters_and_what_is_made_of_them_stay_exact() -> None:
    """The gradient of the input of a linear map needs the weight alone, so it is equal to the bit."""
    x = drawn(50, 96).requires_grad_()
    layer = nn.Linear(96, 96)
    low, high = nn.Parameter(drawn(96, 4)), nn.Parameter(drawn(4, 96))

    def through(work: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        with ActivationCompressor(bits=2, policy=Policy(min_numel=64)):
            packed = work()
        return torch.autograd.grad(work().sum(), x)[0], torch.autograd.grad(packed.sum(), x)[0]

    merged = lambda: F.linear(x, layer.weight + low @ high, layer.bias)  # noqa: E731
    for work in (lambda: layer(x), lambda: x @ layer.weight[8:40].T, merged):
        want, got = through(work)
        assert torch.equal(got, want)
    with torch.autocast("cpu", torch.bfloat16):
        want, got = through(lambda: layer(x))
    assert torch.equal(got, want)


class Doubled(torch.autograd.Function):
    """Twice the square, which says that its result is not to be quantised."""

    saved_exact = ("y",)

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 4 * (ctx.saved_tensors[0] / 2).sqrt()


def test_a_function_says_what_stays_exact() -> None:
    x = (drawn(64, 65).abs() + 1).requires_grad_()

    def found(policy: Policy) -> Tensor:
        with ActivationCompressor(bits=2, policy=policy):
            y = Doubled.apply(x)
        return torch.autograd.grad(y.sum(), x)[0]

    want = torch.autograd.grad(Doubled.apply(x).sum(), x)[0]
    assert torch.equal(found(Policy(min_numel=64)), want)
    eight = found(Policy(min_numel=64, marked=8))
    assert torch.equal(eight[:, 0], want[:, 0])  # the first coordinate
    assert 0 < error(eight, want) < 0.02


def test_points_of_lorentz_layers_stay_exact_or_take_eight_bits() -> None:
    _, want, _, got, compressor = both("lorentz", policy=Policy(min_numel=64))
    assert compressor.stats().lines["exact: marked by its function"].entries > 10
    exact = error(got, want)
    _, want, _, got, compressor = both("lorentz", policy=Policy(min_numel=64, marked=8))
    assert compressor.stats().lines["points"].entries > 10
    assert exact < 0.2 and error(got, want) < 0.2


def test_modules_and_tensors_are_left_alone_where_told() -> None:
    model, loss = made("bert")
    for policy in (Policy(min_numel=64, skip=("*",)), Policy(min_numel=64, exact=lambda x: True)):
        compressor = ActivationCompressor(model, policy=policy)
        with compressor:
            loss()
        assert "4 bits" not in compressor.stats().lines
    model.eval()  # the noise of dropout is packed all the same, without loss
    compressor = ActivationCompressor(model, policy=Policy(min_numel=64, skip=("bert.encoder.layer.?.output",)))
    with compressor:
        loss()
    assert not any(".output." in name and "attention" not in name for name in _quantised(compressor))


def _quantised(compressor: ActivationCompressor) -> list[str]:
    stats = compressor.stats()
    return [name for name, line in stats.modules.items() if line.held < line.plain]


def test_a_small_tensor_does_not_keep_a_large_one() -> None:
    model = nn.Linear(256, 4)
    compressor = ActivationCompressor(model, policy=Policy(min_numel=20_000))
    with compressor:
        h = (drawn(64, 32, 256).requires_grad_() * 1).tanh()
        model(h[:, 0]).sum().backward()
    assert compressor.stats().lines["exact: small"].held == h[:, 0].nbytes


# mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActivationCompressor(bits=3), "bits is 3; give one of 8, 4, 2, 1"),
        (lambda: ActivationCompressor(bits=True), "bits is True; give one of 8, 4, 2, 1"),
        (lambda: ActivationCompressor(group=60), "group is 60; give a multiple of 8"),
        (lambda: Policy(min_numel=0), "min_numel is 0"),
        (lambda: Policy(marked=4), "marked is 4; give None"),
        (lambda: ActivationCompressor(policy=Policy(skip=("head",))), "give the model too"),
        (lambda: ActivationCompressor(nn.Sequential(nn.Linear(2, 2)), policy=Policy(skip=("1",))), "no module is named '1'"),
        (lambda: ActivationCompressor().stats(), "no forward pass yet"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(deltas.DeltaError, match=message.replace("(", r"\(").replace("'", ".")):
        make()


def test_entering_twice_and_packing_nothing_are_named() -> None:
    compressor = ActivationCompressor()
    with compressor:
        with pytest.raises(deltas.DeltaError, match="already in use"):
            compressor.__enter__()
        drawn(3)
    with pytest.raises(deltas.DeltaError, match="run the forward pass in it"):
        compressor.stats()
