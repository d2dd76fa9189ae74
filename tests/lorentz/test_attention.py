"""Multi-head attention and its cache, against the formulas written out head by head in float64."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorentz import Lorentz
from lorentz import math as lm
from lorentz.attention import LorentzMultiheadAttention
from lorentz.cache import LorentzCache
from lorentz.check import residual

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def layer(k: float = 1.0, *, dim: int = 9, heads: int = 2, learnable: bool = False, **options: object):
    torch.manual_seed(3)
    made = LorentzMultiheadAttention(dim, heads, manifold=Lorentz(k, learnable), **options).double()
    for parameter in (made.query.bias, made.key.bias, made.value.bias, made.out.bias):
        torch.nn.init.normal_(parameter, 0, 0.3)
    torch.nn.init.constant_(made.log_scale, 0.4)
    return made


def points(*size: int, k: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return lm.lift(torch.randn(*size[:-1], size[-1] - 1, dtype=torch.float64, generator=g).to(dtype), k=k)


def by_hand(attend, x: Tensor, y: Tensor, keep: Tensor, addend: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Head by head from math.sqdist and math.centroid; `keep` (B, S, T). Masked rows: the origin."""
    k, h = attend.manifold.k, attend.num_heads
    size = (attend.dim - 1) // h
    q, ks, v = (F.linear(p, m.weight, m.bias) for m, p in ((attend.query, x), (attend.key, y), (attend.value, y)))
    spaces, weights = [], []
    for i in range(h):
        part = slice(i * size, (i + 1) * size)
        qi, ki, vi = (lm.lift(p[..., part], k=k) for p in (q, ks, v))
        logits = -lm.sqdist(qi.unsqueeze(-2), ki.unsqueeze(-3), k=k) / attend.log_scale.exp()
        w = logits.masked_fill(~keep, -1e300).softmax(-1)
        spaces.append(lm.centroid(vi, w, k=k)[..., 1:])
        weights.append(w * keep)
    merged = lm.lift(torch.cat(spaces, -1), k=k)
    out = attend.out(merged, addend=addend)
    nothing = lm.lift(torch.zeros_like(out[..., 1:]) if addend is None else addend, k=k)
    return torch.where(keep.any(-1, keepdim=True), out, nothing), torch.stack(weights, 1)


MASKS = ("none", "causal", "bool", "additive", "padding", "padding additive", "all", "per head")


def mask_case(name: str, b: int, s: int, t: int, heads: int) -> tuple[dict[str, object], Tensor]:
    g = torch.Generator().manual_seed(5)
    keep = torch.rand(s, t, generator=g) < 0.6
    keep[2] = False
    padding = torch.rand(b, t, generator=g) < 0.6
    padding[-1] = False
    tri = torch.ones(s, t, dtype=torch.bool).tril()
    full = torch.ones(b, s, t, dtype=torch.bool)
    additive = torch.zeros(s, t, dtype=torch.float64).masked_fill(~keep, torch.finfo(torch.float64).min)
    gone = torch.zeros(b, t).masked_fill(~padding, -torch.inf)
    return {
        "none": ({}, full),
        "causal": ({"is_causal": True}, full & tri),
        "bool": ({"attn_mask": keep}, full & keep),
        "additive": ({"attn_mask": additive}, full & keep),
        "padding": ({"key_padding_mask": padding}, full & padding[:, None]),
        "padding additive": ({"key_padding_mask": gone}, full & padding[:, None]),
        "all": (
            {"attn_mask": additive, "key_padding_mask": padding, "is_causal": True},
            full & keep & padding[:, None] & tri,
        ),
        "per head": ({"attn_mask": keep.expand(b, heads, s, t)}, full & keep),
    }[name]


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("k", [0.1, 1.0, 10.0])
def test_attention_is_the_formula_under_every_mask(name: str, k: float) -> None:
    attend, x, y = layer(k), points(3, 5, 9, k=k), points(3, 7, 9, k=k, seed=1)
    options, keep = mask_case(name, 3, 5, 7, 2)
    addend = torch.randn(3, 5, 8, dtype=torch.float64)
    for extra in (None, addend):
        want, weights = by_hand(attend, x, y, keep, extra)
        fused = attend(x, y, addend=extra, **options)
        plain, got = attend(x, y, addend=extra, need_weights=True, **options)
        assert (fused - plain).abs().max() <= 1e-13 * want.abs().max()
        assert torch.allclose(fused, want, rtol=1e-11, atol=1e-12)
        assert torch.allclose(got, weights, rtol=1e-10, atol=1e-13)
    rows = keep.any(-1)
    origin = attend.manifold.origin(3, 5, 9, dtype=torch.float64)
    assert torch.equal(attend(x, y, **options)[~rows], origin[~rows])


def test_gradients_of_the_fused_and_the_plain_form_are_equal() -> None:
    attend, x = layer(2.0, learnable=True), points(2, 6, 9, k=2.0)
    for name in MASKS:
        options, _ = mask_case(name, 2, 6, 6, 2)
        fused = torch.autograd.grad(attend(x, **options).sin().sum(), list(attend.parameters()))
        plain = torch.autograd.grad(attend(x, need_weights=True, **options)[0].sin().sum(), list(attend.parameters()))
        for a, b in zip(fused, plain, strict=True):
            assert torch.isfinite(a).all()
            assert (a - b).abs().max() <= 1e-12 * (1 + b.abs().max())


def test_the_fused_kernel_is_what_ran() -> None:
    """The first derivative must come from torch's fused kernel, or the speed is lost without notice."""
    attend, x = layer(), points(2, 6, 9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        attend(x, key_padding_mask=torch.ones(2, 6, dtype=torch.bool)).sum().backward()
        attend(x, is_causal=True).sum().backward()
    names = [event.name for event in seen.events()]
    assert names.count("aten::_scaled_dot_product_flash_attention_for_cpu") == 2
    assert names.count("aten::_scaled_dot_product_flash_attention_for_cpu_backward") == 2
    assert not any("softmax" in n for n in names)


@pytest.mark.parametrize("name", MASKS)
def test_first_and_second_derivative_against_differences(name: str) -> None:
    attend = layer(0.5, dim=5, learnable=True)
    options, _ = mask_case(name, 2, 3, 3, 2)
    space = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    names = ["log_scale", "manifold.rho", "value.weight"]
    values = [attend.get_parameter(n) for n in names]

    def run(space: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        x = lm.lift(space, k=0.5)
        return torch.func.functional_call(attend, given, (x,), {**options})[..., 1:]

    fast = name != "all"
    assert torch.autograd.gradcheck(run, (space, *values), fast_mode=fast)
    assert torch.autograd.gradgradcheck(run, (space, *values), fast_mode=fast)


def test_second_derivative_with_dropout_and_of_a_learned_mask() -> None:
    attend = layer(1.0, dim=5, dropout=0.4)
    space = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def run(space: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(0)
        return attend(lm.lift(space), attn_mask=bias)[..., 1:]

    for training in (True, False):
        attend.train(training)
        assert torch.autograd.gradcheck(run, (space, bias))
        assert torch.autograd.gradgradcheck(run, (space, bias))


def test_functional_derivatives_nest() -> None:
    attend = layer(dim=5)

    def loss(space: Tensor) -> Tensor:
        return attend(lm.lift(space), is_causal=True).sin().sum()

    space = torch.randn(2, 3, 4, dtype=torch.float64)
    leaf = space.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf)
    assert torch.allclose(torch.func.grad(loss)(space), first, rtol=1e-12, atol=1e-12)
    second = torch.func.grad(lambda s: torch.func.grad(loss)(s).square().sum())(space)
    with sdpa_kernel(SDPBackend.MATH):
        (g,) = torch.autograd.grad(attend(lm.lift(leaf), is_causal=True).sin().sum(), leaf, create_graph=True)
        (want,) = torch.autograd.grad(g.square().sum(), leaf)
    assert torch.allclose(second, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_result_is_on_the_manifold_with_finite_gradients(k: float, dtype: torch.dtype) -> None:
    attend = layer(k, dropout=0.1).to(dtype)
    x = points(3, 6, 9, k=k, dtype=dtype)
    x[0] = Lorentz(k).origin(6, 9, dtype=dtype)
    padding = torch.ones(3, 6, dtype=torch.bool)
    padding[1] = False
    y = attend(x, is_causal=True, key_padding_mask=padding)
    assert y.dtype == dtype and y.shape == x.shape
    limit = 1e-5 if dtype in (torch.float64, torch.float32) else 4 * torch.finfo(dtype).eps
    assert residual(y, k=k) <= limit
    assert torch.equal(y[1], Lorentz(k).origin(6, 9, dtype=dtype))
    y.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in attend.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_near_float64(dtype: torch.dtype) -> None:
    attend, x = layer(dim=65, heads=4), points(2, 16, 65)
    attend = attend.to(dtype)
    want = copy.deepcopy(attend).double()(lm.lift(x[..., 1:].to(dtype).double()))
    got = attend(x.to(dtype)).double()
    assert (got - want)[..., 1:].norm() <= 16 * torch.finfo(dtype).eps * want[..., 1:].norm()


def test_autocast_stays_on_the_manifold() -> None:
    attend, x = layer().float(), points(2, 6, 9, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = attend(x, attn_mask=torch.zeros(6, 6), is_causal=True)
    assert y.dtype == torch.float32
    assert residual(y) <= 1e-5
    assert (y - attend(x, is_causal=True)).abs().max() < 0.1
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in attend.parameters())


def test_far_values_stay_finite_in_float32() -> None:
    """The centroid of one key is that key; rounding of -<a, a> may only shorten it, by the stated amount."""
    attend = LorentzMultiheadAttention(5, 1, manifold=Lorentz())
    for linear in (attend.value, attend.out):
        linear.weight.data = torch.nn.functional.pad(torch.eye(4), (1, 0))
    for radius in (1.0, 4.0, 8.0, 12.0, 20.0):
        v = torch.nn.functional.normalize(torch.randn(50, 1, 4), dim=-1) * radius
        x = lm.expmap0(torch.nn.functional.pad(v, (1, 0))).requires_grad_()
        y = attend(x)
        ratio = y[..., 1:].norm(dim=-1) / x[..., 1:].norm(dim=-1)
        assert (ratio <= 1 + 1e-6).all()
        assert (ratio >= (1 + 4 * torch.finfo(torch.float32).eps * x[..., 0] ** 2) ** -0.5 - 1e-6).all()
        assert residual(y) <= 1e-5
        (g,) = torch.autograd.grad(y.sum(), x)
        assert torch.isfinite(g).all()


def test_nan_in_gives_nan_out() -> None:
    attend, x = layer(), points(2, 4, 9)
    x[0, 1, 3] = float("nan")
    y = attend(x, is_causal=True)
    assert torch.isnan(y[0, 1:]).all()
    assert torch.isfinite(y[1]).all()
    bias = torch.zeros(4, 4, dtype=torch.float64)
    bias[2, 2] = float("nan")
    assert torch.isnan(attend(points(2, 4, 9), attn_mask=bias)[:, 2]).all()


def test_dropout_is_on_the_weights_and_spares_nobody_else() -> None:
    attend, x = layer(dropout=0.5), points(400, 1, 9)
    torch.manual_seed(0)
    y = attend(x)  # one key: either it is kept, and the centroid is it, or a head loses it and gives the origin
    kept = attend.eval()(x)
    same = torch.isclose(y, kept, rtol=1e-12).all(-1).double().mean()
    assert 0.15 < same < 0.35  # both heads kept: 1 / 4
    lost = attend.out(attend.manifold.origin(1, 9, dtype=torch.float64))
    both = torch.isclose(y, lost, rtol=1e-12).all(-1).double().mean()
    assert 0.15 < both < 0.35
    sums = attend.train()(points(2, 30, 9), need_weights=True)[1].sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums))  # what is returned is before dropout


def test_any_batch_rank_and_empty_ones() -> None:
    attend, x = layer(), points(2, 3, 5, 9)
    want = attend(x.flatten(0, 1), is_causal=True)
    assert torch.equal(attend(x, is_causal=True), want.view(2, 3, 5, 9))
    assert torch.allclose(attend(x[0, 0], is_causal=True), want[0], rtol=1e-12)
    padding = torch.ones(2, 3, 5, dtype=torch.bool)
    padding[1, 2] = False
    y, w = attend(x, key_padding_mask=padding, need_weights=True)
    assert torch.equal(y[1, 2], attend.manifold.origin(5, 9, dtype=torch.float64))
    assert w.shape == (2, 3, 2, 5, 5) and w[1, 2].abs().sum() == 0
    y = attend(x[0, 0], key_padding_mask=torch.zeros(5, dtype=torch.bool))
    assert torch.equal(y, attend.manifold.origin(5, 9, dtype=torch.float64))
    assert attend(x[:0]).shape == (0, 3, 5, 9)
    assert attend(x[:0], key_padding_mask=padding[:0], is_causal=True).shape == (0, 3, 5, 9)
    assert attend(x[0, :, :0]).shape == (3, 0, 9)
    assert torch.equal(attend(x[0], x[0, :, :0]), attend.manifold.origin(3, 5, 9, dtype=torch.float64))


@pytest.mark.parametrize("rotary_base", [None, 10000.0])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_decoding_step_by_step_is_the_whole_causal_pass(
    rotary_base: float | None, dtype: torch.dtype, limit: float
) -> None:
    attend, x = layer(2.0, rotary_base=rotary_base).to(dtype), points(3, 9, 9, k=2.0, dtype=dtype)
    whole = attend(x, is_causal=True)
    for chunks in ([1] * 9, [4, 1, 3, 1], [9]):
        cache = attend.new_cache(3, 12)
        with torch.no_grad():
            steps = [attend(part, cache=cache, is_causal=True) for part in x.split(chunks, 1)]
        assert cache.length == 9
        assert ((torch.cat(steps, 1) - whole).abs() / whole[..., :1]).max() <= limit


def test_beams_follow_their_parents() -> None:
    attend, x = layer(), points(3, 6, 9)
    parents = torch.tensor([2, 2, 0])
    cache = attend.new_cache(3, 6)
    with torch.no_grad():
        attend(x[:, :4], cache=cache, is_causal=True)
        cache.reorder(parents)
        got = attend(x[:, 4:5], cache=cache, is_causal=True)
        line = torch.cat([x[parents, :4], x[:, 4:5]], 1)
        assert torch.allclose(got, attend(line, is_causal=True)[:, -1:], rtol=1e-12)
        cache.reset()
        assert cache.length == 0
        assert torch.allclose(attend(x, cache=cache, is_causal=True), attend(x, is_causal=True), rtol=1e-12)


def test_keys_of_a_memory_are_computed_once() -> None:
    attend, x, memory = layer(), points(2, 4, 9), points(2, 5, 9, seed=2)
    calls = []
    attend.key.register_forward_hook(lambda *_: calls.append(1))
    cache = attend.new_cache(2, 5)
    padding = torch.rand(2, 5) < 0.7
    with torch.no_grad():
        for i in range(4):
            got = attend(x[:, i : i + 1], memory, cache=cache, key_padding_mask=padding)
            assert len(calls) == 1
            want = attend(x[:, i : i + 1], memory, key_padding_mask=padding)
            calls.pop()
            assert torch.allclose(got, want, rtol=1e-12)
        with pytest.raises(ValueError, match=r"memory of 5 tokens and got one of 3; reset"):
            attend(x, memory[:, :3], cache=cache)
        with pytest.raises(ValueError, match=r"holds a memory .* cache of its own"):
            attend(x, cache=cache)


def test_a_cache_refuses_what_does_not_fit() -> None:
    attend, x = layer(), points(2, 4, 9)
    with pytest.raises(RuntimeError, match="no gradients"):
        attend(x, cache=attend.new_cache(2, 4))
    with torch.no_grad():
        with pytest.raises(ValueError, match="room for 3 tokens and would hold 4"):
            attend(x, cache=attend.new_cache(2, 3), is_causal=True)
        with pytest.raises(ValueError, match=r"\(5, 2, 9, 5\) and got keys of shape \(2, 2, 4, 5\)"):
            attend(x, cache=attend.new_cache(5, 9), is_causal=True)
        with pytest.raises(TypeError, match=r"float32 and got keys in torch.float64"):
            attend(x, cache=LorentzCache(2, 2, 9, 5))
    with pytest.raises(ValueError, match="beam_idx has shape"):
        attend.new_cache(2, 3).reorder(torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 1"):
        LorentzCache(0, 1, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 10, "num_heads": 2}, "got dim=10 and num_heads=2. The next dim that fits is 11"),
        ({"dim": 9, "num_heads": 0}, "num_heads=0"),
        ({"dim": 9, "num_heads": 2, "dropout": 1.0}, "got 1.0"),
        ({"dim": 7, "num_heads": 2, "rotary_base": 1e4}, "rotate pairs .* got 3 space"),
    ],
)
def test_construction_refuses_what_cannot_work(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LorentzMultiheadAttention(**arguments, manifold=Lorentz())


def test_calls_that_cannot_work_say_what_to_do() -> None:
    attend, x = layer(), points(2, 4, 9)
    with pytest.raises(ValueError, match=r"9 coordinates, time first, and got a query of 8.*manifold.lift"):
        attend(x[..., 1:])
    with pytest.raises(ValueError, match=r"attn_mask of shape \(3, 4\) does not broadcast to \(2, 2, 4, 4\)"):
        attend(x, attn_mask=torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"key_padding_mask of shape \(2, 3\) does not broadcast to \(2, 4\)"):
        attend(x, key_padding_mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"use attn_mask.bool\(\)"):
        attend(x, attn_mask=torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="value without key"):
        attend(x, value=x)
    with pytest.raises(ValueError, match="rotary positions are for self-attention"):
        layer(rotary_base=1e4)(x, x)


def test_copies_and_saved_states_are_equal() -> None:
    attend, x = layer(2.0, learnable=True), points(2, 4, 9, k=2.0)
    other = LorentzMultiheadAttention(9, 2, manifold=Lorentz(2.0, learnable=True)).double()
    other.load_state_dict(attend.state_dict())
    for made in (copy.deepcopy(attend), pickle.loads(pickle.dumps(attend)), other):
        assert torch.equal(made(x), attend(x))
        assert made.manifold is made.query.manifold is made.out.manifold


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MASKS)
def test_attention_compiles_in_one_graph_with_equal_gradients(name: str) -> None:
    attend, x = layer(2.0, learnable=True, rotary_base=100.0), points(2, 6, 9, k=2.0)
    options, _ = mask_case(name, 2, 6, 6, 2)
    parameters = list(attend.parameters())
    eager = attend(x, **options)
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")(x, **options)
    assert torch.allclose(compiled, eager, rtol=1e-14, atol=1e-14)
    gradients = [torch.autograd.grad(y.sin().sum(), parameters) for y in (compiled, eager)]
    for got, want in zip(*gradients, strict=True):
        assert (got - want).abs().max() <= 8 * torch.finfo(want.dtype).eps * want.abs().max()


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
def test_attention_compiles_with_inductor_and_exports() -> None:
    torch.compiler.reset()  # the cases above fill the limit of compilations of one function
    attend, x = layer().float(), points(2, 6, 9, dtype=torch.float32)
    options = {"is_causal": True, "key_padding_mask": torch.tensor([[True] * 6, [False] * 6])}
    want = attend(x, **options)
    for made in (torch.compile(attend, fullgraph=True), torch.export.export(attend, (x,), options).module()):
        assert (made(x, **options) - want).abs().max() <= 8 * torch.finfo(torch.float32).eps * want.abs().max()


@pytest.mark.compiled
def test_keys_and_values_that_do_not_belong_together_are_refused() -> None:
    """torch's kernel reads beyond the shorter of them."""
    manifold = Lorentz(1.0)
    layer = LorentzMultiheadAttention(5, 2, manifold=manifold)
    x = manifold.lift(torch.randn(2, 6, 4))
    for value in (x[:, :5], x[:1], torch.cat([x, x], 1)):
        with pytest.raises(ValueError, match="every key has one value"):
            layer(x, x, value)
    with pytest.raises(ValueError, match="those of one batch"):
        layer(x, x[:1])
    with pytest.raises(ValueError, match="those of one batch"):
        layer(x.view(2, 3, 2, 5), x.view(3, 2, 2, 5))
