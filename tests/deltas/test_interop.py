"""Checkpoints of peft in both directions, against peft itself."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import deltas

from .models import batch, build

TASKS = {"bert": "SEQ_CLS", "roberta": "SEQ_CLS", "gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM"}
pytestmark = [  # of peft itself
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft.*"),
]

TO_OURS: dict[str, tuple[str, Any]] = {
    "lora": ("bert", peft.LoraConfig(r=3, lora_alpha=5)),
    "rslora": ("bert", peft.LoraConfig(r=3, use_rslora=True, target_modules=["query", "output.dense"])),
    "dora": ("bert", peft.LoraConfig(r=2, use_dora=True, target_modules=["key", "intermediate.dense"])),
    "expression": ("bert", peft.LoraConfig(r=2, target_modules=r".*layer\.1\..*\.(query|value)")),
    "all-linear": ("bert", peft.LoraConfig(r=2, target_modules="all-linear")),
    "layers": ("bert", peft.LoraConfig(r=2, target_modules=["query"], layers_to_transform=[1], layers_pattern="layer")),
    "excluded": ("bert", peft.LoraConfig(r=2, target_modules=["dense"], exclude_modules=["pooler.dense"])),
    "lora-gpt2": ("gpt2", peft.LoraConfig(r=3, lora_alpha=5)),
    "dora-gpt2": ("gpt2", peft.LoraConfig(r=3, use_dora=True, target_modules=["c_attn", "mlp.c_proj"])),
    "all-linear-gpt2": ("gpt2", peft.LoraConfig(r=2, target_modules="all-linear")),
    "lora-llama": ("llama", peft.LoraConfig(r=2)),
    "ln": ("bert", peft.LNTuningConfig(target_modules=["LayerNorm"])),
    "ln-gpt2": ("gpt2", peft.LNTuningConfig(target_modules=["ln_1", "ln_f"])),
    "ln-llama": ("llama", peft.LNTuningConfig()),
    "ia3": ("bert", peft.IA3Config()),
    "ia3-gpt2": ("gpt2", peft.IA3Config()),
    "ia3-llama": ("llama", peft.IA3Config()),
    "ia3-expression": (
        "bert",
        peft.IA3Config(target_modules=r".*\.(key|intermediate\.dense)", feedforward_modules=r".*intermediate\.dense"),
    ),
    "lokr": ("bert", peft.LoKrConfig(r=2, alpha=3, target_modules=["query", "intermediate.dense"])),
    "lokr-both": ("bert", peft.LoKrConfig(r=1, target_modules=["query", "output.dense"], decompose_both=True)),
    "lokr-factor": ("bert", peft.LoKrConfig(r=16, target_modules=["value", "output.dense"], decompose_factor=8)),
    "prompt": ("bert", peft.PromptTuningConfig(num_virtual_tokens=3)),
    "prefix-roberta": ("roberta", peft.PrefixTuningConfig(num_virtual_tokens=3)),
    "prompt-gpt2": ("gpt2", peft.PromptTuningConfig(num_virtual_tokens=3)),
    "prompt-llama": ("llama", peft.PromptTuningConfig(num_virtual_tokens=3)),
    "p-tuning": ("gpt2", peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=5)),
    "prefix": ("bert", peft.PrefixTuningConfig(num_virtual_tokens=3)),
    "prefix-gpt2": ("gpt2", peft.PrefixTuningConfig(num_virtual_tokens=3)),
    "prefix-table": (
        "gpt2",
        peft.PrefixTuningConfig(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=5),
    ),
    "prefix-llama": ("llama", peft.PrefixTuningConfig(num_virtual_tokens=3)),
}

TO_PEFT: dict[str, tuple[str, deltas.Delta]] = {
    "lora": ("bert", deltas.LoRA(rank=3)),
    "rslora": ("bert", deltas.LoRA(rank=3, alpha=5.0, stabilised=True, roles=("all",))),
    "dora": ("bert", deltas.LoRA(rank=2, directed=True, layers=(1,))),
    "lora-gpt2": ("gpt2", deltas.LoRA(rank=2)),
    "rslora-gpt2": ("gpt2", deltas.LoRA(rank=2, stabilised=True, roles=("attention.value", "attention.key", "ffn.up"))),
    "dora-gpt2": ("gpt2", deltas.LoRA(rank=2, directed=True, roles=("all",))),
    "lora-llama": ("llama", deltas.LoRA(rank=2, roles=("all",))),
    "ln": ("bert", deltas.LNTuning()),
    "ln-gpt2": ("gpt2", deltas.LNTuning(roles=("norm.ffn",))),
    "ia3": ("bert", deltas.IA3()),
    "ia3-gpt2": ("gpt2", deltas.IA3()),
    "ia3-llama": ("llama", deltas.IA3(inputs=())),
    "lokr": ("bert", deltas.LoKr(rank=2, roles=("all",))),
    "lokr-both": ("llama", deltas.LoKr(rank=1, alpha=3.0, decompose_both=True, factor=4)),
    "prompt": ("bert", deltas.PromptTuning(length=3, positions="shifted")),
    "prompt-gpt2": ("gpt2", deltas.PromptTuning(length=3, positions="shifted")),
    "prompt-llama": ("llama", deltas.PromptTuning(length=3)),
    "p-tuning": ("bert", deltas.PTuning(length=3, hidden=5, positions="shifted")),
    "prefix": ("bert", deltas.PrefixTuning(length=3, positions="shifted")),
    "prefix-table": ("gpt2", deltas.PrefixTuning(length=3, hidden=4, positions="shifted")),
    "prefix-llama": ("llama", deltas.PrefixTuning(length=3, positions="shifted")),
}


@torch.no_grad()
def stir(parameters: Any) -> None:
    """Values that no part of a delta starts from."""
    torch.manual_seed(3)
    for parameter in parameters:
        parameter.add_(torch.randn_like(parameter) * 0.3)


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**inputs).logits
    return found[:, -7:] if found.ndim == 3 else found  # peft keeps the logits of a prompt


def theirs(family: str, config: Any) -> Any:
    config.task_type = TASKS[family]
    model = peft.get_peft_model(build(family).double(), config).eval()
    stir(p for p in model.parameters() if p.requires_grad)
    return model


@pytest.mark.parametrize("case", TO_OURS)
def test_from_peft(case: str, tmp_path: Path) -> None:
    family, config = TO_OURS[case]
    other, inputs = theirs(family, config), batch(family)
    expected = logits(other, inputs)
    other.save_pretrained(tmp_path)
    model = build(family).double()
    plain = logits(model, inputs)
    handle = deltas.from_peft(tmp_path, model, name="theirs")
    found = logits(model, inputs)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert (expected - plain).abs().max() > 1e-3
    assert handle.name == "theirs" and deltas.handles(model) == {"theirs": handle}
    assert handle.heads == (["classifier"] if family in ("bert", "roberta") else [])
    handle.save(tmp_path / "own")
    fresh = build(family).double()
    deltas.load(fresh, tmp_path / "own")
    assert torch.equal(logits(fresh, inputs), found)
    handle.detach()
    assert torch.equal(logits(model, inputs), plain)


@pytest.mark.parametrize("case", TO_PEFT)
def test_to_peft(case: str, tmp_path: Path) -> None:
    family, spec = TO_PEFT[case]
    model, inputs = build(family).double(), batch(family)
    handle = deltas.attach(model, spec)
    stir(handle.parameters())
    expected = logits(model, inputs)
    deltas.to_peft(handle, tmp_path)
    other = peft.PeftModel.from_pretrained(build(family).double(), tmp_path).eval()
    torch.testing.assert_close(logits(other, inputs), expected, atol=1e-6, rtol=1e-6)
    again = build(family).double()
    deltas.from_peft(tmp_path, again)
    torch.testing.assert_close(logits(again, inputs), expected, atol=1e-6, rtol=1e-6)


def test_targets_are_those_of_peft() -> None:
    from deltas.peft.config import targets_of

    for case, (family, config) in TO_OURS.items():
        if getattr(config, "target_modules", None) is None:
            continue
        config.task_type = TASKS[family]
        given = {**config.to_dict(), "modules_to_save": ["classifier", "score"]}
        wanted = {
            name.removeprefix("base_model.model.")
            for name, module in peft.get_peft_model(build(family), config).named_modules()
            if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer)
        }
        assert set(targets_of(given, build(family)) or []) == wanted, case


def stored(tmp_path: Path, case: str = "lora") -> tuple[dict[str, Any], dict[str, Tensor]]:
    family, config = TO_OURS[case]
    theirs(family, config).save_pretrained(tmp_path)
    return json.loads((tmp_path / "adapter_config.json").read_text()), load_file(tmp_path / "adapter_model.safetensors")


def rewrite(tmp_path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")


def refused(tmp_path: Path, model: Any, match: str) -> None:
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(deltas.DeltaError, match=match):
        deltas.from_peft(tmp_path, model)
    assert names == [name for name, _ in model.named_modules()] and not deltas.handles(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bias", "all"),
        ("rank_pattern", {"query": 4}),
        ("alpha_pattern", {"query": 4}),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [3]),
        ("init_lora_weights", "pissa"),
        ("lora_bias", True),
    ],
)
def test_values_that_change_the_meaning_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    config, tensors = stored(tmp_path)
    rewrite(tmp_path, {**config, key: value}, tensors)
    refused(tmp_path, build("bert"), f"{key}=.* is not supported")


def test_unknown_keys_of_the_configuration_are_named_and_ignored(tmp_path: Path) -> None:
    config, tensors = stored(tmp_path)
    rewrite(tmp_path, {**config, "of_tomorrow": 7, "of_no_effect": None}, tensors)
    with pytest.warns(UserWarning, match="of_tomorrow=7 not known"):
        deltas.from_peft(tmp_path, build("bert"))


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    config, tensors = stored(tmp_path)
    key = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    rewrite(tmp_path, config, {k: t for k, t in tensors.items() if k != key})
    refused(tmp_path, build("bert"), f"lacks the tensor '{key}'")
    rewrite(tmp_path, config, {**tensors, "base_model.model.x.lora_A.weight": torch.ones(1)})
    refused(tmp_path, build("bert"), r"fits nothing here: 'base_model\.model\.x\.lora_A\.weight'")
    rewrite(tmp_path, config, {**tensors, key: torch.ones(2, 32)})
    refused(tmp_path, build("bert"), r"query\.lora_A\.weight has the shape \(2, 32\), here it has \(3, 32\)")
    rewrite(tmp_path, {**config, "target_modules": ["nowhere"]}, tensors)
    refused(tmp_path, build("bert"), r"target_modules=\['nowhere'\] matches no module")
    rewrite(tmp_path, {**config, "peft_type": "BOFT"}, tensors)
    refused(tmp_path, build("bert"), "peft_type='BOFT' is not supported")
    rewrite(tmp_path, {**config, "target_modules": None}, tensors)
    assert len(deltas.from_peft(tmp_path, build("bert")).sites) == 4


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path, build("bert"), "no adapter_config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_text("x")
    refused(tmp_path, build("bert"), "is a pickle")
    (tmp_path / "adapter_model.safetensors").write_text("x")
    refused(tmp_path, build("bert"), "broken or cut off")
    save_file({"a": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    refused(tmp_path, build("bert"), "has no peft_type")
    with pytest.raises(deltas.DeltaError, match=r"read it by deltas\.from_peft"):
        deltas.load(build("bert"), tmp_path)


@pytest.mark.parametrize(
    ("family", "spec", "match"),
    [
        ("bert", deltas.PromptTuning(length=3), 'has positions="kept", and peft counts'),
        ("gpt2", deltas.PrefixTuning(length=3), 'has positions="kept", and peft counts'),
        ("llama", deltas.PrefixTuning(length=3), 'has positions="kept", and peft counts'),
        ("t5", deltas.PromptTuning(length=3), "encoder-decoder"),
        ("t5", deltas.PrefixTuning(length=3), "encoder-decoder"),
        ("roberta", deltas.PromptTuning(length=3, positions="shifted"), "reads the first state itself"),
        ("bert", deltas.Adapter(), "peft has no Adapter; methods that it has too: LoRA"),
        ("bert", deltas.LoRA() + deltas.LNTuning(), "several methods"),
        ("gpt2", deltas.LoRA(directed=True), "no DoRA of some rows"),
        ("gpt2", deltas.LoKr(), "no LoKr of transformer.h.0.attn.c_attn, a Conv1D"),
        ("lorentz", deltas.LoRA(), "knows no Lorentz layers"),
    ],
)
def test_what_peft_would_compute_otherwise_is_refused(family: str, spec: Any, match: str, tmp_path: Path) -> None:
    handle = deltas.attach(build(family), spec)
    with pytest.raises(deltas.DeltaError, match=match):
        deltas.to_peft(handle, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_inactive_delta_is_refused(tmp_path: Path) -> None:
    handle = deltas.attach(build("bert"), deltas.LoRA())
    handle.disable()
    with pytest.raises(deltas.DeltaError, match="is not active"):
        deltas.to_peft(handle, tmp_path)


def test_a_model_without_a_task(tmp_path: Path) -> None:
    import transformers as tf

    inputs = batch("bert")
    other = peft.get_peft_model(
        build("bert", tf.BertModel), peft.LoraConfig(r=2, task_type="FEATURE_EXTRACTION")
    ).eval()
    stir(p for p in other.parameters() if p.requires_grad)
    other.save_pretrained(tmp_path)
    model: nn.Module = build("bert", tf.BertModel)
    deltas.from_peft(tmp_path, model)
    with torch.no_grad():
        found, expected = model(**inputs).last_hidden_state, other(**inputs).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_a_model_of_no_known_family(tmp_path: Path) -> None:
    def plain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    x = torch.randn(3, 4)
    other = peft.get_peft_model(plain(), peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["2"]))
    stir(p for p in other.parameters() if p.requires_grad)
    other.save_pretrained(tmp_path)
    model = plain()
    handle = deltas.from_peft(tmp_path, model)
    torch.testing.assert_close(model(x), other(x), atol=1e-6, rtol=1e-6)
    assert handle.heads == ["2"]


def test_the_name_that_lengths_had_in_older_versions(tmp_path: Path) -> None:
    config, tensors = stored(tmp_path, "dora")
    old = {f"{k}.weight" if k.endswith("magnitude_vector") else k: t for k, t in tensors.items()}
    assert set(old) != set(tensors)
    rewrite(tmp_path, config, old)
    handle = deltas.from_peft(tmp_path, build("bert"))
    key = next(k for k in tensors if k.endswith("magnitude_vector"))
    path = key.removeprefix("base_model.model.").removesuffix(".lora_magnitude_vector")
    assert torch.equal(handle.parts()[f"{path}:magnitude"], tensors[key].float())


def test_sizes_of_kronecker_factors_are_those_of_peft() -> None:
    from peft.tuners.lokr.layer import factorization

    from deltas.methods.lokr import split

    for size in range(2, 130):
        for factor in (-1, 1, 2, 3, 4, 7, 8, 16, 100):
            assert split(size, factor) == factorization(size, factor), (size, factor)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=2),
        peft.PromptTuningConfig(num_virtual_tokens=3),
        peft.PrefixTuningConfig(num_virtual_tokens=3),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_a_decoder_that_classifies(config: Any, tmp_path: Path) -> None:
    import transformers as tf

    inputs = batch("gpt2")
    config.task_type = "SEQ_CLS"
    other = peft.get_peft_model(build("gpt2", tf.GPT2ForSequenceClassification).double(), config).eval()
    stir(p for p in other.parameters() if p.requires_grad)
    other.save_pretrained(tmp_path)
    model = build("gpt2", tf.GPT2ForSequenceClassification).double()
    handle = deltas.from_peft(tmp_path, model)
    assert handle.heads == ["score"]
    expected = logits(other, inputs)
    torch.testing.assert_close(logits(model, inputs), expected, atol=1e-6, rtol=1e-6)
    deltas.to_peft(handle, tmp_path / "again")
    again = build("gpt2", tf.GPT2ForSequenceClassification).double()
    third = peft.PeftModel.from_pretrained(again, tmp_path / "again").eval()
    torch.testing.assert_close(logits(third, inputs), expected, atol=1e-6, rtol=1e-6)


def test_heads_are_found_by_the_ends_of_their_names_as_peft_does(tmp_path: Path) -> None:
    """``classifier`` means DistilBERT's ``pre_classifier`` too."""
    model = peft.get_peft_model(
        distilbert(), peft.LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["q_lin"])
    ).eval()
    stir(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path)
    found = distilbert()
    handle = deltas.from_peft(tmp_path, found)
    assert handle.heads == ["pre_classifier", "classifier"]
    torch.testing.assert_close(logits(found, batch("bert")), logits(model, batch("bert")), atol=1e-6, rtol=1e-6)


def distilbert() -> Any:
    torch.manual_seed(0)
    config = tf.DistilBertConfig(vocab_size=80, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    return tf.DistilBertForSequenceClassification(config).double().eval()


def test_the_weight_of_an_output_layer_beside_its_delta_must_be_the_models(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "lm_head"])
    model = peft.get_peft_model(build("llama").double(), config).eval()
    stir(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path)
    assert any(key.endswith("lm_head.base_layer.weight") for key in load_file(tmp_path / "adapter_model.safetensors"))
    found = build("llama").double()
    deltas.from_peft(tmp_path, found)
    torch.testing.assert_close(logits(found, batch("llama")), logits(model, batch("llama")), atol=1e-6, rtol=1e-6)
    other = build("llama").double()
    with torch.no_grad():
        other.lm_head.weight.add_(1)
    with pytest.raises(deltas.DeltaError, match="base model's lm_head, and this model has another"):
        deltas.from_peft(tmp_path, other)
    assert not deltas.handles(other)


@pytest.mark.parametrize("saved", [["lm_head"], ["embed_tokens"]])
def test_tied_weights_are_no_heads_of_peft(saved: list[str], tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=saved)
    peft.get_peft_model(build("llama", tie_word_embeddings=True), config).save_pretrained(tmp_path)
    model = build("llama", tie_word_embeddings=True)
    with pytest.raises(deltas.DeltaError, match=r"is the same parameter as .*Untie"):
        deltas.from_peft(tmp_path, model)
    handle = deltas.attach(model, deltas.LoRA(), heads=("lm_head",))
    with pytest.raises(deltas.DeltaError, match=r"is the same parameter as .*Untie"):
        deltas.to_peft(handle, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_head_in_which_a_delta_acts_is_none_of_peft(tmp_path: Path) -> None:
    for heads in ((), ("classifier",)):
        spec = deltas.LoRA(roles=("attention.query", "classifier"))
        handle = deltas.attach(build("bert"), spec, heads=heads)
        with pytest.raises(deltas.DeltaError, match="classifier as a whole"):
            deltas.to_peft(handle, tmp_path / "mine")


@pytest.mark.parametrize("rows", ["0-8", "8-16", "20-24"])
def test_named_rows_go_to_peft_among_zeros(rows: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = nn.Sequential()
    base.add_module("qkv", nn.Linear(8, 24))
    model = deepcopy(base).double()
    handle = deltas.attach(model, deltas.LoRA(rank=2, roles=("q",)), host={"q": f"qkv:{rows}"})
    stir(handle.parameters())
    x = torch.randn(3, 8).double()
    expected = model(x)
    deltas.to_peft(handle, tmp_path)
    other = peft.PeftModel.from_pretrained(deepcopy(base).double(), tmp_path)
    torch.testing.assert_close(other(x), expected)
    assert not torch.allclose(expected, base.double()(x))
