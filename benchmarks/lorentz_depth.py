"""Do deep stacks train? Score and gradient norm by layer, for 1 to 16 layers, of the Lorentz model and of its twin.

    python -m benchmarks.lorentz_depth [--steps 300] [--depths 1,2,4,8,16] [--seeds 0] [--halves transformer,graph]

Transformers: masked language modelling of ``text/pretraining-classics`` (the valid books, by characters, the last tenth of
the text held out), scored by the accuracy on masked characters of the held-out part. Graphs: node classification of Cora on
its published split with the encoders of ``hyrel run graph``, plain stacks without residuals, scored by the accuracy on the
test nodes, at two rates; the accuracy on the training nodes tells whether a low score is a stack that does not fit.

The same steps, batches, optimiser and rates for every row of a half; beside the score stand the share of the most frequent
answer and, by layer, the norm of the gradient at the first and at the last step. Rates are not tuned: this measures that
depth trains, and ranks no geometry. Rows of a half that is not run stay as the result file has them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from dataclasses import dataclass
from itertools import product
from os import environ
from pathlib import Path

import torch
from torch import Tensor, nn

from lorentz.hf import LorentzConfig, LorentzForMaskedLM
from tasks.argv import parse_seeds
from tasks.data.load import load
from tasks.graph.config import GraphConfig, LossConfig, ModelConfig
from tasks.graph.task import GraphTask

from .common import RESULTS, asked, row, save

PAD, MASK, SPECIAL = 0, 1, 2
LENGTH, BATCH, WIDTH, HEADS = 48, 16, 65, 4
GEOMETRIES = ("lorentz", "euclidean")
RATES = (1e-2, 1e-3)  # of graphs


@dataclass(frozen=True)
class Text:
    """Sequences of character numbers (n, LENGTH)."""

    train: Tensor
    held_out: Tensor
    vocabulary: int

    @classmethod
    def load(cls) -> Text:
        """The valid books in lower case, anything but letters and common signs a space."""
        path = Path(environ["HYREL_DATA"]) / "text/pretraining-classics/valid.txt.gz"
        text = re.sub(r"[^a-z.,;:!?'\"-]+", " ", gzip.decompress(path.read_bytes()).decode().lower())
        characters = sorted(set(text))
        number = {character: i + SPECIAL for i, character in enumerate(characters)}
        ids = torch.tensor([number[character] for character in text])
        ids = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
        cut = len(ids) * 9 // 10
        return cls(ids[:cut], ids[cut:], len(characters) + SPECIAL)


def masked(ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs with 15 % of the characters masked, and labels that are -100 elsewhere."""
    chosen = torch.rand(ids.shape, generator=generator) < 0.15
    return ids.masked_fill(chosen, MASK), ids.masked_fill(~chosen, -100)


def norms(layers: nn.ModuleList) -> list[float]:
    """Norm of the gradient of each layer."""
    return [
        float(torch.stack([p.grad.norm() for p in layer.parameters() if p.grad is not None]).norm()) for layer in layers
    ]


@torch.no_grad()
def accuracy(model: nn.Module, ids: Tensor) -> float:
    """Share of masked characters that are predicted."""
    generator, right, count = torch.Generator().manual_seed(0), 0, 0
    for part in ids[:512].split(64):
        inputs, labels = masked(part, generator)
        found = model(inputs).logits.argmax(-1)
        right += int((found == labels).sum())
        count += int((labels >= 0).sum())
    return right / count


def frequent(text: Text) -> float:
    """Score of the most frequent character."""
    _, labels = masked(text.held_out[:512], torch.Generator().manual_seed(0))
    return float((labels[labels >= 0] == text.train.flatten().mode().values).double().mean())


def transformer(text: Text, geometry: str, depth: int, steps: int, seed: int) -> dict[str, object]:
    """Train one model; whether all was finite, its score, and the gradient by layer at both ends."""
    torch.manual_seed(seed)
    config = LorentzConfig(
        vocab_size=text.vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=depth,
        num_attention_heads=HEADS,
        intermediate_size=2 * (WIDTH - 1) + 1,
        type_vocab_size=0,
        position_embedding_type="rotary",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        geometry=geometry,
    )
    model = LorentzForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    warm = max(steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warm, (steps - i) / (steps - warm + 1))
    )
    generator = torch.Generator().manual_seed(seed)
    first: list[float] = []
    last: list[float] = []
    finite = True
    for step in range(steps):
        rows = torch.randint(len(text.train), (BATCH,), generator=generator)
        inputs, labels = masked(text.train[rows], generator)
        loss = model(inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        last = norms(model.model.encoder.stack.layers)
        first = first if step else last
        finite = finite and bool(loss.isfinite()) and all(value < float("inf") for value in last)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    parameters = sum(p.numel() for p in model.parameters())
    score = accuracy(model.eval(), text.held_out)
    return {"finite": finite, "score": score, "first": first, "last": last, "parameters": parameters}


def transformers(depths: list[int], steps: int, seeds: list[int]) -> list[dict[str, object]]:
    """Result rows of the transformer half."""
    text = Text.load()
    base = frequent(text)
    rows = [row("transformer: the most frequent masked character", round(base, 4), "accuracy", n=512)]
    for depth in depths:
        for geometry in GEOMETRIES:
            for seed in seeds:
                start = time.process_time()
                found = transformer(text, geometry, depth, steps, seed)
                what = f"transformer, {depth} layers, {geometry}, seed {seed}, {found['parameters']} parameters"
                print(f"{what}: {found['score']:.3f}, {time.process_time() - start:.0f} s", flush=True)
                rows += described(what, "held-out masked characters", found, base)
    return rows


def graph(data: object, geometry: str, depth: int, steps: int, seed: int, rate: float) -> dict[str, object]:
    """Train one stack on the whole graph; as :func:`transformer`, with the accuracy on the training nodes beside it."""
    torch.manual_seed(seed)
    model = ModelConfig(encoder="lorentz_gcn" if geometry == "lorentz" else "gcn", layers=depth)
    task = GraphTask(GraphConfig(data="Cora", problem="nc", model=model, loss=LossConfig(kind="cross_entropy")))
    encoder = task.build(task.config, data)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=rate)
    first: list[float] = []
    last: list[float] = []
    finite = True
    for step in range(steps):
        loss, _ = task.step(encoder, task.train_batch(data, step, 0, seed))
        optimizer.zero_grad()
        loss.backward()
        last = norms(encoder.layers)
        first = first if step else last
        finite = finite and bool(loss.isfinite()) and all(value < float("inf") for value in last)
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    encoder.eval()
    with torch.no_grad():
        score, fitted = (task.evaluate(encoder, data, split)["accuracy"] for split in ("test", "train"))
    parameters = sum(p.numel() for p in encoder.parameters())
    return {
        "finite": finite, "score": score, "fitted": fitted, "first": first, "last": last, "parameters": parameters,
    }  # fmt: skip


def graphs(depths: list[int], steps: int, seeds: list[int]) -> list[dict[str, object]]:
    """Result rows of the graph half."""
    data = load("Cora")
    made = GraphTask(GraphConfig(data="Cora", problem="nc", loss=LossConfig(kind="cross_entropy"))).prepare(data)
    tested = made.labels[made.nodes["test"]]
    base = float((tested == tested.mode().values).double().mean())
    rows = [row("graph: the most frequent class", round(base, 4), "accuracy", n=len(tested))]
    for depth, geometry, rate, seed in product(depths, GEOMETRIES, RATES, seeds):
        start = time.process_time()
        found = graph(data, geometry, depth, steps, seed, rate)
        what = f"graph, {depth} layers, {geometry}, rate {rate:g}, seed {seed}, {found['parameters']} parameters"
        print(f"{what}: {found['score']:.3f}, {found['fitted']:.3f}, {time.process_time() - start:.0f} s", flush=True)
        rows += described(what, "test nodes of Cora", found, base)
        rows.append(row(f"{what}: training nodes of Cora", found["fitted"], "accuracy"))
    return rows


def described(what: str, of: str, found: dict[str, object], base: float) -> list[dict[str, object]]:
    """Rows of one model: its score, whether it trains, and its gradients."""
    trains = bool(found["finite"]) and found["score"] > base
    rows = [row(f"{what}: {of}", found["score"], "accuracy", target=base, met=trains)]
    for when, one in product(("first", "last"), (min, max)):
        which = "smallest" if one is min else "largest"
        value = float(f"{one(found[when]):.3g}")
        rows.append(row(f"{what}: {which} gradient norm of a layer, {when} step", value, "norm"))
    return rows


# Every half returns result rows that begin with its name.
HALVES = {"transformer": transformers, "graph": graphs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depths", default="1,2,4,8,16")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--halves", default=",".join(HALVES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    depths, seeds = map(parse_seeds, (options.depths, options.seeds))
    path = RESULTS / "lorentz_depth.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = []
    for name, half in HALVES.items():
        if name in options.halves.split(","):
            rows += half(depths, options.steps, seeds)
        else:
            rows += [old for old in kept if old["what"].startswith(name)]
    print(save("lorentz_depth", asked("lorentz_depth"), rows, threads=1))


if __name__ == "__main__":
    main()
