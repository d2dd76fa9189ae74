"""Methods of tokens, as peft stores them: prompt tuning, P-tuning and prefix tuning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Delta
from ..errors import DeltaError
from ..handle import Handle
from ..hosts import Host, host_of
from ..joining import absolute_positions
from ..methods.prefix import PrefixTuning
from ..methods.prompt import PromptTuning, PTuning
from .config import Known, task_of
from .convert import Converter, Entry, Values, into, part_of

__all__ = ["PREFIX_TUNING", "PROMPT_TUNING"]

_TOKENS = ("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")

# prompt tuning


def _refuse_prompt(config: Mapping[str, Any], model: Any) -> None:
    body = getattr(model, "base_model", model)
    if config.get("task_type") == "SEQ_CLS" and hasattr(body, "encoder") and getattr(body, "pooler", None) is None:
        raise DeltaError(
            f"the head of this {type(model).__name__} reads the first state itself: that of the prompt in peft, and "
            "that of the first word here, where tokens of a delta never reach a head"
        )
    _refuse_seq2seq(config)


def _refuse_seq2seq(config: Mapping[str, Any]) -> None:
    if (config.get("num_transformer_submodules") or 1) != 1 or config.get("task_type") == "SEQ_2_SEQ_LM":
        raise DeltaError(
            "peft puts the tokens of an encoder-decoder into the encoder's states or the decoder's cache, which is another "
            "model than PromptTuning or PrefixTuning: such checkpoints cannot be exchanged"
        )


def _length(config: Mapping[str, Any], values: Values) -> int:
    if "prompt_embeddings" not in values:
        raise DeltaError("the checkpoint lacks the tensor 'prompt_embeddings'")
    length = config.get("num_virtual_tokens")
    if length != len(values["prompt_embeddings"]):
        raise DeltaError(
            f"num_virtual_tokens={length}, but prompt_embeddings has {len(values['prompt_embeddings'])} rows"
        )
    return int(length)


def _prompt_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    _refuse_prompt(config, host.model)
    kept = not absolute_positions(host)
    return PromptTuning(length=_length(config, values), positions="kept" if kept else "shifted")


def _prompt_entries(handle: Handle) -> dict[str, Entry]:
    return {"prompt_embeddings": into(part_of(handle.sites[0]).prompt)}


def _prompt_write(handle: Handle, spec: PromptTuning) -> tuple[dict[str, Any], Values]:
    _refuse_prompt({"task_type": task_of(handle.model)}, handle.model)
    if spec.positions == "kept" and absolute_positions(host_of(handle.model)):
        raise DeltaError(_kept("PromptTuning", handle.model))
    with torch.no_grad():
        tokens = part_of(handle.sites[0]).tokens(None, 0)
    return {**_shape(handle.model), "num_virtual_tokens": spec.length}, {"prompt_embeddings": tokens}


def _kept(name: str, model: nn.Module) -> str:
    return (
        f'this {name} has positions="kept", and peft counts the tokens of the input from position n on: in its hands this '
        f'{type(model).__name__} would be another model. Train with positions="shifted" to exchange it'
    )


def _shape(model: nn.Module) -> dict[str, Any]:
    config: Any = model.config
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return {
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": groups,
        "token_dim": config.hidden_size,
        "num_transformer_submodules": 1,
    }


# prefix tuning


def _prefix_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    _refuse_seq2seq(config)
    _warn_of_window(host.model, _length(config, values))
    return PrefixTuning(length=_length(config, values), roles=("attention",), positions="shifted")


def _warn_of_window(model: Any, n: int) -> None:
    """A prefix of peft lies in the cache, and so leaves a sliding window; one of ours never does."""
    config = model.config.get_text_config()
    width = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if width and getattr(config, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds):
        warnings.warn(
            f"layers of this {type(model).__name__} see {width} tokens back, of which the prefix is one part in peft and "
            f"none here: both compute the same for texts of up to {width - n} tokens",
            stacklevel=2,
        )


def _prefix_parts(handle: Handle) -> list[Any]:
    return [part_of(site) for site in handle.sites if site.kind == "attention"]


def _prefix_entries(handle: Handle) -> dict[str, Entry]:
    parts = _prefix_parts(handle)
    n, size = parts[0].key.shape

    def put(tensor: Tensor) -> None:
        for part, pair in zip(parts, tensor.view(n, len(parts), 2, size).unbind(1), strict=True):
            part.key.copy_(pair[:, 0])
            part.value.copy_(pair[:, 1])

    return {"prompt_embeddings": Entry((n, 2 * len(parts) * size), put)}


def _prefix_write(handle: Handle, spec: PrefixTuning) -> tuple[dict[str, Any], Values]:
    _refuse_seq2seq({"task_type": task_of(handle.model)})
    if spec.positions == "kept":
        raise DeltaError(_kept("PrefixTuning", handle.model))
    _warn_of_window(handle.model, spec.length)
    shape = _shape(handle.model)
    parts = _prefix_parts(handle)
    if len(parts) != shape["num_layers"]:
        raise DeltaError(f"peft puts a prefix into all {shape['num_layers']} layers, this one is in {len(parts)}")
    with torch.no_grad():
        pairs = [torch.stack(part.tokens(None)[:2], 1) for part in parts]
    values = torch.stack(pairs, 1)  # (n, layers, 2, size)
    shape["token_dim"] = values.shape[-1]
    config = {**shape, "num_virtual_tokens": spec.length, "prefix_projection": False}
    return config, {"prompt_embeddings": values.flatten(1)}


PROMPT_TUNING = Converter(
    "PROMPT_TUNING",
    (PromptTuning, PTuning),
    Known(
        used=_TOKENS,
        idle=(
            "prompt_tuning_init",
            "prompt_tuning_init_text",
            "tokenizer_name_or_path",
            "tokenizer_kwargs",
            "encoder_reparameterization_type",
            "encoder_hidden_size",
            "encoder_num_layers",
            "encoder_dropout",
        ),
    ),
    _prompt_spec,
    _prompt_entries,
    _prompt_write,
    prompt=True,
)

PREFIX_TUNING = Converter(
    "PREFIX_TUNING",
    (PrefixTuning,),
    Known(used=_TOKENS, idle=("encoder_hidden_size", "prefix_projection", "init_weights")),
    _prefix_spec,
    _prefix_entries,
    _prefix_write,
    prompt=True,
)
