"""Forward and backward time of Lorentz layers over their Euclidean counterparts, interleaved in one process.

    python -m benchmarks.lorentz_speed [--repeats 41]

One thread, process CPU time, medians, float32, no dropout.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from lorentz import Lorentz, LorentzLinear
from lorentz.linear import VARIANTS

from .common import row, save

BATCH = 4096
# width: (reference implementation of the paper over nn.Linear, target)
LINEAR = {64: (2.08, 1.5), 256: (1.58, 1.12), 512: (1.34, 1.10)}


def ratios(calls: dict[str, Callable[[], Tensor]], base: str, repeats: int) -> dict[str, float]:
    """Median time of forward and backward of each call over that of `base`."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    gradients = {name: torch.randn_like(call().detach()) for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call().backward(gradients[name])
            times[name].append(time.process_time() - start)
    return {name: median(values) / median(times[base]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=41)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    manifold = Lorentz()
    rows = []
    for width, (reference, target) in LINEAR.items():
        x = manifold.lift(torch.randn(BATCH, width - 1) / width**0.5).requires_grad_()
        layers: dict[str, nn.Module] = {
            name: LorentzLinear(width, width, manifold=manifold, variant=name) for name in VARIANTS
        }
        layers["nn.Linear"] = nn.Linear(width, width)
        calls: dict[str, Callable[[], Tensor]] = {name: partial(layer, x) for name, layer in layers.items()}
        measured = ratios(calls, "nn.Linear", options.repeats)
        for name in VARIANTS:
            ratio = measured[name]
            print(
                f"LorentzLinear {name}, {width} wide: {ratio:.2f} x nn.Linear (reference {reference}, target {target})"
            )
            rows.append(
                row(
                    f"LorentzLinear {name} forward + backward over nn.Linear, batch {BATCH}, {width} wide",
                    round(ratio, 3),
                    "ratio",
                    n=options.repeats,
                    reference=reference,
                    target=target,
                    met=ratio <= target,
                )
            )
    print(save("lorentz_speed", "python -m benchmarks.lorentz_speed", rows, threads=1))


if __name__ == "__main__":
    main()
