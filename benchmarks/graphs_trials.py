"""Trials of settings of the graph task on validation data alone, each appended to ``benchmarks/results/graphs_trials.jsonl``.

    python -m benchmarks.graphs_trials Airport lp '{"model": {"variant": "paper"}, "train": {"lr": 0.05}}' ...

Every argument after data and problem is one trial: what it changes of the recipe of that data and problem, with seed 0; its
record holds all settings. The test split is never looked at. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from tasks.api import configure
from tasks.config import flatten, to_dict
from tasks.data.load import load
from tasks.graph.task import GraphTask
from tasks.optim import build_optimizers

from .common import RESULTS

__all__ = ["trial"]

LOG = RESULTS / "graphs_trials.jsonl"


def trial(config: Any) -> dict[str, Any]:
    """Best validation metrics of a run of this configuration, selected as the runner selects, and its CPU seconds."""
    start = time.process_time()
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    data, task = load(config.data), GraphTask(config)
    model = task.build(config, data)
    optimizers = build_optimizers(task.param_groups(model), config.train)
    best: dict[str, float] = {}
    at = epoch = 0
    for epoch in range(1, config.train.epochs + 1):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss, _ = task.step(model, task.train_batch(data, epoch - 1, 0, config.seed))
        loss.backward()
        if config.train.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip)
        for optimizer in optimizers:
            optimizer.step()
        if epoch % config.train.eval_every == 0:
            model.eval()
            with torch.no_grad():
                found = task.evaluate(model, data, "valid")
            model.train()
            if not best or found[task.monitor] > best[task.monitor]:
                best, at = found, epoch
            elif epoch - at >= (config.train.patience or config.train.epochs) * config.train.eval_every:
                break
    return {
        "valid": {key: round(value, 4) for key, value in best.items()},
        "best_epoch": at,
        "epochs": epoch,
        "loss": round(float(loss.detach()), 4),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    data, problem, *changes = sys.argv[1:]
    for text in changes:
        change = json.loads(text)
        recipe = f"{data}-{problem}".lower().replace("-lp-lp", "-lp").replace("-nc-nc", "-nc")
        config = configure("graph", recipe=recipe, overrides=change)
        settings = dict(flatten({key: getattr(config, key) for key in ("normalise_features", "split_seed", "seed")}))
        settings |= dict(flatten({part: to_dict(getattr(config, part)) for part in ("model", "loss", "train")}))
        found = {"data": data, "problem": problem, "change": change, **trial(config), "settings": settings}
        with LOG.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(data, problem, text, found["valid"], found["best_epoch"], found["cpu_seconds"], flush=True)


if __name__ == "__main__":
    main()
