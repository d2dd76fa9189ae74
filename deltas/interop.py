"""Checkpoints of peft: deltas from them, and deltas as them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .attaching import attach
from .base import methods_of
from .errors import DeltaError, nearest
from .handle import Handle
from .hosts import Host, host_of
from .peft import CONVERTERS, Converter, Entry, converter_of, into
from .peft.config import check, heads_of, targets_of, task_of
from .space import geometry
from .storage import new_folder, replace

__all__ = ["from_peft", "to_peft"]

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


def from_peft(
    folder: str | Path,
    model: nn.Module,
    *,
    name: str = "default",
    host: Host | str | Mapping[str, str] | None = None,
) -> Handle:
    """Attach a delta that peft has stored: LoRA (rsLoRA, DoRA), IA3, LoKr, LN-tuning, prompt, P- and prefix tuning.

    The model then computes what peft's computes. Prompts and prefixes come with ``positions="shifted"``, because peft trains
    them so where a model has learned positions. Modules in ``modules_to_save`` become heads.

    Parameters
    ----------
    folder : with ``adapter_config.json`` and ``adapter_model.safetensors``
    model : the base model, without peft
    name : of the delta
    host : as for :func:`deltas.attach`

    Raises
    ------
    DeltaError : a file is missing or broken, a value of the configuration is not supported, or a tensor is missing,
        unknown or of another shape; names the key. The model is unchanged then.

    Warns
    -----
    UserWarning : the configuration has a key with a value that hyrel does not know. It is ignored, as peft does.

    References
    ----------
    https://huggingface.co/docs/peft, "Checkpoint format".
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    where = str(folder / CONFIG)
    kind = str(config.get("peft_type"))
    converter = converter_of(kind)
    check(config, converter.known, where)
    if geometry(model)["geometry"] != "euclidean":
        raise DeltaError("peft knows no Lorentz layers, so its checkpoints have no meaning on a Lorentz backbone")
    prefix = "base_model." if converter.prompt else "base_model.model."
    values = {_today(key.removeprefix(prefix)): tensor for key, tensor in tensors.items()}
    paths = [] if converter.prompt else _paths(config, model, values)
    chosen = _host(model, host, paths)
    heads = heads_of(config, model)
    _refuse_tied(model, heads, "the checkpoint's modules_to_save")
    spec = converter.spec(config, chosen, paths, values)
    _drop_equal(model, values, folder / TENSORS)
    handle = attach(model, spec, name=name, host=chosen, heads=heads)
    try:
        _fill(handle, converter.entries(handle), values, folder / TENSORS, prefix)
    except DeltaError:
        handle.detach()
        raise
    handle.counted = False  # a checkpoint of peft holds no start
    return handle


def _today(key: str) -> str:
    """A tensor's name in the versions of peft that have another now."""
    return key.removesuffix(".weight") if key.endswith("lora_magnitude_vector.weight") else key


def _host(model: nn.Module, host: Host | str | Mapping[str, str] | None, paths: list[str]) -> Host:
    """The host; of a model of no known family the layers themselves, which is enough for methods of layers."""
    found = host_of(model, host)
    return found if found.roles or not paths else host_of(model, {path: path for path in paths})


def _paths(config: Mapping[str, Any], model: nn.Module, values: dict[str, Tensor]) -> list[str]:
    """Paths of the layers: those that the configuration means, or those that have tensors."""
    found = targets_of(config, model)
    if found is None:
        marked = [re.match(r"(.+)\.(?:lora_|ln_tuning_layers|ia3_l|lokr_)", key) for key in values]
        named = {match[1] for match in marked if match}
        found = sorted(named & {name for name, _ in model.named_modules()})
    return found


@torch.no_grad()
def _fill(handle: Handle, entries: dict[str, Entry], values: dict[str, Tensor], where: Path, prefix: str) -> None:
    heads = {key: into(p) for key, p in handle.head_parameters().items()}
    wanted = {**entries, **heads}
    if missing := sorted(set(wanted) - set(values)):
        key = missing[0] if missing[0] == "prompt_embeddings" else prefix + missing[0]
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DeltaError(f"{where} lacks the tensor {key!r}{more}. {nearest(missing[0], sorted(values)[:40])}")
    if unknown := sorted(set(values) - set(wanted)):
        more = f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise DeltaError(
            f"{where} has a tensor that fits nothing here: {prefix + unknown[0]!r}{more}. "
            f"{nearest(unknown[0], sorted(wanted)[:40])}"
        )
    for key, entry in wanted.items():
        if tuple(values[key].shape) != entry.shape:
            raise DeltaError(f"{where}: {key} has the shape {tuple(values[key].shape)}, here it has {entry.shape}")
    for key, entry in wanted.items():
        entry.put(values[key])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for file in (CONFIG, TENSORS):
        if not (folder / file).is_file():
            old = (folder / "adapter_model.bin").is_file()
            hint = (
                "; adapter_model.bin is a pickle, which is not read: store it with safe_serialization=True"
                if old
                else ""
            )
            raise DeltaError(f"no {file} in {folder}{hint}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DeltaError(f"{folder / CONFIG} is broken: {error}") from None
    except (SafetensorError, OSError) as error:
        raise DeltaError(f"{folder / TENSORS} is broken or cut off: {error}") from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise DeltaError(f"{folder / CONFIG} was not written by peft: it has no peft_type")
    return config, tensors


def to_peft(handle: Handle, folder: str | Path) -> None:
    """Store a delta as a checkpoint that peft loads: LoRA (rsLoRA, DoRA), IA3, LoKr, LN-tuning, prompt and prefix tuning.

    Heads go into ``modules_to_save``. A prompt or a prefix that a network makes is stored as what it makes.

    Parameters
    ----------
    handle : of an active delta of one method
    folder : is made; holds ``adapter_config.json`` and ``adapter_model.safetensors``

    Raises
    ------
    DeltaError : peft has no such method or model, or would compute something else; says why.
    """
    methods = methods_of(handle.spec)
    if len(methods) != 1:
        raise DeltaError(
            f"{handle.spec.name} has several methods, and a checkpoint of peft one: attach and store them apart"
        )
    if not handle.active:
        raise DeltaError(f"the delta {handle.name!r} is not active: attach() or enable() it first")
    if geometry(handle.model)["geometry"] != "euclidean":
        raise DeltaError("peft knows no Lorentz layers: store the delta by handle.save(folder)")
    converter = _written_as(type(methods[0]), methods[0].name)
    config, values = converter.write(handle, methods[0])
    heads = _heads(handle)
    _refuse_tied(handle.model, heads, "the delta's heads")
    prefix = "base_model." if converter.prompt else "base_model.model."
    tensors = {key if key == "prompt_embeddings" else prefix + key: t for key, t in values.items()}
    for path in heads:
        if inside := [site.path for site in handle.sites if f"{site.path}.".startswith(f"{path}.")]:
            raise DeltaError(
                f"peft trains the head {path} as a whole, so no delta can act at {inside[0]} in it: leave that role out, or "
                "store the delta by handle.save(folder)"
            )
        for own, parameter in handle.model.get_submodule(path).named_parameters():
            tensors[f"{prefix}{path}.{own}"] = parameter
    base: Any = getattr(handle.model, "config", None)
    document = {
        "peft_type": converter.kind,
        "task_type": task_of(handle.model),
        "base_model_name_or_path": getattr(base, "_name_or_path", None) or None,
        "inference_mode": True,
        "modules_to_save": heads or None,
        **config,
    }
    folder = new_folder(folder)
    stored = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    replace(folder / TENSORS, lambda path: save_file(stored, path, metadata={"format": "pt"}))
    text = json.dumps(document, indent=2, sort_keys=True)
    replace(folder / CONFIG, lambda path: path.write_text(text + "\n", encoding="utf-8"))


def _refuse_tied(model: nn.Module, heads: list[str], what: str) -> None:
    """Refuse heads that share a parameter with the rest of a model: peft trains a copy, hyrel the parameter itself."""
    tables: dict[int, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        tables.setdefault(id(parameter), []).append(path)
    inside = tuple(f"{head}." for head in heads)
    for paths in tables.values():
        mine, others = [p for p in paths if p.startswith(inside)], [p for p in paths if not p.startswith(inside)]
        if heads and ((mine and others) or len(mine) > 1):
            raise DeltaError(
                f"{mine[0]}, of {what}, is the same parameter as {(others or mine[1:])[0]} in this {type(model).__name__}; "
                "peft trains a copy of it. Untie the two first: model.config.tie_word_embeddings = False, and "
                f"a parameter of its own, nn.Parameter({mine[0]}.clone())"
            )


def _drop_equal(model: nn.Module, values: dict[str, Tensor], where: Path) -> None:
    """Leave out weights of the base model that peft stores beside a delta of its embeddings or output layer.

    Raises
    ------
    DeltaError : this model has other weights there.
    """
    for key in [key for key in values if key.endswith(".base_layer.weight")]:
        path = key.removesuffix(".base_layer.weight")
        weight = getattr(dict(model.named_modules()).get(path), "weight", None)
        if not isinstance(weight, Tensor) or not torch.equal(weight.detach().cpu(), values[key].to(weight.dtype)):
            raise DeltaError(
                f"{where} holds the weight of the base model's {path}, and this model has another there. Load the weight "
                "that the delta was trained beside into the model first (after resizing embeddings, for example)"
            )
        del values[key]


def _written_as(cls: type, name: str) -> Converter:
    for converter in CONVERTERS:
        if cls in converter.methods:
            return converter
    known = [method.__name__ for converter in CONVERTERS for method in converter.methods]
    raise DeltaError(f"peft has no {name}; methods that it has too: {', '.join(known)}")


def _heads(handle: Handle) -> list[str]:
    """Heads, also untrained ones: peft wraps those of a classifier whatever a checkpoint says."""
    model = handle.model
    return handle.heads or [name for name in ("classifier", "score", "qa_outputs") if hasattr(model, name)]
