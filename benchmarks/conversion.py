"""What a sentence encoder keeps when it becomes a Lorentz model: Spearman correlation on STS-B, by k.

    python -m benchmarks.conversion [--runs FOLDER] [--save FOLDER]

The cosine of the mean states of two sentences, against the human scores of the test pairs: of all-MiniLM-L6-v2, of its
conversion at every k without any training, and of the run of the recipe ``convert/minilm``, which trains at a falling k on
plain text (no pair of STS-B, no score), at its own k and, with the same weights, at others. The trained model, with its
tokenizer, is in the folder ``converted`` of the run; ``--save`` copies it. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from lorentz.hf import LorentzModel
from tasks.api import configure, run
from tasks.convert.task import Conversion, mean_state

from .common import asked, row, save

CURVE = (1e6, 1e4, 1e2, 10.0, 1.0)
__all__ = ["pairs", "spearman"]


def pairs(split: str) -> tuple[list[str], list[str], list[float]]:
    """Both sentences of each pair of STS-B, and their scores."""
    path = Path(os.environ["HYREL_DATA"]) / f"text/STS-B/sts-{split}.csv"
    cells = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [c[5] for c in cells], [c[6] for c in cells], [float(c[4]) for c in cells]


@torch.no_grad()
def vectors(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Mean of the last states (n, d) of each text; of points, their space coordinates."""
    time = int(isinstance(model, LorentzModel))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts = []
    for start in range(0, len(order), 64):
        some = [texts[i] for i in order[start : start + 64]]
        batch = tokenizer(some, padding=True, truncation=True, max_length=128, return_tensors="pt")
        states = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[..., time:]
        parts.append(mean_state(states, batch["attention_mask"]))
    return torch.cat(parts)[torch.tensor(order).argsort()]


def spearman(model: Any, tokenizer: Any, split: str) -> float:
    """Rank correlation of the cosines with the scores."""
    first, second, scores = pairs(split)
    cosine = torch.cosine_similarity(vectors(model, tokenizer, first), vectors(model, tokenizer, second))
    return float(spearmanr(cosine.double().numpy(), scores).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/convert"))
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = configure("convert", recipe="minilm")
    tokenizer, source = Conversion(config).source()
    rows, n = [], len(pairs("test")[2])

    def measure(what: str, model: Any, reference: float | None = None) -> float:
        found = spearman(model, tokenizer, "test")
        rows.append(row(f"{what}: STS-B test", round(found, 4), "Spearman", n=n, reference=reference))
        print(rows[-1]["what"], rows[-1]["value"], flush=True)
        return round(found, 4)

    whole = measure("all-MiniLM-L6-v2", source)
    plain = LorentzModel.from_euclidean(source)
    for k in CURVE:
        plain.set_k(k)
        measure(f"converted, k = {k:g}, no training", plain, whole)
    result = run("convert", recipe="minilm", out=options.runs / "minilm", quiet=True)
    trained = LorentzModel.from_pretrained(result.folder / "converted").eval()
    for k in sorted({config.model.k, 10.0, 1e2}):
        trained.set_k(k)
        steps = config.train.epochs * (config.epoch_steps or 0)
        measure(f"converted, trained for {steps} steps to k = {config.model.k:g}, used at k = {k:g}", trained, whole)
    for split, metrics in result.metrics.items():
        rows += [
            row(
                f"trained to k = {config.model.k:g}: {name} of states to the source's, {split} books",
                round(value, 4),
                name,
            )
            for name, value in metrics.items()
        ]
    rows.append(row("training", round(result.values["seconds"]["train"]), "wall seconds on a shared core"))
    if options.save:
        shutil.copytree(result.folder / "converted", options.save, dirs_exist_ok=True)
    print(save("conversion", asked("conversion"), rows, threads=1))


if __name__ == "__main__":
    main()
