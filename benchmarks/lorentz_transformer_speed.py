"""Forward and backward time of a Lorentz encoder layer over its twins.

    python -m benchmarks.lorentz_transformer_speed [--repeats 25] [--batch 8]
                                                   [--device cuda --dtype float32,bfloat16 --compile]

Whole steps, interleaved in one process, one thread, process CPU time (wall-clock time between synchronisations on a
GPU), medians; with ``--compile`` also of all layers under ``torch.compile``. There are two twins: an ordinary pre-norm
layer, with attention by inner products through the same kernel, and the flat twin of the same code, with attention by
Euclidean distances. The Lorentz layer has as many free coordinates (257, four heads of 64 and their times).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import Lorentz, LorentzTransformerEncoderLayer
from lorentz.flat import Euclidean

from .common import asked, row, save
from .lorentz_speed import EuclideanAttention, ratios

BATCH, WIDTH, HEADS, LENGTH = 8, 256, 4, 256
TARGET = 1.25


class OrdinaryLayer(nn.Module):
    """Pre-norm encoder layer with attention by inner products."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = EuclideanAttention(dim, heads, dropout)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Features (batch, length, dim) to features of the same shape."""
        x = x + F.dropout(self.attention(self.norm1(x)), self.dropout, self.training)
        hidden = F.dropout(F.gelu(self.up(self.norm2(x))), self.dropout, self.training)
        return x + self.down(hidden)


def calls(
    batch: int, length: int, dropout: float, device: str, dtype: torch.dtype, compiled: bool
) -> dict[str, Callable[[], Tensor]]:
    """Calls of the layers on features of the same spread."""
    manifold = Lorentz()
    features = torch.randn(batch, length, WIDTH, device=device, dtype=dtype)
    options = {"dropout": dropout, "attention_dropout": dropout}
    layers: dict[str, tuple[nn.Module, Tensor]] = {
        "ordinary": (OrdinaryLayer(WIDTH, HEADS, dropout), features),
        "lorentz": (
            LorentzTransformerEncoderLayer(WIDTH + 1, HEADS, manifold=manifold, **options),
            manifold.lift(features),
        ),
        "flat": (LorentzTransformerEncoderLayer(WIDTH + 1, HEADS, manifold=Euclidean(), **options), features),
    }
    found: dict[str, Callable[[], Tensor]] = {}
    for name, (layer, x) in layers.items():
        layer = layer.to(device, dtype)
        called = torch.compile(layer) if compiled else layer
        found[name] = partial(called, x.detach().clone().requires_grad_())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or both by a comma")
    parser.add_argument("--compile", action="store_true", help="measure compiled layers too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for dtype, compiled, dropout in product(options.dtype.split(","), {False, options.compile}, (0.0, 0.1)):
        place = "" if options.device == "cpu" else f", {torch.cuda.get_device_name()}, {dtype}"
        kind = getattr(torch, dtype)
        measured = calls(options.batch, LENGTH, dropout, options.device, kind, compiled)
        for base, name in (("ordinary", "an ordinary layer"), ("flat", "its flat twin")):
            value = ratios({k: measured[k] for k in (base, "lorentz")}, base, options.repeats)["lorentz"]
            what = (
                f"encoder layer of {WIDTH} free coordinates, forward + backward over {name}, batch {options.batch}, "
                f"S = {LENGTH}, dropout {dropout}{place}{', compiled' if compiled else ''}"
            )
            target = TARGET if dropout == 0 and options.device == "cpu" and not compiled else None
            met = None if target is None else value <= target
            print(f"{what}: {value:.2f} (target {target})", flush=True)
            rows.append(row(what, round(value, 3), "ratio", n=options.repeats, target=target, met=met))
    name = "lorentz_transformer_speed" if options.device == "cpu" else "lorentz_transformer_speed_gpu"
    print(save(name, asked("lorentz_transformer_speed"), rows, threads=1))


if __name__ == "__main__":
    main()
