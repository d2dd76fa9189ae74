"""Graphs: test scores of the Lorentz networks and their controls on the published and on fresh splits.

    python -m benchmarks.graphs [--rows airport-lp,...] [--models gcn,...] [--seeds 0-9] [--controls-seeds 0-2]
        [--fresh 0-9] [--controls-fresh 0-2] [--seeds-of [ROW/]MODEL=SEEDS ...] [--runs runs]

The settings were chosen on validation data (`benchmarks.graphs_trials` keeps every trial). A finished or interrupted run in
the runs folder is used or resumed, and each row has a file of its own, ``benchmarks/results/graphs_ROW.json``. A published
mean is met where it lies at or below the upper end of our 95 % interval (t over seeds). The Lorentz network's score less that
of each control is paired by seed on the published split, Holm-adjusted over all rows that have a file. ``--seeds-of`` gives
single models, or ROW/MODEL, seeds of their own and no fresh splits. Memory: ``benchmarks.graphs_memory``.
HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tasks import run
from tasks.api import recipes
from tasks.argv import parse_seeds
from tasks.config import load_recipe

from .common import RESULTS, asked, row, save
from .graphs_trials import LOG
from .paired import half_width, holm, paired_row

ROWS = ("airport-lp", "airport-nc", "cora-lp", "cora-nc", "disease-lp")

# The Lorentz network is the recipe itself. What the others change was tuned on validation data: note() counts the trials.
EUCLIDEAN = {"optimizer": "adam", "clip": None}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "lorentz_gcn": ("Lorentz GCN", {}),
    "lorentz_attention": ("Lorentz graph attention", {"model": {"encoder": "lorentz_attention", "heads": 3}}),
    "flat": (
        "Lorentz GCN, flat limit k = 1e4",
        {"model": {"k": 1e4, "time_weights": False, "variant": "paper"}},
    ),
    "hgcn": ("HGCN, tangent space", {"model": {"encoder": "hgcn"}, "train": EUCLIDEAN}),
    "gcn": ("GCN", {"model": {"encoder": "gcn"}, "train": EUCLIDEAN}),
    "gat": ("GAT", {"model": {"encoder": "gat", "heads": 3}, "train": EUCLIDEAN}),
}
CLASSES = {"loss": {"kind": "cross_entropy"}}


def _euclidean(dropout: float, lr: float, weight_decay: float, loss: str) -> dict[str, Any]:
    """Settings of a control."""
    model = {"dropout": dropout, "activation": "relu"}
    return {"model": model, "loss": {"kind": loss}, "train": {"lr": lr, "weight_decay": weight_decay}}


# What differs from the recipe in the best of at least three trials of a control; nothing where none of them was better on
# validation data than the Lorentz network's settings. Flat limit and attention take those.
TUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("cora-nc", "gcn"): _euclidean(0.6, 0.005, 5e-4, "cross_entropy"),
    ("cora-nc", "gat"): _euclidean(0.5, 0.01, 5e-4, "cross_entropy"),
    ("cora-nc", "hgcn"): _euclidean(0.5, 0.01, 5e-4, "cross_entropy"),
    ("disease-lp", "gcn"): _euclidean(0.0, 0.02, 5e-4, "fermi_dirac"),
    ("disease-lp", "gat"): _euclidean(0.0, 0.02, 5e-4, "fermi_dirac"),
    ("disease-lp", "hgcn"): _euclidean(0.3, 0.01, 5e-4, "fermi_dirac"),
    ("cora-lp", "gcn"): _euclidean(0.0, 0.01, 0.0, "fermi_dirac"),
    ("cora-lp", "gat"): _euclidean(0.0, 0.01, 0.0, "fermi_dirac"),
    ("cora-lp", "hgcn"): _euclidean(0.0, 0.01, 0.0, "fermi_dirac"),
    ("airport-nc", "gcn"): {},
    ("airport-nc", "gat"): {},
    ("airport-nc", "hgcn"): _euclidean(0.0, 0.02, 0.0, "cross_entropy"),
    ("airport-lp", "gcn"): _euclidean(0.0, 0.05, 5e-4, "margin"),
    ("airport-lp", "gat"): {
        **_euclidean(0.0, 0.01, 5e-4, "margin"), "loss": {"kind": "margin", "margin": 5.0}, "normalise_features": False,
    },
    ("airport-lp", "hgcn"): {
        "model": {"dropout": 0.0, "activation": "relu"}, "loss": {"kind": "margin"},
        "train": {"lr": 0.01, "weight_decay": 1e-3, "clip": 0.1},
    },
}  # fmt: skip


def merged(*trees: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the later ones winning."""
    out: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def title_of(name: str, model: str) -> str:
    """Model as rows call it; a control that has no trials of its own is named as such."""
    own = model == "lorentz_gcn" or (name, model) in TUNED
    return MODELS[model][0] + ("" if own else " (the Lorentz network's settings)")


def score(name: str, model: str, seed: int, metric: str, *, runs: str, split_seed: int | None = None) -> float:
    """Test score of one run, in hundredths."""
    own_loss = model in ("lorentz_gcn", "flat") or not name.endswith("nc")
    overrides = merged({} if own_loss else CLASSES, MODELS[model][1], TUNED.get((name, model), {}))
    if split_seed is not None:
        overrides["split_seed"] = split_seed
    result = run("graph", recipe=f"graph/{name}", seed=seed, runs=runs, quiet=True, **overrides)
    print(name, model, seed, split_seed, result.metrics["test"], flush=True)
    return 100 * result.metrics["test"][metric]


def note(name: str) -> str:
    """How many trials on validation data stand behind the settings of a row."""
    data, problem = load_recipe(Path(recipes()[f"graph/{name}"]))[0]["data"], name.rsplit("-", 1)[1]
    trials = map(json.loads, LOG.read_text(encoding="utf-8").splitlines())
    counts = Counter(t["settings"]["model.encoder"] for t in trials if (t["data"], t["problem"]) == (data, problem))
    said = ", ".join(f"{MODELS[encoder][0]} {count}" for encoder, count in counts.items())
    return f"{name}, trials of settings on validation data: {said or 'none'}."


def entry(what: str, values: Sequence[float], published: float | None) -> dict[str, Any]:
    """One row; met is decided from two seeds on."""
    value, n = mean(values), len(values)
    half = half_width(values) if n > 1 else None
    made = row(
        what,
        round(value, 2),
        "x 100",
        n=n,
        sd=round(stdev(values), 2) if n > 1 else None,
        reference=published,
        target=published,
        met=None if published is None or half is None else bool(published <= value + half),
    )
    return made | {"interval": None if half is None else [round(value - half, 2), round(value + half, 2)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--controls-seeds", default="0")
    parser.add_argument("--fresh", help="seeds of fresh splits, each with its own run seed")
    parser.add_argument("--controls-fresh", help="those of the controls; by default the same")
    parser.add_argument("--seeds-of", nargs="*", default=[], metavar="[ROW/]MODEL=SEEDS")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    options.seeds_of = dict(pair.split("=", 1) for pair in options.seeds_of)
    if unknown := {key.split("/")[-1] for key in options.seeds_of} - set(MODELS):
        parser.error(f"--seeds-of names {', '.join(sorted(unknown))}; known: {', '.join(MODELS)}")
    for name in options.rows.split(","):
        scores, rows = measure(name, options)
        rows += differences(name, scores).values()
        print(save(f"graphs_{name}", asked("graphs"), rows, threads=1, note=note(name)))
    adjust()
    for name in options.rows.split(","):
        for r in json.loads((RESULTS / f"graphs_{name}.json").read_text(encoding="utf-8"))["rows"]:
            print(f"{r['what']}: {r['value']}" + (f" +- {r['spread']}" if r["spread"] else ""))


def adjust() -> None:
    """Holm's adjustment of each control's differences over all rows that have a file."""
    paths = [path for name in ROWS if (path := RESULTS / f"graphs_{name}.json").exists()]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    questions: dict[str, list[dict[str, Any]]] = {}
    for r in (r for content in contents for r in content["rows"] if "p" in r):
        r["what"] = r["what"].removesuffix(": no difference shown after Holm")
        questions.setdefault(r["what"].removesuffix(": no difference shown").partition(" less ")[2], []).append(r)
    for question in questions.values():
        holm(question)
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def measure(name: str, options: argparse.Namespace) -> tuple[dict[str, dict[int, float]], list[dict[str, Any]]]:
    """Scores on the published split by model and seed, and rows, of one data set and problem."""
    published = load_recipe(recipes()[f"graph/{name}"])[1][0]
    metric, rows = published["metric"], []
    scores: dict[str, dict[int, float]] = {}
    for model in options.models.split(","):
        ours, title = model == "lorentz_gcn", title_of(name, model)
        own = options.seeds_of.get(f"{name}/{model}", options.seeds_of.get(model))
        seeds = parse_seeds(own or (options.seeds if ours else options.controls_seeds))
        scores[model] = {seed: score(name, model, seed, metric, runs=options.runs) for seed in seeds}
        what = f"{name} test {metric}, {title}, published split"
        rows.append(entry(what, list(scores[model].values()), 100 * published["value"] if ours else None))
        splits = options.fresh if ours else options.controls_fresh or options.fresh
        if splits and own is None:
            fresh = parse_seeds(splits)
            values = [score(name, model, s, metric, runs=options.runs, split_seed=s) for s in fresh]
            rows.append(entry(f"{name} test {metric}, {title}, fresh splits", values, None))
    return scores, rows


def differences(name: str, scores: dict[str, dict[int, float]]) -> dict[str, dict[str, Any]]:
    """The Lorentz network's scores less those of each control, paired by common seeds, two or more."""
    ours = scores.get("lorentz_gcn", {})
    found = {}
    for model, theirs in scores.items():
        common = [seed for seed in theirs if seed in ours]
        if model != "lorentz_gcn" and len(common) > 1:
            what = f"{name}, published split: Lorentz GCN less {title_of(name, model)}"
            pair = paired_row(what, [ours[seed] for seed in common], [theirs[seed] for seed in common])
            found[model] = pair | {"unit": "x 100"}
    return found


if __name__ == "__main__":
    main()
