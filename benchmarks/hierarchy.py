"""Reconstruction of WordNet taxonomies: Lorentz embeddings beside their Euclidean twin and their own flat limit.

    python -m benchmarks.hierarchy [--runs runs] [--seeds 0,1,2] [--nouns-minutes 30] [--threads 2]

Mammals: every geometry and size gets the same random trials on a seed of its own, the best by MAP is run with fresh seeds.
Nouns: one long run at 11 coordinates, its curve over time; left out by default. Finished and interrupted runs in the runs
folder are used or resumed. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from tasks import run
from tasks.api import Result, configure, recipes
from tasks.argv import parse_seeds
from tasks.config import load_recipe
from tasks.folder import RunFolder

from .common import row, save
from .paired import holm, paired_row

GEOMETRIES: dict[str, dict[str, Any]] = {
    "Lorentz, k = 1": {"geometry": "lorentz", "k": 1.0},
    "Euclidean twin": {"geometry": "euclidean"},
    "flat limit, k = 1e6": {"geometry": "lorentz", "k": 1e6},
}
SIZES = (3, 6, 11)
TRIALS = 8
TUNING_SEED = 1000
TARGET = {("Lorentz, k = 1", 6, "map"): 0.90}
MAMMALS = {"epochs": 80, "batch_size": 64, "eval_every": 80}


def trials() -> list[dict[str, Any]]:
    """Settings that every geometry and size tries: the same for all, drawn once."""
    rng = np.random.default_rng(TUNING_SEED)
    drawn = []
    for number in range(TRIALS):
        drawn.append(
            {
                "lr": round(float(np.exp(rng.uniform(np.log(0.02), np.log(0.3)))), 4),
                "step": round(float(np.exp(rng.uniform(np.log(0.5), np.log(2.5)))), 3),  # length of the walk's steps
                "weight": float(rng.choice([20, 50, 300])),
                "distance": "squared" if number % 4 == 3 else "geodesic",
            }
        )
    return drawn


def mammals(geometry: dict[str, Any], dim: int, trial: dict[str, Any], seed: int, runs: Path) -> Result:
    """Run one setting."""
    std = round(trial["step"] / (dim - 1) ** 0.5, 4)
    return run(
        "hierarchy",
        data="WordNet-mammals",
        seed=seed,
        runs=runs,
        quiet=True,
        model={**geometry, "dim": dim, "init_std": std, "distance": trial["distance"]},
        negatives={"count": 300, "weight": trial["weight"]},
        train={**MAMMALS, "lr": trial["lr"]},
    )


def mammals_rows(seeds: list[int], runs: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of every geometry and size, paired differences, and the trials behind them."""
    rows, searched, tests = [], [], []
    for dim in SIZES:
        scores: dict[str, list[float]] = {}
        for name, geometry in GEOMETRIES.items():
            tried = []
            for trial in trials():
                score = mammals(geometry, dim, trial, TUNING_SEED, runs).metrics["valid"]["map"]
                tried.append({"geometry": name, "dim": dim, "seed": TUNING_SEED, **trial, "map": score})
            searched += tried
            best = max(tried, key=lambda entry: entry["map"])
            results = [mammals(geometry, dim, best, seed, runs) for seed in seeds]
            scores[name] = [result.metrics["test"]["map"] for result in results]
            chosen = f"lr {best['lr']:g}, {best['distance']} distance"
            for metric, unit in (("map", "0 to 1"), ("mean_rank", "rank")):
                values = [result.metrics["test"][metric] for result in results]
                target = TARGET.get((name, dim, metric))
                rows.append(
                    row(
                        f"WordNet mammals {metric}, {name}, {dim - 1} free coordinates ({chosen})",
                        round(mean(values), 4),
                        unit,
                        n=len(values),
                        spread=round(stdev(values), 4) if len(values) > 1 else None,
                        target=target,
                        met=None if target is None else mean(values) >= target,
                    )
                )
            seconds = [result.values["seconds"]["train"] for result in results]
            rows.append(
                row(
                    f"seconds of training, {name}, {dim - 1} free coordinates",
                    round(mean(seconds), 1),
                    "s",
                    n=len(seconds),
                )
            )
            print(dim, name, chosen, scores[name], flush=True)
        lorentz, *others = scores.values()
        if len(seeds) > 1:
            for name, other in zip(list(scores)[1:], others, strict=True):
                tests.append(paired_row(f"MAP, Lorentz minus {name}, {dim - 1} free coordinates", lorentz, other))
    holm(tests)
    return rows + tests, searched


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
    published = {r["metric"]: r["value"] for r in load_recipe(recipes()["hierarchy/nouns-11"])[1]}
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
                f"WordNet nouns {metric} of all nodes, Lorentz, 10 free coordinates, {epochs} epochs",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--nouns-minutes", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1, help="of the nouns; mammals take one")
    options = parser.parse_args()
    rows, searched = mammals_rows(parse_seeds(options.seeds), options.runs)
    command = f"python -m benchmarks.hierarchy --seeds {options.seeds}"
    if options.nouns_minutes > 0:
        rows += nouns_rows(options.nouns_minutes, options.runs, options.threads)
        command += f" --nouns-minutes {options.nouns_minutes:g} --threads {options.threads}"
    for r in rows:
        print(f"{r['what']}: {r['value']}" + (f" +- {r['spread']}" if r["spread"] else ""))
    print(save("hierarchy", command, rows, threads=max(1, options.threads), trials=searched))


if __name__ == "__main__":
    main()
