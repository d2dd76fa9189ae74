"""Structural probes of MiniLM on English dependency trees.

    python -m benchmarks.probing [--seeds 0-2] [--max-train 4000] [--epochs 10] [--targets distance,depth]
                                 [--probes Euclidean,Poincaré,Lorentz,flat] [--layers 0,1,2,3,4,5,6] [--runs runs]

Euclidean, Poincaré and Lorentz probes of 64 coordinates on UD English-EWT, with the flat limit of the Lorentz probe (k = 1e6)
and two controls: MiniLM with random weights, and the order of the words. Layers are chosen by geometry on the validation part
with seed 1000, among those given; the random encoder is probed at the layer of the Euclidean probe. As many training
sentences as given, the same for all (of 12,544). Differences from the Euclidean probe are paired by seed, with 95 % t
intervals. The states of the encoder are computed once. One thread. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.api import configure
from tasks.argv import parse_seeds
from tasks.data.load import load
from tasks.data.treebank import Treebank, treebank_from_sentences
from tasks.folder import RunFolder
from tasks.probing.config import LINEAR, MONITORS
from tasks.probing.states import WordStates, word_states
from tasks.probing.task import Probing
from tasks.runner import fit
from tasks.text.backbone import load_backbone, load_tokenizer, longest
from tasks.text.config import ModelConfig

from .common import asked, row, save
from .paired import half_width, holm, paired_row

DATA, ENCODER, FLAT, TRIAL = "UD_English-EWT", "minilm", 1e6, 1000
SPLITS = ("train", "valid", "test")
PROBES: dict[str, dict[str, Any]] = {
    "Euclidean": {"geometry": "euclidean"},
    "Poincaré": {"geometry": "poincare"},
    "Lorentz": {"geometry": "lorentz"},
    "flat": {"geometry": "lorentz", "k": FLAT},
}
NAMES = {"flat": "flat limit"}
NOTE = "Layers are chosen on validation sentences; every probe has 64 coordinates, which were not chosen."
Layers = Mapping[int, Mapping[str, WordStates]]  # states by layer and split


def treebank(count: int) -> Treebank:
    """The treebank with some of its training sentences."""
    whole: Treebank = load(DATA, kind="treebank")
    train = list(whole.sentences["train"])
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:count])
    return treebank_from_sentences(DATA, {**whole.sentences, "train": [train[i] for i in chosen]})


def states(data: Treebank, *, random: bool) -> Layers:
    """States of all layers of MiniLM, or of random weights."""
    torch.manual_seed(0)
    backbone, tokenizer = load_backbone(ModelConfig(name=ENCODER, random=random)), load_tokenizer(ENCODER)
    layers = range(backbone.config.num_hidden_layers + 1)
    found: dict[int, dict[str, WordStates]] = {layer: {} for layer in layers}
    for split in SPLITS:
        words = [one.words for one in data.sentences[split]]
        for layer, some in word_states(backbone, tokenizer, words, layers=layers, max_length=longest(backbone)).items():
            found[layer][split] = some
    return found


def score(
    data: Treebank, layers: Layers | None, layer: int, probe: dict[str, Any], seed: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Metrics by split of one probe; a finished run in the runs folder is used again."""
    name, random = (LINEAR, False) if layers is None else (ENCODER, probe.get("random", False))
    told = {key: value for key, value in probe.items() if key != "random"}
    config = configure(
        "probing",
        overrides={
            "data": DATA, "model": {"name": name, "layer": layer, "random": random}, "probe": told,
            "train": {"epochs": options.epochs},
        },
    )  # fmt: skip
    task = Probing(replace(config, seed=seed))
    task.states = None if layers is None else dict(layers[layer])
    words = "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in told.values())
    place = f"probing-{options.max_train}-{options.epochs}/{name}{'-random' * random}-{layer}-{words}/seed{seed}"
    result = fit(task, data, RunFolder(Path(options.runs) / place), seed=seed, quiet=True)
    found: dict[str, dict[str, float]] = result["metrics"]
    print(place, found["valid"], flush=True)
    return found


def rows_of(
    target: str, data: Treebank, real: Layers, random: Layers, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of the result file for one kind of probe."""
    monitor = MONITORS[target][0]
    scores: dict[str, list[dict[str, float]]] = {}
    chosen = {}
    for name in options.probes.split(","):
        told = PROBES[name]
        probe = {"target": target, **told}
        if name == "flat":
            chosen[name] = chosen["Lorentz"]
        else:
            trials = {
                layer: score(data, real, layer, probe, TRIAL, options)["valid"][monitor] for layer in options.layers
            }
            chosen[name] = max(trials, key=lambda layer: trials[layer])
        scores[name] = [score(data, real, chosen[name], probe, seed, options)["test"] for seed in options.seeds]
    euclidean = {"target": target, **PROBES["Euclidean"]}
    layer = chosen["Euclidean"]
    scores["random weights, Euclidean"] = [
        score(data, random, layer, {**euclidean, "random": True}, seed, options)["test"] for seed in options.seeds
    ]
    chosen["random weights, Euclidean"] = layer
    scores["order of the words"] = [score(data, None, 0, euclidean, 0, options)["test"]]
    found = []
    for metric in MONITORS[target]:
        for name, some in scores.items():
            values = [one[metric] for one in some]
            at = f", layer {chosen[name]}" if name in chosen else ""
            half = round(half_width(values), 4) if len(values) > 1 else None
            what = f"{DATA}, {target}, {NAMES.get(name, name)}{at}: test {metric}"
            found.append(row(what, round(float(np.mean(values)), 4), "0 to 1", n=len(values), half=half))
    if len(options.seeds) > 1:
        plain = [one[monitor] for one in scores["Euclidean"]]
        pairs = [
            paired_row(
                f"{DATA}, {target}: test {monitor}, {NAMES.get(name, name)} minus Euclidean",
                [o[monitor] for o in scores[name]],
                plain,
            )
            for name in options.probes.split(",")
            if name != "Euclidean"
        ]
        holm(pairs)
        found += pairs
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2])
    parser.add_argument("--max-train", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--targets", default="distance,depth")
    parser.add_argument("--probes", default=",".join(PROBES))
    parser.add_argument("--layers", type=parse_seeds, default=list(range(7)))
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = treebank(options.max_train)
    real, random = (states(data, random=flag) for flag in (False, True))
    rows = [found for target in options.targets.split(",") for found in rows_of(target, data, real, random, options)]
    print(save("probing", asked("probing"), rows, threads=1, note=NOTE))


if __name__ == "__main__":
    main()
