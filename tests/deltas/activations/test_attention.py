"""Attention that is computed anew in the backward pass, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from deltas.activations import ActivationCompressor, Policy, consistent_attention

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "dropout": {"dropout_p": 0.4},
    "bool mask": {"attn_mask": (torch.arange(7) < 5).expand(6, 7)},
    "float mask": {"attn_mask": torch.linspace(-2, 1, 7).expand(6, 7)},
}
every = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def drawn(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = ((2, 3, 6, 8), (2, 3, 7, 8), (2, 3, 7, 8))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def cast(options: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    masks = options.get("attn_mask")
    return options | ({"attn_mask": masks.to(dtype)} if masks is not None and masks.is_floating_point() else {})


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_equals_torchs_to_the_bit_and_gradient_to_rounding(options: dict[str, Any], dtype: torch.dtype) -> None:
    options = cast(options, dtype)
    found = []
    for function in (F.scaled_dot_product_attention, consistent_attention):
        inputs = drawn(dtype)
        torch.manual_seed(4)
        out = function(*inputs, **options)
        after = torch.get_rng_state()
        torch.rand(3)
        grads = torch.autograd.grad(out.sin().sum(), inputs)
        found.append((out, after, *grads))
    (a, state, *want), (b, again, *got) = found
    assert torch.equal(a, b) and torch.equal(state, again)
    eps = 8 * torch.finfo(dtype).eps
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=eps, atol=eps * float(y.abs().max()))


def test_the_backward_pass_leaves_the_generator_alone() -> None:
    out = consistent_attention(*drawn(), dropout_p=0.5)
    state = torch.get_rng_state()
    out.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_it_is_differentiated_twice(options: dict[str, Any]) -> None:
    options = cast(options, torch.float64)
    if "dropout_p" in options:
        pytest.skip("every evaluation draws anew, so that there is no function to differentiate numerically")
    assert torch.autograd.gradgradcheck(lambda *x: consistent_attention(*x, **options), drawn())


def test_arguments_that_depend_on_each_other_are_differentiated_once() -> None:
    """With a graph of the backward pass the gradient is what it is without: paths among the arguments count once."""
    h = drawn()[0]
    q = h * 1
    k = q.tanh()
    y = consistent_attention(q, k, 2 * k).sin().sum()
    once = torch.autograd.grad(y, h, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(y, h, create_graph=True)[0], once)


def test_autocast_that_unified_the_dtypes_does_so_again() -> None:
    q, k, v = drawn(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        want = F.scaled_dot_product_attention(q, k, v.bfloat16())
        got = consistent_attention(q, k, v.bfloat16())
    assert torch.equal(got, want)
    slopes = torch.autograd.grad(got.float().sin().sum(), (q, k, v))
    for x, y in zip(slopes, torch.autograd.grad(want.float().sin().sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(x, y, rtol=2e-2, atol=2e-2 * float(y.abs().max()))


def test_a_mask_gets_its_gradient() -> None:
    mask = torch.zeros(6, 7, dtype=torch.float64, requires_grad=True)
    got, want = (
        torch.autograd.grad(function(*drawn(), attn_mask=mask).sin().sum(), mask)[0]
        for function in (consistent_attention, F.scaled_dot_product_attention)
    )
    torch.testing.assert_close(got, want)


def test_grouped_queries() -> None:
    q, k, v = drawn(torch.float32)
    k, v = k[:, :1], v[:, :1]
    got = consistent_attention(q, k, v, enable_gqa=True)
    assert torch.equal(got, F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(got.sum(), (q, k, v)))


def test_without_gradients_or_under_transforms_it_is_torchs_own() -> None:
    q, k, v = (x.detach() for x in drawn())
    assert consistent_attention(q, k, v).grad_fn is None
    with sdpa_kernel(SDPBackend.MATH):
        got = torch.func.grad(lambda q: consistent_attention(q, k, v).sin().sum())(q)
        want = torch.func.grad(lambda q: F.scaled_dot_product_attention(q, k, v).sin().sum())(q)
    assert torch.equal(got, want)


def test_torchs_own_module_takes_it_too_and_gives_it_back() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(64, 4, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.mul_(6)
    x = torch.randn(8, 32, 64, generator=torch.Generator().manual_seed(1))
    own = F.scaled_dot_product_attention

    def slope(**options: Any) -> Tensor:
        with ActivationCompressor(policy=Policy(min_numel=64), **options):
            y = layer(x, x, x, need_weights=False)[0]
        return torch.autograd.grad(y.sin().sum(), layer.in_proj_weight)[0]

    want = torch.autograd.grad(layer(x, x, x, need_weights=False)[0].sin().sum(), layer.in_proj_weight)[0]
    error = {on: float((slope(bits=2, attention=on) - want).norm() / want.norm()) for on in (True, False)}
    assert error[True] < 5 and not error[False] < 20 * error[True]
    assert F.scaled_dot_product_attention is own


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounded_arguments_give_a_bounded_gradient_and_saved_sums_do_not(bits: int) -> None:
    """What it is for: with the kernel's own saved sums, few bits give numbers without bound."""
    generator = torch.Generator().manual_seed(0)
    inputs = [(4 * torch.randn(4, 4, 64, 32, generator=generator)).requires_grad_() for _ in range(3)]

    def error(*, attention: bool) -> float:
        with ActivationCompressor(bits=bits, policy=Policy(min_numel=64), attention=attention):
            y = F.scaled_dot_product_attention(*(x * 1 for x in inputs)).sin().sum()
        want = torch.autograd.grad(F.scaled_dot_product_attention(*inputs).sin().sum(), inputs)
        got = torch.autograd.grad(y, inputs)
        top = sum(float(((g - w) ** 2).sum()) for g, w in zip(got, want, strict=True))
        return float(top / sum(float((w**2).sum()) for w in want)) ** 0.5

    own = error(attention=True)
    assert own < {8: 0.2, 4: 2, 2: 6}[bits]
    if bits < 8:
        theirs = error(attention=False)
        assert not theirs < 100 * own  # also where it is not finite


@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("cast", [True, False], ids=["autocast", "plain"])
def test_a_mask_that_is_trained_gives_the_same_to_the_bit(leaf: bool, cast: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, 16, 4, 8).bfloat16().requires_grad_().transpose(1, 2) for _ in range(3))
    bias = torch.randn(1, 4, 16, 16).mul(3).to(torch.float32 if cast else torch.bfloat16).requires_grad_()
    mask = bias if leaf else bias * 1
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.equal(found, want)
    grads = [torch.autograd.grad(out.float().square().sum(), bias, retain_graph=True)[0] for out in (found, want)]
    assert (grads[0] - grads[1]).norm() < 0.05 * grads[1].norm()
