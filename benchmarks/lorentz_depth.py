"""Do deep stacks train? Score and gradient norm by layer, for 1 to 16 layers, of the Lorentz model and of its twin.

    python -m benchmarks.lorentz_depth [--steps 300] [--depths 1,2,4,8,16] [--seeds 0]

Transformers: masked language modelling of ``text/pretraining-classics`` (the valid books, by characters, the last tenth of
the text held out), the same steps, batches, optimiser and rate for every row. The score is the accuracy on masked characters
of the held-out part; beside it stand the share of the most frequent character and, by layer, the norm of the gradient at the
first and at the last step. Rates are not tuned: this measures that depth trains, and ranks no geometry.
"""

from __future__ import annotations

import argparse
import gzip
import re
import time
from dataclasses import dataclass
from os import environ
from pathlib import Path

import torch
from torch import Tensor, nn

from lorentz.hf import LorentzConfig, LorentzForMaskedLM

from .common import row, save

PAD, MASK, SPECIAL = 0, 1, 2
LENGTH, BATCH, WIDTH, HEADS = 48, 16, 65, 4
GEOMETRIES = ("lorentz", "euclidean")


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
    rows = [row("masked characters: the most frequent one", round(base, 4), "accuracy", n=512)]
    for depth in depths:
        for geometry in GEOMETRIES:
            for seed in seeds:
                start = time.process_time()
                found = transformer(text, geometry, depth, steps, seed)
                what = f"transformer, {depth} layers, {geometry}, seed {seed}, {found['parameters']} parameters"
                print(f"{what}: {found['score']:.3f}, {time.process_time() - start:.0f} s", flush=True)
                trains = bool(found["finite"]) and found["score"] > base
                rows.append(
                    row(
                        f"{what}: held-out masked characters",
                        found["score"],
                        "accuracy",
                        n=steps,
                        reference=base,
                        met=trains,
                    )
                )
                for when in ("first", "last"):
                    values = [float(f"{value:.3g}") for value in found[when]]
                    rows.append(row(f"{what}: gradient norm by layer, {when} step", values, "norm", n=steps))
    return rows


# Every half returns result rows; one for graph layers joins by its line here.
HALVES = {"transformer": transformers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depths", default="1,2,4,8,16")
    parser.add_argument("--seeds", default="0")
    options = parser.parse_args()
    torch.set_num_threads(1)
    depths, seeds = ([int(n) for n in text.split(",")] for text in (options.depths, options.seeds))
    rows = [made for half in HALVES.values() for made in half(depths, options.steps, seeds)]
    command = (
        f"python -m benchmarks.lorentz_depth --steps {options.steps} --depths {options.depths} --seeds {options.seeds}"
    )
    print(save("lorentz_depth", command, rows, threads=1))


if __name__ == "__main__":
    main()
