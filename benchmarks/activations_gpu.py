"""Activation compression on a GPU: time of a step, memory, and the largest batch.

    python -m benchmarks.activations_gpu [--repeats 20] [--batch 64] [--cap 8] [--device cuda]

Whole training steps (AdamW) of an encoder of the size of BERT-base with a classifier, 128 tokens, dropout 0.1, random
weights, all of it trained; of the same with LoRA alone trained; and of a convolutional network on images of 64 x 64. float32
without TF32, and autocast in bfloat16, plain, with every layer checkpointed, and compressed to 8, 4 and 2 bits.
Times: interleaved, wall-clock between synchronisations, medians over the plain float32 step. Memory: what the allocator gave
at most during a step, less what was allocated before it, over that of the plain float32 step. Largest batch: how
many rows train where the process may take ``--cap`` GiB, to a thirty-second of them.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import deltas
from deltas.activations import ActivationCompressor

from .activations import convolutional
from .common import asked, row, save
from .deltas_speed import Classifier
from .timing import interleaved

KINDS = ("float32", "checkpoint", "8", "4", "2", "bfloat16", "bfloat16 checkpoint", "bfloat16 8", "bfloat16 4")
BITS = ("8", "4", "2")
GOAL = 1.15  # of a compressed step over the float32 one
LENGTH = 128
MODELS = ("BERT-base size", "BERT-base size, LoRA", "convolutional network")
SIZES = {"small": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 256}}


def model_of(name: str, size: str) -> nn.Module:
    """A model with random weights."""
    torch.manual_seed(0)
    if name.startswith("convolutional"):
        net = convolutional()
        net(torch.randn(2, 3, 64, 64))
        return net
    config = BertConfig(attn_implementation="sdpa", **SIZES.get(size, {}))
    model = Classifier(BertModel(config).train(), config.hidden_size)
    if name.endswith("LoRA"):
        deltas.attach(model.backbone, deltas.LoRA(rank=8))
    return model


class Trainer:
    """Training steps of a model in one of ``KINDS``."""

    def __init__(self, name: str, kind: str, *, size: str, device: torch.device) -> None:
        self.name, self.device = name, device
        with device:  # weights are drawn there
            self.model = model_of(name, size).to(device).train()
        words = kind.split()
        self.half = "bfloat16" in words
        if "checkpoint" in words:
            backbone: Any = self.model.backbone
            backbone.config.use_cache = False
            backbone.gradient_checkpointing_enable()
        bits = int(words[-1]) if words[-1].isdigit() else None
        self.compressor: AbstractContextManager[Any] = (
            ActivationCompressor(self.model, bits=bits) if bits else nullcontext()
        )
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(wanted, lr=1e-5)

    def batch(self, rows: int) -> tuple[Tensor, ...]:
        """Random inputs and targets."""
        if self.name.startswith("convolutional"):
            return torch.randn(rows, 3, 64, 64, device=self.device), torch.randint(10, (rows,), device=self.device)
        ids = torch.randint(999, 4000, (rows, LENGTH), device=self.device)
        return ids, torch.ones_like(ids), torch.randint(2, (rows,), device=self.device)

    def step(self, batch: tuple[Tensor, ...]) -> None:
        """One step."""
        *inputs, target = batch
        self.optimiser.zero_grad(set_to_none=False)
        with self.compressor, torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = F.cross_entropy(self.model(*inputs), target)
        loss.backward()
        self.optimiser.step()


def said(kind: str) -> str:
    """A kind in words."""
    return f"{kind} bits" if kind.split()[-1].isdigit() else kind


def kinds_of(name: str) -> list[str]:
    """Kinds that a model has."""
    return [kind for kind in KINDS if "checkpoint" not in kind or not name.startswith("convolutional")]


def clear() -> None:
    """Give back what an earlier measurement held."""
    gc.collect()
    torch.cuda.empty_cache()


def times(name: str, rows: int, repeats: int, size: str, device: torch.device) -> dict[str, float]:
    """Median seconds of a step of every kind."""
    steps: dict[str, Callable[[], object]] = {}
    for kind in kinds_of(name):
        trainer = Trainer(name, kind, size=size, device=device)
        steps[kind] = partial(trainer.step, trainer.batch(rows))
    waits = torch.cuda.synchronize if device.type == "cuda" else None
    return interleaved(steps, repeats=repeats, warm=3, synchronise=waits)


def memory(name: str, kind: str, rows: int, cap: float, size: str, device: torch.device) -> tuple[int, int]:
    """Bytes that a step on `rows` rows takes over what was there before, and how many rows `cap` GiB take."""
    clear()
    trainer = Trainer(name, kind, size=size, device=device)

    def taken(count: int) -> int:
        clear()
        batch = trainer.batch(count)
        trainer.step(batch)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        trainer.step(batch)
        return torch.cuda.max_memory_allocated() - before

    def fits(count: int) -> bool:
        try:
            taken(count)
        except torch.OutOfMemoryError:
            return False
        return True

    found, half = taken(rows), taken(rows // 2)
    room = cap * 2**30 - torch.cuda.memory_allocated()
    # Where memory grows in proportion the first guess is right; fragments take some more.
    guess = max(8, int(rows + (room - found) * (rows - rows // 2) / max(1, found - half)) // 8 * 8)
    torch.cuda.set_per_process_memory_fraction(cap * 2**30 / torch.cuda.get_device_properties(device).total_memory)
    most, width = guess, max(8, guess // 32 // 8 * 8)
    while most > 0 and not fits(most):
        most -= width
    while most >= guess and fits(most + width):
        most += width
    torch.cuda.set_per_process_memory_fraction(1.0)
    return found, max(most, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cap", type=float, default=8.0, help="GiB, of the largest batch")
    parser.add_argument("--models", default=";".join(MODELS))
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"), help="cpu tries the times alone")
    parser.add_argument("--size", default="base", choices=("base", "small"))
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    place = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    for name in options.models.split(";"):
        batch = options.batch * (4 if name.startswith("convolutional") else 1)
        taken = times(name, batch, options.repeats, options.size, device)
        for kind, seconds in taken.items():
            what = f"{name}, {said(kind)}, batch {batch}, {place}"
            print(f"{what}: {1000 * seconds:.1f} ms", flush=True)
            ratio = round(seconds / taken["float32"], 3)
            text = f"{1000 * seconds:.1f} ms"
            aim = {"target": GOAL, "met": ratio <= GOAL} if kind in BITS and device.type == "cuda" else {}
            what = f"{what}: step over that of float32"
            rows.append(row(what, ratio, "ratio", n=options.repeats, reference=text, **aim))
        if device.type == "cpu":
            continue
        known = {kind: memory(name, kind, batch, options.cap, options.size, device) for kind in taken}
        for kind, (peak, most) in known.items():
            what = f"{name}, {said(kind)}, {place}"
            print(f"{what}: {peak / 2**20:.0f} MiB, largest batch {most}", flush=True)
            value, text = round(peak / known["float32"][0], 3), f"{peak / 2**20:.0f} MiB"
            rows.append(row(f"{what}: peak memory over that of float32, batch {batch}", value, "ratio", reference=text))
            value, text = round(most / known["float32"][1], 2), f"{most} rows"
            what = f"{what}: largest batch in {options.cap:g} GiB over that of float32"
            rows.append(row(what, value, "ratio", reference=text))
        print(save("activations_gpu", asked("activations_gpu"), rows, threads=1), flush=True)


if __name__ == "__main__":
    main()
