"""A small Lorentz encoder and its Euclidean twin, trained by masked language modelling on ``pretraining-classics``.

    python -m benchmarks.pretrain --trials [--steps 300]
    python -m benchmarks.pretrain --train lorentz|euclidean [--runs FOLDER]
    python -m benchmarks.pretrain --collect [--runs FOLDER]

``--trials`` runs four learning rates for each geometry at a short budget and writes the score of each on validation data to
``benchmarks/results/pretrain_trials.json``. ``--train`` runs the recipe of a geometry with its best rate, or goes on with a
run that was stopped. ``--collect`` writes the scores of both runs to ``benchmarks/results/pretrain.json``, and puts both
models, in half precision and with a card made from these scores, into ``tasks/backbones``. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import json
import time
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from tasks.api import Result, configure, run
from tasks.backbones import path
from tasks.config import to_dict
from tasks.data.load import load
from tasks.optim import build_optimizers, schedule_factor
from tasks.pretrain.card import card, ship
from tasks.pretrain.masking import pack
from tasks.pretrain.task import Pretraining

from .common import RESULTS, asked, row, save

GEOMETRIES = ("lorentz", "euclidean")
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
__all__ = ["best_rate", "collect", "train", "trial", "trials"]


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


def _known() -> list[dict[str, Any]]:
    """Trials of the result file, which are not run again."""
    path = RESULTS / "pretrain_trials.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"] if path.is_file() else []
    return found


def trials(steps: int) -> None:
    """Four rates a geometry; the test split is never looked at."""
    data, rows, done = load("pretraining-classics"), [], []
    shared: Any = None
    known = {(t["geometry"], t["lr"]): t for t in _known() if t["steps"] == steps}
    for geometry in GEOMETRIES:
        for rate in RATES:
            change = {"model": {"geometry": geometry}, "train": {"lr": rate, "epochs": 1}, "epoch_steps": steps}
            found = known.get((geometry, rate))
            if found is None:
                task = Pretraining(configure("pretrain", overrides=change))
                task._made = shared
                found = trial(task, data)
                shared = task._made
            done.append({"geometry": geometry, "lr": rate, "steps": steps, **found})
            print(done[-1], flush=True)
            what = f"{geometry}, rate {rate:g}, {steps} steps: validation cross entropy of masked tokens"
            rows.append(row(what, round(found["cross_entropy"], 4), "nats"))
    print(save("pretrain_trials", asked("pretrain"), rows, threads=1, trials=done))


def best_rate(geometry: str) -> float:
    """Rate of the best trial of a geometry."""
    return min((t for t in _known() if t["geometry"] == geometry), key=lambda t: t["cross_entropy"])["lr"]


def train(geometry: str, runs: Path) -> Result:
    """Run, or go on with, the recipe of a geometry; its rate must be that of the best trial."""
    recipe = f"{geometry}-small"
    config = configure("pretrain", recipe=recipe)
    if config.train.lr != (best := best_rate(geometry)):
        raise SystemExit(f"the recipe {recipe} has the rate {config.train.lr:g}, and the best trial {best:g}")
    return run("pretrain", recipe=recipe, out=runs / recipe, quiet=True)


def collect(runs: Path) -> None:
    """Scores of both finished runs, and both models with their cards."""
    found = {geometry: train(geometry, runs) for geometry in GEOMETRIES}
    config = configure("pretrain", recipe=f"{GEOMETRIES[0]}-small")
    first = next(iter(found.values())).folder / "pretrained"
    text = load(config.data).paragraphs["train"]
    sequences = pack(AutoTokenizer.from_pretrained(first), text, config.text.length)
    steps = config.train.epochs * (config.epoch_steps or len(sequences) // config.train.batch_size)
    tokens = {"text": sequences.numel(), "seen": steps * config.train.batch_size * config.text.length}
    rows = [
        row("tokens of the training split", tokens["text"], "tokens"),
        row("tokens seen by each model", tokens["seen"], "tokens"),
    ]
    for geometry, result in found.items():
        what, values = f"{geometry}, {result.values['params']['total']} parameters", result.values
        rows.append(row(f"{what}: training", round(values["seconds"]["train"]), "wall seconds on a shared core", n=1))
        rows += [
            row(f"{what}: {split} {name} of masked tokens", round(value, 4), unit, n=1)
            for split in ("valid", "test")
            for name, unit in (("cross_entropy", "nats"), ("perplexity", "perplexity"), ("accuracy", "share"))
            for value in [values["metrics"][split][name]]
        ]
        ship(result.folder / "pretrained", path(f"{geometry}-small"))
    for geometry in found:
        own = to_dict(configure("pretrain", recipe=f"{geometry}-small"))
        readme = card(f"{geometry}-small", own, {g: r.values for g, r in found.items()}, tokens)
        (path(f"{geometry}-small") / "README.md").write_text(readme, encoding="utf-8")
    print(save("pretrain", asked("pretrain"), rows, threads=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--train", choices=GEOMETRIES)
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrain"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.trials:
        trials(options.steps)
    if options.train:
        print(train(options.train, options.runs).metrics)
    if options.collect:
        collect(options.runs)


if __name__ == "__main__":
    main()
