"""Tokens of the input: against the backbone's own modules put together by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

import deltas
from deltas.methods.prompt import embedded

from .models import batch, build

N = 3
TEXT = ("bert", "roberta", "gpt2", "llama", "t5", "bart", "lorentz")


def prompt_of(handle: deltas.Handle) -> Tensor:
    (prompt,) = (t for key, t in handle.parts().items() if key.endswith(":prompt"))
    with torch.no_grad():
        prompt.normal_(0, 0.5)
    return prompt.detach().clone()


def longer(mask: Tensor) -> Tensor:
    return torch.cat([torch.ones(len(mask), N, dtype=mask.dtype), mask], 1)


def additive(mask: Tensor) -> Tensor:
    return (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min


def by_hand(family: str, model: Any, inputs: dict[str, Tensor], prompt: Tensor) -> Tensor:
    """Logits of the model's modules called one by one, with the tokens between them."""
    first = prompt.expand(2, *prompt.shape)
    if family == "vit":
        vit = model.vit
        x = vit.embeddings(inputs["pixel_values"])
        x = torch.cat([x[:, :1], first, x[:, 1:]], 1)
        for layer in vit.layers:
            x = layer(x, None)
        return model.classifier(vit.layernorm(x)[:, 0])
    ids, mask = inputs["input_ids"], longer(inputs["attention_mask"])
    if family in ("bert", "roberta"):
        body = model.base_model
        x = torch.cat([first, body.embeddings(input_ids=ids)], 1)
        x = body.encoder(x, attention_mask=additive(mask)).last_hidden_state[:, N:]
        if family == "roberta":
            return model.classifier(x)
        return model.classifier(body.pooler(x))
    if family == "gpt2":
        places = torch.cat([torch.zeros(N, dtype=torch.long), torch.arange(ids.shape[1])])[None]
        x = torch.cat([first - model.transformer.wpe.weight[0], model.transformer.wte(ids)], 1)
        return model(inputs_embeds=x, attention_mask=mask, position_ids=places).logits[:, N:]
    if family == "llama":
        x = torch.cat([first, model.model.embed_tokens(ids)], 1)
        return model(inputs_embeds=x, attention_mask=mask).logits[:, N:]
    if family == "lorentz":
        encoder, manifold = model.model.encoder, model.model.manifold
        x = torch.cat([manifold.lift(first), encoder.embeddings(ids)], 1)
        x = encoder.stack(x, key_padding_mask=mask.bool())[:, N:]
        x = model.pooling(x, key_padding_mask=inputs["attention_mask"].bool())
        return model.classifier(model.norm(x))
    if family == "t5":
        x = model.encoder(inputs_embeds=torch.cat([first, model.encoder.embed_tokens(ids)], 1), attention_mask=mask)[0]
    else:
        encoder = model.model.encoder
        words = encoder.embed_tokens(ids)
        x = torch.cat([first, words + encoder.embed_positions(ids)], 1)
        x = encoder.layernorm_embedding(x)
        for layer in encoder.layers:
            x = layer(x, additive(mask))
    states = tf.modeling_outputs.BaseModelOutput(last_hidden_state=x[:, N:])
    return model(
        encoder_outputs=states, attention_mask=inputs["attention_mask"], decoder_input_ids=inputs["decoder_input_ids"]
    ).logits


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", [*TEXT, "vit"])
def test_equals_the_modules_by_hand(family: str, padded: bool) -> None:
    model, inputs = build(family), batch(family, padded=padded)
    handle = deltas.attach(model, deltas.PromptTuning(length=N))
    prompt = prompt_of(handle)
    with torch.no_grad():
        found = model(**inputs).logits
        handle.detach()
        expected = by_hand(family, model, inputs, prompt)
    seen = inputs.get("attention_mask", torch.ones(1)).bool()
    if found.ndim == 3 and family in ("gpt2", "llama"):
        found, expected = found[seen], expected[seen]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_the_mask_may_be_left_out() -> None:
    for family in ("gpt2", "bert", "lorentz"):
        model, inputs = build(family), batch(family)
        deltas.attach(model, deltas.PromptTuning(length=N, init_std=0.5))
        with torch.no_grad():
            torch.testing.assert_close(model(**inputs).logits, model(inputs["input_ids"]).logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_deep_tokens_replace_those_of_the_layer_before(family: str) -> None:
    model, inputs = build(family), batch(family)
    handle = deltas.attach(model, deltas.VPT(length=N, deep=True))
    prompt = prompt_of(handle)
    assert prompt.shape == (2, N, 32)
    with torch.no_grad():
        found = model(**inputs).logits
        handle.detach()
        body, skip = model.base_model, 1 if family == "vit" else 0
        x = body.embeddings(inputs["pixel_values"] if family == "vit" else inputs["input_ids"])
        layers = body.layers if family == "vit" else body.encoder.layer
        for layer, own in zip(layers, prompt, strict=True):
            x = layer(torch.cat([x[:, :skip], own.expand(2, -1, -1), x[:, skip:]], 1), None)
            x = torch.cat([x[:, :skip], x[:, skip + N :]], 1)
        x = body.layernorm(x) if family == "vit" else x
        expected = model.classifier(x[:, 0] if family == "vit" else body.pooler(x))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_shallow_visual_prompts_are_a_prompt() -> None:
    model, inputs = build("vit"), batch("vit")
    handle = deltas.attach(model, deltas.VPT(length=N, deep=False))
    prompt = prompt_of(handle)
    with torch.no_grad():
        found = model(**inputs).logits
        handle.detach()
        torch.testing.assert_close(found, by_hand("vit", model, inputs, prompt[0]), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("spec", [deltas.PromptTuning(length=N, init_std=0.5), deltas.VPT(length=N, init_std=0.5)])
def test_generation_with_a_cache_is_that_without(family: str, spec: deltas.Delta) -> None:
    model, inputs = build(family), batch(family)
    deltas.attach(model, spec)
    inputs["attention_mask"][1, :2] = 0  # on the left
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "min_new_tokens": 6}
    found = [
        model.generate(**inputs, **options, use_cache=cache, return_dict_in_generate=True) for cache in (True, False)
    ]
    assert torch.equal(found[0].sequences, found[1].sequences)
    torch.testing.assert_close(found[0].logits, found[1].logits, atol=2e-5, rtol=2e-5)
    sequence = found[0].sequences
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 6, dtype=torch.long)], 1)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(sequence, attention_mask=mask, position_ids=places).logits
    torch.testing.assert_close(logits[:, -2], found[0].logits[-1], atol=2e-5, rtol=2e-5)
    beams = [model.generate(**inputs, max_new_tokens=4, num_beams=2, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*beams)


@pytest.mark.parametrize("family", ["t5", "bart", "lorentz-seq2seq"])
def test_generation_of_an_encoder_decoder(family: str) -> None:
    model, inputs = build(family), batch(family)
    del inputs["decoder_input_ids"]
    deltas.attach(model, deltas.PromptTuning(length=N, init_std=0.5))
    found = [model.generate(**inputs, max_new_tokens=4, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*found)


@pytest.mark.parametrize("family", [*TEXT, "vit", "lorentz-seq2seq"])
def test_shapes_outside_are_those_without(family: str) -> None:
    model, inputs = build(family), batch(family)
    asked = {"output_hidden_states": True, "use_cache": False}
    if family in ("vit", "bert", "roberta", "lorentz"):
        del asked["use_cache"]
    with torch.no_grad():
        before = model(**inputs, **asked)
        deltas.attach(model, deltas.PromptTuning(length=N))
        after = model(**inputs, **asked)
    assert list(before) == list(after)
    for key in before:
        one, other = before[key], after[key]
        if isinstance(one, Tensor):
            assert one.shape == other.shape, key
        else:
            assert [t.shape for t in one] == [t.shape for t in other], key


def test_rows_of_attentions_are_those_of_the_input() -> None:
    model, inputs = build("bert", attn_implementation="eager"), batch("bert")
    deltas.attach(model, deltas.PromptTuning(length=N))
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
        plain = model(**inputs, output_attentions=True, return_dict=False)
    assert [tuple(a.shape) for a in output.attentions] == [(2, 4, 7, 7 + N)] * 2
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 4, 7))
    assert torch.equal(plain[0], output.logits) and plain[-1][0].shape == output.attentions[0].shape


@pytest.mark.parametrize("family", [*TEXT, "vit", "lorentz-seq2seq"])
@pytest.mark.parametrize("spec", [deltas.PTuning(length=N, hidden=8), deltas.VPT(length=N)], ids=lambda s: s.name)
def test_gradient_copy_and_removal(family: str, spec: deltas.Delta) -> None:
    model, inputs = build(family), batch(family)
    with torch.no_grad():
        before = model(**inputs).logits
    names = [name for name, _ in model.named_modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    handle = deltas.attach(model, spec)
    assert handle.count() == spec.count(handle.sites[0])
    after = model(**inputs).logits
    after.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in handle.parameters())
    assert (after - before).abs().max() > 1e-4
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in deltas.handles(twin)["default"].parameters():
            p.zero_()
        assert torch.equal(model(**inputs).logits, after)
        assert not torch.equal(twin(**inputs).logits, after)
        with handle.disable():
            assert torch.equal(model(**inputs).logits, before)
        handle.detach()
        assert torch.equal(model(**inputs).logits, before)
    assert names == [name for name, _ in model.named_modules()]
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_an_input_of_full_length_keeps_its_positions() -> None:
    model, inputs = build("bert"), batch("bert", length=64)
    handle = deltas.attach(model, deltas.PromptTuning(length=N))
    assert model(**inputs).logits.shape == (2, 2)
    handle.detach()
    deltas.attach(model, deltas.PromptTuning(length=N, positions="shifted"))
    with pytest.raises(deltas.DeltaError, match="64 tokens moved by 3 positions pass the 64 positions"):
        model(**inputs)


def test_words_to_start_from() -> None:
    model = build("bert")
    handle = deltas.attach(model, deltas.PromptTuning(length=5, words=(7, 9)))
    (prompt,) = handle.parts().values()
    with torch.no_grad():
        rows = torch.cat([model.bert.embeddings(torch.tensor([[i]]))[0] for i in (7, 9, 7, 9, 7)])
    assert torch.equal(prompt, rows)
    handle.detach()
    table = model.bert.embeddings.word_embeddings.weight
    handle = deltas.attach(model, deltas.PromptTuning(length=5, init="vocabulary", positions="shifted"))
    (prompt,) = handle.parts().values()
    assert all((table == row).all(1).any() for row in prompt)
    assert len(prompt.unique(dim=0)) == 5
    site = handle.sites[0]
    assert torch.equal(embedded(site, torch.tensor([4]), words=True), table[4:5])
    with pytest.raises(deltas.DeltaError, match="ids from 0 to 79"):
        deltas.attach(build("bert"), deltas.PromptTuning(words=(80,)))


def test_two_prompts_stand_beside_each_other() -> None:
    model, inputs = build("gpt2"), batch("gpt2")
    one = deltas.attach(model, deltas.PromptTuning(length=1), name="one")
    two = deltas.attach(model, deltas.PromptTuning(length=2), name="two")
    prompt = torch.cat([prompt_of(one), prompt_of(two)])
    with torch.no_grad():
        found = model(**inputs).logits
        one.detach()
        two.detach()
        expected = by_hand("gpt2", model, inputs, prompt)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_where_it_cannot_work() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    with pytest.raises(deltas.DeltaError, match="multiplies by the attention mask"):
        deltas.attach(tf.DebertaV2Model(tf.DebertaV2Config(vocab_size=80, **sizes)), deltas.PromptTuning())
    with pytest.raises(deltas.DeltaError, match='Use positions="kept"'):
        deltas.attach(build("t5"), deltas.PromptTuning(positions="shifted"))
    with pytest.raises(deltas.DeltaError, match="vit has none"):
        deltas.attach(build("vit"), deltas.PromptTuning(init="vocabulary"))
    with pytest.raises(deltas.DeltaError, match="takes no layers"):
        deltas.attach(build("bert"), deltas.PromptTuning(layers=(0,)))
    with pytest.raises(deltas.DeltaError, match="as a decoder"):
        deltas.attach(build("bert", tf.BertLMHeadModel, is_decoder=True), deltas.PromptTuning())
    model, inputs = build("gpt2"), batch("gpt2")
    deltas.attach(model, deltas.PromptTuning(length=N))
    with pytest.raises(deltas.DeltaError, match="only one of"):
        model(inputs["input_ids"], attention_mask=torch.ones(2, 1, 7, 7, dtype=torch.bool))
    deltas.attach(model, deltas.PromptTuning(length=N, positions="shifted"), name="other")
    with pytest.raises(deltas.DeltaError, match="disable one of them"):
        model(**inputs)


def test_saved_and_loaded(tmp_path: Any) -> None:
    for spec in (deltas.PromptTuning(length=N, words=(7, 8)), deltas.PTuning(length=N, hidden=8), deltas.VPT(length=N)):
        model, inputs = build("bert"), batch("bert")
        handle = deltas.attach(model, spec)
        handle.save(tmp_path / spec.name)
        fresh = build("bert")
        deltas.load(fresh, tmp_path / spec.name)
        with torch.no_grad():
            assert torch.equal(fresh(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("family", "cls", "inner"),
    [
        ("bert", tf.BertModel, "bert"),
        ("gpt2", tf.GPT2Model, "transformer"),
        ("llama", tf.LlamaModel, "model"),
        ("vit", tf.ViTModel, "vit"),
        ("t5", tf.T5EncoderModel, ""),
    ],
)
def test_a_backbone_without_a_head(family: str, cls: Any, inner: str) -> None:
    whole, inputs = build(family), batch(family, padded=True)
    bare = build(family, cls)
    for key, tensor in bare.state_dict().items():
        tensor.copy_(whole.state_dict().get(f"{inner}.{key}" if inner else key, tensor))
    prompt = torch.randn(N, 32)
    with torch.no_grad():
        for model in (whole, bare):
            (own,) = deltas.attach(model, deltas.PromptTuning(length=N)).parts().values()
            own.copy_(prompt)
        found = bare(**{key: x for key, x in inputs.items() if key != "decoder_input_ids"}).last_hidden_state
        options = {} if family == "t5" else {"output_hidden_states": True}
        output = whole(**inputs, **options)
        expected = output.encoder_last_hidden_state if family == "t5" else output.hidden_states[-1]
        expected = whole.vit.layernorm(expected) if family == "vit" else expected
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "spec"),
    [
        ("bert", deltas.PromptTuning(length=N)),
        ("gpt2", deltas.VPT(length=N)),
        ("vit", deltas.VPT(length=N)),
        ("llama", deltas.LLaMAAdapter(length=N)),
        ("bert", deltas.UniPELT(bottleneck=4, length=N, rank=2)),
    ],
)
def test_gradients_with_recomputed_activations(family: str, spec: deltas.Delta) -> None:
    options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    if family in ("bert", "vit"):
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    grads = []
    for recompute in (False, True):
        model, inputs = build(family, **options).train(), batch(family)
        torch.manual_seed(1)
        handle = deltas.attach(model, spec)
        with torch.no_grad():
            for parameter in handle.parts().values():
                parameter.add_(0.3)
        if recompute:
            new = hasattr(model, "activation_checkpointing_enable")
            getattr(model, "activation_checkpointing_enable" if new else "gradient_checkpointing_enable")()
        more = {"use_cache": False} if family in ("gpt2", "llama") else {}
        model(**inputs, **more).logits.square().sum().backward()
        grads.append([p.grad for p in handle.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


OPT = {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}


@pytest.mark.parametrize("spec", [
    deltas.PromptTuning(length=3), deltas.PromptTuning(length=3, positions="shifted"), deltas.VPT(length=2),
    deltas.PrefixTuning(length=3, positions="shifted"),
])  # fmt: skip
def test_positions_that_are_counted_by_the_mask_do_not_see_padding(spec: deltas.Delta) -> None:
    """OPT counts the tokens that are not masked, so that it does not matter how much a row is padded on the left."""
    torch.manual_seed(0)
    model = tf.OPTForCausalLM(
        tf.OPTConfig(word_embed_proj_dim=32, max_position_embeddings=64, pad_token_id=1, **OPT)
    ).eval()
    handle = deltas.attach(model, spec)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.normal_()
    ids = batch("llama")["input_ids"]
    padded = torch.cat([torch.ones(2, 4, dtype=torch.long), ids], 1)
    mask = torch.cat([torch.zeros(2, 4, dtype=torch.long), torch.ones_like(ids)], 1)
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        found = model(input_ids=padded, attention_mask=mask).logits[:, 4:]
        with handle.disable():
            without = model(input_ids=ids).logits
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    assert (plain - without).abs().max() > 1e-2


def test_tokens_of_every_layer_need_layers_as_wide_as_the_embeddings() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = tf.ElectraModel(tf.ElectraConfig(vocab_size=80, embedding_size=16, **sizes)).eval()
    with pytest.raises(deltas.DeltaError, match=r"another size than its layers: VPT\(deep=False\)"):
        deltas.attach(model, deltas.VPT(length=2))
    deltas.attach(model, deltas.VPT(length=2, deep=False))
    assert model(**batch("bert")).last_hidden_state.shape == (2, 7, 32)
