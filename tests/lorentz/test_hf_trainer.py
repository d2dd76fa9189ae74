"""Lorentz transformers in the Trainer of transformers: evaluation, weight decay, and checkpoints of a k that was set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from lorentz.hf import (
    LorentzConfig,
    LorentzForConditionalGeneration,
    LorentzForMaskedLM,
    LorentzForSequenceClassification,
    LorentzModel,
)
from lorentz.optim import RiemannianAdam

logging.set_verbosity_error()
logging.disable_progress_bar()


def made(kind: type = LorentzForSequenceClassification, **options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 9, "num_hidden_layers": 1, "num_attention_heads": 2}
    return kind(LorentzConfig(**{**sizes, "max_position_embeddings": 8, **options}))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", **options
    )


@pytest.mark.parametrize("kind", [LorentzForSequenceClassification, LorentzForConditionalGeneration])
def test_the_trainer_trains_and_evaluates(kind: type, tmp_path: Path) -> None:
    label: Any = 1 if kind is LorentzForSequenceClassification else [7, 5, 2]
    rows = [{"input_ids": [5, 6, 7], "labels": label} for _ in range(4)]
    trainer = Trainer(model=made(kind), args=arguments(tmp_path, max_steps=2), train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert set(trainer.predict(rows).metrics) >= {"test_loss"}


def test_weight_decay_takes_the_same_parameters_of_both_geometries(tmp_path: Path) -> None:
    decayed = {}
    for geometry in ("lorentz", "euclidean"):
        model = made(geometry=geometry, learnable_k=True)
        decay, keep = model.parameter_groups(0.1)
        assert (decay["weight_decay"], keep["weight_decay"]) == (0.1, 0.0)
        assert sum(len(g["params"]) for g in (decay, keep)) == len(list(model.parameters()))
        names = {id(p): name for name, p in model.named_parameters()}
        decayed[geometry] = {names[id(p)] for p in decay["params"]}
    assert decayed["lorentz"] == decayed["euclidean"]
    assert not [n for n in decayed["lorentz"] if n.endswith(("rho", "log_scale", "bias")) or "norm" in n]
    # What the Trainer finds by itself in the twin is this set and the scale of attention.
    own = set(Trainer(model=model, args=arguments(tmp_path)).get_decay_parameter_names(model))
    assert {n for n in own if not n.endswith("log_scale")} == decayed["euclidean"]


def test_the_trainer_takes_the_groups(tmp_path: Path) -> None:
    model = made(learnable_k=True)
    rows = [{"input_ids": [5, 6, 7], "labels": 1} for _ in range(4)]
    optimizer = RiemannianAdam(model.parameter_groups(0.5), lr=1e-2)
    model.model.encoder.stack.requires_grad_(False)
    Trainer(
        model=model, args=arguments(tmp_path, max_steps=2), train_dataset=rows, optimizers=(optimizer, None)
    ).train()
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.0]
    stack = {id(p) for p in model.model.encoder.stack.parameters()}
    assert not any(id(p) in stack for g in model.parameter_groups(0.5) for p in g["params"])


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("kind", [LorentzModel, LorentzForMaskedLM])
def test_a_k_that_the_manifold_was_given_is_saved_in_the_configuration(
    kind: type, learnable: bool, tmp_path: Path
) -> None:
    model = made(kind, learnable_k=learnable)
    model.base_model.manifold.set_k(5.0)
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    assert loaded.config.k == loaded.base_model.config.k == float(loaded.base_model.manifold.k.detach()) == 5.0
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded(ids)[0], model.eval()(ids)[0])


def test_a_table_of_tokens_stays_one_of_points() -> None:
    model = made(LorentzModel)
    model.set_input_embeddings(nn.Embedding(30, 8))
    assert model.get_input_embeddings().weight.manifold is model.manifold
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert model.get_input_embeddings().weight is model.encoder.embeddings.word.weight
    assert model.get_input_embeddings().weight.manifold is model.manifold
