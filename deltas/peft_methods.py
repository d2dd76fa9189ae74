"""Methods that hyrel and peft both have: what a checkpoint's configuration and tensors mean in either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Delta, Site
from .errors import DeltaError
from .handle import Handle
from .hosts import Host, host_of
from .joining import absolute_positions
from .methods.lora import LoRA
from .methods.own import LNTuning
from .methods.prefix import PrefixTuning
from .methods.prompt import PromptTuning, PTuning
from .peft_config import Known, roles_of, task_of

__all__ = ["CONVERTERS", "Converter", "Entry", "converter_of", "into"]

Values = dict[str, Tensor]


class Entry(NamedTuple):
    """A tensor of a checkpoint, and the parameters that take it.

    Attributes
    ----------
    shape : of the tensor
    put : stores it
    """

    shape: tuple[int, ...]
    put: Callable[[Tensor], None]


class Converter(NamedTuple):
    """How one method goes from and to peft.

    Attributes
    ----------
    kind : peft's name of it
    methods : classes that are written as it
    known : keys of its configuration
    spec : delta of a configuration; given the host, the targets' paths and the tensors
    entries : key (without ``base_model.model.``) -> what takes it
    write : configuration and tensors of a handle; keys as in `entries`
    prompt : whether its tokens are stored as one tensor
    """

    kind: str
    methods: tuple[type[Delta], ...]
    known: Known
    spec: Callable[[Mapping[str, Any], Host, list[str], Values], Delta]
    entries: Callable[[Handle], dict[str, Entry]]
    write: Callable[[Handle, Any], tuple[dict[str, Any], Values]]
    prompt: bool = False


def into(parameter: Tensor, shape: tuple[int, ...] | None = None) -> Entry:
    """The entry of one parameter, stored in its own shape or another of as many numbers."""

    def put(tensor: Tensor) -> None:
        parameter.copy_(tensor.view(parameter.shape))

    return Entry(tuple(parameter.shape) if shape is None else shape, put)


def by_path(handle: Handle) -> dict[str, list[Site]]:
    """Sites by the path of their module."""
    found: dict[str, list[Site]] = {}
    for site in handle.sites:
        found.setdefault(site.path, []).append(site)
    return found


def part_of(site: Site) -> Any:
    """The part of a site."""
    return site.part


# LoRA


def _lora_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    return LoRA(
        rank=config.get("r", 8),
        alpha=float(config.get("lora_alpha", 8)),
        roles=roles_of(host, paths),
        dropout=float(config.get("lora_dropout") or 0),
        stabilised=bool(config.get("use_rslora")),
        directed=bool(config.get("use_dora")),
    )


def _lora_entries(handle: Handle) -> dict[str, Entry]:
    found = {}
    for site in handle.sites:
        part = part_of(site)
        found[f"{site.path}.lora_A.weight"] = into(part.A)
        found[f"{site.path}.lora_B.weight"] = into(part.B)
        if hasattr(part, "magnitude"):
            found[f"{site.path}.lora_magnitude_vector"] = into(part.magnitude)
    return found


def _lora_write(handle: Handle, spec: LoRA) -> tuple[dict[str, Any], Values]:
    values: Values = {}
    layers = by_path(handle)
    rank = spec.rank * max(len(sites) for sites in layers.values())  # parts of one fused layer become one
    for path, sites in layers.items():
        parts = [part_of(site) for site in sites]
        low = torch.cat([part.A for part in parts])
        up = torch.cat([_whole(site, part.B) for site, part in zip(sites, parts, strict=True)], 1)
        values[f"{path}.lora_A.weight"] = low.repeat(-(-rank // len(low)), 1)[:rank]
        values[f"{path}.lora_B.weight"] = F.pad(up, (0, rank - len(low)))
        if spec.directed:
            if sites[0].rows is not None:
                raise DeltaError(
                    f"peft has no DoRA of some rows of a fused layer; {path} has: take the role of all its rows"
                )
            values[f"{path}.lora_magnitude_vector"] = parts[0].magnitude
    config = {
        "r": rank,
        "lora_alpha": spec.scale * (rank**0.5 if spec.stabilised else rank),
        "lora_dropout": spec.dropout,
        "use_rslora": spec.stabilised,
        "use_dora": spec.directed,
        "bias": "none",
        "fan_in_fan_out": all(type(site.module).__name__ == "Conv1D" for site in handle.sites),
        "target_modules": sorted(layers),
    }
    return config, values


def _whole(site: Site, rows: Tensor) -> Tensor:
    """Rows of a fused layer among zeros for all others."""
    if site.rows is None:
        return rows
    full = rows.new_zeros(3 * rows.shape[0], rows.shape[1])
    full[site.rows] = rows
    return full


# LN-tuning


def _norm_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    return LNTuning(roles=roles_of(host, paths))


def _norm_entries(handle: Handle) -> dict[str, Entry]:
    return {
        f"{site.path}.ln_tuning_layers.{name}": into(site.module.get_parameter(name))
        for site in handle.sites
        for name in site.names
    }


def _norm_write(handle: Handle, spec: LNTuning) -> tuple[dict[str, Any], Values]:
    values: Values = {
        f"{site.path}.ln_tuning_layers.{name}": site.module.get_parameter(name)
        for site in handle.sites
        for name in site.names
    }
    return {"target_modules": sorted(site.path for site in handle.sites)}, values


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
    return PrefixTuning(length=_length(config, values), positions="shifted")


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


_TOKENS = ("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
_NOTHING: tuple[Any, ...] = ()

CONVERTERS = [
    Converter(
        "LORA",
        (LoRA,),
        Known(
            used=("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
            idle=(
                "fan_in_fan_out",
                "megatron_core",
                "eva_config",
                "loftq_config",
                "qalora_group_size",
                "ensure_weight_tying",
                "runtime_config",
            ),
            only={
                "bias": ("none",),
                "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
                **dict.fromkeys(
                    (
                        "rank_pattern",
                        "alpha_pattern",
                        "layer_replication",
                        "lora_bias",
                        "target_parameters",
                        "trainable_token_indices",
                        "alora_invocation_tokens",
                        "use_qalora",
                        "use_bdlora",
                        "arrow_config",
                        "kasa_config",
                        "monteclora_config",
                        "velora_config",
                        "megatron_config",
                    ),
                    _NOTHING,
                ),
            },
        ),
        _lora_spec,
        _lora_entries,
        _lora_write,
    ),
    Converter("LN_TUNING", (LNTuning,), Known(), _norm_spec, _norm_entries, _norm_write),
    Converter(
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
    ),
    Converter(
        "PREFIX_TUNING",
        (PrefixTuning,),
        Known(used=_TOKENS, idle=("encoder_hidden_size", "prefix_projection", "init_weights")),
        _prefix_spec,
        _prefix_entries,
        _prefix_write,
        prompt=True,
    ),
]


def converter_of(kind: str) -> Converter:
    """The converter of peft's name.

    Raises
    ------
    DeltaError : there is none; names those that are.
    """
    wanted = "PROMPT_TUNING" if kind == "P_TUNING" else kind  # peft stores what the network made
    for converter in CONVERTERS:
        if converter.kind == wanted:
            return converter
    raise DeltaError(f"peft_type={kind!r} is not supported, only {', '.join(c.kind for c in CONVERTERS)} and P_TUNING")
