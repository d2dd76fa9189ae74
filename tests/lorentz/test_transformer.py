"""Transformer layers against the formulas written out in float64: norms, masks, caches, the flat limit, depth."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import (
    Lorentz,
    LorentzPooling,
    LorentzTransformerDecoder,
    LorentzTransformerDecoderLayer,
    LorentzTransformerEncoder,
    LorentzTransformerEncoderLayer,
    check_manifold,
)
from lorentz import math as lm
from lorentz.check import residual
from lorentz.flat import Euclidean
from lorentz.geometry import geometry_of

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
DIM, HEADS, HIDDEN = 9, 2, 13


def perturbed(layer: nn.Module, seed: int = 3) -> Any:
    """Parameters away from their initial values, of which zeros and ones would hide errors."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if not name.endswith("rho"):
                parameter += torch.randn(parameter.shape, generator=g) / 4
    return layer.double()


def points(*size: int, k: float = 1.0, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return lm.lift(torch.randn(*size[:-1], size[-1] - 1, dtype=torch.float64, generator=g), k=k)


def affine(layer: Any, x: Tensor, k: float) -> Tensor:
    """W (x - o) + b: the space coordinates before a residual."""
    origin = torch.zeros(x.shape[-1], dtype=torch.float64)
    origin[0] = k**0.5
    z = (x - origin) @ layer.weight.mT
    return z if layer.bias is None else z + layer.bias


def normalised(norm: Any, space: Tensor) -> Tensor:
    centred = space - space.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def attention(layer: Any, query: Tensor, key: Tensor, keep: Tensor, k: float) -> Tensor:
    """Space coordinates of the output map before the residual, head by head; `keep` (B, S, T)."""
    size = (layer.dim - 1) // layer.num_heads
    q, ks, v = (affine(m, p, k) for m, p in ((layer.query, query), (layer.key, key), (layer.value, key)))
    spaces = []
    for i in range(layer.num_heads):
        part = slice(i * size, (i + 1) * size)
        qi, ki, vi = (lm.lift(z[..., part], k=k) for z in (q, ks, v))
        logits = -lm.sqdist(qi.unsqueeze(-2), ki.unsqueeze(-3), k=k) / layer.log_scale.exp()
        weights = logits.masked_fill(~keep, -torch.inf).softmax(-1)
        spaces.append(lm.centroid(vi, weights, k=k)[..., 1:])
    return affine(layer.out, lm.lift(torch.cat(spaces, -1), k=k), k)


def block(layer: Any, x: Tensor, keep: Tensor, k: float, memory: Tensor | None = None) -> Tensor:
    """A layer, on space coordinates."""
    sublayers: list[Callable[[Tensor], Tensor]] = [lambda p: attention(layer.attention, p, p, keep, k)]
    if memory is not None:
        everything = torch.ones(*x.shape[:-1], memory.shape[-2], dtype=torch.bool)
        sublayers.append(lambda p: attention(layer.cross_attention, p, memory, everything, k))
    sublayers.append(lambda p: affine(layer.down, lm.lift(F.gelu(affine(layer.up, p, k)), k=k), k))
    space = x[..., 1:]
    for i, sublayer in enumerate(sublayers):
        before = normalised(layer.norms[i], space) if layer.norm == "pre" else space
        space = space + sublayer(lm.lift(before, k=k))
        space = normalised(layer.norms[i], space) if layer.norm == "post" else space
    return lm.lift(space, k=k)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
@pytest.mark.parametrize("k", CURVATURES)
def test_the_layers_are_their_formulas(norm: str, k: float) -> None:
    options: dict[str, Any] = {"manifold": Lorentz(k), "norm": norm}
    x, memory = points(3, 5, DIM, k=k), points(3, 4, DIM, k=k, seed=1)
    keep = torch.ones(3, 5, 5, dtype=torch.bool).tril()
    encoder = perturbed(LorentzTransformerEncoderLayer(DIM, HEADS, HIDDEN, **options))
    torch.testing.assert_close(encoder(x, is_causal=True), block(encoder, x, keep, k), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(encoder(x), block(encoder, x, torch.ones_like(keep), k), rtol=1e-9, atol=1e-10)
    decoder = perturbed(LorentzTransformerDecoderLayer(DIM, HEADS, HIDDEN, **options))
    torch.testing.assert_close(decoder(x, memory), block(decoder, x, keep, k, memory), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_at_first_the_space_coordinates_are_those_of_an_ordinary_layer(norm: str) -> None:
    """Everything but attention: with its output map at 0, a fresh layer is torch's own feed-forward block."""
    layer = LorentzTransformerEncoderLayer(DIM, HEADS, HIDDEN, manifold=Lorentz(0.5), norm=norm).double()
    nn.init.zeros_(layer.attention.out.weight)
    space = points(2, 3, DIM)[..., 1:]

    def normal(s: Tensor, wanted: str) -> Tensor:
        return F.layer_norm(s, (DIM - 1,)) if norm == wanted else s

    want = normal(space, "post")
    hidden = F.gelu(F.linear(normal(want, "pre"), layer.up.weight[:, 1:], layer.up.bias))
    want = normal(want + F.linear(hidden, layer.down.weight[:, 1:], layer.down.bias), "post")
    torch.testing.assert_close(layer(lm.lift(space, k=0.5))[..., 1:], want, rtol=1e-12, atol=1e-13)


def stacks(k: float = 1.0, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    manifold = Lorentz(k, learnable=True)
    return tuple(
        perturbed(kind(2, DIM, HEADS, HIDDEN, manifold=manifold, **options))
        for kind in (LorentzTransformerEncoder, LorentzTransformerDecoder)
    )


@pytest.mark.parametrize("rotary_base", [None, 100.0])
def test_step_by_step_is_all_at_once(rotary_base: float | None) -> None:
    encoder, decoder = stacks(rotary_base=rotary_base)
    x, memory = points(2, 6, DIM), points(2, 4, DIM, seed=1)
    caches, pairs = encoder.new_cache(2, 6), decoder.new_cache(2, 6, 4)
    with torch.no_grad():
        steps = [encoder(x[:, i : i + 1], is_causal=True, caches=caches) for i in range(6)]
        torch.testing.assert_close(torch.cat(steps, 1), encoder(x, is_causal=True), rtol=1e-12, atol=1e-12)
        steps = [decoder(x[:, i:j], memory, caches=pairs) for i, j in ((0, 3), (3, 4), (4, 6))]
        torch.testing.assert_close(torch.cat(steps, 1), decoder(x, memory), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="got 1 caches for 2 layers"):
        encoder(x, caches=caches[:1])


def test_padding_and_the_future_do_not_change_a_token() -> None:
    encoder, decoder = stacks()
    x, memory = points(2, 6, DIM), points(2, 4, DIM, seed=1)
    tokens, theirs = torch.arange(6) < 4, torch.arange(4) < 3
    padding, memory_padding = tokens.expand(2, 6), theirs.expand(2, 4)
    other, other_memory = x.clone(), memory.clone()
    other[:, 4:], other_memory[:, 3:] = points(2, 2, DIM, seed=5), points(2, 1, DIM, seed=6)
    for stack, given in (
        (encoder, {"key_padding_mask": padding}),
        (encoder, {"is_causal": True}),
    ):
        torch.testing.assert_close(stack(x, **given)[:, :4], stack(other, **given)[:, :4], rtol=0, atol=1e-13)
        assert not torch.allclose(stack(x)[:, :4], stack(other)[:, :4])
    masked = {"memory_padding_mask": memory_padding}
    torch.testing.assert_close(
        decoder(x, memory, **masked)[:, :4], decoder(other, other_memory, **masked)[:, :4], rtol=0, atol=1e-13
    )
    torch.testing.assert_close(
        decoder(x, memory, key_padding_mask=padding, is_causal=False)[:, :4],
        decoder(other, memory, key_padding_mask=padding, is_causal=False)[:, :4],
        rtol=0,
        atol=1e-13,
    )


def test_weights_and_points_of_every_layer_can_be_seen() -> None:
    encoder, decoder = stacks()
    x, memory = points(2, 3, DIM), points(2, 4, DIM, seed=1)
    seen: dict[str, list[Any]] = {name: [] for name in ("hidden_states", "attentions", "cross_attentions")}
    y = decoder(x, encoder(memory), seen=seen, need_weights=True)
    torch.testing.assert_close(y, decoder(x, encoder(memory)), rtol=1e-12, atol=1e-12)
    assert [t.shape for t in seen["attentions"]] == [(2, HEADS, 3, 3)] * 2
    assert [t.shape for t in seen["cross_attentions"]] == [(2, HEADS, 3, 4)] * 2
    assert torch.equal(seen["hidden_states"][0], x) and torch.equal(seen["hidden_states"][-1], y)
    assert len(seen["hidden_states"]) == 3
    for weights in seen["attentions"]:
        assert not weights.triu(1).any() and torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))


def gradients(stack: nn.Module, *inputs: Tensor) -> list[Tensor]:
    stack.zero_grad()
    stack(*inputs).sin().sum().backward()
    return [p.grad.clone() for p in stack.parameters()]


def test_computing_layers_again_gives_the_same_gradients() -> None:
    encoder, decoder = stacks()
    x, memory = points(2, 3, DIM), points(2, 4, DIM, seed=1)
    for stack, inputs in ((encoder, (x,)), (decoder, (x, memory))):
        want = gradients(stack, *inputs)
        stack.gradient_checkpointing = True
        calls = []
        handle = stack.layers[0].register_forward_pre_hook(lambda *_, seen=calls: seen.append(1))
        got = gradients(stack, *inputs)
        handle.remove()
        assert len(calls) == 2
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    with pytest.raises(ValueError, match="train without caches"):
        encoder(x, caches=encoder.new_cache(2, 3))


@pytest.mark.parametrize("kind", [LorentzTransformerEncoder, LorentzTransformerDecoder])
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
@pytest.mark.parametrize("time_columns", [False, True])
def test_the_flat_limit_is_the_twin(kind: type[nn.Module], norm: str, time_columns: bool) -> None:
    """With the twin's weights the difference falls as 1 / k, and with time columns beside them as 1 / sqrt(k)."""
    flat = perturbed(kind(2, DIM, HEADS, HIDDEN, manifold=Euclidean(), norm=norm))
    x, memory = points(2, 5, DIM)[..., 1:], points(2, 4, DIM, seed=1)[..., 1:]
    others = (memory,) if kind is LorentzTransformerDecoder else ()
    want, state, errors = flat(x, *others), flat.state_dict(), []
    for k in (1e4, 1e6, 1e8):
        manifold = Lorentz(k)
        # The twin's hidden points have the parameters of the time columns: take as many coordinates.
        bent = perturbed(kind(2, DIM, HEADS, flat.layers[0].dim_feedforward, manifold=manifold, norm=norm), seed=9)
        for name, parameter in bent.named_parameters():
            space = parameter.data if parameter.shape == state[name].shape else parameter.data[:, 1:]
            space.copy_(state[name])
            if space.shape != parameter.shape and not time_columns:
                parameter.data[:, 0] = 0
        got = bent(manifold.lift(x), *(manifold.lift(m) for m in others))[..., 1:]
        errors.append((got - want).detach().abs().max().item())
    falls = 10 if time_columns else 100
    assert errors[2] < (2e-2 if time_columns else 1e-6)  # the products of times are 1e8: their rounding is part of it
    assert errors[0] / errors[1] == pytest.approx(falls, rel=0.2)


@pytest.mark.parametrize("dim", [33, 65, 257])
@pytest.mark.parametrize("kind", [LorentzTransformerEncoderLayer, LorentzTransformerDecoderLayer])
def test_the_twin_has_as_many_parameters(dim: int, kind: type[nn.Module]) -> None:
    counts = [
        sum(p.numel() for p in kind(dim, 4, manifold=manifold).parameters()) for manifold in (Lorentz(), Euclidean())
    ]
    assert abs(counts[1] / counts[0] - 1) < 0.01


@pytest.mark.parametrize("manifold", [Lorentz(), Euclidean()], ids=["lorentz", "flat"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_sixteen_layers_have_finite_gradients_of_one_size(manifold: Any, norm: str) -> None:
    torch.manual_seed(0)
    encoder = LorentzTransformerEncoder(16, 33, 4, manifold=manifold, norm=norm)
    y = encoder(manifold.lift(torch.randn(2, 7, 32)))
    assert torch.isfinite(y).all()
    y.sin().sum().backward()
    sizes = []
    for layer in encoder.layers:
        grads = [p.grad for p in layer.parameters()]
        assert all(torch.isfinite(g).all() for g in grads)
        sizes.append(float(sum(g.square().sum() for g in grads)) ** 0.5)
    assert max(sizes) < 100 * min(sizes)


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_every_result_is_on_the_hyperboloid_and_k_is_learned(k: float, norm: str) -> None:
    manifold = Lorentz(k, learnable=True)
    torch.manual_seed(0)
    model = LorentzTransformerEncoder(2, 33, 4, manifold=manifold, norm=norm)
    pool = LorentzPooling(manifold=manifold)
    x = manifold.lift(torch.randn(2, 7, 32)).detach()
    report = check_manifold(nn.Sequential(model, pool), x, on_failure="report")
    assert report.failures == [] and report.mismatches == [] and report.strangers == []
    assert {"0.layers.0.up", "0.layers.1.attention.out", "0.layers.1", "1"} <= set(report.layers)
    pool(model(x))[..., 1:].sum().backward()
    assert manifold.rho is not None and manifold.rho.grad is not None and float(manifold.rho.grad) != 0


def test_dropout_is_on_space_coordinates_and_only_in_training() -> None:
    layer = LorentzTransformerEncoderLayer(DIM, HEADS, manifold=Lorentz(), dropout=0.5, attention_dropout=0.5)
    x = points(2, 3, DIM).float()
    assert check_manifold(layer, x).failures == []
    layer.train()
    y = layer(x)
    assert not torch.equal(y, layer(x)) and residual(y) < 1e-6
    layer.eval()
    plain = copy.deepcopy(layer)
    plain.attention.dropout = plain.attention.out.dropout = plain.down.dropout = 0.0
    assert torch.equal(layer(x), plain.train()(x))


@pytest.mark.parametrize("kind", ["centroid", "first"])
@pytest.mark.parametrize("manifold", [Lorentz(2.0), Euclidean()], ids=["lorentz", "flat"])
def test_pooling_sees_tokens_only(kind: str, manifold: Any) -> None:
    pool = LorentzPooling(kind, manifold=manifold)
    x = manifold.lift(torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    y = pool(x, key_padding_mask=mask)
    alone = [x[0], x[1, 1:3]]
    for got, tokens in zip(y, alone, strict=False):
        want = tokens[0] if kind == "first" else manifold.centroid(tokens)
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)
    assert torch.equal(y[2], manifold.lift(torch.zeros(4, dtype=torch.float64)))
    torch.testing.assert_close(pool(x)[0], y[0], rtol=1e-14, atol=1e-14)
    for given in (None, mask[:, :0]):  # sequences of no length
        assert torch.equal(pool(x[:, :0], key_padding_mask=given), y[2].expand(3, -1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "before"}, "'pre', 'post', 'none'; got 'before'"),
        ({"variant": "free"}, "got 'free'"),
        ({"dim_feedforward": 1}, "at least 2, got 1"),
        ({"num_heads": 3}, "The next dim that fits is 10"),
        ({"dropout": 1.0}, r"\[0, 1\), got 1.0"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    options = {"num_heads": HEADS, "manifold": Lorentz(), **arguments}
    with pytest.raises(ValueError, match=message):
        LorentzTransformerEncoderLayer(DIM, options.pop("num_heads"), **options)
    with pytest.raises(TypeError, match=r"lorentz.flat.Euclidean\(\) for the flat twin; got 'lorentz'"):
        inspect.unwrap(geometry_of)("lorentz")


def test_the_twin_names_a_wrong_size() -> None:
    flat = LorentzTransformerDecoderLayer(DIM, HEADS, manifold=Euclidean())
    with pytest.raises(ValueError, match="points of 8 coordinates, and got a memory of 9"):
        flat(torch.randn(2, 3, 8), torch.randn(2, 3, 9))


@pytest.mark.compiled
@pytest.mark.parametrize("manifold", [Lorentz(), Euclidean()], ids=["lorentz", "flat"])
def test_encoders_and_decoders_compile_in_one_graph(manifold: Any) -> None:
    torch.manual_seed(0)
    encoder = LorentzTransformerEncoder(2, 33, 4, manifold=manifold)
    decoder = LorentzTransformerDecoder(2, 33, 4, manifold=manifold)
    x, memory = manifold.lift(torch.randn(2, 7, 32)), manifold.lift(torch.randn(2, 5, 32))
    mask = torch.arange(7).expand(2, 7) < 5
    for stack, inputs in ((encoder, (x,)), (decoder, (x, memory))):
        compiled = torch.compile(stack, fullgraph=True, backend="aot_eager")
        got, want = (call(*inputs, key_padding_mask=mask) for call in (compiled, stack))
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
