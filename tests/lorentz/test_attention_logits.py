"""Attention by distances relative to the origin: the formula in float64, its limit, its twin, caches and derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz import Lorentz, LorentzTransformerEncoder
from lorentz import math as lm
from lorentz.attention import LorentzMultiheadAttention
from lorentz.flat import Euclidean, EuclideanMultiheadAttention


def layer(k: float = 1.0, *, dim: int = 9, heads: int = 2, learnable: bool = False, **options: Any):
    torch.manual_seed(3)
    made = LorentzMultiheadAttention(
        dim, heads, manifold=Lorentz(k, learnable), **{"logits": "relative", "centred": True, **options}
    ).double()
    for parameter in (made.query.bias, made.key.bias, made.value.bias, made.out.bias):
        torch.nn.init.normal_(parameter, 0, 0.3)
    for linear in (made.query, made.key, made.value, made.out):
        torch.nn.init.normal_(linear.weight, 0, 0.5)
    torch.nn.init.constant_(made.log_scale, 0.4)
    return made


def points(*size: int, k: float = 1.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return lm.lift(torch.randn(*size[:-1], size[-1] - 1, dtype=torch.float64, generator=g), k=k)


def heads_of(attend: Any, linear: Any, x: Tensor) -> Tensor:
    """Points (B, H, S, n + 1) of the heads."""
    z = F.linear(lm.from_origin(x, k=attend.manifold.k), linear.weight, linear.bias)
    return lm.lift(z.view(*z.shape[:-1], attend.num_heads, -1).transpose(1, 2), k=attend.manifold.k)


def weights_by_hand(attend: Any, x: Tensor, y: Tensor, keep: Tensor) -> Tensor:
    """Softmax over keys of (d_L^2(o, key) - d_L^2(query, key)) / scale, from distances alone."""
    k = attend.manifold.k
    q, keys = heads_of(attend, attend.query, x), heads_of(attend, attend.key, y)
    origin = attend.manifold.origin(*keys.shape, dtype=torch.float64)
    logits = lm.sqdist(origin, keys, k=k).unsqueeze(-2) - lm.sqdist(q.unsqueeze(-2), keys.unsqueeze(-3), k=k)
    return (logits / attend.log_scale.exp()).masked_fill(~keep, -torch.inf).softmax(-1)


@pytest.mark.parametrize("k", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("masked", ["none", "padding", "causal", "additive"])
def test_weights_and_result_are_the_formula(k: float, masked: str) -> None:
    attend, x = layer(k), points(3, 5, 9, k=k)
    keep = torch.ones(3, 1, 5, 5, dtype=torch.bool)
    options: dict[str, Any] = {}
    if masked == "padding":
        padding = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0]]).bool()
        keep, options = keep & padding[:, None, None], {"key_padding_mask": padding}
    elif masked == "causal":
        keep, options = keep.tril(), {"is_causal": True}
    elif masked == "additive":
        some = torch.eye(5, dtype=torch.bool) | (torch.rand(5, 5, generator=torch.Generator().manual_seed(1)) < 0.5)
        keep = keep & some
        options = {"attn_mask": torch.zeros(5, 5, dtype=torch.float64).masked_fill(~some, -torch.inf)}
    want = weights_by_hand(attend, x, x, keep)
    plain, got = attend(x, need_weights=True, **options)
    assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)
    values = heads_of(attend, attend.value, x)
    centre = torch.stack([lm.centroid(values[:, i], want[:, i], k=attend.manifold.k) for i in range(2)], -2)
    merged = lm.lift(centre[..., 1:].flatten(-2), k=attend.manifold.k)
    assert torch.allclose(plain, attend.out(merged), rtol=1e-9, atol=1e-11)
    assert torch.allclose(attend(x, **options), plain, rtol=1e-11, atol=1e-12)


def test_the_default_is_distance_and_another_name_is_refused() -> None:
    x = points(2, 4, 9)
    same, plain, other = layer(logits="distance"), layer(logits="distance"), layer()
    assert torch.equal(same(x), plain(x)) and not torch.allclose(same(x), other(x), atol=1e-3)
    made = LorentzMultiheadAttention(9, 2, manifold=Lorentz())
    assert made.logits == "distance" and "logits" not in repr(made) and "logits='relative'" in repr(other)
    with pytest.raises(ValueError, match="logits is one of 'distance', 'relative'; got 'inner'"):
        layer(logits="inner")


def test_the_limit_of_large_k_is_ordinary_attention_at_the_rate_1_over_k() -> None:
    space = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gaps = []
    for k in (1e2, 1e4, 1e6):
        attend = layer(k)
        attend.log_scale.data.fill_(math.log(2 * 2.0))  # two heads of four: softmax(q.k / sqrt(4))
        for linear in (attend.query, attend.key, attend.value, attend.out):
            linear.weight.data[:, 0] = 0
        q, keys, v = (
            F.linear(space, m.weight[:, 1:], m.bias).view(2, 6, 2, 4).transpose(1, 2)
            for m in (attend.query, attend.key, attend.value)
        )
        plain = F.scaled_dot_product_attention(q, keys, v).transpose(1, 2).flatten(-2)
        want = F.linear(plain, attend.out.weight[:, 1:], attend.out.bias)
        gaps.append(float((attend(lm.lift(space, k=k))[..., 1:] - want).abs().max().detach()))
    assert gaps[0] < 0.5 and gaps[1] / gaps[0] == pytest.approx(0.01, rel=0.3)
    assert gaps[2] / gaps[1] == pytest.approx(0.01, rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize("logits", ["distance", "relative"])
@pytest.mark.parametrize("k", [1.0, 1e4, 1e6, 1e8])
def test_float32_keeps_its_digits_at_every_k(logits: str, k: float) -> None:
    """The product of two times near sqrt(k) is rounded at eps k: 0.06 at k = 1e6, which the softmax would see."""
    space = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    attend, exact = (layer(k, dim=9, logits=logits) for _ in range(2))
    for linear in (attend.query, attend.key, attend.value, attend.out):
        linear.weight[:, 0] = 0
    exact.load_state_dict(attend.state_dict())
    attend, x = attend.float(), lm.lift(space, k=k)
    want, weights = exact(lm.lift(space.double(), k=k), need_weights=True)
    plain, got = attend(x, need_weights=True)
    assert float((got - weights).abs().max()) < 2e-6
    assert float((plain - want)[..., 1:].abs().max()) < 2e-5
    assert torch.allclose(attend(x), plain, rtol=1e-5, atol=1e-5)  # the fused kernel
    causal, cache = attend(x, is_causal=True), attend.new_cache(2, 6)
    steps = torch.cat([attend(x[:, i : i + 1], is_causal=True, cache=cache) for i in range(6)], 1)
    assert torch.allclose(steps, causal, rtol=1e-5, atol=1e-5)
    h = attend.key.prepare(x)  # by hand from a pre-activation, as a prefix and a delta do it
    z = attend.key.preactivation(h)
    assert torch.allclose(attend.key.finish(z), attend.key.map(h), rtol=1e-6, atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attend(x, need_weights=True)[1]
    assert float((rounded - weights).abs().max()) < 0.05


def test_the_twin_is_torchs_attention() -> None:
    torch.manual_seed(0)
    attend = EuclideanMultiheadAttention(8, 2, logits="relative").double()
    attend.log_scale.data.fill_(math.log(2 * 2.0))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    keep = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    q, keys, v = (m(x)[..., 1:].transpose(1, 2) for m in (attend.query, attend.key, attend.value))
    mask = keep[:, None, None]
    plain = F.scaled_dot_product_attention(q, keys, v, attn_mask=mask).transpose(1, 2).flatten(-2)
    assert torch.allclose(attend(x, key_padding_mask=keep), attend.out(plain), rtol=1e-12, atol=1e-12)
    w = attend(x, key_padding_mask=keep, need_weights=True)[1]
    want = (q @ keys.mT / 2).masked_fill(~mask, -torch.inf).softmax(-1)
    assert torch.allclose(w, want, rtol=1e-12, atol=1e-14)


@torch.no_grad()
@pytest.mark.parametrize("rotary_base", [None, 100.0])
def test_decoding_step_by_step_is_the_whole_causal_pass(rotary_base: float | None) -> None:
    attend, x = layer(0.7, rotary_base=rotary_base), points(3, 5, 9, k=0.7)
    whole, cache = attend(x, is_causal=True), attend.new_cache(3, 5)
    steps = [attend(x[:, i : i + 1], is_causal=True, cache=cache) for i in range(5)]
    assert torch.allclose(torch.cat(steps, 1), whole, rtol=1e-11, atol=1e-12)
    memory, fixed = points(3, 4, 9, k=0.7, seed=2), layer(0.7)
    held = fixed.new_cache(3, 4)
    first = fixed(x[:, :1], memory, cache=held)
    assert torch.equal(fixed(x[:, :1], memory, cache=held), first)


def test_first_and_second_derivative_against_differences() -> None:
    attend = layer(0.5, dim=5, learnable=True)
    space = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    names = ["log_scale", "manifold.rho", "query.weight"]
    values = [attend.get_parameter(n) for n in names]

    def run(space: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(attend, given, (lm.lift(space, k=0.5),))[..., 1:]

    assert torch.autograd.gradcheck(run, (space, *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (space, *values), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_near_float64(dtype: torch.dtype) -> None:
    attend, x = layer(1.0), points(2, 5, 9)
    with torch.no_grad():
        want = attend(x)
        got = attend.to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert float((got.double() - want).abs().max()) <= 8 * torch.finfo(dtype).eps * float(want.abs().max())


def test_stacks_of_both_geometries_take_the_option() -> None:
    for manifold in (Lorentz(2.0), Euclidean()):
        stack = LorentzTransformerEncoder(2, 9, 2, manifold=manifold, attention_logits="relative")
        assert {block.attention.logits for block in stack.layers} == {"relative"}
