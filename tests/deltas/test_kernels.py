"""The fused linear layers against their plain formulas, through both derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deltas.kernels import _folds, low_rank_linear, timed_linear
from lorentz import Lorentz


def operands(*, batch: tuple[int, ...] = (2, 3), bias: bool = True) -> list[Tensor | None]:
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    return [make(*batch, 5), make(4, 5), make(4) if bias else None, make(2, 5), make(4, 2)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (4, 9)])  # of the last the sum of the weights is made
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
@pytest.mark.parametrize("batch", [(2, 3), (3, 3)])
def test_derivatives(bias: bool, batch: tuple[int, ...]) -> None:
    given = operands(bias=bias, batch=batch)
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


@pytest.mark.parametrize("over", ["inputs", "A", "A and B", "weight"])
def test_vmap_of_values_and_gradients_equals_one_at_a_time(over: str) -> None:
    """Gradients by example, as private training takes them, and models stacked for an ensemble."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": (3, 6), "weight": (5, 6), "b": (5,), "A": (2, 6), "B": (5, 2)}
    several = {"inputs": "x", "A": "A", "A and B": "AB", "weight": ("weight",)}[over]
    given = {
        name: torch.randn((4, *size), generator=generator)
        if name in several
        else torch.randn(size, generator=generator)
        for name, size in sizes.items()
    }
    given = {name: value.double() for name, value in given.items()}

    def slopes(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.func.grad(lambda *t: low_rank_linear(*t, 0.7).sin().sum(), argnums=(0, 1, 3, 4))(*tensors)

    axes = tuple(0 if name in several else None for name in given)
    got = torch.vmap(slopes, axes)(*given.values())
    for place in range(4):
        alone = slopes(*(value[place] if name in several else value for name, value in given.items()))
        for ours, want in zip(got, alone, strict=True):
            torch.testing.assert_close(ours[place], want, rtol=1e-12, atol=1e-13)


def test_b_itself_is_stored_and_not_its_multiple() -> None:
    """What is no parameter may be rounded by who compresses what is stored."""
    x, weight = torch.randn(3, 5), torch.randn(4, 5)
    A, B = torch.randn(2, 5, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    stored: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        low_rank_linear(x, weight, None, A, B, 3.0)
    assert any(t.data_ptr() == B.data_ptr() for t in stored) and any(t.data_ptr() == A.data_ptr() for t in stored)
    assert not any(t.shape == B.shape and torch.equal(t, 3.0 * B) for t in stored)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_change_that_its_sum_with_the_weight_would_lose(dtype: torch.dtype) -> None:
    """A change of 2^-14 on a weight of 1 is below the step of bfloat16; a row sums a thousand of them."""
    n = 1024
    x = torch.ones(4 * n, n, dtype=dtype)
    x[:, ::2] = -1.0
    weight = torch.ones(8, n, dtype=dtype)
    A = torch.full((1, n), 2.0**-14, dtype=dtype)
    A[:, ::2] *= -1.0
    got = low_rank_linear(x, weight, None, A, torch.ones(8, 1, dtype=dtype), 1.0)
    assert (got == n * 2.0**-14).all()


def test_where_the_sum_of_the_weights_is_made() -> None:
    weight = torch.ones(4, 5)
    assert _folds(36, weight) and _folds(9, torch.ones(4, 5).double())
    assert not _folds(8, weight)
    for other in (
        weight.half(),
        weight.bfloat16(),
        weight.to("meta"),
        torch.nn.Parameter(weight).as_subclass(Quantised),
    ):
        assert not _folds(36, other)
    torch.set_float32_matmul_precision("medium")
    try:
        assert not _folds(36, weight) and _folds(36, weight.double())
    finally:
        torch.set_float32_matmul_precision("highest")


class Quantised(Tensor):
    """Stands for weights that have no sum."""


def test_gradients_are_contiguous() -> None:
    """As those of plain layers are, which ``parameters_to_vector`` needs."""
    for batch in ((2, 3), (4, 9)):
        x, weight, b, A, B = operands(batch=batch)
        assert A is not None and B is not None and x is not None
        z = low_rank_linear(x, weight, b, A, B, 0.5)
        grads = torch.autograd.grad(z.sum(), [x, A, B])
        assert torch.nn.utils.parameters_to_vector(grads).shape == (sum(g.numel() for g in grads),)


SIZES = [(5, 3), (3, 5), (4, 4)]  # wider than high, higher than wide


def timed(
    n: int, m: int, *batch: int, k: float = 2.0, bias: bool = True
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    return (
        make(*batch, n),
        make(m, n + 1),
        make(m) if bias else None,
        torch.tensor(k, dtype=torch.float64).requires_grad_(),
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_a_linear_layer_sees_the_time_of_the_point_less_that_of_the_origin(
    n: int, m: int, batch: tuple[int, ...], bias: bool
) -> None:
    u, weight, b, k = timed(n, m, *batch, bias=bias)
    point = Lorentz(2.0).lift(u)
    origin = torch.cat([k.sqrt()[None], torch.zeros(n, dtype=torch.float64)])
    want = F.linear(point - origin, weight, b)
    torch.testing.assert_close(timed_linear(u, weight, b, k), want)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_derivatives_of_a_layer_that_sees_the_time(n: int, m: int) -> None:
    given = timed(n, m, 2, 3)
    assert torch.autograd.gradcheck(timed_linear, given)
    assert torch.autograd.gradgradcheck(timed_linear, given)
    u, weight, b, k = timed(n, m, 2)
    origin = torch.zeros_like(u).requires_grad_()
    assert torch.autograd.gradcheck(timed_linear, (origin, weight, b, k))
    assert torch.autograd.gradgradcheck(timed_linear, (origin, weight, b, k))


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_a_large_k_makes_it_an_ordinary_layer(n: int, m: int) -> None:
    """In float32 a difference of two times at k = 1e12 has no digit left."""
    u, weight, b, _ = timed(n, m, 4)
    exact = F.linear(u, weight[:, 1:], b) + (u.square().sum(-1, keepdim=True) / 2e6) * weight[:, 0]
    got = timed_linear(u.float(), weight.float(), None if b is None else b.float(), torch.tensor(1e12))
    torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("over", ["u", "weight", "g"])
def test_gradients_of_many_samples_at_once(over: str) -> None:
    u, weight, b, k = timed(5, 3, 4, 2)
    many = torch.stack([weight, weight * 2, -weight, weight + 1])

    def gradients(u: Tensor, weight: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        loss = lambda u, weight: (timed_linear(u, weight, b, k) * g).sin().sum()  # noqa: E731
        found: tuple[Tensor, ...] = torch.func.grad(loss, argnums=(0, 1))(u, weight)
        return found

    g = torch.randn(4, 2, 3, dtype=torch.float64)
    dims = {"u": (0, None, None), "weight": (None, 0, None), "g": (None, None, 0)}[over]
    given = (u if over == "u" else u[0], many if over == "weight" else weight, g if over == "g" else g[0])
    pick = lambda i: [t if d is None else t[i] for t, d in zip(given, dims, strict=True)]  # noqa: E731
    together = torch.vmap(gradients, dims)(*given)
    for i in range(4):
        for mine, alone in zip(together, gradients(*pick(i)), strict=True):
            torch.testing.assert_close(mine[i], alone)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_frozen_and_low_precision_operands_of_a_layer_that_sees_the_time(n: int, m: int) -> None:
    u, weight, b, k = timed(n, m, 2)
    assert b is not None
    timed_linear(u, weight.detach(), b.detach(), k.detach()).sum().backward()
    assert u.grad is not None and weight.grad is None and k.grad is None
    want = timed_linear(u, weight, b, k)
    low = [t.detach().bfloat16() for t in (u, weight, b, k)]
    got = timed_linear(*low)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), want, rtol=0.05, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = timed_linear(*(t.detach().float() for t in (u, weight, b, k)))
    torch.testing.assert_close(cast.double(), want, rtol=0.05, atol=0.1)
