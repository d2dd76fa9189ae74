"""Short validation runs behind a recipe: every setting once for a Lorentz scorer and each of its controls.

    python -m benchmarks.kg_tune [--data FB15k-237] [--models hybonet,mure,flat] [--epochs 6] [--settings N]
                                 [--runs runs]

Models, as benchmarks.kg names them, get the same settings and so the same number of trials; validation scores alone are
kept. A finished or interrupted run in the runs folder is used or resumed. Trials go to benchmarks/results/kg_tune_DATA.json
after each. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from typing import Any

from tasks import run

from .common import asked, row, save
from .kg import model_options

BASE: dict[str, Any] = {
    "model": {"dim": 32, "scale": 2.5},
    "train": {"batch_size": 1000, "lr": 0.01, "schedule": "hold"},
    "monitor": "paper_mrr",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "logistic, 500 negatives as 50": {},
    "cross entropy, 1000 negatives": {"loss": {"kind": "cross_entropy"}, "negatives": {"count": 1000}},
    "logistic, 500 negatives as 300": {"negatives": {"weight": 300.0}},
    **{
        f"cross entropy, 1000 negatives, rate {str(rate).lstrip('0')}": {
            "loss": {"kind": "cross_entropy"}, "negatives": {"count": 1000}, "train": {"lr": rate},
        }
        for rate in (0.004, 0.002, 0.001)
    },
    "self-adversarial, 500 negatives": {"loss": {"kind": "self_adversarial"}},
    "cross entropy, 1000 negatives, cap and scale 3": {
        "loss": {"kind": "cross_entropy"}, "negatives": {"count": 1000}, "model": {"max_norm": 3.0, "scale": 3.0},
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="FB15k-237")
    parser.add_argument("--models", default="hybonet,mure,flat")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="how many of them, from the first")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    name = "kg_tune_" + options.data.lower().replace("-", "")
    rows = []
    for title, setting in list(SETTINGS.items())[: options.settings]:
        for scorer in options.models.split(","):
            overrides = {key: {**BASE.get(key, {}), **setting.get(key, {})} for key in {*BASE, *setting} - {"monitor"}}
            overrides["model"] |= model_options(scorer)
            overrides["train"] |= {"epochs": options.epochs, "eval_every": options.epochs}
            result = run(
                "kg", data=options.data, monitor=BASE["monitor"], runs=options.runs, seed=0, quiet=True, **overrides
            )
            value = round(result.metrics["valid"][BASE["monitor"]], 4)
            what = f"{options.data} validation {BASE['monitor']}, {scorer}, {options.epochs} epochs: {title}"
            rows.append(row(what, value, "0 to 1") | {"setting": setting})
            print(f"{what}: {value}", flush=True)
            save(name, asked("kg_tune"), rows, threads=1)


if __name__ == "__main__":
    main()
