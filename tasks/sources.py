"""What a run reads besides its data: models, deltas and subspaces, by content: others of the same name are noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["changed_inputs", "changed_sources", "files_sha256", "model_sha256", "sources_of"]

_WEIGHTS = (".safetensors", ".bin")
_SETTINGS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
)


@cache
def _file_sha256(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_sha256(folder: Path, *, weights: bool = True) -> str:
    """SHA-256 of a model in the layout of transformers: architecture, vocabulary, and weights unless they are drawn anew."""
    return files_sha256(
        path for path in sorted(folder.iterdir()) if path.name in _SETTINGS or (weights and path.suffix in _WEIGHTS)
    )


def files_sha256(paths: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files; a file is read again only where its size or time has changed."""
    lines = []
    for path in paths:
        stat = path.stat()
        lines.append(f"{path.name} {_file_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names whose content is another one; what is in one of the two only says nothing."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def sources_of(task: Any) -> dict[str, str]:
    """SHA-256 of what a task reads besides its data, by name."""
    found: dict[str, str] = task.sources() if hasattr(task, "sources") else {}
    return found


def changed_inputs(task: Any, data: Any, sha256: str, sources: Mapping[str, str]) -> list[str]:
    """What is no longer what a run was started with, of its data and of what it reads besides."""
    changed = [] if sha256 == data.sha256 else [f"the data of {data.name}"]
    return changed + changed_sources(sources, sources_of(task))
