"""Deltas in files: ``delta.safetensors`` with the tensors and ``delta.json`` with what they are for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .attaching import attach
from .errors import DeltaError
from .handle import Handle, handles
from .hosts import Host
from .space import geometry
from .spec import from_config, to_config
from .statistics import kept, statistics

__all__ = ["fingerprint", "load", "new_folder", "replace", "save"]

SCHEMA = 1
START = "start.safetensors"


def fingerprint(model: nn.Module, *, heads: tuple[str, ...] = (), derived: bool = True) -> str:
    """SHA-256 of the backbone's parameters and buffers as they were before any delta, heads left out.

    Parameters
    ----------
    heads : paths of modules that belong to a task
    derived : with the buffers that no checkpoint stores, which a forward pass may change; files of deltas had them at first
    """
    initial: dict[str, Tensor] = {}
    inside = [(f"{path}." if path else "", module) for path, module in model.named_modules() if handles(module)]
    found = [handle for _, module in inside for handle in handles(module).values()]
    for prefix, module in inside:  # the model itself, or parts of it that deltas were attached to
        initial.update({prefix + path: value for path, value in kept(module).items()})
        for handle in handles(module).values():
            if handle.merged:
                initial.update({prefix + path: value for path, value in (handle._base or {}).items()})
            if handle.active:
                initial.update({prefix + path: handle.initial[path] for path in handle.owned()})
    digest = sha256()
    skip = tuple(f"{head}." for head in heads)
    parts = [site.part for handle in found for site in handle.sites if site.part is not None]
    foreign = {id(t) for part in parts for t in (*part.parameters(), *part.buffers())}
    tensors = {**dict(model.named_parameters()), **_buffers(model, derived)}
    # A head that shares a parameter with the backbone has it under the name of the backbone.
    tied = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name.startswith(skip)}
    for name in sorted(tensors):
        tensor = tensors[name]
        if name.startswith(skip) or id(tensor) in tied or id(tensor) in foreign or ".deltas." in f".{name}":
            continue
        value = initial.get(name, tensor).detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _buffers(model: nn.Module, derived: bool) -> dict[str, Tensor]:
    """Buffers by path, those outside of the state only if `derived`."""
    hidden = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    return {name: buffer for name, buffer in model.named_buffers() if derived or name not in hidden}


def _dtype(model: nn.Module) -> str:
    """Name of the dtype of a model's first parameter of real numbers outside of deltas."""
    named = ((name, p) for name, p in model.named_parameters() if ".deltas." not in f".{name}")
    found = next((p.dtype for _, p in named if p.is_floating_point()), torch.float32)
    return str(found).removeprefix("torch.")


def save(handle: Handle, folder: str | Path, *, start: bool = False) -> None:
    """Store a delta and its heads. Written to a temporary name and renamed, so that no half file is left.

    Parameters
    ----------
    handle : of the delta
    folder : is made; holds ``delta.safetensors`` and ``delta.json``
    start : store in ``start.safetensors`` too what ``handle.flatten()`` counts from, as many bytes again: for subspaces

    Raises
    ------
    DeltaError : the folder is a file; the start is not known.
    """
    tensors = handle.values()
    if start and not handle.counted:
        raise DeltaError(f"the start of the delta {handle.name!r} is not known: it was read from files without it")
    folder = new_folder(folder)
    values = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    first = next(iter(values.values()), torch.empty(0))
    heads = tuple(handle.heads)
    document = {
        "schema": SCHEMA,
        "methods": to_config(handle.spec),
        "name": handle.name,
        "sites": [[site.path, site.place.role, site.kind] for site in handle.sites],
        "heads": list(heads),
        "backbone_sha256": fingerprint(handle.model, heads=heads, derived=False),
        **geometry(handle.model),
        "hyrel": _version(),
        "dtype": str(first.dtype).removeprefix("torch."),
        "backbone_dtype": _dtype(handle.model),
    }
    (folder / START).unlink(missing_ok=True)  # of an earlier delta
    replace(folder / "delta.safetensors", lambda path: save_file(values, path))
    text = json.dumps(document, indent=1)
    replace(folder / "delta.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))
    if start:  # last, so that no other delta is ever beside it
        begun = {key: handle.initial[key].cpu().contiguous() for key in handle.parts()}
        replace(folder / START, lambda path: save_file(begun, path))


def new_folder(folder: str | Path) -> Path:
    """A folder, made where it is missing.

    Raises
    ------
    DeltaError : a file is in the way.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DeltaError(f"{folder} is a file or below one; a delta is stored in a folder") from None
    return folder


def _version() -> str:
    try:
        return version("hyrel")
    except PackageNotFoundError:
        return "unknown"


def replace(path: Path, write: Any) -> None:
    """Write a file under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(
    model: nn.Module,
    folder: str | Path,
    *,
    name: str | None = None,
    host: Host | str | Mapping[str, str] | None = None,
    force: bool = False,
    dtype: torch.dtype | None = None,
) -> Handle:
    """Attach a stored delta to a model.

    Parameters
    ----------
    model : the backbone that the delta was trained on
    folder : as :func:`save` wrote it
    name : another name than the stored one
    host : as for :func:`attach`
    force : attach to a backbone with other weights or another k
    dtype : as for :func:`attach`

    Raises
    ------
    DeltaError : the files are missing, broken or of another program; the backbone is another; tensors are missing, unknown
        or of another shape. The model is unchanged then.
    """
    document, tensors = read(Path(folder))
    spec = from_config(document["methods"])
    heads = tuple(document["heads"])
    if not force:
        _refuse_other(model, document, heads, folder)
    here = geometry(model)
    if here["geometry"] != document["geometry"]:
        raise DeltaError(
            f"the delta in {folder} is of a {document['geometry']} backbone, this one is {here['geometry']}"
        )
    name = document["name"] if name is None else name
    handle = attach(model, spec, name=name, host=host, heads=heads, dtype=dtype)
    try:
        _fill(handle, tensors, folder)
        _set_start(handle, Path(folder) / START)
        # A learnable k is among what a delta may train, so the stored one may be that before it or that after it.
        there, both = document.get("k"), (here["k"], geometry(model)["k"])
        if there is not None and not force and not any(math.isclose(there, k, rel_tol=1e-5) for k in both):
            raise DeltaError(
                f"the delta in {folder} is of a backbone of k = {there:g}, this one has k = {here['k']:g}: make the model "
                "with that k, or pass force=True"
            )
    except DeltaError:
        handle.detach()
        raise
    return handle


def _refuse_other(model: nn.Module, document: dict[str, Any], heads: tuple[str, ...], folder: str | Path) -> None:
    """Refuse another backbone than the one of the file."""
    there = document["backbone_sha256"]
    found = fingerprint(model, heads=heads, derived=False)
    if there == found or there == fingerprint(model, heads=heads):
        return
    before, now = document.get("backbone_dtype", document.get("dtype")), _dtype(model)
    cast = f" That one was in {before} and this one is in {now}, which alone makes another." if before != now else ""
    raise DeltaError(
        f"the delta in {folder} belongs to another backbone (SHA-256 {there[:12]}..., this one has {found[:12]}...).{cast} "
        f"Load the model that it was trained on{f' in {before}' if cast else ''}, or pass force=True"
    )


@torch.no_grad()
def _fill(handle: Handle, tensors: dict[str, Tensor], folder: str | Path) -> None:
    own = {**handle.parts(), **handle.owned(), **handle.head_parameters()}
    # Running statistics are there if training moved them.
    own |= {path: buffer for path, buffer in statistics(handle.model.named_modules()).items() if path in tensors}
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or unknown:
        raise DeltaError(
            f"{folder} does not fit this model: it lacks {', '.join(missing[:3]) or 'nothing'}"
            f"{' ...' if len(missing) > 3 else ''} and has beyond it {', '.join(unknown[:3]) or 'nothing'}"
        )
    for key, tensor in own.items():
        if tensors[key].shape != tensor.shape:
            raise DeltaError(
                f"{key} in {folder} has the shape {tuple(tensors[key].shape)}, here it has {tuple(tensor.shape)}"
            )
    for key, tensor in own.items():
        tensor.copy_(tensors[key])


def _set_start(handle: Handle, path: Path) -> None:
    """Count from the stored start; remember where there is none."""
    handle.counted = path.is_file()
    if not handle.counted:
        return
    try:
        begun = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DeltaError(f"{path} is broken or cut off: {error}") from None
    parts = handle.parts()
    if {key: t.shape for key, t in begun.items()} != {key: t.shape for key, t in parts.items()}:
        raise DeltaError(f"{path} holds the start of another delta than {path.parent / 'delta.safetensors'}")
    handle.initial |= {key: begun[key].to(parts[key]) for key in parts}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Document and tensors of a folder, checked."""
    for name in ("delta.json", "delta.safetensors"):
        if not (folder / name).is_file():
            if (folder / "adapter_config.json").is_file():
                raise DeltaError(f"{folder} is a checkpoint of peft: read it by deltas.from_peft(folder, model)")
            raise DeltaError(f"no {name} in {folder}; a stored delta is a folder with delta.json and delta.safetensors")
    try:
        document = json.loads((folder / "delta.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DeltaError(f"{folder / 'delta.json'} is broken: {error}") from None
    wanted = {"schema", "methods", "name", "heads", "backbone_sha256", "geometry"}
    if not isinstance(document, dict) or not wanted <= set(document):
        raise DeltaError(f"{folder / 'delta.json'} was not written by hyrel: it lacks {sorted(wanted - set(document))}")
    if type(document["schema"]) is not int or not isinstance(document["name"], str):
        raise DeltaError(f"{folder / 'delta.json'} was not written by hyrel: its schema and name are of another type")
    if document["schema"] > SCHEMA:
        raise DeltaError(
            f"{folder} has schema {document['schema']}, this version of hyrel reads up to {SCHEMA}: update hyrel"
        )
    try:
        tensors = load_file(folder / "delta.safetensors")
    except (SafetensorError, OSError) as error:
        raise DeltaError(f"{folder / 'delta.safetensors'} is broken or cut off: {error}") from None
    return document, tensors
