"""Step time of the Riemannian optimisers on a table of 40,943 points of 33 coordinates, and when each turns NaN.

    python -m benchmarks.lorentz_optim [--repeats 30]

One thread, process CPU time, all optimisers interleaved in one process, medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import geoopt
import torch

from lorentz import Lorentz
from lorentz.optim import RiemannianAdam, RiemannianSGD

from .common import asked, row, save

POINTS, DIM = 40_943, 33
Make = Callable[[Any], torch.optim.Optimizer]


def space_points(manifold: Lorentz) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(0.2 * torch.randn(POINTS, DIM - 1))
    parameter.manifold = manifold  # type: ignore[attr-defined]
    return parameter


def optimizers() -> dict[str, torch.optim.Optimizer]:
    """One optimiser a name, each over a table of its own with a gradient set."""
    manifold = Lorentz()
    makes: dict[str, tuple[str, Make]] = {
        "torch Adam": ("plain", lambda p: torch.optim.Adam(p)),
        "torch Adam, foreach": ("plain", lambda p: torch.optim.Adam(p, foreach=True)),
        "torch Adam, fused": ("plain", lambda p: torch.optim.Adam(p, fused=True)),
        "torch SGD, momentum": ("plain", lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9)),
        "RiemannianAdam": ("space", lambda p: RiemannianAdam(p)),
        "RiemannianAdam, weight decay": ("space", lambda p: RiemannianAdam(p, weight_decay=0.01)),
        "RiemannianAdam, points with time": ("ambient", lambda p: RiemannianAdam(p)),
        "RiemannianAdam, 1,000 sparse rows": ("sparse", lambda p: RiemannianAdam(p)),
        "RiemannianSGD, momentum": ("space", lambda p: RiemannianSGD(p, momentum=0.9)),
        "geoopt RiemannianAdam": ("geoopt", lambda p: geoopt.optim.RiemannianAdam(p)),
        "geoopt RiemannianSGD, momentum": ("geoopt", lambda p: geoopt.optim.RiemannianSGD(p, lr=1e-3, momentum=0.9)),
    }
    made = {}
    for name, (kind, make) in makes.items():
        torch.manual_seed(0)
        points = space_points(manifold)
        if kind == "plain":
            parameter = torch.nn.Parameter(torch.randn(POINTS, DIM))
        elif kind in ("ambient", "geoopt"):
            on = manifold if kind == "ambient" else geoopt.Lorentz()
            parameter = geoopt.ManifoldParameter(manifold.lift(points.detach()), manifold=on)
        else:
            parameter = points
        parameter.grad = torch.randn_like(parameter)
        if kind == "sparse":
            rows = torch.randperm(POINTS)[:1000]
            parameter.grad = torch.sparse_coo_tensor(rows[None], parameter.grad[rows], parameter.shape)
        made[name] = make([parameter])
    return made


def step_times(repeats: int) -> list[dict[str, Any]]:
    made = optimizers()
    times: dict[str, list[float]] = {name: [] for name in made}
    for repeat in range(repeats + 2):
        for name, optimizer in made.items():
            # geoopt scales the gradient it is given in place.
            grad = optimizer.param_groups[0]["params"][0].grad
            kept = grad.clone() if name.startswith("geoopt") else None
            started = time.process_time()
            optimizer.step()
            seconds = time.process_time() - started
            if kept is not None:
                grad.copy_(kept)
            if repeat >= 2:
                times[name].append(seconds)
    base = statistics.median(times["torch Adam"])
    rows = []
    for name, values in times.items():
        # A ratio a round, so that a slow moment of the machine falls on both.
        ratios = [value / other for value, other in zip(values, times["torch Adam"], strict=True)]
        ratio, milliseconds = statistics.median(ratios), 1e3 * statistics.median(values)
        spread = statistics.quantiles(ratios, n=4)
        print(f"{name:<36}{milliseconds:>9.2f} ms{ratio:>8.2f} x torch Adam  ({spread[0]:.2f} to {spread[2]:.2f})")
        goal: dict[str, Any] = {"target": 2.0, "met": ratio <= 2.0} if name == "RiemannianAdam" else {}
        rows.append(row(f"{name}: step", milliseconds, "ms", n=repeats))
        rows.append(
            row(f"{name}: step over torch Adam", ratio, "1", n=repeats, quartiles=spread[2] - spread[0], **goal)
        )
    print(f"torch Adam: {1e3 * base:.2f} ms for {POINTS} x {DIM}")
    return rows


def steps_to_nan(make: Make, ambient: bool, lr: float, most: int = 3000) -> int | None:
    """First step after which a point pushed outwards (loss -distance, 64 points, 9 coordinates) is not finite."""
    torch.manual_seed(0)
    manifold: geoopt.Lorentz = Lorentz() if not ambient else geoopt.Lorentz()
    space = 0.1 * torch.randn(64, 8)
    lifted = Lorentz().lift(space)
    if ambient:
        parameter = geoopt.ManifoldParameter(lifted, manifold=manifold)
    else:
        parameter = torch.nn.Parameter(space)
        parameter.manifold = manifold
    optimizer = make([{"params": [parameter], "lr": lr}])
    for step in range(most):
        optimizer.zero_grad()
        points = parameter if ambient else manifold.lift(parameter)
        (-manifold.dist0(points)).sum().backward()
        optimizer.step()
        if not bool(torch.isfinite(parameter).all()):
            return step + 1
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = step_times(max(20, options.repeats))
    for name, make, ambient in (
        ("RiemannianAdam", lambda p: RiemannianAdam(p), False),
        ("geoopt RiemannianAdam", lambda p: geoopt.optim.RiemannianAdam(p), True),
    ):
        for lr in (0.01, 0.1):
            step = steps_to_nan(make, ambient, lr)
            print(
                f"{name}, pushed outwards, lr {lr:g}: "
                + ("finite for 3,000 steps" if step is None else f"NaN at {step}")
            )
            goal = {"target": "none in 3,000", "met": step is None} if not ambient else {}
            rows.append(
                row(f"{name}, pushed outwards in float32, lr {lr:g}: first step not finite", step, "steps", **goal)
            )
    print(save("lorentz_optim", asked("lorentz_optim"), rows, threads=1))


if __name__ == "__main__":
    main()
