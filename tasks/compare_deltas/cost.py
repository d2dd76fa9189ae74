"""Time and memory of a training step of every method, and the size of what it stores."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import deltas
from tasks.api import configure
from tasks.data.load import load
from tasks.text.task import DELTA, TextTask

__all__ = ["Cost", "costs"]

REPEATS, WARM = 5, 2


class Cost:
    """What a method costs: CPU time of a step over full fine-tuning, peak in MiB over the loaded model, bytes on disk."""

    def __init__(self, step: float | None, peak: float | None, size: int | None) -> None:
        self.step, self.peak, self.size = step, peak, size


def _stepper(overrides: dict[str, Any], data_dir: str | None) -> tuple[Callable[[], None], Any]:
    config = configure("text", overrides=overrides)
    torch.manual_seed(0)
    task = TextTask(config)
    data = load(config.data, data_dir, kind="text")
    model = task.build(config, data).train()
    optimiser = torch.optim.AdamW(task.param_groups(model), lr=config.train.lr)
    batches = [task.train_batch(data, 0, i, 0) for i in range(min(REPEATS + WARM, task.n_batches(data)))]
    turn = 0

    def step() -> None:
        nonlocal turn
        optimiser.zero_grad(set_to_none=True)
        loss, _ = task.step(model, batches[turn % len(batches)])
        loss.backward()
        optimiser.step()
        turn += 1

    return step, model


def costs(named: dict[str, dict[str, Any]], data_dir: str | None) -> dict[str, Cost]:
    """Costs by name; `named` holds what the task text is told, full fine-tuning under ``"full"``. Interleaved steps."""
    made = {name: _stepper(overrides, data_dir) for name, overrides in named.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(REPEATS + WARM):
        for name, (step, _) in made.items():
            start = time.process_time()
            step()
            if turn >= WARM:
                times[name].append(time.process_time() - start)
    sizes = {name: _size(model) for name, (_, model) in made.items()}
    del made
    whole = median(times["full"]) if "full" in times else None
    peaks = _peaks(named, data_dir)
    return {
        name: Cost(None if whole is None else median(times[name]) / whole, peaks.get(name), sizes[name])
        for name in named
    }


def _size(model: Any) -> int | None:
    handle = deltas.handles(model.backbone).get(DELTA)
    if handle is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        handle.save(folder)
        return (Path(folder) / "delta.safetensors").stat().st_size


def _peaks(named: dict[str, dict[str, Any]], data_dir: str | None) -> dict[str, float]:
    """Peaks over the loaded model by name, each of a process of its own; those that cannot be had are left out."""
    words = [sys.executable, "-m", "tasks.compare_deltas.cost", json.dumps(named), data_dir or ""]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return dict(json.loads(line) for line in done.stdout.splitlines())


def _measure_peak(overrides: dict[str, Any], data_dir: str | None) -> float:
    step, _ = _stepper(overrides, data_dir)
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5")
    before = _resident()
    for _ in range(3):
        step()
    return (_high() - before) / 1024


def _status(field: str) -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), None)


def _high() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _resident() -> int:
    return _status("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forked(overrides: dict[str, Any], data_dir: str | None) -> float | None:
    """The peak, measured in a copy of this process, which has imported everything and holds no model."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sink, repr(_measure_peak(overrides, data_dir)).encode())
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source) as file:
        text = file.read()
    os.waitpid(child, 0)
    return float(text) if text else None


def main() -> None:
    """Print names and peaks of methods, a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("named", type=json.loads)
    parser.add_argument("data_dir")
    options = parser.parse_args()
    for name, overrides in options.named.items():
        peak = _forked(overrides, options.data_dir or None)
        if peak is not None:
            print(json.dumps([name, peak]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
