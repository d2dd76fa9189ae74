"""Gated tokens, gated combinations and mix-and-match adapters, written out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import deltas
from lorentz import Lorentz, LorentzMultiheadAttention

from .models import batch, build
from .test_prefix import attention, causal, heads

N = 3


def stir(handle: deltas.Handle) -> None:
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in handle.parts().values():
            parameter.add_(torch.randn_like(parameter) * 0.5)


def second(q: Tensor, prompt: Tensor, key: nn.Module, value: nn.Module, count: int) -> Tensor:
    """(batch, S, size) of attention to the tokens alone."""
    groups = q.shape[1] // count
    k, v = (heads(f(prompt), count).repeat_interleave(groups, 0) for f in (key, value))
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def test_a_gated_softmax_beside_that_of_the_layer() -> None:
    model, inputs = build("bert").double(), batch("bert", padded=True)
    handle = deltas.attach(model, deltas.LLaMAAdapter(length=N, depth=1))
    stir(handle)
    (site,) = handle.sites
    assert site.path == "bert.encoder.layer.1.attention.self"
    part: Any = site.part
    with torch.no_grad():
        found = model(**inputs).logits
        handle.detach()
        seen = inputs["attention_mask"].bool()[:, None, None]
        x = model.bert.embeddings(inputs["input_ids"])
        for number, layer in enumerate(model.bert.encoder.layer):
            own = layer.attention.self
            q, k, v = (heads(f(x), 4) for f in (own.query, own.key, own.value))
            weights = (q @ k.mT * 8**-0.5).masked_fill(~seen, -torch.inf).softmax(-1)
            a = (weights @ v).transpose(1, 2).flatten(2)
            if number == 1:
                a = a + part.gate * second(q, part.prompt, own.key, own.value, 4)
            x = layer.attention.output(a, x)
            x = layer.output(layer.intermediate(x), x)
        torch.testing.assert_close(found, model.classifier(model.bert.pooler(x)), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_of_rotated_queries_and_fewer_heads_of_keys(implementation: str) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    model, inputs = build("llama", attn_implementation=implementation).double(), batch("llama")
    handle = deltas.attach(model, deltas.LLaMAAdapter(length=N))
    stir(handle)
    parts: list[Any] = [site.part for site in handle.sites]
    with torch.no_grad():
        found = model(**inputs).logits
        handle.detach()
        body = model.model
        x = body.embed_tokens(inputs["input_ids"])
        turn = body.rotary_emb(x, position_ids=torch.arange(7)[None])
        for layer, part in zip(body.layers, parts, strict=True):
            own, h = layer.self_attn, layer.input_layernorm(x)
            q, k, v = heads(own.q_proj(h), 4), heads(own.k_proj(h), 2), heads(own.v_proj(h), 2)
            q, k = apply_rotary_pos_emb(q, k, *turn)
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            seen = causal(inputs["attention_mask"])
            weights = (q @ k.mT * 8**-0.5).masked_fill(~seen, -torch.inf).softmax(-1)
            a = (weights @ v).transpose(1, 2).flatten(2)
            x = x + own.o_proj(a + part.gate * second(q, part.prompt, own.k_proj, own.v_proj, 2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        torch.testing.assert_close(found, model.lm_head(body.norm(x)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_nothing_changes_at_first_and_the_gate_learns_first(family: str) -> None:
    model, inputs = build(family), batch(family)
    with torch.no_grad():
        before = model(**inputs).logits
    handle = deltas.attach(model, deltas.LLaMAAdapter(length=N))
    after = model(**inputs).logits
    assert torch.equal(before, after)
    after.square().sum().backward()
    for site in handle.sites:
        part: Any = site.part
        assert part.gate.grad.abs().item() > 0
        assert part.prompt.grad is None or not part.prompt.grad.any()


def test_generation_with_a_cache_is_that_without() -> None:
    model, inputs = build("llama"), batch("llama")
    stir(deltas.attach(model, deltas.LLaMAAdapter(length=N)))
    found = [model.generate(**inputs, max_new_tokens=5, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*found)


def test_on_the_hyperboloid_a_second_centroid_is_added_before_the_lift() -> None:
    torch.manual_seed(0)
    k, manifold = 2.0, Lorentz(k=2.0)
    layer: Any = LorentzMultiheadAttention(9, 2, manifold=manifold).double()
    roles = {"attention": "a", "attention.key": "a.key", "attention.value": "a.value"}
    handle = deltas.attach(nn.ModuleDict({"a": layer}), deltas.LLaMAAdapter(length=N), host=roles)
    stir(handle)
    part: Any = handle.sites[0].part
    x = manifold.lift(torch.randn(2, 5, 8, dtype=torch.float64))

    def lifted(space: Tensor) -> Tensor:
        return torch.cat([(k + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)

    def centroids(keys: Tensor, values: Tensor) -> Tensor:
        q = lifted(heads(x @ layer.query.weight.T + layer.query.bias, 2))
        inner = q[..., 1:] @ keys[..., 1:].mT - q[..., :1] @ keys[..., :1].mT
        a = (2 * inner / layer.log_scale.exp()).softmax(-1) @ values
        norm = (a[..., :1].square() - a[..., 1:].square().sum(-1, keepdim=True)).sqrt()
        return (k**0.5 * a / norm)[..., 1:].transpose(1, 2).flatten(2)

    def of(points: Tensor) -> tuple[Tensor, Tensor]:
        key, value = (lifted(heads(points @ f.weight.T + f.bias, 2)) for f in (layer.key, layer.value))
        return key, value

    u = centroids(*of(x)) + part.gate * centroids(*of(lifted(part.prompt.double())))
    expected = lifted(lifted(u) @ layer.out.weight.T + layer.out.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-10, rtol=1e-10)


def gate(x: Tensor, weight: Tensor) -> Tensor:
    return torch.sigmoid(x @ weight.T).mean(1, keepdim=True)


def test_three_parts_each_behind_a_gate_of_the_input() -> None:
    model, inputs = build("bert").double(), batch("bert")
    handle = deltas.attach(model, deltas.UniPELT(bottleneck=4, length=N, rank=2, alpha=3.0))
    stir(handle)
    parts: dict[str, Any] = {f"{site.path} {site.kind}": site.part for site in handle.sites}
    with torch.no_grad():
        found = model(**inputs).logits
        alone = model(inputs["input_ids"][1:]).logits
        handle.detach()
        x = model.bert.embeddings(inputs["input_ids"])
        seen = torch.ones(2, 1, 1, 7, dtype=torch.bool)
        for number, layer in enumerate(model.bert.encoder.layer):
            path, own = f"bert.encoder.layer.{number}", layer.attention.self
            changed = {}
            for name in ("query", "value"):
                lora = parts[f"{path}.attention.self.{name} linear"]
                change = 1.5 * x @ lora.A.T @ lora.B.T
                changed[name] = getattr(own, name)(x) + gate(x, lora.gate.weight) * change
            prefix = parts[f"{path}.attention.self attention"]
            open_ = gate(x, prefix.gate.weight)
            q, k, v = heads(changed["query"], 4), heads(own.key(x), 4), heads(changed["value"], 4)
            rows = [
                attention(
                    q[i : i + 1], k[i : i + 1], v[i : i + 1], (open_[i] * prefix.key, open_[i] * prefix.value), seen[:1]
                )
                for i in range(2)
            ]
            x = layer.attention.output(torch.cat(rows), x)
            h = layer.output.dense(layer.intermediate(x))
            adapter = parts[f"{path}.output.dense linear"]
            inner = adapter.bottleneck
            low = torch.relu(h @ inner.down.T + inner.down_bias)
            h = h + gate(x, adapter.gate.weight) * (low @ inner.up.T + inner.up_bias)
            x = layer.output.LayerNorm(h + x)
        torch.testing.assert_close(found, model.classifier(model.bert.pooler(x)), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(alone, found[1:], atol=1e-9, rtol=1e-9)  # one gate an example


def test_parts_of_the_three_may_be_left_out() -> None:
    counts = {}
    for left in ("bottleneck", "length", "rank"):
        spec = deltas.UniPELT(**{left: None})
        counts[left] = deltas.plan(build("bert"), spec).parameters
    both = {
        "bottleneck": 2 * (2 * 16 * 32 + 16 + 32 + 32),
        "length": 2 * (2 * 10 * 32 + 32),
        "rank": 4 * (2 * 8 * 32 + 32),
    }
    for left, count in counts.items():
        assert count == sum(both.values()) - both[left]
    with pytest.raises(deltas.DeltaError, match="is nothing"):
        deltas.UniPELT(bottleneck=None, length=None, rank=None)
    with pytest.raises(deltas.DeltaError, match="LoRA cannot change that layer"):
        deltas.UniPELT(roles=("ffn.up",))


def test_mix_and_match_is_a_prefix_and_a_scaled_parallel_adapter() -> None:
    found = deltas.mam(length=5, bottleneck=8, layers=(1,))
    assert found.methods == (
        deltas.PrefixTuning(length=5, layers=(1,)),
        deltas.ParallelAdapter(bottleneck=8, scale=4.0, activation="relu", roles=("ffn.down",), layers=(1,)),
    )
    model, inputs = build("bert"), batch("bert")
    handle = deltas.attach(model, found)
    assert handle.count() == 2 * 5 * 32 + 2 * 8 * 32 + 8 + 32
    model(**inputs).logits.sum().backward()


def test_what_does_not_fit() -> None:
    with pytest.raises(deltas.DeltaError, match="depth=3, but bert has 2 attention layers"):
        deltas.attach(build("bert"), deltas.LLaMAAdapter(depth=3))
    with pytest.raises(deltas.DeltaError, match="layers or a depth"):
        deltas.LLaMAAdapter(depth=1, layers=(0,))


@pytest.mark.parametrize("other", [deltas.PrefixTuning(length=2), deltas.UniPELT()])
def test_gated_and_other_tokens_in_one_layer_are_refused_before_anything_runs(other: deltas.Delta) -> None:
    model, spec = build("bert"), deltas.LLaMAAdapter(length=2)
    for refused in (spec + other, other + spec):
        for use in (deltas.plan, deltas.attach):
            with pytest.raises(deltas.DeltaError, match="both give tokens to"):
                use(model, refused)
    first = deltas.attach(model, spec, name="first", heads=())
    with pytest.raises(deltas.DeltaError, match="both give tokens to"):
        deltas.attach(model, other, name="second", heads=())
    first.disable()
    second = deltas.attach(model, other, name="second", heads=())
    with pytest.raises(deltas.DeltaError, match="both give tokens to"):
        first.enable()
    second.detach()
    first.enable()
    assert model(**batch("bert")).logits.isfinite().all()
    first.detach()
    apart = deltas.LLaMAAdapter(length=2, layers=(0,)) + deltas.PrefixTuning(length=2, layers=(1,))
    assert deltas.check(model, apart, batch("bert"))


def test_an_attention_implementation_without_place_for_tokens_is_refused_in_the_plan() -> None:
    model = build("bert")
    model.config._attn_implementation = "flex_attention"
    for use in (deltas.plan, deltas.attach):
        with pytest.raises(deltas.DeltaError, match=r"'flex_attention'; tokens before the keys work with 'sdpa'"):
            use(model, deltas.PrefixTuning(length=2))


def test_what_is_offered_instead_of_tokens_can_be_had() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    second = tf.DebertaV2Model(tf.DebertaV2Config(vocab_size=20, **sizes))
    for model in (second, tf.DebertaModel(tf.DebertaConfig(vocab_size=20, **sizes))):
        with pytest.raises(deltas.DeltaError, match=r"can be attached \(Adapter, BitFit\)"):
            deltas.attach(model, deltas.PromptTuning())
        deltas.attach(model, deltas.Adapter() + deltas.BitFit())


def test_a_pickled_model_with_tokens_is_read_by_a_fresh_process(tmp_path: Path) -> None:
    model = build("bert")
    stir(deltas.attach(model, deltas.PrefixTuning(length=2)))
    torch.save((model, batch("bert"), model(**batch("bert")).logits), tmp_path / "model.pt")
    code = (
        "import sys, torch\nmodel, batch, want = torch.load(sys.argv[1], weights_only=False)\n"
        "assert torch.equal(model(**batch).logits, want)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pt")], check=True)
