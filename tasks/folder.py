"""Run folders: every write is atomic, and ``result.json`` comes last, so its presence means finished."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .config import differences
from .errors import RunError, UsageError

__all__ = ["RunFolder", "atomic_write", "explain_os_error", "locked"]


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, text: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def explain_os_error(error: OSError, path: Path) -> str:
    """One line for a full disk, a read-only folder and their kin."""
    import errno

    where = error.filename or path
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a part of the path is a file, not a folder",
        errno.EEXIST: "a file of that name is in the way",
    }
    return f"cannot write {where}: {reasons.get(error.errno or 0, error.strerror or error)}"


@contextmanager
def locked(path: Path, otherwise: str) -> Iterator[None]:
    """Hold a folder, made where it is missing, for one process.

    Parameters
    ----------
    otherwise : what to do instead where another process holds it

    Raises
    ------
    RunError : another process holds it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise RunError(explain_os_error(error, path)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is running in {path}; wait for it or {otherwise}") from None
        yield


def _place(config: Mapping[str, Any], directory: Path) -> Path | None:
    """Where the data of a configuration lies, whose content the runner compares."""
    return (directory / config["data"]).resolve() if isinstance(config.get("data"), str) else None


class RunFolder:
    """One run's folder: ``config.yaml``, ``env.json``, ``metrics.jsonl``, ``checkpoints/``, weights, ``result.json``.

    Parameters
    ----------
    path : Path. Created when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def finished(self) -> bool:
        """Whether ``result.json`` is there, which is written last."""
        return (self.path / "result.json").is_file()

    def result(self) -> dict[str, Any]:
        """Read ``result.json``.

        Raises
        ------
        RunError : it is damaged.
        """
        path = self.path / "result.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["metrics"]["test"], values["config_hash"], values["seed"], values["data"]["sha256"]
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path} is damaged; delete it and resume the run to write it again") from None
        return values

    def config(self) -> dict[str, Any]:
        """Complete configuration that the run was started with, with its task under ``task``."""
        try:
            text = (self.path / "config.yaml").read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UsageError(f"{self.path} is no run folder: it holds no config.yaml") from None
        except (NotADirectoryError, UnicodeDecodeError):
            raise UsageError(f"{self.path} is no run folder, or its config.yaml is no text") from None
        try:
            tree = yaml.safe_load(text)
        except yaml.YAMLError:
            tree = None
        if not isinstance(tree, dict) or not isinstance(tree.get("task"), str):
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: it is no configuration with a task")
        return tree

    def require_same(self, config: Mapping[str, Any]) -> None:
        """Check that the folder holds a run of a configuration.

        Raises
        ------
        UsageError : it holds that of another one; the differing fields are named.
        """
        if changed := self.changes(self.config(), config):
            raise UsageError(
                f"{self.path} holds a run of another configuration; differing fields: {'; '.join(changed)}. "
                "Choose another --out, or resume it as it is."
            )

    def changes(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """Fields in which two configurations of this run differ.

        Not the threads, of which the runner warns, and not the way in which one place of the data is written.
        """
        here = Path.cwd()
        if _place(now, here) in (_place(before, here), _place(before, self.directory)):
            now = {**now, "data": before["data"]}
        return [line for line in differences(before, now) if not line.startswith("train.threads:")]

    @property
    def directory(self) -> Path:
        """Where the process stood that began the run, from which its paths count."""
        try:
            return Path(json.loads((self.path / "env.json").read_text(encoding="utf-8"))["directory"])
        except (OSError, ValueError, KeyError, TypeError):
            return Path.cwd()

    def elsewhere(self, place: str) -> str | None:
        """Path of data that is not to be found from here and is from where the run was begun; None for any other."""
        begun = self.directory / place
        return str(begun) if not Path(place).exists() and begun.exists() else None

    @contextmanager
    def open(self, config: Mapping[str, Any], env: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder for one process; write or check its configuration.

        Raises
        ------
        UsageError : the folder holds a run of another configuration, the differing fields are named; or no run, and files.
        RunError : another process is running in it, or it cannot be written.
        """
        with locked(self.path, "choose another --out"):
            if (self.path / "config.yaml").exists():
                self.require_same(config)
            else:
                self._begin(config, env)
            for stale in [*self.path.glob(".*.tmp"), *(self.path / "checkpoints").glob(".*.tmp")]:
                stale.unlink(missing_ok=True)  # half of a file, of a process that was killed while it wrote
            yield

    def _begin(self, config: Mapping[str, Any], env: Mapping[str, Any]) -> None:
        own = re.compile(r"\.lock|env\.json|\..*\.tmp")
        if other := sorted(file.name for file in self.path.iterdir() if not own.fullmatch(file.name)):
            raise UsageError(
                f"{self.path} is no run folder and holds {other[0]}, which a run would write over or delete; choose another "
                "--out"
            )
        env = {**env, "directory": str(Path.cwd())}
        try:
            atomic_write(self.path / "env.json", json.dumps(env, indent=1, sort_keys=True) + "\n")
            atomic_write(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        except OSError as error:
            raise RunError(explain_os_error(error, self.path)) from None

    def append(self, name: str, row: Mapping[str, Any]) -> int:
        """Append one JSON line to ``name``, durably; returns the file's size."""
        with (self.path / name).open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def cut(self, name: str, size: int) -> None:
        """Cut a line file back to `size` bytes, the length at a checkpoint."""
        path = self.path / name
        path.touch()
        if path.stat().st_size < size:
            raise RunError(f"{path} is shorter than when the checkpoint was written: it was edited. Start a new run.")
        with path.open("rb+") as file:
            file.truncate(size)

    def rows(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """Lines of a JSON-lines file."""
        path = self.path / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def write_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Make the folder NAME by calling ``write(folder)`` on a temporary one, then rename; replaces an older one."""
        temporary, final = self.path / f".tmp-{name}", self.path / name
        for stale in (temporary, final):
            if stale.exists():
                shutil.rmtree(stale)
        temporary.mkdir()
        write(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _sync_folder(temporary)
        temporary.replace(final)
        _sync_folder(self.path)

    def write_checkpoint(self, name: str, write: Callable[[Path], None]) -> None:
        """Make ``checkpoints/NAME`` by calling ``write(folder)`` on a temporary folder, then rename and point to it."""
        root = self.path / "checkpoints"
        root.mkdir(exist_ok=True)
        for stale in root.glob(".tmp-*"):
            shutil.rmtree(stale)
        temporary, final = root / f".tmp-{name}", root / name
        temporary.mkdir()
        write(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _sync_folder(temporary)
        if final.exists():  # left by a process that was killed before `latest` named it
            final.replace(root / f".tmp-old-{name}")
        temporary.replace(final)
        _sync_folder(root)
        atomic_write(root / "latest", name)

    def latest(self) -> Path | None:
        """Newest complete checkpoint, or None.

        Raises
        ------
        RunError : ``latest`` names no checkpoint.
        """
        pointer = self.path / "checkpoints" / "latest"
        if not pointer.exists():
            return None
        name = pointer.read_bytes().decode("utf-8", errors="replace").strip()
        if not re.fullmatch(r"step-\d{8,}", name) or not (pointer.parent / name).is_dir():
            raise RunError(f"{pointer} names no checkpoint; to start the run anew, delete {pointer.parent}")
        return pointer.parent / name

    def checkpoint(self, name: str) -> Path:
        """Folder of the checkpoint of that name."""
        return self.path / "checkpoints" / name

    def checkpoints(self) -> list[Path]:
        """Folders of complete checkpoints, newest first."""
        found = (self.path / "checkpoints").glob("step-*")
        return sorted((place for place in found if re.fullmatch(r"step-\d{8,}", place.name)), reverse=True)

    def prune(self, keep: set[str]) -> None:
        """Delete checkpoints other than those named."""
        for folder in (self.path / "checkpoints").glob("*step-*"):
            if folder.name not in keep:
                shutil.rmtree(folder)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``; the run counts as finished from here on."""
        atomic_write(self.path / "result.json", json.dumps(result, indent=1) + "\n")
