"""Tiny random backbones of every kind, two layers and 32 free coordinates wide, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    T5Config,
    T5Model,
    ViTConfig,
    ViTForImageClassification,
)

from lorentz.hf import LorentzConfig, LorentzForSequenceClassification

__all__ = ["BACKBONES", "backbone", "inputs", "nudge", "result", "state"]

IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
TEXT = {"input_ids": IDS, "attention_mask": MASK}


class Backbone(NamedTuple):
    build: Callable[[], nn.Module]
    inputs: dict[str, Tensor]


def _lorentz(geometry: str) -> nn.Module:
    config = LorentzConfig(
        vocab_size=20,
        hidden_size=33,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=65,
        max_position_embeddings=16,
        initializer_range=0.3,
        geometry=geometry,
    )
    return LorentzForSequenceClassification(config)


def _bert() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=16, **sizes))


def _gpt2() -> nn.Module:
    return GPT2ForSequenceClassification(
        GPT2Config(vocab_size=20, n_positions=16, n_embd=32, n_layer=2, n_head=4, pad_token_id=0)
    )


def _t5() -> nn.Module:
    return T5Model(T5Config(vocab_size=20, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))


def _vit() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, **sizes))


PIXELS = torch.linspace(-1, 1, 128).view(2, 1, 8, 8)
BACKBONES = {
    "bert": Backbone(_bert, TEXT),
    "gpt2": Backbone(_gpt2, TEXT),
    "t5": Backbone(_t5, {**TEXT, "decoder_input_ids": IDS}),
    "vit": Backbone(_vit, {"pixel_values": PIXELS}),
    "lorentz": Backbone(lambda: _lorentz("lorentz"), TEXT),
    "flat": Backbone(lambda: _lorentz("euclidean"), TEXT),
}


@lru_cache
def _made(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BACKBONES[name].build().eval()
    with torch.no_grad():  # biases that are not 0, so that a method which forgets them is seen
        for path, parameter in model.named_parameters():
            if path.endswith("bias"):
                parameter.add_(0.1 * torch.sin(torch.arange(float(parameter.numel()))).view_as(parameter))
    return model


def backbone(name: str) -> Any:
    """A fresh copy of a backbone, the same at every call, in eval mode."""
    return deepcopy(_made(name))


def inputs(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Inputs of a backbone."""
    return {key: x.to(dtype) if x.is_floating_point() else x for key, x in BACKBONES[name].inputs.items()}


def result(model: Any, name: str) -> Tensor:
    """What a backbone makes of its inputs: logits, or the last states."""
    found = model(**inputs(name, next(model.parameters()).dtype))
    first: Tensor = found["logits" if "logits" in found else "last_hidden_state"]
    return first


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {path: tensor.detach().clone() for path, tensor in model.state_dict().items()}


@torch.no_grad()
def nudge(handle: Any, std: float = 0.05, seed: int = 0) -> None:
    """Move everything that a delta trains by a little noise, so that no factor is 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in handle.parameters():
        parameter.add_(std * torch.randn(parameter.shape, generator=generator).to(parameter))
