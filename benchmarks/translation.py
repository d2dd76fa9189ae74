"""Translation of Multi30k, English to German: a Lorentz transformer and its Euclidean twin.

    python -m benchmarks.translation [--seeds 0-2] [--epochs 20] [--geometries lorentz,euclidean] [--runs runs]

The settings of the recipe multi30k-en-de for both, and as many passes as given. Scores are those of sacreBLEU on detokenised,
cased text. Finished runs in the runs folder are used again. One thread. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from statistics import mean
from typing import Any

import tasks
from tasks.argv import parse_seeds

from .common import asked, row, save
from .paired import half_width, paired_row

GEOMETRIES = {"lorentz": "Lorentz", "euclidean": "Euclidean twin"}
UNITS = {"bleu": "0 to 100", "chrf": "0 to 100", "cross_entropy": "nats"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--geometries", default=",".join(GEOMETRIES))
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    scores: dict[str, list[dict[str, float]]] = {}
    for geometry, name in ((key, GEOMETRIES[key]) for key in options.geometries.split(",")):
        results = [
            tasks.run(
                "translation", recipe="multi30k-en-de", seed=seed, runs=options.runs, quiet=True,
                model={"geometry": geometry}, train={"epochs": options.epochs},
            )
            for seed in options.seeds
        ]  # fmt: skip
        scores[geometry] = [dict(result.metrics["test"]) for result in results]
        signature = results[0].values["details"]["signatures"]["bleu"]
        for metric in scores[geometry][0]:
            if metric in UNITS or metric.startswith("bleu_"):
                values = [one[metric] for one in scores[geometry]]
                where = metric.removeprefix("bleu_") if metric.startswith("bleu_") else "test_2016_flickr"
                what = f"Multi30k en-de, {where}, {name}: {'bleu' if metric.startswith('bleu_') else metric}"
                half = round(half_width(values), 3) if len(values) > 1 else None
                entry = row(what, round(mean(values), 3), UNITS.get(metric, "0 to 100"), n=len(values), half=half)
                rows.append(entry | ({"signature": signature} if metric.startswith("bleu") else {}))
        minutes = [result.values["seconds"]["train"] / 60 for result in results]
        rows.append(
            row(f"Multi30k en-de, {name}: minutes of training", round(mean(minutes), 1), "minutes", n=len(minutes))
        )
        parameters = results[0].values["params"]["total"]
        rows.append(row(f"Multi30k en-de, {name}: parameters", parameters, "numbers"))
    if len(options.seeds) > 1 and len(scores) == len(GEOMETRIES):
        pairs = ([one["bleu"] for one in scores[geometry]] for geometry in GEOMETRIES)
        rows.append(paired_row("Multi30k en-de, test_2016_flickr: bleu, Lorentz minus Euclidean twin", *pairs))
    print(save("translation", asked("translation"), rows, threads=1, note=f"sacreBLEU: {signature}"))


if __name__ == "__main__":
    main()
