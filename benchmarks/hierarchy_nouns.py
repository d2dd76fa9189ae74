"""The long run of WordNet's nouns for `benchmarks.hierarchy`: its curve over time, its scores beside the published ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tasks import run
from tasks.api import configure, recipes
from tasks.config import load_recipe
from tasks.folder import RunFolder

from .common import row

__all__ = ["nouns_rows"]


def nouns_epochs(minutes: float, runs: Path, threads: int) -> int:
    """As many epochs as fit in that time, by a trial epoch; remembered in the runs folder, so that the run can go on."""
    kept = runs / "hierarchy-nouns-epochs.json"
    known: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
    key = f"{minutes:g} min, {threads} thread(s)"
    if key not in known:
        import torch

        from tasks.data.load import load
        from tasks.hierarchy.task import HierarchyEmbedding
        from tasks.optim import build_optimizers

        torch.set_num_threads(threads)
        data = load("WordNet-nouns")
        task = HierarchyEmbedding(configure("hierarchy", recipe="hierarchy/nouns-11"))
        model = task.build(task.config, data)
        (optimizer,) = build_optimizers(task.param_groups(model), task.config.train)
        steps = 40
        for index in range(-5, steps):
            if index == 0:
                start = time.monotonic()
            optimizer.zero_grad(set_to_none=True)
            task.step(model, task.train_batch(data, 0, index % task.n_batches(data), 0))[0].backward()
            optimizer.step()
        epoch = (time.monotonic() - start) / steps * task.n_batches(data)
        known[key] = max(1, int(60 * minutes / epoch))
        runs.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known) + "\n")
    return known[key]


def nouns_rows(minutes: float, runs: Path, threads: int) -> list[dict[str, Any]]:
    """MAP and mean rank of a sample of nodes over time, and of all nodes at the end."""
    epochs = nouns_epochs(minutes, runs, threads)
    result = run(
        "hierarchy",
        recipe="hierarchy/nouns-11",
        seed=0,
        runs=runs,
        train={"epochs": epochs, "eval_every": max(1, epochs // 10), "threads": threads},
    )
    config, numbers = load_recipe(recipes()["hierarchy/nouns-11"])
    start = config["model"]["init"]
    # The papers start from small random points; their figures stand beside that start alone.
    published = {number["metric"]: number["value"] for number in numbers} if start == "normal" else {}
    curve = RunFolder(result.folder).rows()
    times = {entry["step"]: entry["train"] for entry in RunFolder(result.folder).rows("timing.jsonl")}
    rows = []
    for point in curve:
        after = times[point["step"]] / 60
        for metric, unit in (("map", "0 to 1"), ("mean_rank", "rank")):
            what = f"WordNet nouns {metric} of 2000 nodes after {after:.1f} minutes of training, 10 free coordinates"
            rows.append(row(what, round(point["valid"][metric], 4), unit))
    for metric, unit in (("map", "0 to 1"), ("mean_rank", "rank")):
        value = result.metrics["test"][metric]
        target = 0.80 if metric == "map" else None
        rows.append(
            row(
                f"WordNet nouns {metric} of all nodes, start {start}, Lorentz, 10 free coordinates, {epochs} epochs",
                round(value, 4),
                unit,
                reference=published.get(metric),
                target=target,
                met=None if target is None else value >= target,
            )
        )
    seconds = result.values["seconds"]
    rows.append(row("minutes of training, WordNet nouns", round(seconds["train"] / 60, 1), "min"))
    return rows
