"""From a name to checked files: ``--data-dir``, then ``$HYREL_DATA``, then the user's cache. Nothing is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from tasks.errors import UsageError
from tasks.registry import did_you_mean

from .sets import DATA, EMBEDDED, DataSet

__all__ = ["candidates", "exists", "find", "read_bytes", "read_text"]


def candidates(data_dir: str | Path | None = None) -> list[Path]:
    """Folders that are searched, in order.

    Raises
    ------
    UsageError : `data_dir` is none.
    """
    if data_dir and not Path(data_dir).is_dir():
        raise UsageError(f"no folder {data_dir}; --data-dir takes the folder in which the data sets lie")
    folders = [Path(data_dir)] if data_dir else []
    if os.environ.get("HYREL_DATA"):
        folders.append(Path(os.environ["HYREL_DATA"]))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [*folders, cache / "hyrel"]


def _path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def exists(folder: Path, name: str) -> bool:
    """Whether a folder holds a file or its ``.gz``."""
    return _path(folder, name) is not None


def find(name: str, data_dir: str | Path | None = None) -> tuple[DataSet, Path]:
    """Entry and folder of a named data set.

    Raises
    ------
    UsageError : an unknown name, or a set that is not there; says the folders, the files and their origin.
    """
    if name not in DATA:
        kind = "folder" if Path(name).is_dir() else "file" if Path(name).is_file() else None
        there = name and kind
        hint = f"To read the {kind} of that name, write ./{name}." if there else "A path works too."
        if not there and (Path(name).suffix or "/" in name):
            raise UsageError(f"no file or folder {name}, and no data set of that name; see `hyrel ls data`")
        raise UsageError(f"unknown data set {name!r}. {did_you_mean(name, [*EMBEDDED, *DATA])} {hint}")
    entry = DATA[name]
    searched = [folder / entry.folder for folder in candidates(data_dir)]
    for folder in searched:
        if all(_path(folder, file) for file in entry.files):
            return entry, folder
    raise UsageError(
        f"{name} is not in {' or '.join(map(str, searched))}. Put {', '.join(entry.files)} (or .gz of them) there, from "
        f"{entry.origin} (licence: {entry.licence}), or name the data folder with --data-dir or HYREL_DATA."
    )


def _unpacked(folder: Path, name: str) -> tuple[Path, bytes]:
    path = _path(folder, name)
    if path is None:
        raise UsageError(f"{folder} holds neither {name} nor {name}.gz")
    try:
        return path, gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UsageError(f"{path} is no complete gzip file; fetch it again") from None


def _warning(path: Path, content: bytes, sha256: str | None) -> str | None:
    if sha256 is None or hashlib.sha256(content).hexdigest() == sha256:
        return None
    return f"{path.name} is not the published file: its SHA-256 differs"


def read_bytes(folder: Path, name: str, sha256: str | None = None) -> tuple[bytes, str | None]:
    """Bytes of a file or of its ``.gz``, and a warning if their SHA-256 is not the expected one."""
    path, content = _unpacked(folder, name)
    return content, _warning(path, content, sha256)


def read_text(
    folder: Path, name: str, sha256: str | None = None, *, encoding: str = "utf-8-sig"
) -> tuple[str, str | None]:
    """Text of a file or of its ``.gz``, with LF line ends, and a warning if its SHA-256 is not the expected one."""
    path, content = _unpacked(folder, name)
    content = content.replace(b"\r\n", b"\n")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    return text, _warning(path, content, sha256)
