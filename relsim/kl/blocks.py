"""Running sums on disk, so that a comparison that was killed goes on where it was, to the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["BlockStore", "fingerprint", "read_about", "write_atomically"]

_SCHEMA = 1


def fingerprint(model: nn.Module, options: Mapping[str, Any]) -> str:
    """SHA-256 of the parameters and buffers of a model and of JSON-like options."""
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def write_atomically(tensors: Mapping[str, Tensor], path: Path, about: Mapping[str, Any]) -> None:
    """Write a safetensors file under its name only when it is complete and on the disk; equal content, equal bytes."""
    # One key: the order of several in the file is not fixed.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        temporary,
        metadata={"about": json.dumps(dict(about), sort_keys=True)},
    )
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_about(path: Path) -> dict[str, Any]:
    """What :func:`write_atomically` was told about a file; empty for files of others."""
    with safe_open(path, framework="pt") as stream:
        return json.loads((stream.metadata() or {}).get("about", "{}"))  # type: ignore[no-any-return]


class BlockStore:
    """A folder with the sums over the blocks of heads that are finished, one file a pool.

    Parameters
    ----------
    folder
        Made when it does not exist. It belongs to one comparison.
    key
        What the comparison depends on, from :func:`fingerprint`.
    every
        Seconds between two writes at least; what was done since the last one is done again after a kill.

    Raises
    ------
    ValueError
        When the folder holds sums of another model or other options.
    """

    def __init__(self, folder: str | Path, key: str, *, every: float = 2.0) -> None:
        self.folder, self.key, self.every = Path(folder), key, every
        self.folder.mkdir(parents=True, exist_ok=True)
        self._written = time.monotonic()
        for path in sorted(self.folder.glob("*.safetensors")):
            self._about(path)

    def load(self, part: str) -> tuple[int, dict[str, Tensor]] | None:
        """Heads finished and sums of a part as last written, or None."""
        path = self.folder / f"{part}.safetensors"
        if not path.exists():
            return None
        done = int(self._about(path)["done"])
        with safe_open(path, framework="pt") as stream:
            return done, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)

    def save(self, part: str, done: int, state: Mapping[str, Tensor], *, last: bool) -> None:
        """Write the sums over the first ``done`` heads, if the last write is long enough ago or this is the end."""
        if not last and time.monotonic() - self._written < self.every:
            return
        about = {"schema": _SCHEMA, "key": self.key, "done": done}
        write_atomically(state, self.folder / f"{part}.safetensors", about)
        self._written = time.monotonic()

    def _about(self, path: Path) -> dict[str, Any]:
        found = read_about(path)
        if found.get("schema") != _SCHEMA or found.get("key") != self.key:
            raise ValueError(
                f"{path} holds sums of another model, seed or option: give the same ones again, or an empty folder"
            )
        return found
