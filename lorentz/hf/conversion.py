"""Pretrained Euclidean encoders as Lorentz models: the same function for k to infinity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .configuration import LorentzConfig

if TYPE_CHECKING:
    from .model import LorentzModel

__all__ = ["FAMILIES", "convert"]


@dataclass(frozen=True)
class _Names:
    """Paths of the modules of an encoder, below its base model and below each of its layers."""

    layers: str = "encoder.layer"
    types: str | None = "embeddings.token_type_embeddings"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_dropout: str = "attention.self.dropout"
    norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    last_norm: str = "output.LayerNorm"


_BERT = _Names()
_DISTIL = _Names(
    layers="transformer.layer",
    types=None,
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_dropout="attention.dropout",
    norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    last_norm="output_layer_norm",
)
# model_type -> where its modules are; BERT's own covers MiniLM. RoBERTa counts positions from behind the padding token's id.
FAMILIES = {
    "bert": _BERT,
    "camembert": _BERT,
    "distilbert": _DISTIL,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}
_COUNTS_FROM_PADDING = ("camembert", "roberta", "xlm-roberta")
_REASONS = {
    "relative positions": ("deberta", "deberta-v2", "mpnet", "xlnet"),
    "a decoder": ("bart", "gpt2", "gpt_neox", "llama", "mbart", "mistral", "opt", "pegasus", "qwen2", "t5", "umt5"),
    "gated feed-forward maps": ("gte", "modernbert", "nomic_bert"),
    "maps that layers share": ("albert",),
}


def _refuse(what: str, kind: str) -> ValueError:
    near = get_close_matches(kind, FAMILIES, n=1, cutoff=0.0)[0]
    known = ", ".join(FAMILIES)
    return ValueError(
        f"from_euclidean converts encoders with learned absolute positions, norms after each residual and plain feed-forward "
        f"maps (model_type {known}); got {what}. The nearest that it takes is a model of type {near!r}"
    )


def _checked(model: nn.Module) -> tuple[Any, _Names]:
    """Base model and names, or a ValueError that says what stands in the way."""
    if hasattr(model, "active_adapter") and hasattr(model, "merge_and_unload"):  # which answers as what it wraps
        raise ValueError(
            f"from_euclidean reads the weights of a plain encoder, and a {type(model).__name__} of peft has others: "
            "merge_and_unload() gives the plain model"
        )
    base: Any = getattr(model, "base_model", model)
    config = getattr(base, "config", None)
    kind = str(getattr(config, "model_type", type(base).__name__))
    for what, kinds in _REASONS.items():
        if kind in kinds:
            raise _refuse(f"model_type {kind!r}, which has {what}", kind)
    if kind not in FAMILIES:
        raise _refuse(f"model_type {kind!r}", kind)
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise _refuse(f"a {kind} with is_decoder=True, a decoder", kind)
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise _refuse(f"position_embedding_type={positions!r}, relative positions", kind)
    if getattr(config, "sinusoidal_pos_embds", False):
        raise _refuse(f"a {kind} with sinusoidal_pos_embds=True, positions that are not learned", kind)
    _require_plain(base, FAMILIES[kind], kind)
    return base, FAMILIES[kind]


# Of a module that is read: its values, also where they are computed from other parameters.
_READ = re.compile(r"weight|bias|weight_[gv]|parametrizations\..*")


def _require_plain(base: Any, names: _Names, kind: str) -> None:
    """Refuse what would be lost: parameters of adapters and the like beside those that are read."""
    layers = base.get_submodule(names.layers)
    if not len(layers):
        raise _refuse(f"a {kind} without layers", kind)
    embeddings = base.embeddings
    read = [embeddings.word_embeddings, embeddings.position_embeddings, embeddings.LayerNorm]
    read += [base.get_submodule(names.types)] if names.types else []
    maps = ("query", "key", "value", "out", "up", "down", "norm", "last_norm")
    read += [layer.get_submodule(getattr(names, name)) for layer in layers for name in maps]
    for module in read:
        if not isinstance(module.weight, Tensor):
            raise ValueError(
                f"from_euclidean reads plain weights, and a {type(module).__name__} has none: is it quantised?"
            )
    known = {id(p) for module in read for name, p in module.named_parameters() if _READ.fullmatch(name)}
    known |= {id(p) for module in read for p in (module.weight, getattr(module, "bias", None))}
    every = base.named_parameters()
    if others := [name for name, p in every if id(p) not in known and "pooler" not in name.split(".")]:
        raise ValueError(
            f"from_euclidean reads the weights of a plain encoder and would lose {len(others)} other parameters, such as "
            f"{others[0]}: fold what was added into the weights first (merge(forget=True) of a delta of hyrel, "
            "merge_and_unload() of peft), or take it out"
        )


def _activation(config: Any) -> str:
    name = getattr(config, "hidden_act", None) or config.activation
    if not isinstance(name, str):
        raise ValueError(f"the activation is a function, {name!r}; set its name in the configuration of the model")
    return name


def _positions(base: Any) -> Tensor:
    """Rows of the positions 0, 1, ... of a text."""
    weight: Tensor = base.embeddings.position_embeddings.weight
    padding = base.config.pad_token_id
    if base.config.model_type not in _COUNTS_FROM_PADDING:
        return weight
    if padding is None:
        raise ValueError(
            f"a {base.config.model_type} counts positions from behind its padding token, and pad_token_id is None; set it"
        )
    first = padding + 1
    return weight[first:]


def _config(base: Any, names: _Names, k: float, learnable_k: bool) -> LorentzConfig:
    layers, source = base.get_submodule(names.layers), base.config
    layer = layers[0]
    hidden, width = layer.get_submodule(names.up).weight.shape
    types = base.get_submodule(names.types).num_embeddings if names.types else 0
    return LorentzConfig(
        vocab_size=base.embeddings.word_embeddings.num_embeddings,
        hidden_size=width + 1,
        num_hidden_layers=len(layers),
        num_attention_heads=source.num_attention_heads,
        intermediate_size=hidden + 1,
        hidden_act=_activation(source),
        hidden_dropout_prob=base.embeddings.dropout.p,
        attention_probs_dropout_prob=layer.get_submodule(names.attention_dropout).p,
        classifier_dropout=getattr(source, "classifier_dropout", None),
        max_position_embeddings=len(_positions(base)),
        type_vocab_size=types,
        position_embedding_type="learned",
        initializer_range=source.initializer_range,
        layer_norm_eps=layer.get_submodule(names.norm).eps,
        norm="post",
        attention_logits="relative",
        k=k,
        learnable_k=learnable_k,
        pad_token_id=source.pad_token_id,
        bos_token_id=source.bos_token_id,
        eos_token_id=source.eos_token_id,
    )


def _copy_linear(target: Any, source: Any) -> None:
    """Space columns and bias; the time column is 0."""
    target.weight.zero_()
    target.weight[:, 1:].copy_(source.weight)
    target.bias.copy_(source.bias)


def _copy_norm(target: Any, source: Any) -> None:
    target.weight.copy_(source.weight)
    target.bias.copy_(source.bias)


@torch.no_grad()
def convert(kind: type[LorentzModel], model: nn.Module, *, k: float, learnable_k: bool = False) -> LorentzModel:
    """What :meth:`LorentzModel.from_euclidean` returns."""
    base, names = _checked(model)
    made: Any = kind(_config(base, names, k, learnable_k)).to(base.dtype).eval()
    into, source = made.encoder.embeddings, base.embeddings
    into.word.weight.copy_(source.word_embeddings.weight)
    into.position.weight.copy_(_positions(base))
    if names.types:
        into.token_type.weight.copy_(base.get_submodule(names.types).weight)
    _copy_norm(into.norm, source.LayerNorm)
    for target, layer in zip(made.encoder.stack.layers, base.get_submodule(names.layers), strict=True):
        attention = target.attention
        for name in ("query", "key", "value", "out"):
            _copy_linear(getattr(attention, name), layer.get_submodule(getattr(names, name)))
        attention.log_scale.fill_(log(2 * attention.head_size**0.5))
        _copy_linear(target.up, layer.get_submodule(names.up))
        _copy_linear(target.down, layer.get_submodule(names.down))
        for norm, path in zip(target.norms, (names.norm, names.last_norm), strict=True):
            _copy_norm(norm, layer.get_submodule(path))
    result: LorentzModel = made.to(next(base.parameters()).device)
    return result
