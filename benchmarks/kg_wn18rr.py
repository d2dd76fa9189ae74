"""WN18RR at dimension 32: test scores of the shipped recipe in both protocols, beside the published numbers.

    python -m benchmarks.kg_wn18rr [--seeds 0,1,2] [--runs runs]

The command of the rows that stand in the results; ``benchmarks.kg`` measures the same and more, and replaces them when run.
A finished or interrupted run in the runs folder is used or resumed. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev

from tasks import run
from tasks.api import recipes
from tasks.argv import parse_seeds
from tasks.config import load_recipe

from .common import row, save

TARGETS = {"paper_mrr": 0.47}
STANDARD = ("mrr", "hits@10", "hits@1")
LIMIT = 40.0  # minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    seeds = parse_seeds(options.seeds)
    results = [run("kg", recipe="kg/wn18rr-32", seed=seed, runs=options.runs) for seed in seeds]
    twins = [run("kg", recipe="kg/wn18rr-32", seed=seed, runs=options.runs, model={"scorer": "mure"}) for seed in seeds]
    # End to end in the standard protocol: true triples of valid and test may serve as negatives, and select by its own MRR.
    standard = [
        run(
            "kg",
            recipe="kg/wn18rr-32",
            seed=seed,
            runs=options.runs,
            negatives={"filter": "train"},
            monitor="mrr",
            train={"epochs": 100, "threads": 2},
        )
        for seed in seeds
    ]
    published = {r["metric"]: r["value"] for r in load_recipe(recipes()["kg/wn18rr-32"])[1]}
    rows = []
    for title, group in (
        ("HyboNet", results),
        ("MuRE, its Euclidean twin", twins),
        ("HyboNet, standard protocol throughout, 100 epochs on 2 threads", standard),
    ):
        for metric in STANDARD if group is standard else ("paper_mrr", "paper_hits@10", "paper_hits@1", *STANDARD):
            values = [result.metrics["test"][metric] for result in group]
            target = TARGETS.get(metric) if group is results else None
            rows.append(
                row(
                    f"WN18RR test {metric}, {title}, dimension 32",
                    round(mean(values), 4),
                    "0 to 1",
                    n=len(values),
                    spread=round(stdev(values), 4) if len(values) > 1 else None,
                    reference=published.get(metric) if group is results else None,
                    target=target,
                    met=None if target is None else mean(values) >= target,
                )
            )
        minutes = [sum(result.values["seconds"].values()) / 60 for result in group]
        is_ours = group is results
        rows.append(
            row(
                f"minutes of training and evaluation, {title}",
                round(mean(minutes), 1),
                "min",
                n=len(minutes),
                target=LIMIT if is_ours else None,
                met=max(minutes) <= LIMIT if is_ours else None,
            )
        )
    for r in rows:
        print(f"{r['what']}: {r['value']}" + (f" +- {r['spread']}" if r["spread"] else ""))
    print(save("kg_wn18rr", f"python -m benchmarks.kg_wn18rr --seeds {options.seeds}", rows, threads=1))


if __name__ == "__main__":
    main()
