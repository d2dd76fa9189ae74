"""Prefix tuning: against attention written out, with the prefix's keys and values before those of the input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import deltas
from lorentz import Lorentz, LorentzMultiheadAttention

from .backbones import backbone, result
from .models import batch, build

N = 3
Pairs = list[tuple[Tensor, Tensor]]


def prefixes(handle: deltas.Handle) -> Pairs:
    """Keys and values of every layer, made large."""
    with torch.no_grad():
        for tensor in handle.parts().values():
            tensor.normal_()
    parts: list[Any] = [site.part for site in handle.sites if site.kind == "attention"]
    return [(part.key.detach(), part.value.detach()) for part in parts]


def heads(x: Tensor, count: int) -> Tensor:
    return x.view(*x.shape[:-1], count, -1).transpose(-3, -2)


def attention(q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor], seen: Tensor, **bias: Any) -> Tensor:
    """(batch, S, size) from heads (batch, heads, S, size); every query sees the prefix, and the keys that `seen` allows."""
    groups = q.shape[1] // k.shape[1]
    pk, pv = (heads(p, k.shape[1]).expand(len(q), -1, -1, -1) for p in prefix)
    k, v = (torch.cat(pair, 2).repeat_interleave(groups, 1) for pair in ((pk, k), (pv, v)))
    scores = q @ k.mT * bias.get("scale", q.shape[-1] ** -0.5)
    if "added" in bias:
        scores[..., N:] += bias["added"]
    seen = torch.cat([torch.ones(*seen.shape[:-1], N, dtype=torch.bool), seen], -1)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def bert(model: Any, inputs: dict[str, Tensor], pairs: Pairs) -> Tensor:
    seen = inputs["attention_mask"].bool()[:, None, None]
    x = model.bert.embeddings(inputs["input_ids"])
    for layer, pair in zip(model.bert.encoder.layer, pairs, strict=True):
        own = layer.attention.self
        q, k, v = (heads(f(x), 4) for f in (own.query, own.key, own.value))
        x = layer.attention.output(attention(q, k, v, pair, seen), x)
        x = layer.output(layer.intermediate(x), x)
    return model.classifier(model.bert.pooler(x))


def causal(mask: Tensor) -> Tensor:
    size = mask.shape[1]
    return torch.ones(size, size, dtype=torch.bool).tril() & mask.bool()[:, None, None]


def gpt2(model: Any, inputs: dict[str, Tensor], pairs: Pairs) -> Tensor:
    body, ids = model.transformer, inputs["input_ids"]
    x = body.wte(ids) + body.wpe(torch.arange(ids.shape[1]))
    for block, pair in zip(body.h, pairs, strict=True):
        q, k, v = (heads(t, 4) for t in block.attn.c_attn(block.ln_1(x)).split(32, -1))
        x = x + block.attn.c_proj(attention(q, k, v, pair, causal(inputs["attention_mask"])))
        x = x + block.mlp(block.ln_2(x))
    return model.lm_head(body.ln_f(x))


def llama(model: Any, inputs: dict[str, Tensor], pairs: Pairs) -> Tensor:
    body, ids = model.model, inputs["input_ids"]
    x = body.embed_tokens(ids)
    turn = body.rotary_emb(x, position_ids=torch.arange(ids.shape[1])[None])
    for layer, pair in zip(body.layers, pairs, strict=True):
        own, h = layer.self_attn, layer.input_layernorm(x)
        q, k, v = heads(own.q_proj(h), 4), heads(own.k_proj(h), 2), heads(own.v_proj(h), 2)
        q, k = apply_rotary_pos_emb(q, k, *turn)
        x = x + own.o_proj(attention(q, k, v, pair, causal(inputs["attention_mask"])))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(body.norm(x))


def t5_stack(stack: Any, ids: Tensor, seen: Tensor, pairs: Pairs, memory: Tensor | None, padding: Tensor) -> Tensor:
    x = stack.embed_tokens(ids)
    size = ids.shape[1]
    added = stack.block[0].layer[0].SelfAttention.compute_bias(size, size)
    there = iter(pairs)  # of every layer that of its own attention, then that of its cross-attention
    for block in stack.block:
        pair = next(there)
        own, h = block.layer[0].SelfAttention, block.layer[0].layer_norm(x)
        q, k, v = (heads(f(h), 4) for f in (own.q, own.k, own.v))
        x = x + own.o(attention(q, k, v, pair, seen, scale=1.0, added=added))
        if memory is not None:
            cross, h = block.layer[1].EncDecAttention, block.layer[1].layer_norm(x)
            q, k, v = heads(cross.q(h), 4), heads(cross.k(memory), 4), heads(cross.v(memory), 4)
            x = x + cross.o(attention(q, k, v, next(there), padding, scale=1.0))
        x = block.layer[-1](x)
    return stack.final_layer_norm(x)


def t5(model: Any, inputs: dict[str, Tensor], pairs: Pairs) -> Tensor:
    padding, target = inputs["attention_mask"].bool()[:, None, None], inputs["decoder_input_ids"]
    memory = t5_stack(model.encoder, inputs["input_ids"], padding, pairs[4:], None, padding)
    seen = causal(torch.ones_like(target))
    x = t5_stack(model.decoder, target, seen, pairs[:4], memory, padding)
    return model.lm_head(x * (model.model_dim**-0.5 if model.config.scale_decoder_outputs else 1))


REFERENCES = {"bert": bert, "gpt2": gpt2, "llama": llama, "t5": t5}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["none", "ones", "padded"])
@pytest.mark.parametrize("family", REFERENCES)
def test_is_attention_to_keys_and_values_before_those_of_the_input(family: str, kind: str, implementation: str) -> None:
    model = build(family, attn_implementation=implementation).double()
    inputs = batch(family, padded=kind == "padded")
    handle = deltas.attach(model, deltas.PrefixTuning(length=N))
    pairs = prefixes(handle)
    given = {key: x for key, x in inputs.items() if kind != "none" or key != "attention_mask"}
    with torch.no_grad():
        found = model(**given).logits
        handle.detach()
        expected = REFERENCES[family](model, inputs, pairs)
        assert (model(**given).logits - expected).abs().max() > 1e-3
    if kind == "padded" and family in ("gpt2", "llama"):
        seen = inputs["attention_mask"].bool()
        found, expected = found[seen], expected[seen]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_one_query_sees_the_whole_prefix() -> None:
    model, inputs = build("gpt2").double(), batch("gpt2", length=1)
    pairs = prefixes(handle := deltas.attach(model, deltas.PrefixTuning(length=N)))
    with torch.no_grad():
        found = model(**inputs).logits
        handle.detach()
        torch.testing.assert_close(found, gpt2(model, inputs, pairs), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_generation_with_a_cache_is_that_without(family: str) -> None:
    model, inputs = build(family), batch(family)
    prefixes(deltas.attach(model, deltas.PrefixTuning(length=N)))
    inputs.pop("decoder_input_ids", None)
    inputs["attention_mask"][1, :2] = 0
    options: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "output_logits": True}
    found = [
        model.generate(**inputs, **options, use_cache=cache, return_dict_in_generate=True) for cache in (True, False)
    ]
    assert torch.equal(found[0].sequences, found[1].sequences)
    torch.testing.assert_close(found[0].logits, found[1].logits, atol=2e-5, rtol=2e-5)


def test_an_input_of_512_tokens() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    model = tf.BertModel(tf.BertConfig(vocab_size=20, **sizes)).eval()
    ids = torch.randint(0, 20, (1, 512))
    handle = deltas.attach(model, deltas.PrefixTuning(length=20))
    assert model(ids).last_hidden_state.shape == (1, 512, 8)
    handle.detach()
    deltas.attach(model, deltas.PrefixTuning(length=20, positions="shifted"))
    with pytest.raises(deltas.DeltaError, match="512 tokens moved by 20 positions pass the 512"):
        model(ids)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
def test_shifted_positions_are_those_behind_the_prefix(family: str) -> None:
    model, inputs = build(family), batch(family)
    shifted = deltas.attach(model, deltas.PrefixTuning(length=N, positions="shifted"), name="one")
    prefixes(shifted)
    places = torch.arange(7)[None] + N + (2 if family == "roberta" else 0)
    with torch.no_grad():
        found = model(**inputs).logits
        values = [t.clone() for t in shifted.parts().values()]
        shifted.detach()
        kept = deltas.attach(model, deltas.PrefixTuning(length=N), name="one")
        for tensor, value in zip(kept.parts().values(), values, strict=True):
            tensor.copy_(value)
        assert torch.equal(found, model(**inputs, position_ids=places).logits)
        assert not torch.allclose(found, model(**inputs).logits, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("k", [0.5, 2.0])
def test_on_the_hyperboloid_it_is_the_centroid_of_points(k: float, masked: bool) -> None:
    torch.manual_seed(0)
    manifold = Lorentz(k=k)
    layer: Any = LorentzMultiheadAttention(9, 2, manifold=manifold).double()
    model = nn.ModuleDict({"a": layer})
    pairs = prefixes(deltas.attach(model, deltas.PrefixTuning(length=N), host={"attention": "a"}))
    x = manifold.lift(torch.randn(2, 5, 8, dtype=torch.float64))
    seen = torch.ones(2, 5, dtype=torch.bool)
    seen[1, 3:] = not masked

    def lifted(space: Tensor) -> Tensor:
        return torch.cat([(k + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return a[..., 1:] @ b[..., 1:].mT - a[..., :1] @ b[..., :1].mT

    q, keys, values = (lifted(heads(x @ f.weight.T + f.bias, 2)) for f in (layer.query, layer.key, layer.value))
    pk, pv = (lifted(heads(p.double(), 2)).expand(2, -1, -1, -1) for p in pairs[0])
    keys, values = torch.cat([pk, keys], 2), torch.cat([pv, values], 2)
    squared = -2 * k - 2 * inner(q, keys)
    mask = torch.cat([torch.ones(2, N, dtype=torch.bool), seen], 1)[:, None, None]
    weights = (-squared / layer.log_scale.exp()).masked_fill(~mask, -torch.inf).softmax(-1)
    a = weights @ values
    norm = (a[..., :1].square() - a[..., 1:].square().sum(-1, keepdim=True)).sqrt()
    points = k**0.5 * a / norm
    merged = lifted(points[..., 1:].transpose(1, 2).flatten(2))
    expected = lifted(merged @ layer.out.weight.T + layer.out.bias)
    found = layer(x, key_padding_mask=seen if masked else None)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found[..., 0] ** 2 - found[..., 1:].square().sum(-1), torch.full((2, 5), k).double())


def test_a_prefix_of_the_user_is_not_overwritten() -> None:
    model = backbone("lorentz")
    attention: Any = next(m for m in model.modules() if hasattr(m, "prefix") and hasattr(m, "head_size"))
    tokens = torch.full((1, attention.num_heads * attention.head_size), 0.1)
    attention.prefix = own = lambda query: (tokens, tokens, None)
    want = result(model, "lorentz")
    with pytest.raises(deltas.DeltaError, match=r"attention\.prefix of its own"):
        deltas.attach(model, deltas.PrefixTuning(length=2))
    assert attention.prefix is own
    assert not deltas.handles(model) and not any("deltas" in path for path, _ in model.named_modules())
    torch.testing.assert_close(result(model, "lorentz"), want, rtol=0, atol=0)


def test_no_token_sees_a_later_one_in_a_static_cache() -> None:
    """At the prefill the cache has empty places behind the last token, and transformers gives no mask."""
    model = build("llama")
    handle = deltas.attach(model, deltas.PrefixTuning(length=N))
    prefixes(handle)
    ids = batch("llama", rows=1)["input_ids"]
    other = ids.clone()
    other[0, -1] += 1
    found = []
    for cache in (tf.StaticCache, tf.DynamicCache):
        for given in (ids, other):
            held = cache(config=model.config, **({"max_cache_len": 12} if cache is tf.StaticCache else {}))
            with torch.no_grad():
                found.append(model(input_ids=given, past_key_values=held).logits)
    torch.testing.assert_close(found[0][:, :-1], found[1][:, :-1], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-5)
    assert not torch.allclose(found[0][:, -1], found[1][:, -1])
