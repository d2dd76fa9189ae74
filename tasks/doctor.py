"""What ``hyrel doctor`` checks: versions, shadowed packages, threads, disk, data sets."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["examine", "shadows"]

PACKAGES = ("lorentz", "relsim", "deltas", "tasks")
LIBRARIES = ("hyrel", "torch", "geoopt", "transformers", "accelerate", "safetensors", "duckdb", "jsonargparse")


def shadows(folder: Path) -> list[str]:
    """Lines for each file or folder of `folder`, or package found first on the path, that hides one of hyrel's."""
    home = Path(__file__).resolve().parent.parent
    lines = []
    for name in PACKAGES:
        for path in (folder / f"{name}.py", folder / name):
            if path.exists() and path.resolve() != home / name and (path.suffix or (path / "__init__.py").exists()):
                lines.append(f"{path} hides hyrel's package {name!r} from Python started in {folder}; rename it")
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / name:
            lines.append(f"`import {name}` finds {found or 'nothing'}, not hyrel's in {home / name}; check PYTHONPATH")
    return lines


def examine(*, data_dir: str | Path | None = None) -> tuple[str, bool]:
    """Report on this installation, and whether all is well."""
    lines, healthy = [f"python {sys.version.split()[0]} in {sys.prefix}"], True
    for name in LIBRARIES:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"PROBLEM: {name} is not installed; install hyrel again with pip")
            healthy = False
    for line in shadows(Path.cwd()):
        lines.append(f"PROBLEM: {line}")
        healthy = False
    import torch

    from .process import accelerator

    device = str(accelerator() or "none (CPU is used)")
    device = torch.cuda.get_device_name() if device.startswith("cuda") else device
    lines.append(f"accelerator: {device}; CPU threads: {torch.get_num_threads()} of {os.cpu_count()}")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    lines.append(f"disk free here: {free:.1f} GiB")
    if free < 1:
        lines.append("PROBLEM: less than 1 GiB is free; checkpoints may not fit")
        healthy = False
    from .data.locate import candidates, find
    from .data.sets import DATA
    from .errors import UsageError

    lines.append(
        "data folders: " + ", ".join(f"{path}{'' if path.is_dir() else ' (absent)'}" for path in candidates(data_dir))
    )
    here = []
    for name in DATA:
        try:
            find(name, data_dir)
            here.append(name)
        except UsageError:
            continue
    lines.append(f"data sets found: {len(here)} of {len(DATA)}" + (f" ({', '.join(here)})" if here else ""))
    lines.append("all is well" if healthy else "problems were found")
    return "\n".join(lines), healthy
