"""Held-out likelihood of the back-off mixture beside its parts, on facts that neither a part nor a weight was fitted to.

    python -m benchmarks.relsim_mixture [--sets Nations,UMLS,...] [--seeds 0]

A fifth of the training facts is held out: half of it stops the fit and sets the weights, half is judged. One thread; data
from the folder that HYREL_DATA names.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from relsim.model.mixture import PARTS, BackOff
from relsim.model.recommended import fit_distribution
from tasks.data.load import load
from tasks.similarity.task import graph_facts

from .common import asked, row, save

SETS = ("Nations", "UMLS", "Kinship", "CoDEx-S", "NELL-995-h100", "CoDEx-M", "FB15k-237")


def measure(name: str, seed: int) -> dict[str, tuple[float, float]]:
    """Head and tail terms of the parts and of the mixture, nats a fact."""
    kept, rest = graph_facts(load(name)).split(0.2, seed=seed)
    valid, test = rest.split(0.5, seed=seed + 1)
    model, _ = fit_distribution(kept, seed=seed, held_out=valid)
    return BackOff(model, kept).fit(valid).part_nll(test)


def rows_of(name: str, found: list[dict[str, tuple[float, float]]]) -> list[dict[str, Any]]:
    total = {part: [sum(one[part]) for one in found] for part in (*PARTS, "mixture")}
    best = min(PARTS, key=lambda part: statistics.mean(total[part]))
    held = all(one["mixture"] <= min(one[part] for part in PARTS) for one in _transposed(total))
    rows = []
    for part, values in total.items():
        sd = statistics.stdev(values) if len(values) > 1 else None
        aim = {"target": f"<= {best}", "met": held} if part == "mixture" else {}
        what = f"{name}: held-out NLL, {part}"
        rows.append(row(what, statistics.mean(values), "nats a fact", n=len(values), sd=sd, **aim))
    for side, label in enumerate(("head", "tail")):
        values = [one["mixture"][side] - min(one[part][side] for part in PARTS) for one in found]
        rows.append(row(f"{name}: mixture less its best part, {label}", statistics.mean(values), "nats", n=len(values)))
    print(name, {part: round(statistics.mean(values), 4) for part, values in total.items()}, flush=True)
    return rows


def _transposed(total: dict[str, list[float]]) -> list[dict[str, float]]:
    return [dict(zip(total, values, strict=True)) for values in zip(*total.values(), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.sets.split(","):
        rows += rows_of(name, [measure(name, int(seed)) for seed in args.seeds.split(",")])
    print(save("relsim_mixture", asked("relsim_mixture"), rows, threads=1))


if __name__ == "__main__":
    main()
