"""A small Lorentz encoder and its Euclidean twin, trained by masked language modelling on ``pretraining-classics``.

    python -m benchmarks.pretrain --trials [--steps 300]
    python -m benchmarks.pretrain --train lorentz|euclidean [--runs FOLDER]
    python -m benchmarks.pretrain --collect [--runs FOLDER]

``--trials`` runs three learning rates for each geometry at a short budget and writes the score of each on validation data to
``benchmarks/results/pretrain_trials.json``. ``--train`` runs the recipe of a geometry with its best rate, or goes on with a
run that was stopped. ``--collect`` writes the scores of both runs to ``benchmarks/results/pretrain.json``, and puts both
models, in half precision and with a card made from these scores, into ``tasks/backbones``. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import json
import time
from math import isfinite
from typing import Any

import torch

from tasks.api import configure
from tasks.data.load import load
from tasks.optim import build_optimizers, schedule_factor
from tasks.pretrain.task import Pretraining

from .common import RESULTS, row, save

GEOMETRIES = ("lorentz", "euclidean")
RATES = (1e-3, 2e-3, 4e-3)
__all__ = ["trial"]


def trial(task: Pretraining, data: Any) -> dict[str, Any]:
    """Validation metrics after the last step of a run of this task, as the runner trains, and its CPU seconds."""
    config, start = task.config, time.process_time()
    torch.manual_seed(config.seed)
    model = task.build(config, data).train()
    optimizers = build_optimizers(task.param_groups(model), config.train)
    total = task.n_batches(data) * config.train.epochs
    loss = torch.tensor(0.0)
    for step in range(total):
        factor = schedule_factor(config.train, step, total)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad(set_to_none=True)
        loss, _ = task.step(model, task.train_batch(data, *divmod(step, task.n_batches(data)), config.seed))
        if not isfinite(float(loss.detach())):
            break
        loss.backward()
        if config.train.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip)
        for optimizer in optimizers:
            optimizer.step()
    model.eval()
    with torch.no_grad():
        found = task.evaluate(model, data, "valid")
    return {**found, "loss": float(loss.detach()), "cpu_seconds": round(time.process_time() - start, 1)}


def trials(steps: int) -> None:
    """Three rates a geometry; the test split is never looked at."""
    data, rows, done = load("pretraining-classics"), [], []
    shared: Any = None
    for geometry in GEOMETRIES:
        for rate in RATES:
            change = {"model": {"geometry": geometry}, "train": {"lr": rate, "epochs": 1}, "epoch_steps": steps}
            task = Pretraining(configure("pretrain", overrides=change))
            task._made = shared
            found = trial(task, data)
            shared = task._made
            done.append({"geometry": geometry, "lr": rate, "steps": steps, **found})
            print(done[-1], flush=True)
            what = f"{geometry}, rate {rate:g}, {steps} steps: validation cross entropy of masked tokens"
            rows.append(row(what, round(found["cross_entropy"], 4), "nats", n=steps))
    command = f"python -m benchmarks.pretrain --trials --steps {steps}"
    print(save("pretrain_trials", command, rows, threads=1, trials=done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.trials:
        trials(options.steps)


if __name__ == "__main__":
    main()
