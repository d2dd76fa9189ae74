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
    return shlex.join(["python", "-m", f"benchmarks.{module}", *map(_placeless, sys.argv[1:])])


def _placeless(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    place = value.startswith(("/", "./", "../", "~")) or Path(value).is_dir()
    return f"{option}{equals}FOLDER" if value and place else word


def row(
    what: str,
    value: Any,
    unit: str,
    *,
    n: int = 1,
    sd: float | None = None,
    half: float | None = None,
    quartiles: float | None = None,
    reference: Any = None,
    target: Any = None,
    met: bool | None = None,
) -> dict[str, Any]:
    """One measured number: its unit, repetitions, spread, a published or peer's number, a target, and whether it is met.

    The spread is one of three: the standard deviation, half of the 95 % interval of the number, or the distance of the
    quartiles.
    """
    spreads = {"SD": sd, "95 %": half, "quartiles": quartiles}
    given = {of: value for of, value in spreads.items() if value is not None}
    assert len(given) <= 1, f"{what}: {len(given)} kinds of spread"
    of, spread = next(iter(given.items()), (None, None))
    return {
        "what": what, "value": value, "unit": unit, "n": n, "spread": spread, "spread_of": of,
        "reference": reference, "target": target, "met": met,
    }  # fmt: skip


def save(name: str, command: str, rows: Sequence[dict[str, Any]], *, threads: int, **more: Any) -> Path:
    """Write ``benchmarks/results/NAME.json``; `more`, such as the trials of a search, stands beside the rows.

    ``note`` says what a reader has to know of all of them, such as how the controls were tuned; the results page shows it.
    """
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
