"""Do learned boosts know a hierarchy? Rapidity of each relation beside its Krackhardt score.

    python -m benchmarks.kg_rapidity [--data WN18RR] [--scorer lorentz_rote] [--epochs 60] [--seeds 0] [--runs runs]

Trains a scorer whose relations are boosts (``lorentz_rote``, ``lorentz_transe``) by the shipped recipe of the data set, and
prints for each relation the mean rapidity of its two directions, the hierarchy score of its training triples, and Spearman's
correlation over the relations. A finished or interrupted run in the runs folder is used or resumed. Results go to
benchmarks/results/kg_rapidity.json. One thread. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.stats import spearmanr

from tasks import run
from tasks.api import configure
from tasks.argv import parse_seeds
from tasks.data.kg import KnowledgeGraph
from tasks.data.load import load
from tasks.geometry import krackhardt

from .common import asked, row, save

RECIPES = {"WN18RR": "kg/wn18rr-32", "FB15k-237": "kg/fb15k237-32"}


def hierarchy(data: KnowledgeGraph) -> NDArray[np.float64]:
    """Score of every relation, of its training triples."""
    edges, relation = data.train[:, [0, 2]].numpy(), data.train[:, 1].numpy()
    return np.array([krackhardt(edges[relation == r], data.num_entities) for r in range(data.num_relations)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="WN18RR", choices=sorted(RECIPES))
    parser.add_argument("--scorer", default="lorentz_rote", choices=("lorentz_rote", "lorentz_transe"))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    data = load(options.data)
    scores = hierarchy(data)
    kept = np.isfinite(scores)
    lengths, correlations, mrr = [], [], []
    for seed in parse_seeds(options.seeds):
        overrides = {"model": {"scorer": options.scorer}, "train": {"epochs": options.epochs}}
        result = run("kg", recipe=RECIPES[options.data], seed=seed, runs=options.runs, **overrides)
        mrr.append(result.metrics["test"]["mrr"])
        translation = load_file(result.folder / "model.safetensors")["translation"]
        root = configure("kg", recipe=RECIPES[options.data]).model.k ** 0.5
        both = (translation.norm(dim=1) / root).view(2, -1).mean(0)
        lengths.append(both.double().numpy())
        correlations.append(float(spearmanr(lengths[-1][kept], scores[kept]).statistic))
    where, n = f"{options.data}, {options.scorer}, {options.epochs} epochs", len(mrr)

    def deviation(values: list[float]) -> float | None:
        return round(stdev(values), 3) if len(values) > 1 else None

    rows = [
        row(f"{where}: test mrr (standard protocol)", round(mean(mrr), 4), "0 to 1", n=n, sd=deviation(mrr)),
        row(f"{where}: Spearman of rapidity and Krackhardt score over {int(kept.sum())} relations",
            round(mean(correlations), 3), "-1 to 1", n=n, sd=deviation(correlations)),
    ]  # fmt: skip
    for r in np.argsort(-scores, kind="stable"):
        values = [float(length[r]) for length in lengths]
        what = f"{options.data}, {data.relations[r]}: rapidity (reference: its Krackhardt score)"
        reference = round(float(scores[r]), 3) if kept[r] else None
        rows.append(row(what, round(mean(values), 3), "1", n=n, sd=deviation(values), reference=reference))
    for entry in rows:
        print(
            f"{entry['what']}: {entry['value']}"
            + (f" | {entry['reference']}" if entry["reference"] is not None else "")
        )
    print(save("kg_rapidity", asked("kg_rapidity"), rows, threads=1))


if __name__ == "__main__":
    main()
