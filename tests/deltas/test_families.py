"""Families of transformers beyond the conformance suite: every map fits its model, and methods act where it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

import deltas
from deltas import IA3, Adapter, DeltaError, LNTuning, LoRA, PrefixTuning
from deltas.families import FAMILIES
from deltas.hosts import host_of

from .backbones import nudge
from .test_hosts import COUNTS

SIZE = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 1}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {"num_key_value_heads": 2, **SPECIAL}
GEMMA = {"head_dim": 8, **GROUPED}
SEQ2SEQ = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip
# family -> options of a tiny model; those of GPT-J and its kin have other names
OPTIONS: dict[str, dict[str, Any]] = {
    "camembert": SPECIAL,
    "electra": {"embedding_size": 32},
    "xlm-roberta": SPECIAL,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "albert": {"embedding_size": 16, "num_hidden_groups": 2, **SPECIAL},
    "mpnet": SPECIAL,
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 4, **SPECIAL},
    "gemma": GEMMA,
    "gemma2": {"sliding_window": 4, **GEMMA},
    "gemma3_text": {"sliding_window": 4, **GEMMA},
    "granite": SPECIAL,
    "olmo": SPECIAL,
    "smollm3": GROUPED,
    "qwen3": GEMMA,
    "mbart": {**SEQ2SEQ, **SPECIAL},
    "stablelm": {"num_key_value_heads": 4, **SPECIAL},
    "mixtral": {"num_local_experts": 2, **GROUPED},
    "phi": SPECIAL,
    "phi3": GROUPED,
    "starcoder2": GROUPED,
    "gpt_neox": SPECIAL,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], **SPECIAL},
    "gptj": {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_inner": 64, "rotary_dim": 4, "n_positions": 64, **SPECIAL},
    "bloom": {"n_layer": 2, "n_head": 4, **SPECIAL},
    "falcon": {"ffn_hidden_size": 64, "parallel_attn": False, **SPECIAL},
    "falcon new": {"ffn_hidden_size": 64, "new_decoder_architecture": True, "num_kv_heads": 2, **SPECIAL},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, **SPECIAL},
    "whisper": {**SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 6, "decoder_start_token_id": 1, **SPECIAL},
    "clip_text_model": SPECIAL,
    "deit": IMAGE,
    "dinov2": {"mlp_ratio": 2, **IMAGE},
}
# No layer of the queries alone; no tokens before the keys, by transformers' attention interface; no linear layers of experts.
FUSED, OWN_ATTENTION, EXPERTS = (
    {"phi3", "gpt_neox", "bloom", "falcon", "falcon new"},
    {"mpnet", "gpt_neo", "gptj", "bloom", "falcon", "falcon new"},
    {"mixtral"},
)


def build(family: str) -> Any:
    torch.manual_seed(0)
    options = {**SIZE, "max_position_embeddings": 64, **OPTIONS[family]}
    if family in ("gptj", "distilbert"):
        options = {"vocab_size": 40, "max_position_embeddings": 64, **OPTIONS[family]}
    model = tf.AutoModel.from_config(tf.AutoConfig.for_model(family.split()[0], **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def inputs(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = {"input_ids": torch.randint(3, 40, (2, 6), generator=generator)}
    if family in ("deit", "dinov2"):
        return {"pixel_values": torch.randn(2, 1, 8, 8, generator=generator)}
    if family == "mbart":
        return {**ids, "decoder_input_ids": ids["input_ids"]}
    if family == "whisper":
        features = torch.randn(2, 8, 12, generator=generator)
        return {"input_features": features, "decoder_input_ids": ids["input_ids"]}
    return {**ids, "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2])}


@torch.no_grad()
def states(model: Any, family: str) -> torch.Tensor:
    found: torch.Tensor = model(**inputs(family)).last_hidden_state
    return found


def test_every_family_is_tested() -> None:
    elsewhere = {*COUNTS, "roberta", "deberta", "deberta-v2", "llama", "mistral", "qwen2", "bart"}
    assert set(FAMILIES) == {family.split()[0] for family in OPTIONS} | elsewhere


@pytest.mark.parametrize("family", OPTIONS)
def test_every_role_is_played_once_a_layer(family: str) -> None:
    model = build(family)
    host = host_of(model)
    roles, seq2seq = FAMILIES[family.split()[0]], family in ("whisper", "mbart")
    assert host.family == family.split()[0] and not host.guessed
    cross = set() if seq2seq else {role for role in roles if "cross" in role}  # of BERT as a decoder
    assert set(host.roles) == set(roles) - cross  # no path of the map is wrong
    stacks = 2 if seq2seq else 1
    for role in host.roles:
        once = role in ("embeddings", "encoder", "positions", "norm.final", "norm.embeddings")
        layers = 1 if once else 2
        shared = role == "embeddings" and family == "whisper"  # sounds have no table
        count = 1 if shared or role.startswith(("cross", "norm.cross")) else stacks
        assert len(host.places(role)) == layers * count, role


@pytest.mark.parametrize("family", OPTIONS)
@pytest.mark.parametrize(
    "spec",
    [
        LoRA(rank=2), LoRA(rank=2, roles=("all",)), Adapter(bottleneck=4), PrefixTuning(length=3), IA3(), LNTuning(),
    ],
    ids=["LoRA", "LoRA-all", "Adapter", "PrefixTuning", "IA3", "LNTuning"],
)  # fmt: skip
def test_methods_act_or_say_why_not(family: str, spec: Any) -> None:
    model = build(family)
    refused = {
        "LoRA": set(),
        "IA3": FUSED | EXPERTS,
        "Adapter": EXPERTS,
        "PrefixTuning": OWN_ATTENTION,
        "LNTuning": {"olmo"},
    }[type(spec).__name__]
    before = states(model, family)
    if family in refused:
        with pytest.raises(DeltaError, match=r"plays the role|takes no tokens before its keys|no gain and no shift"):
            deltas.attach(model, spec)
        assert torch.equal(states(model, family), before)
        return
    assert deltas.check(model, spec, inputs(family))
    handle = deltas.attach(model, spec)
    nudge(handle, 0.1)
    changed = states(model, family)
    assert not torch.allclose(changed, before, atol=1e-4)
    if isinstance(spec, PrefixTuning):  # the other attention function sees the same tokens
        handle.detach()
        model.set_attn_implementation("eager")
        again = deltas.attach(model, spec)
        nudge(again, 0.1)
        for mine, other in zip(again.parameters(), handle.parameters(), strict=True):
            mine.data.copy_(other.data)
        torch.testing.assert_close(states(model, family), changed, rtol=1e-4, atol=1e-4)
    elif isinstance(spec, LoRA):
        handle.merge()
        torch.testing.assert_close(states(model, family), changed, rtol=1e-4, atol=1e-4)
    else:
        handle.detach()
        assert torch.equal(states(model, family), before)


@pytest.mark.parametrize("family", sorted(FUSED))
def test_a_fused_layer_stands_in_for_the_default_roles_and_for_no_others(family: str) -> None:
    model = build(family)
    one = {"bottleneck": None, "length": None, "rank": 2}
    specs = (
        LoRA(rank=2),
        deltas.KronA(),
        deltas.KAdaptation(),
        deltas.LoKr(rank=2),
        deltas.HypLoRA(rank=2),
        deltas.UniPELT(**one),
    )
    for spec in specs:
        assert {row.role for row in deltas.plan(model, spec).rows} == {"attention.qkv"}, spec
    with pytest.raises(DeltaError, match=r"plays the role 'attention\.value'"):
        deltas.plan(model, LoRA(roles=("attention.value",)))


@pytest.mark.parametrize("family", OPTIONS)
def test_every_norm_with_a_gain_is_trained(family: str) -> None:
    model = build(family)
    norms = {
        path
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and [*module.parameters(recurse=False)]
    }
    if norms:
        assert {site.path for site in deltas.attach(model, LNTuning()).sites} == norms
