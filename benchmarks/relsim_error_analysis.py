"""How many mistakes of a relation classifier and of a relation predictor fall on the relations most like the right one.

    python -m benchmarks.relsim_error_analysis --margin FOLDER --negatives FOLDER [--seeds 0,1,2,3,4]

Mistakes are those of the plain arms of benchmarks.relsim_margin (SemEval-2010 Task 8 and KBP37) and
benchmarks.relsim_negatives (CoDEx-S), read from their folders or made there. Likeness is the larger divergence of two
fact distributions, or of smoothed counts, of the training facts; a relation with fewer than 10 of them looks like the
background, near everything, and is not among the most alike. Two kinds of chance stand beside each share: k of the R
- 1 wrong relations, and what falls on the k when a mistake goes to wrong relations in proportion to how often each is
predicted wrongly at all. Results go to benchmarks/results/relsim_error_analysis.json. One thread; data from the
folder that HYREL_DATA names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relsim.baselines import count_kl_max
from tasks.argv import parse_seeds
from tasks.data.load import load
from tasks.relation_classification.margin import class_divergence
from tasks.similarity.task import graph_facts

from . import relsim_margin, relsim_negatives
from .common import asked, row, save
from .paired import half_width, paired_row

Ids = NDArray[np.int64]
LEAST = 10


def nearest(divergence: NDArray[np.float64], k: int, told: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which k other relations are most alike each relation, (R, R), among those that their facts tell something of (R,)."""
    apart = np.array(divergence, dtype=np.float64)
    np.fill_diagonal(apart, np.inf)
    apart[:, ~told] = np.inf
    near = np.zeros(apart.shape, dtype=np.bool_)
    np.put_along_axis(near, np.argsort(apart, axis=1, kind="stable")[:, :k], True, axis=1)
    return near


def shares(gold: Ids, predicted: Ids, near: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the mistakes that fall on near relations, and that expected of mistakes that follow frequency alone.

    The frequency of relation j is how often it is wrongly predicted; of a mistake on relation i it is taken among the wrong
    relations j != i.
    """
    wrong = gold != predicted
    gold, predicted = gold[wrong], predicted[wrong]
    often = np.bincount(predicted, minlength=len(near)).astype(np.float64)
    others = often[None, :] - np.diag(often)
    expected = (others * near).sum(1) / np.maximum(others.sum(1), 1e-300)
    return float(near[gold, predicted].mean()), float(expected[gold].mean())


def rows_of(
    what: str, gold: Ids, runs: Sequence[Ids], divergences: dict[str, NDArray[np.float64]], support: Ids
) -> list[dict[str, Any]]:
    size = len(next(iter(divergences.values())))
    mistakes = [float((run != gold).mean()) for run in runs]
    rows = [row(f"{what}: share of mistakes among predictions", float(np.mean(mistakes)), "1", n=len(runs))]
    for name, divergence in divergences.items():
        for k in (1, 3, 5):
            near = nearest(divergence, k, support >= LEAST)
            found, often = zip(*(shares(gold, run, near) for run in runs), strict=True)
            label = f"{what}: mistakes on the {k} most alike by {name}"
            even = k / (size - 1)
            rows += [
                row(label, float(np.mean(found)), "1", n=len(runs), half=half_width(found), reference=even),
                row(f"{label}, expected by frequency", float(np.mean(often)), "1", n=len(runs), half=half_width(often)),
                paired_row(f"{label}, minus even chance", found, [even] * len(runs)),
                paired_row(f"{label}, minus frequency", found, often),
            ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margin", type=Path, required=True, help="folder of benchmarks.relsim_margin")
    parser.add_argument("--negatives", type=Path, required=True, help="folder of benchmarks.relsim_negatives")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = parse_seeds(args.seeds)
    for folder in (args.margin, args.negatives):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in ("SemEval2010-Task8", "KBP37"):
        data = load(name)
        divergences = {
            "fact distributions": class_divergence(data, "facts").numpy(),
            "counts": class_divergence(data, "counts").numpy(),
        }
        support = data.label["train"].bincount(minlength=len(data.labels)).numpy()
        runs = relsim_margin.predictions(data, seeds, args.margin)
        rows += rows_of(f"{name} classifier", data.label["test"].numpy(), runs, divergences, support)
    graph = load("CoDEx-S")
    kl = relsim_negatives.kept_divergence(graph, args.negatives)
    divergences = {"fact distributions": np.maximum(kl, kl.T), "counts": count_kl_max(graph_facts(graph))}
    support = graph.train[:, 1].bincount(minlength=graph.num_relations).numpy()
    runs = relsim_negatives.predictions(graph, seeds, args.negatives)
    rows += rows_of("CoDEx-S predictor", graph.test[:, 1].numpy(), runs, divergences, support)
    for entry in rows:
        print(entry["what"], round(entry["value"], 4), entry["spread"])
    print(save("relsim_error_analysis", asked("relsim_error_analysis"), rows, threads=1))


if __name__ == "__main__":
    main()
