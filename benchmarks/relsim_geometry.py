"""Fact distributions with dot products and with Lorentzian inner products: held-out likelihood and the disjoint suite.

    python -m benchmarks.relsim_geometry --runs FOLDER [--sets CoDEx-S,CoDEx-M] [--seeds 0,1,2,3,4] [--trials]

Through ``hyrel run similarity``. The twin of a Lorentz table of 101 coordinates (100 free) is a Euclidean one of 100;
the flat limit is the Lorentz model at k = 1e6. ``--trials`` first runs the same three learning rates for each on seed 771
and prints their validation likelihood; the best of them is what RATES holds. One thread; finished runs are not run
again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import tasks
from tasks.argv import parse_seeds

from .common import asked, row, save
from .paired import holm, paired_row

MODELS: dict[str, dict[str, Any]] = {
    "euclidean": {"geometry": "euclidean", "dim": 100},
    "lorentz": {"geometry": "lorentz", "dim": 101, "k": 1.0},
    "flat limit": {"geometry": "lorentz", "dim": 101, "k": 1e6},
}
TRIALS = (2e-3, 5e-3, 1e-2)
RATES = {"euclidean": 5e-3, "lorentz": 2e-3, "flat limit": 2e-3}
TUNING_SEED = 771
METRICS = {"nll": "held-out NLL", "ap": "average precision", "r@1": "recall at 1"}


def run(data: str, model: str, seed: int, rate: float, runs: Path) -> dict[str, Any]:
    train = {"epochs": 8, "batch_size": 256, "lr": rate, "patience": 3, "threads": 1}
    options = {"model": {**MODELS[model], "dropout": 0.2}, "heads": 3000, "train": train}
    return dict(tasks.run("similarity", data=data, seed=seed, runs=runs, quiet=True, **options).metrics)


def trials(sets: list[str], runs: Path) -> list[dict[str, Any]]:
    rows = []
    for data in sets:
        for model in MODELS:
            for rate in TRIALS:
                nll = run(data, model, TUNING_SEED, rate, runs)["valid"]["nll"]
                print(f"{data} {model} lr {rate:g}: validation NLL {nll:.4f}", flush=True)
                rows.append(row(f"{data} {model}, lr {rate:g}, tuning seed: validation NLL", nll, "nats"))
    return rows


def compare(data: str, seeds: list[int], runs: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found = {model: [run(data, model, seed, RATES[model], runs)["test"] for seed in seeds] for model in MODELS}
    rows, claims = [], []
    for metric, title in METRICS.items():
        for model, results in found.items():
            values = [result[metric] for result in results]
            sd = statistics.stdev(values) if len(values) > 1 else None
            unit = "nats" if metric == "nll" else "1"
            rows.append(row(f"{data} {model}: {title}", statistics.mean(values), unit, n=len(values), sd=sd))
            print(f"{data} {model}: {title} {statistics.mean(values):.4f} +- {sd or 0:.4f}", flush=True)
        if len(seeds) > 1:
            lorentz = [result[metric] for result in found["lorentz"]]
            for control in ("euclidean", "flat limit"):
                values = [result[metric] for result in found[control]]
                claims.append(paired_row(f"{data}, {title}: lorentz less {control}", lorentz, values))
    return rows, claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--sets", default="CoDEx-S,CoDEx-M")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--trials", action="store_true")
    args = parser.parse_args()
    sets, seeds = args.sets.split(","), parse_seeds(args.seeds)
    rows = trials(sets, args.runs) if args.trials else []
    claims: list[dict[str, Any]] = []
    for data in sets:
        found, pairs = compare(data, seeds, args.runs)
        rows += found
        claims += pairs
    if claims:
        holm(claims)
    print(save("relsim_geometry", asked("relsim_geometry"), rows + claims, threads=1))


if __name__ == "__main__":
    main()
