"""The fused low-rank linear layer against the plain formula, through both derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deltas.kernels import low_rank_linear


def operands(*, batch: tuple[int, ...] = (2, 3), bias: bool = True) -> list[Tensor | None]:
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    return [make(*batch, 5), make(4, 5), make(4) if bias else None, make(2, 5), make(4, 2)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_formula(batch: tuple[int, ...], bias: bool) -> None:
    x, weight, b, A, B = operands(batch=batch, bias=bias)
    assert x is not None and weight is not None and A is not None and B is not None
    want = F.linear(x, weight + 0.5 * B @ A, b)
    got = low_rank_linear(x, weight, b, A, B, 0.5)
    torch.testing.assert_close(got, want)
    torch.manual_seed(1)
    g = torch.randn_like(want)
    wanted = [t for t in (x, weight, b, A, B) if t is not None]
    for mine, theirs in zip(torch.autograd.grad(got, wanted, g), torch.autograd.grad(want, wanted, g), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("bias", [True, False])
def test_derivatives(bias: bool) -> None:
    given = operands(bias=bias)
    assert torch.autograd.gradcheck(lambda *t: low_rank_linear(*t, 0.7), given)
    assert torch.autograd.gradgradcheck(lambda *t: low_rank_linear(*t, 0.7), given)


def test_frozen_weight_takes_no_gradient() -> None:
    x, weight, b, A, B = operands()
    assert weight is not None and b is not None and x is not None and A is not None and B is not None
    frozen = weight.detach()
    low_rank_linear(x, frozen, b.detach(), A, B, 1.0).sum().backward()
    assert frozen.grad is None and A.grad is not None and x.grad is not None


def test_functional_gradient() -> None:
    x, weight, b, A, B = operands()

    def loss(a: Tensor, plain: bool) -> Tensor:
        z = F.linear(x, weight + B @ a, b) if plain else low_rank_linear(x, weight, b, a, B, 1.0)
        return (z**3).sum()

    torch.testing.assert_close(torch.func.grad(loss)(A, False), torch.func.grad(loss)(A, True))
