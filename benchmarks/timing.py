"""How the speed benchmarks measure: steps in turn, medians, and the memory of fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

__all__ = ["fresh_median", "interleaved", "resident", "restart_peak"]


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm: int = 2,
    synchronise: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Median seconds of each step, all of them run once a turn so that a slow minute meets all alike.

    Process CPU time, or wall-clock time between calls of `synchronise` where a device works beside the process. The first
    `warm` turns do not count.
    """
    clock = time.perf_counter if synchronise else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + warm):
        for name, step in steps.items():
            start = clock()
            step()
            if synchronise:
                synchronise()
            if turn >= warm:
                taken[name].append(clock() - start)
    return {name: median(values) for name, values in taken.items()}


def resident(field: str) -> float:
    """Resident set (VmRSS) or its peak (VmHWM) of this process in MiB, from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def restart_peak() -> None:
    """Let VmHWM start anew, at what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def fresh_median(module: str, *arguments: str, repeats: int, **environment: str) -> float:
    """Median of the number that ``python -m benchmarks.MODULE ARGUMENTS`` prints, each time in a fresh process."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return median(
        float(subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment).stdout)
        for _ in range(repeats)
    )
