"""Models that conversion would not carry over whole are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaModel

import deltas
from lorentz.hf import LorentzModel

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
}


def bert(**more: Any) -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**{**SIZES, **more})).eval()


def gap(model: Any) -> float:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        wanted = model.base_model(ids).last_hidden_state
        found = LorentzModel.from_euclidean(model, k=1e6)(ids).last_hidden_state[..., 1:]
    return float((found - wanted).abs().max())


@pytest.mark.parametrize("name", ["LoRA", "Adapter", "IA3", "PrefixTuning", "PromptTuning", "SparseAdapter"])
def test_a_delta_is_not_lost(name: str) -> None:
    model = bert()
    handle = deltas.attach(model, deltas.parse(name, {}), name="mine")
    with pytest.raises(ValueError, match=r"would lose \d+ other parameters, such as .*merge\(forget=True\)"):
        LorentzModel.from_euclidean(model, k=1e6)
    handle.detach()
    assert gap(model) < 1e-4


def test_a_merged_delta_is_carried_over() -> None:
    model = bert()
    handle = deltas.attach(model, deltas.LoRA(rank=4), name="mine")
    with torch.no_grad():
        for p in handle.parameters():
            p.normal_(std=0.3)
    handle.merge(forget=True)
    assert gap(model) < 1e-4


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_of_peft_are_not_lost() -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(bert(), peft.LoraConfig(r=4, target_modules=["query", "value"]))
    for model, said in ((wrapped, "of peft has others"), (wrapped.base_model.model, "would lose 8 other")):
        with pytest.raises(ValueError, match=f"{said}.*merge_and_unload"):
            LorentzModel.from_euclidean(model, k=1e6)
    assert gap(wrapped.merge_and_unload()) < 1e-4


def test_weights_that_are_computed_are_read() -> None:
    model = bert()
    nn.utils.parametrizations.weight_norm(model.bert.encoder.layer[0].attention.self.query)
    nn.utils.parametrizations.orthogonal(model.bert.encoder.layer[1].output.dense)
    assert gap(model) < 1e-4


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="a bert without layers"):
        LorentzModel.from_euclidean(bert(num_hidden_layers=0), k=1e6)
    model = RobertaModel(RobertaConfig(**SIZES, pad_token_id=1))
    model.config.pad_token_id = None
    with pytest.raises(ValueError, match="pad_token_id is None; set it"):
        LorentzModel.from_euclidean(model, k=1e6)
