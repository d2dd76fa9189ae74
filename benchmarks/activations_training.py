"""Whole trainings with activations at a few bits, beside the same trainings with exact ones.

    python -m benchmarks.activations_training [--seeds 0-3] [--bits 8,4,2] [--runs runs] [--tasks graph,text]

``graph``: node classification on Cora by a graph convolution network (two layers of 64, at most 200 epochs, early stopping
on validation data). ``text``: SST-2 with LoRA on MiniLM (1,600 training rows, 100 steps of 16 texts of like length, 400 rows
of validation and test each). Test scores; differences from exact activations are paired by seed, with 95 % t intervals.
Nothing is tuned for either. Finished runs in the runs folder are used again. Results:
benchmarks/results/activations_training_TASKS.json. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev
from typing import Any

import tasks
from tasks.argv import parse_seeds

from .common import asked, row, save
from .paired import paired_row

TASKS: dict[str, dict[str, Any]] = {
    "graph": {
        "data": "Cora", "problem": "nc", "normalise_features": True,
        "model": {"encoder": "gcn", "dim": 65, "layers": 2, "dropout": 0.5, "normalisation": "symmetric"},
        "loss": {"kind": "cross_entropy"},
        "train": {
            "epochs": 200, "batch_size": 1, "lr": 0.01, "optimizer": "adam", "weight_decay": 5e-4, "eval_every": 1,
            "patience": 100,
        },
    },
    "text": {
        "data": "SST-2", "model": {"name": "minilm"}, "delta": {"name": "LoRA", "rank": 8}, "max_train": 1600,
        "max_eval": 400, "max_length": 64, "group_by_length": True, "head_lr": 1e-2,
        "train": {"max_steps": 100, "eval_steps": 50, "batch_size": 16, "lr": 3e-4},
    },
}  # fmt: skip
NAMES = {"graph": "Cora, graph convolution: test f1", "text": "SST-2, LoRA on MiniLM: test accuracy"}


def score(task: str, seed: int, bits: int | None, runs: str) -> tuple[float, dict[str, Any] | None]:
    """Test score of a run, and what its activations took."""
    options = TASKS[task]
    train = options["train"] | ({"activation_bits": bits} if bits else {})
    result = tasks.run(task, seed=seed, runs=runs, quiet=True, **(options | {"train": train}))
    return next(iter(result.metrics["test"].values())), result.values["activations"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2, 3])
    parser.add_argument("--bits", default="8,4,2")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--tasks", default="graph,text")
    options = parser.parse_args()
    rows = []
    for task in options.tasks.split(","):
        scores: dict[int | None, list[float]] = {}
        for bits in (None, *map(int, options.bits.split(","))):
            found = [score(task, seed, bits, options.runs) for seed in options.seeds]
            scores[bits] = [value for value, _ in found]
            label = f"{NAMES[task]}, {f'{bits} bits' if bits else 'exact activations'}"
            print(f"{label}: {mean(scores[bits]):.4f}", flush=True)
            held = found[-1][1]
            rows.append(
                row(
                    label, round(mean(scores[bits]), 4), "0 to 1", n=len(found),
                    sd=round(stdev(scores[bits]), 4) if len(found) > 1 else None,
                    reference=f"{held['ratio']:.1f} times fewer bytes" if held else None,
                )
                | {"scores": scores[bits]}
            )  # fmt: skip
        if len(options.seeds) > 1:
            rows += [
                paired_row(f"{NAMES[task]}, {bits} bits minus exact", values, scores[None])
                for bits, values in scores.items()
                if bits
            ]
    name = f"activations_training_{options.tasks.replace(',', '_')}"
    print(save(name, asked("activations_training"), rows, threads=1))


if __name__ == "__main__":
    main()
