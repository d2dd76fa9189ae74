"""Euclidean encoders as Lorentz models: equal at large k, at the rate 1/k, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

from lorentz import Lorentz, check_manifold
from lorentz.hf import LorentzConfig, LorentzForSequenceClassification, LorentzModel

logging.set_verbosity_error()
logging.disable_progress_bar()

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "hidden_act": "gelu_new",
}


def made(kind: str = "bert", **options: Any) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module
        if kind == "bert":
            model = BertModel(BertConfig(**{**SIZES, **options}))
        elif kind == "roberta":
            model = RobertaModel(RobertaConfig(**{**SIZES, "pad_token_id": 1, "type_vocab_size": 1, **options}))
        else:
            names = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "activation": "gelu"}
            config = DistilBertConfig(vocab_size=60, max_position_embeddings=20, **{**names, **options})
            model = DistilBertModel(config)
    for parameter in model.parameters():  # biases and gains that are not 0 and 1
        nn.init.normal_(parameter, 0, 0.4)
    return model.double().eval()


def texts() -> tuple[Tensor, Tensor]:
    ids = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids[1, 6:] = 1
    return ids, mask


@torch.no_grad()
def gap(source: Any, converted: LorentzModel, **given: Any) -> float:
    """Largest difference of the last states at real tokens."""
    ids, mask = texts()
    want = source(ids, attention_mask=mask, **given).last_hidden_state[mask.bool()]
    got = converted(ids, attention_mask=mask, **given).last_hidden_state[mask.bool()][:, 1:]
    return float((got - want).abs().max())


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_the_difference_falls_as_1_over_k_and_is_below_a_billionth_at_1e8(kind: str) -> None:
    source = made(kind)
    gaps = [gap(source, LorentzModel.from_euclidean(source, k=k)) for k in (1e4, 1e6, 1e8)]
    assert gaps[2] < 1e-8 and gaps[0] < 1e-4
    assert gaps[1] / gaps[0] == pytest.approx(0.01, rel=0.05) and gaps[2] / gaps[1] == pytest.approx(0.01, rel=0.05)


def test_all_layers_and_token_types_are_carried_over() -> None:
    source = made()
    converted = LorentzModel.from_euclidean(source, k=1e8)
    ids, mask = texts()
    types = (torch.arange(9) > 4).long().expand(3, 9)
    given = {"attention_mask": mask, "token_type_ids": types, "output_hidden_states": True}
    with torch.no_grad():
        want, got = source(ids, **given).hidden_states, converted(ids, **given).hidden_states
    assert len(want) == len(got) == 3
    for a, b in zip(want, got, strict=True):
        assert float((a - b[..., 1:]).abs().max()) < 1e-7
    assert check_manifold(converted, ids)
    assert gap(source, converted, token_type_ids=types) < 1e-8


def test_float32_at_the_default_k_is_equal_to_five_digits() -> None:
    source = made().float()
    converted = LorentzModel.from_euclidean(source)
    assert converted.dtype == torch.float32 and not converted.training and float(converted.manifold.k) == 1e6
    ids, mask = texts()
    with torch.no_grad():
        scale = float(source(ids, attention_mask=mask).last_hidden_state.abs().max())
    assert gap(source, converted) < 1e-5 * max(scale, 1)


def test_the_configuration_follows_the_source() -> None:
    source = made(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2, layer_norm_eps=1e-6)
    config = LorentzModel.from_euclidean(source, k=50.0).config
    expected = {
        "vocab_size": 60, "hidden_size": 17, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 25,
        "hidden_act": "gelu_new", "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2, "norm": "post",
        "layer_norm_eps": 1e-6, "max_position_embeddings": 20, "type_vocab_size": 2, "attention_logits": "relative",
        "k": 50.0, "pad_token_id": 0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert LorentzModel.from_euclidean(made("distilbert")).config.type_vocab_size == 0
    assert LorentzModel.from_euclidean(made("roberta")).config.max_position_embeddings == 18  # counts from 2


def test_a_model_with_a_head_gives_its_encoder_and_one_without_dropout_trains() -> None:
    torch.manual_seed(0)
    whole = BertForMaskedLM(BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    converted = LorentzModel.from_euclidean(whole, learnable_k=True).train()
    ids, _ = texts()
    converted(ids).last_hidden_state.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in converted.parameters())


def test_a_saved_conversion_loads_into_models_with_heads(tmp_path: Path) -> None:
    source = made().float()
    converted = LorentzModel.from_euclidean(source, k=7.0)
    converted.save_pretrained(tmp_path)
    ids, _ = texts()
    again = LorentzForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again.model(ids).last_hidden_state, converted(ids).last_hidden_state)


def test_another_k_is_that_of_all_layers_of_the_checkpoint_and_of_later_graphs_alone(tmp_path: Path) -> None:
    source = made()
    converted = LorentzModel.from_euclidean(source, k=1e6)
    ids, _ = texts()
    before = converted(ids).last_hidden_state
    converted.set_k(3.0)
    ks = {float(m.k) for m in converted.modules() if isinstance(m, Lorentz)}
    assert ks == {3.0} and converted.config.k == 3.0 and converted.encoder.config.k == 3.0
    direct = LorentzModel.from_euclidean(source, k=3.0)
    assert torch.equal(converted(ids).last_hidden_state, direct(ids).last_hidden_state)
    before.square().sum().backward()  # of the graph at the old k
    fresh = LorentzModel.from_euclidean(source, k=1e6)
    fresh(ids).last_hidden_state.square().sum().backward()
    for a, b in zip(converted.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    converted.save_pretrained(tmp_path)
    assert float(LorentzModel.from_pretrained(tmp_path).manifold.k) == 3.0
    with pytest.raises(ValueError, match="positive"):
        converted.set_k(0.0)
    with pytest.raises(ValueError, match="no k"):
        LorentzModel(LorentzConfig(vocab_size=9, hidden_size=9, num_hidden_layers=1, geometry="euclidean")).set_k(1.0)


def test_what_cannot_be_converted_is_named_with_the_nearest_choice() -> None:
    sizes = {"embedding_size": 8, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    albert = AlbertModel(AlbertConfig(vocab_size=20, **sizes))
    with pytest.raises(ValueError, match=r"'albert', which has maps that layers share.*of type 'bert'"):
        LorentzModel.from_euclidean(albert)
    with pytest.raises(ValueError, match="a decoder"):
        LorentzModel.from_euclidean(made(is_decoder=True))
    with pytest.raises(ValueError, match="model_type 'Linear'"):
        LorentzModel.from_euclidean(nn.Linear(2, 2))
    relative = made()
    relative.config.position_embedding_type = "relative_key"
    with pytest.raises(ValueError, match="position_embedding_type='relative_key', relative positions"):
        LorentzModel.from_euclidean(relative)
    for kind, reason in (
        ("deberta-v2", "relative positions"),
        ("t5", "a decoder"),
        ("modernbert", "gated feed-forward"),
    ):
        other = made()
        other.config.model_type = kind
        with pytest.raises(ValueError, match=reason):
            LorentzModel.from_euclidean(other)
    with pytest.raises(ValueError, match="k is a positive number"):
        LorentzModel.from_euclidean(made(), k=-1.0)
