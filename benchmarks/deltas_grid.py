"""Delta methods on sentence tasks: a matched Lorentz and Euclidean pair, MiniLM and its conversion.

    python -m benchmarks.deltas_grid [--part pair|minilm|rest|combinations|sizes] [--seeds 0-4] [--data SST-2,TREC,SUBJ,MRPC]
                                     [--runs runs] [--converted FOLDER] [--lr-factors 1,3,10 | --rates] [--steps 300]

``pair`` is tasks.backbones' lorentz-small and euclidean-small with full fine-tuning, the head alone and six methods;
``minilm`` the same on MiniLM and, with ``--converted``, its conversion (``python -m benchmarks.conversion``); ``rest`` the
other methods on SST-2; ``combinations`` all sums of Adapter, LoRA and BitFit on SST-2; ``sizes`` LoRA, Adapter and BitFit
on SST-2 on three Euclidean backbones of 1.8, 15.5 and 22.6 million parameters: euclidean-small, the first two of MiniLM's
six layers (a folder minilm-2-layers that is made in the runs folder; not trained further), and MiniLM, with each method
less full fine-tuning paired by seed. At most 2,000 training rows, 64 tokens, 300 steps of 32 texts of like length. Learning
rates are chosen by method and backbone on the validation part of the first data set, with seed 1000, among equally many
multiples of the method's usual one; ``--rates`` takes those that the part's result file was made with, without new trials.
Majority and TF-IDF stand in every table. Differences between the geometries are paired by seed, with 95 % t intervals,
Holm-adjusted over the data sets; a data set counts where both models beat majority and TF-IDF by three deviations. Finished
runs in the runs folder are used again. Results: benchmarks/results/deltas_PART.json. One thread. HYREL_DATA names the data
folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import deltas
from tasks.argv import parse_seeds
from tasks.compare_deltas.command import Row, compare_deltas

from . import deltas_sizes
from .common import RESULTS, asked, row, save
from .paired import holm, paired_row

PAIR = ("lorentz-small", "euclidean-small")
METHODS = ("LoRA", "Adapter", "PrefixTuning", "BitFit", "IA3", "Compacter")
COMBINATIONS = ("Adapter", "LoRA", "BitFit", "Adapter+LoRA", "Adapter+BitFit", "LoRA+BitFit", "Adapter+LoRA+BitFit")
PARTS = ("pair", "minilm", "rest", "combinations", "sizes")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Backbones, methods and data sets of a part."""
    rest = [name for name in deltas.DELTAS if name not in (*METHODS, "FullFineTuning", "HeadOnly", "SparseAdapter")]
    pair, data = ",".join(PAIR), options.data
    if options.part == "sizes":
        made = deltas_sizes.models(Path(options.runs))
        return {"model": ",".join(made), "deltas": ",".join(deltas_sizes.METHODS), "data": "SST-2"}
    known: dict[str, dict[str, Any]] = {
        "pair": {"model": pair, "deltas": ",".join(METHODS), "data": data},
        "minilm": {"model": ",".join(["minilm", *options.converted]), "deltas": ",".join(METHODS), "data": data},
        "rest": {"model": pair, "deltas": ",".join(rest), "data": "SST-2"},
        "combinations": {"model": pair, "deltas": ",".join(COMBINATIONS), "data": "SST-2"},
    }
    return known[options.part]


def entries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row of the result file for each of the comparison."""
    return [
        row(
            f"{Path(r.model).name}, {r.data}, {r.method.name}: test {r.metric}",
            round(r.mean, 4),
            "0 to 1",
            n=len(r.scores),
            half=None if r.half is None else round(r.half, 4),
        )
        | {"parameters": r.method.parameters, "lr": r.lr, "scores": list(r.scores)}
        for r in rows
    ]


def differences(rows: Sequence[Row], first: str, second: str) -> list[dict[str, Any]]:
    """Paired differences of two backbones by method, Holm-adjusted over the data sets."""
    table = {(r.model, r.data, r.method.name): r for r in rows}
    found: list[dict[str, Any]] = []
    for method in dict.fromkeys(r.method.name for r in rows if r.method.parameters is not None):
        one: list[dict[str, Any]] = []
        for data in dict.fromkeys(r.data for r in rows):
            a, b = table.get((first, data, method)), table.get((second, data, method))
            base = max(table[first, data, name].mean for name in ("majority", "tfidf"))
            if a is None or b is None or len(a.scores) < 2:
                continue
            names = f"{Path(first).name} minus {Path(second).name}"
            counts = all(r.mean - base > 3 * stdev(r.scores) for r in (a, b))
            note = "" if counts else " (not counted: a model does not beat majority and TF-IDF by three deviations)"
            one.append(paired_row(f"{data}, {method}: test {a.metric}, {names}{note}", a.scores, b.scores))
        holm(one)
        found += one
    return found


TUNED = (
    "The learning rate of each method and backbone is the best of several by validation score on the first set, with a seed "
    "of its own."
)
UNTUNED = (
    "Each method has one learning rate, not tuned here for method, backbone or set: a method that does worse than another "
    "may have the worse rate."
)


def _note_of(part: str) -> str:
    """What the part's result file says of its learning rates."""
    return str(json.loads((RESULTS / f"deltas_{part}.json").read_text(encoding="utf-8"))["note"])


def chosen_rates(part: str, models: Sequence[str]) -> dict[tuple[str, str], float]:
    """Learning rates by (backbone, method) of the part's result file, whose note says how they came about.

    Raises
    ------
    SystemExit : no file, or none of these backbones.
    """
    path = RESULTS / f"deltas_{part}.json"
    if not path.exists():
        raise SystemExit(f"--rates: {path.name} is not there; leave the option out, and rates are chosen")
    by_name = {Path(model).name: model for model in models}
    found: dict[tuple[str, str], float] = {}
    for entry in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        model, *_, method = entry["what"].split(":")[0].split(", ")
        if model in by_name and entry.get("lr") is not None:
            found[by_name[model], method] = entry["lr"]
    if not found:
        raise SystemExit(f"--rates: {path.name} has none of {', '.join(by_name)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="pair", choices=PARTS)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", default="SST-2,TREC,SUBJ,MRPC")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--converted", nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--lr-factors", default="1,3,10")
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    chosen = settings(options)
    models = chosen["model"].split(",")
    rows = compare_deltas(
        rates=chosen_rates(options.part, models) if options.rates else None,
        seeds=options.seeds,
        runs=options.runs,
        costs=False,
        lr_factors=options.lr_factors,
        steps=options.steps,
        batch_size=32,
        max_train=2000,
        max_eval=None,
        max_length=64,
        evaluations=3,
        group_by_length=True,
        say=lambda line: print(line, flush=True),
        **chosen,
    )
    tuned = len(options.lr_factors.split(",")) > 1
    note = _note_of(options.part) if options.rates else TUNED if tuned else UNTUNED
    found = entries(rows) + (differences(rows, *models) if len(models) == 2 else [])
    found += deltas_sizes.less_full(rows) if options.part == "sizes" else []
    print(save(f"deltas_{options.part}", asked("deltas_grid"), found, threads=1, note=note))


if __name__ == "__main__":
    main()
