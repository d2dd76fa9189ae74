"""Tokens of the input where transformers decides by masks, positions and caches what follows what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

import deltas
from deltas.errors import DeltaError

from .models import batch, build
from .test_families import build as encoder_of
from .test_families import inputs

TOKENS = (deltas.PromptTuning(length=3, init_std=1.0), deltas.VPT(length=2, init_std=1.0))
named = pytest.mark.parametrize("spec", TOKENS, ids=lambda spec: spec.name)


@named
@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "whisper", "llama", "opt"])
def test_the_tokens_act_without_a_mask_as_with_one(family: str, spec: Any) -> None:
    model = build(family) if family in ("gpt2", "llama") else encoder_of(family)
    ids = batch("gpt2", length=5)["input_ids"] % 40
    given = {"input_ids": ids, "use_cache": False}
    name = "attention_mask"
    if family == "whisper":
        given, name = {**inputs(family), "decoder_input_ids": ids, "use_cache": False}, "decoder_attention_mask"
    with torch.no_grad():
        plain = model(**given)[0]
    handle = deltas.attach(model, spec)
    found = model(**given)[0]
    with torch.no_grad():
        torch.testing.assert_close(found, model(**given, **{name: torch.ones_like(ids)})[0])
    assert (found - plain).abs().max() > 1e-3
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in handle.parts().values())


@named
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_cache_of_an_earlier_turn_is_refused_and_steps_are_not(family: str, spec: Any) -> None:
    model = build(family)
    deltas.attach(model, spec)
    ids = batch(family)["input_ids"]
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    cache = tf.DynamicCache(config=model.config)
    first = model.generate(ids, past_key_values=cache, **options)
    assert torch.equal(first, model.generate(ids, use_cache=False, **options))
    with pytest.raises(DeltaError, match=rf"after a cache of \d+, of which {spec.length} are a delta's"):
        model.generate(torch.cat([first, ids], 1), past_key_values=cache, **options)


@named
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_texts_that_are_packed_into_one_row_are_refused(family: str, spec: Any) -> None:
    model = build(family)
    deltas.attach(model, spec)
    ids = batch(family, length=6)["input_ids"]
    packed = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with pytest.raises(DeltaError, match="position_ids that begin anew, as of texts packed into one row"):
        model(input_ids=ids, position_ids=packed, use_cache=False)
    assert model(input_ids=ids, position_ids=torch.arange(6)[None], use_cache=False).logits.isfinite().all()


def test_positions_that_cannot_be_moved_are_refused_at_once() -> None:
    model = encoder_of("distilbert")
    with pytest.raises(DeltaError, match="counts positions from 0 alone"):
        deltas.attach(model, deltas.PrefixTuning(length=3, positions="shifted"))
    assert not any("deltas" in name for name, _ in model.named_modules())


def test_a_layer_that_reads_the_weight_itself_has_no_delta() -> None:
    config = tf.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = tf.MambaForCausalLM(config).eval()
    handle = deltas.attach(model, deltas.LoRA(rank=2, roles=("all",)))
    ids = torch.randint(0, 50, (2, 6))
    model(input_ids=ids, use_cache=False).logits.square().sum().backward()
    assert all(p.grad is not None for p in handle.parts().values())
    handle.detach()
    with pytest.raises(DeltaError, match="MambaMixer, which reads the weight and never calls the layer"):
        deltas.attach(model, deltas.LoRA(rank=2, roles=("steps",)), host={"steps": "backbone.layers.*.mixer.dt_proj"})
    deltas.check(model, deltas.LoRA(rank=2, roles=("all",)), {"input_ids": ids}, raises=True)


def test_a_gate_that_cannot_tell_examples_apart_is_refused() -> None:
    model = encoder_of("opt")
    deltas.attach(model, deltas.UniPELT(length=None, rank=None, bottleneck=4))
    with pytest.raises(DeltaError, match="UniPELT's gate is a mean over the tokens of each example"):
        model(**inputs("opt"))


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
@pytest.mark.parametrize("width", [4, 12])
def test_a_window_is_warned_of_where_peft_counts_the_prefix(width: int, tmp_path: Any) -> None:
    import peft

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = tf.MistralConfig(vocab_size=50, num_key_value_heads=2, sliding_window=width, **sizes)
    torch.manual_seed(0)
    model = tf.MistralForCausalLM(config).eval()
    theirs = peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    ids = torch.randint(0, 50, (2, 6))
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.normal_()
        want = theirs(input_ids=ids).logits
    theirs.save_pretrained(tmp_path)
    ours = tf.MistralForCausalLM(config).eval()
    ours.load_state_dict(model.state_dict())
    with pytest.warns(UserWarning, match=f"see {width} tokens back.*texts of up to {width - 3} tokens"):
        deltas.from_peft(tmp_path, ours)
    with torch.no_grad():
        near = torch.isclose(ours(input_ids=ids).logits, want, atol=1e-5).all(-1).all(0)
    assert near.tolist() == [place < width - 3 for place in range(6)]
