"""Functions whose derivatives do not bear rounding: they get exact arguments, and signs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltas.activations import ActivationCompressor, Policy

from .networks import drawn, error

ROWS = torch.arange(64)[:, None].expand(64, 64)
EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "acosh": torch.acosh,
    "sqrt": torch.sqrt,
    "log": torch.log,
    "rsqrt": lambda z: z.rsqrt(),
    "quotient": lambda z: 1 / z,
    "power": lambda z: z**-2,
    "power by name": lambda z: torch.pow(z, exponent=-1),
    "power of a tensor": lambda z: torch.pow(z, torch.tensor(-1.0)),
    "logit": lambda z: (z / 2).logit(),
    "atan2": lambda z: torch.atan2(z - 1, z),
    "amax": lambda z: z.amax(1),
    "max": lambda z: z.max(),
    "median": lambda z: z.median(),
    "greatest norm": lambda z: torch.linalg.vector_norm(z, float("inf"), dim=1),
    "norm": lambda z: z.norm(dim=1),
    "deviation": lambda z: z.std(1),
    "product": lambda z: z.prod(1),
    "logsumexp": lambda z: z.logsumexp(1),
    "logcumsumexp": lambda z: z.logcumsumexp(1),
    "scattered maxima": lambda z: torch.zeros(4, 64).scatter_reduce(0, ROWS % 4, z, "amax"),
    "normalised": lambda z: F.normalize(z - 1),
    "gaussian": lambda z: F.gaussian_nll_loss(z.detach() * 2, z.detach(), z),
    "pooled": lambda z: F.lp_pool1d(z, 2.0, 4),
    "cross entropy of shares": lambda z: F.binary_cross_entropy(z / 2, ROWS / 64, reduction="none"),
    "hypotenuse": lambda z: torch.hypot(z - 1, z - 1.0005),
    "norm of linalg": lambda z: torch.linalg.norm(z - 1, dim=1),
    "remainder": lambda z: z % (z.flip(1) - 0.99),
    "clamped": lambda z: z.clamp(1.0002, 1.0007),
    "greater one": lambda z: torch.maximum(z, z.flip(1)),
    "magnitude": lambda z: (z - 1.0005).abs(),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_arguments_stay_exact(name: str) -> None:
    function = EXACT[name]
    x = (1 + drawn(64, 64).abs() / 1000).requires_grad_()
    shape = function(x).shape
    weight = drawn(1, *shape).view(shape)
    with ActivationCompressor(bits=2, policy=Policy(min_numel=64)):
        packed = (function(x * 1.0) * weight).sum()
    want = torch.autograd.grad((function(x * 1.0) * weight).sum(), x)[0]
    assert torch.equal(torch.autograd.grad(packed, x)[0], want)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.01, inplace=True), nn.Hardtanh(inplace=True), nn.ReLU6(inplace=True),
        nn.Threshold(0.1, 0.0, inplace=True), nn.Softshrink(), nn.Hardshrink(), nn.LeakyReLU(0.01), nn.PReLU(),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("bits", [8, 1])
def test_rounding_moves_no_number_to_another_piece(layer: nn.Module, bits: int) -> None:
    x = drawn(64, 64).requires_grad_()
    with ActivationCompressor(bits=bits, policy=Policy(min_numel=64)):
        y = layer(x * 1)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(layer(x * 1).sum(), x)[0])


@pytest.mark.parametrize("layer", [nn.ELU(inplace=True), nn.CELU(inplace=True)], ids=str)
def test_smooth_pieces_are_near(layer: nn.Module) -> None:
    x = drawn(64, 64).requires_grad_()
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        y = layer(x * 1)
    assert error(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(layer(x * 1).sum(), x)[0]) < 0.02


@pytest.mark.parametrize("exact_first", [True, False])
def test_who_saves_a_tensor_first_does_not_decide_for_others(exact_first: bool) -> None:
    x = (1 + drawn(64, 64).abs() / 100).requires_grad_()

    def work() -> Tensor:
        y = x * 1
        terms = [(y * y).sum() / 1000, y.acosh().sum()]
        return terms[1] + terms[0] if exact_first else terms[0] + terms[1]

    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        packed = work()
    assert error(torch.autograd.grad(packed, x)[0], torch.autograd.grad(work(), x)[0]) < 1e-4


def test_a_detached_view_stays_exact_beside_a_rounded_one() -> None:
    x, weight = drawn(64, 64).requires_grad_(), drawn(64, 64).requires_grad_()
    with ActivationCompressor(bits=1, policy=Policy(min_numel=64)):
        h = x * 1
        packed = (h * h).sum() + (h.detach() * weight).sum()
    assert torch.equal(torch.autograd.grad(packed, weight)[0], x.detach())


def test_a_skipped_module_reads_exactly_what_another_reads_rounded() -> None:
    model = nn.ModuleDict({"a": nn.Linear(64, 8), "b": nn.Linear(64, 8)})
    x = drawn(64, 64).requires_grad_() * 1
    with ActivationCompressor(model, bits=2, policy=Policy(min_numel=64, skip=("b",))):
        packed = model["a"](x).sum() + model["b"](x).sum()
    got = torch.autograd.grad(packed, [model["a"].weight, model["b"].weight])
    want = x.detach().sum(0).expand(8, 64)
    assert not torch.allclose(got[0], want)
    torch.testing.assert_close(got[1], want, rtol=1e-5, atol=1e-4)
