"""Deltas across tasks: one that was trained on task A, on task B.

    python -m benchmarks.deltas_transfer [--model euclidean-small,lorentz-small] [--delta LoRA]
                                         [--data SST-2,MR,CR,SUBJ,MPQA,TREC] [--seeds 0] [--runs runs] [--steps 300]
                                         [--max-train 2000]

The delta of every task is trained once a seed. Beside B's own delta, B is done by A's delta in three ways: as it is, head
too, where the labels of both sets are the same (``zero-shot``); as it is below a new head (``frozen``: the backbone with
A's delta stays, the head is trained on B, for label sets differ); and as the start of training on B at the same number of
steps (``warm``; a fresh start is B's own delta). Controls are the head alone without any delta, and the majority class.

Every score s stands beside s / own and beside (s - chance) / (own - chance), own B's own delta and chance the majority
class. A task whose own score is not above chance by two standard errors is named and left out of the means. With several
seeds a warm start less a fresh one is paired by seed, with 95 % t intervals, Holm-adjusted over the pairs of tasks.
At most 2,000 training rows of each task, 64 tokens, 300 steps of 32 texts of like length, each method's usual learning rate
and one for all heads, one thread. Results: benchmarks/results/deltas_transfer_DELTA.json, and a heat map
RUNS/deltas_transfer_DELTA.svg. Finished runs in the runs folder are used again. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tasks.api import configure, run
from tasks.argv import parse_seeds
from tasks.compare_deltas.methods import Method
from tasks.data.load import load
from tasks.text.task import TextTask

from .common import asked, row, save
from .deltas_transfer_chart import heat_maps
from .paired import half_width, holm, paired_row

SETS = "SST-2,MR,CR,SUBJ,MPQA,TREC"
WAYS = {
    "zero-shot": "delta and head as they are",
    "frozen": "delta as it is, new head",
    "warm": "start of training",
}
HEAD_LR = Method("head").lr  # of the head in every way, so that a new one learns as fast beside a delta as alone
OWN, HEAD, MAJORITY = "own delta", "head alone", "majority"

# (model, way, A or None, B) -> score by seed
Scores = dict[tuple[str, str, str | None, str], list[float]]


def measure(options: argparse.Namespace) -> tuple[Scores, dict[str, tuple[str, int]]]:
    """Scores of all cells, and for each set its metric and the number of test rows."""
    sets, scores = options.data.split(","), Scores()
    about: dict[str, tuple[str, int]] = {}
    known = {name: load(name, kind="text") for name in sets}
    for model in options.model.split(","):
        for seed in options.seeds:
            own = {name: _run(options, model, name, seed, OWN) for name in sets}
            for b in sets:
                metric = next(iter(own[b].metrics["test"]))
                about[b] = (metric, len(known[b].label["test"]))

                def add(way: str, a: str | None, score: float, b: str = b, model: str = model) -> None:
                    scores.setdefault((model, way, a, b), []).append(score)

                add(OWN, None, own[b].metrics["test"][metric])
                for way in (HEAD, MAJORITY):
                    add(way, None, _run(options, model, b, seed, way).metrics["test"][metric])
                for a in sets:
                    if a == b:
                        continue
                    if known[a].labels == known[b].labels and known[a].kind == known[b].kind:
                        add("zero-shot", a, _zero_shot(own[a].folder, known[b], metric))
                    for way in ("frozen", "warm"):
                        result = _run(options, model, b, seed, way, own[a].folder)
                        add(way, a, result.metrics["test"][metric])
                    print(f"{model}, seed {seed}, {a} to {b}: {scores[model, 'frozen', a, b][-1]:.4f}", flush=True)
    return scores, about


def _run(options: argparse.Namespace, model: str, data: str, seed: int, way: str, start: Path | None = None) -> Any:
    """Train and evaluate one cell."""
    shared = {
        "data": data,
        "max_train": options.max_train,
        "max_eval": options.max_eval,
        "max_length": options.max_length,
    }
    if way == MAJORITY:
        return run("text", seed=seed, runs=options.runs, quiet=True, model={"name": "majority"}, **shared)
    method = Method("head" if way in (HEAD, "frozen") else options.delta)
    train = {"max_steps": options.steps, "eval_steps": -(-options.steps // 3), "batch_size": 32, "lr": method.lr}
    told: dict[str, Any] = {"model": {"name": model}, "train": train, **shared}
    if method.name == "head":
        told["tuning"] = "head"
    elif start is None:
        told["delta"] = options.delta
    told["head_lr"], told["group_by_length"] = HEAD_LR, True
    if start is not None:
        told["delta"] = {"start": str(start)}
    return run("text", seed=seed, runs=options.runs, quiet=True, **told)


def _zero_shot(folder: Path, data: Any, metric: str) -> float:
    """Score of the finished run in a folder on the test rows of another set."""
    import yaml

    tree = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    task = TextTask(configure("text", overrides={k: v for k, v in tree.items() if k != "task"}))
    torch.set_num_threads(task.config.train.threads)
    model = task.build(task.config, data)
    wrong = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False).unexpected_keys
    assert not wrong, wrong
    with torch.no_grad():
        return task.evaluate(model.eval(), data, "test")[metric]


def counted(scores: Scores, about: Mapping[str, tuple[str, int]], model: str) -> list[str]:
    """Sets whose own delta is above chance by two standard errors."""
    kept = []
    for name, (metric, n) in about.items():
        error = (0.5 if metric in ("accuracy", "f1") else 1.0) / n**0.5  # at most: of a share, of a correlation
        if np.mean(scores[model, OWN, None, name]) - np.mean(scores[model, MAJORITY, None, name]) > 2 * error:
            kept.append(name)
    return kept


def relative(scores: Scores, key: tuple[str, str, str | None, str]) -> tuple[list[float], list[float]]:
    """By seed: s / own, and (s - chance) / (own - chance)."""
    model, _, _, b = key
    own, chance = scores[model, OWN, None, b], scores[model, MAJORITY, None, b]
    plain = [s / o for s, o in zip(scores[key], own, strict=True)]
    return plain, [(s - c) / (o - c) for s, o, c in zip(scores[key], own, chance, strict=True)]


def entries(scores: Scores, about: Mapping[str, tuple[str, int]], delta: str) -> list[dict[str, Any]]:
    """Rows of the result file: means over pairs of tasks first, then every cell, then paired differences."""
    cells, means, pairs = [], [], []
    for model in dict.fromkeys(key[0] for key in scores):
        kept = counted(scores, about, model)
        shown = f"{Path(model).name}, {delta}"
        if left := [name for name in about if name not in kept]:
            means.append(
                row(
                    f"{shown}: sets left out, own delta not above chance by two errors",
                    ", ".join(Path(name).name for name in left),
                    "",
                )
            )
        for way in (*WAYS, HEAD):
            keys = [key for key in scores if key[:2] == (model, way) and {key[2] or key[3], key[3]} <= set(kept)]
            if keys:
                found = np.array([[np.mean(values) for values in relative(scores, key)] for key in keys])
                what = f"{shown}, mean over {len(keys)} {'sets' if way == HEAD else 'pairs of sets'}, "
                what += HEAD if way == HEAD else WAYS[way]
                means.append(_mean(f"{what}: (s - chance) / (own - chance)", found[:, 1]))
                means.append(_mean(f"{what}: s / own", found[:, 0]))
        for key, values in scores.items():
            if key[0] != model:
                continue
            _, way, a, b = key
            names = " to ".join(Path(name).name for name in (a, b) if name)
            entry = _entry(f"{shown}, {names}, {WAYS.get(way, way)}: test {about[b][0]}", values, "0 to 1")
            if way not in (OWN, MAJORITY) and b in kept:
                plain, corrected = relative(scores, key)
                entry |= {"relative": round(float(np.mean(plain)), 4), "corrected": round(float(np.mean(corrected)), 4)}
            cells.append(entry)
            if way == "warm" and len(values) > 1:
                fresh = scores[model, OWN, None, b]
                pairs.append(paired_row(f"{shown}, {names}, start of training less fresh start", values, fresh))
    holm(pairs)
    return means + cells + pairs


def _mean(what: str, values: np.ndarray) -> dict[str, Any]:
    """Without an interval: pairs share their sets."""
    return row(what, round(float(values.mean()), 4), "1", n=len(values))


def _entry(what: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    half = round(half_width(values), 4) if len(values) > 1 else None
    return row(what, round(float(np.mean(values)), 4), unit, n=len(values), half=half)


def figure(scores: Scores, about: Mapping[str, tuple[str, int]]) -> str:
    """SVG: for every backbone and way a matrix of (s - chance) / (own - chance), A down, B across."""
    sets, panels = list(about), {}
    for model in dict.fromkeys(key[0] for key in scores):
        kept = counted(scores, about, model)
        for way in ("frozen", "warm"):
            table = np.full((len(sets) + 1, len(sets)), np.nan)
            for j, b in enumerate(sets):
                if b not in kept:
                    continue
                for i, a in enumerate(sets):
                    table[i, j] = 1.0 if a == b else np.mean(relative(scores, (model, way, a, b))[1])
                table[-1, j] = np.mean(relative(scores, (model, HEAD, None, b))[1])
            panels[f"{Path(model).name}: {WAYS[way]}"] = table
    names = [Path(name).name for name in sets]
    return heat_maps(panels, [*names, "no delta"], names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="euclidean-small,lorentz-small")
    parser.add_argument("--delta", default="LoRA")
    parser.add_argument("--data", default=SETS)
    parser.add_argument("--seeds", type=parse_seeds, default=[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--max-train", type=int, default=2000)
    parser.add_argument("--max-eval", type=int)
    parser.add_argument("--max-length", type=int, default=64)
    options = parser.parse_args()
    scores, about = measure(options)
    Path(options.runs, f"deltas_transfer_{options.delta}.svg").write_text(figure(scores, about), encoding="utf-8")
    found = entries(scores, about, options.delta)
    print(save(f"deltas_transfer_{options.delta}", asked("deltas_transfer"), found, threads=1))


if __name__ == "__main__":
    main()
