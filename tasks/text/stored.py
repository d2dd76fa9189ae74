"""Deltas that a run starts from: stored by ``deltas.save``, or by another run in its folder ``delta``; and subspaces."""

from __future__ import annotations

from pathlib import Path

import deltas
from deltas.spec import from_config
from deltas.storage import read
from tasks.errors import UsageError
from tasks.sources import files_sha256

from .model import TextModel

__all__ = ["DELTA", "SUBSPACE_FILES", "load_delta", "stored_sha256", "stored_spec"]

DELTA = "default"  # name of the delta in the backbone of a run
SUBSPACE_FILES = ("subspace.json", "subspace.safetensors")


def _folder(start: str) -> Path:
    """The stored delta itself, where the folder of a run is given."""
    folder = Path(start)
    inside = folder / "delta"
    return inside if (inside / "delta.json").is_file() and not (folder / "delta.json").is_file() else folder


def stored_sha256(start: str) -> str | None:
    """SHA-256 of a stored delta, or None where it is no longer there."""
    files = [_folder(start) / name for name in ("delta.json", "delta.safetensors")]
    return files_sha256(files) if all(path.is_file() for path in files) else None


def stored_spec(start: str, name: str | None) -> deltas.Delta | deltas.Combination:
    """What a stored delta is.

    Raises
    ------
    UsageError : there is none, it is broken, or it is none of the method `name`.
    """
    try:
        spec = from_config(read(_folder(start))[0]["methods"])
    except deltas.DeltaError as error:
        raise UsageError(f"--delta.start {start}: {error}") from None
    if name is not None and name != spec.name:
        raise UsageError(f"--delta {name} --delta.start {start}: the stored delta is {spec.name}; leave --delta out")
    return spec


def load_delta(model: TextModel, start: str, *, train: bool) -> None:
    """Put a stored delta into the backbone, to be trained on or to stay as it is.

    Raises
    ------
    UsageError : it belongs to another backbone.
    """
    try:
        handle = deltas.load(model.backbone, _folder(start), name=DELTA)
    except deltas.DeltaError as error:
        raise UsageError(f"--delta.start {start}: {str(error).removesuffix(', or pass force=True')}") from None
    handle.restart()  # what this run trains is counted from what it began with
    if not train:
        model.backbone.requires_grad_(False)
