"""What every benchmark shares: the machine, result rows, and the file they go to."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

__all__ = ["RESULTS", "asked", "machine", "row", "save"]


def machine(threads: int) -> dict[str, Any]:
    """Processor, threads and torch version of a measurement, and how many processes wanted the processor at its end."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    cpu = f"{name} x {os.cpu_count()}"
    return {"cpu": cpu, "threads": threads, "torch": torch.__version__, "load": round(os.getloadavg()[2], 1)}


def asked(module: str) -> str:
    """The command that runs, ``python -m benchmarks.MODULE`` with its options; folders by the word FOLDER."""
    words = ["FOLDER" if "/" in word and not word.startswith("--") else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{module}", *words])


def row(
    what: str,
    value: Any,
    unit: str,
    *,
    n: int = 1,
    spread: float | None = None,
    reference: Any = None,
    target: Any = None,
    met: bool | None = None,
) -> dict[str, Any]:
    """One measured number: its unit, repetitions, spread, a published or peer's number, a target, and whether it is met."""
    return {
        "what": what, "value": value, "unit": unit, "n": n, "spread": spread,
        "reference": reference, "target": target, "met": met,
    }  # fmt: skip


def save(name: str, command: str, rows: Sequence[dict[str, Any]], *, threads: int, **more: Any) -> Path:
    """Write ``benchmarks/results/NAME.json``; `more`, such as the trials of a search, stands beside the rows."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(threads),
        "rows": list(rows),
        **more,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
