"""Checkpoints as safetensors and JSON: model, optimiser states, random-number states, position. No pickles."""

from __future__ import annotations

import base64
import errno
import json
import random
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import nn
from torch.optim import Optimizer

from .errors import RunError

__all__ = [
    "frozen_tensors",
    "load_checkpoint",
    "load_weights",
    "read_state",
    "restore_rng",
    "rng_state",
    "save_checkpoint",
]

SCHEMA = 1


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def rng_state() -> dict[str, Any]:
    """States of the random-number generators of torch, its accelerators, NumPy and Python, as JSON values."""
    numpy: Any = np.random.get_state()  # noqa: NPY002 (the global generator is what other libraries draw from)
    version, internal, gauss = random.getstate()
    return {
        "torch": _text(torch.get_rng_state()),
        "cuda": [_text(s) for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "numpy": [numpy[0], [int(v) for v in numpy[1]], int(numpy[2]), int(numpy[3]), float(numpy[4])],
        "python": [version, list(internal), gauss],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Put the generators back to what :func:`rng_state` returned."""
    torch.set_rng_state(_bytes(state["torch"]))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(s) for s in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _durably(write: Callable[[], None], path: Path) -> None:
    """Call a writer of safetensors; its own error for a full disk becomes the usual one."""
    try:
        write()
    except SafetensorError as error:
        raise OSError(errno.ENOSPC if "No space" in str(error) else errno.EIO, str(error), str(path)) from None


def frozen_tensors(task: Any, model: nn.Module) -> frozenset[str]:
    """Names of the tensors of the model that checkpoints of a task do without."""
    found: frozenset[str] = task.frozen(model) if hasattr(task, "frozen") else frozenset()
    return found


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizers: list[Optimizer],
    state: dict[str, Any],
    frozen: Collection[str] = (),
) -> None:
    """Write ``model.safetensors``, ``optimizer.safetensors`` and ``state.json`` into an existing folder.

    `frozen` names tensors of the model that are left out: they never change, and building the model restores them.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for index, entries in optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                key = f"{number}.{index}.{name}"
                if isinstance(value, torch.Tensor):
                    tensors[key] = value.contiguous()
                else:
                    numbers[key] = value
    weights, moments = folder / "model.safetensors", folder / "optimizer.safetensors"
    whole = model.state_dict()
    kept = {k: t.contiguous().clone() for k, t in whole.items() if k not in frozen} if frozen else _once(whole)
    _durably(lambda: save_file(kept, weights, metadata={"format": "pt"}), weights)
    _durably(lambda: save_file(tensors, moments), moments)
    state = {"schema": SCHEMA, **state, "optimizer": numbers}
    (folder / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")


def _once(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors, those that several names share under the first of them, which is how ``load_model`` takes them."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
        if not tensor.numel() or place not in seen:
            kept[name] = tensor.contiguous()
        seen.add(place)
    return kept


def read_state(folder: Path) -> dict[str, Any]:
    """Read the state that :func:`save_checkpoint` wrote, to know what the checkpoint is of before it is loaded.

    Raises
    ------
    RunError : it is damaged; says how to go on.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        state["data_sha256"], state["config"]
    except _ERRORS as error:
        raise _damaged(folder, error) from None
    return state


def load_checkpoint(
    folder: Path, model: nn.Module, optimizers: list[Optimizer], *, frozen: Collection[str] = ()
) -> dict[str, Any]:
    """Read back what :func:`save_checkpoint` wrote, into `model` and `optimizers`; returns the state.

    `frozen` is what it was when the checkpoint was written.

    Raises
    ------
    RunError : the checkpoint is damaged or of another model; says how to go on.
    """
    try:
        return _load(folder, model, optimizers, frozen)
    except _ERRORS as error:
        raise _damaged(folder, error) from None


_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)


def _damaged(folder: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())[:200]
    return RunError(
        f"the checkpoint {folder} is damaged or belongs to another model ({type(error).__name__}: {reason}). "
        f"To start the run anew, delete {folder.parent}"
    )


def load_weights(path: Path, model: nn.Module, frozen: Collection[str] = ()) -> None:
    """Read the weights of a finished run, of which `frozen` were left out, into `model`.

    Raises
    ------
    RunError : the file is missing, damaged or of another model.
    """
    try:
        _load_weights(path, model, frozen)
    except _ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path} is missing, damaged or of another model ({type(error).__name__}: {reason}); delete result.json beside "
            "it and resume the run"
        ) from None


def _load_weights(path: Path, model: nn.Module, frozen: Collection[str]) -> None:
    if not frozen:
        load_model(model, path)
        return
    found = model.load_state_dict(load_file(path), strict=False)
    if wrong := [*(name for name in found.missing_keys if name not in frozen), *found.unexpected_keys]:
        raise ValueError(f"missing or unexpected tensors {', '.join(wrong)}")


def _load(folder: Path, model: nn.Module, optimizers: list[Optimizer], frozen: Collection[str]) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    _load_weights(folder / "model.safetensors", model, frozen)
    values = {**load_file(folder / "optimizer.safetensors"), **state.pop("optimizer")}
    for number, optimizer in enumerate(optimizers):
        entries: dict[int, dict[str, Any]] = {}
        for key, value in values.items():
            owner, index, name = key.split(".", 2)
            if int(owner) == number:
                entries.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return state
