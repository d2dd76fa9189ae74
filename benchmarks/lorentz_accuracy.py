"""Relative error of float32 distance, its gradient, and exp/log at the origin, against 60-digit arithmetic, beside geoopt.

    python -m benchmarks.lorentz_accuracy

The oracle takes the exact points that the float32 space parts name; 40 pairs a cell, 8 space coordinates, k = 1.
"""

from __future__ import annotations

import warnings
from statistics import median
from typing import Any

import geoopt
import mpmath
import torch
from torch import Tensor

from lorentz import math as lm

from .common import asked, row, save

RADII = (1e-3, 1e-1, 1.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0)
APART = (1e-4, 1e-2, 0.5, "radial r/2", "2r")
PAIRS, SPACE = 40, 8


def pairs(radius: float, apart: float | str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Float32 points at `radius` and partners `apart` from them."""
    way = torch.randn(PAIRS, SPACE, dtype=torch.float64, generator=generator)
    way = torch.nn.functional.normalize(way)

    def at(r: float) -> Tensor:
        return lm.expmap0(torch.nn.functional.pad(way * r, (1, 0)))

    x = lm.lift(at(radius)[:, 1:].float())
    if apart == "2r":
        return x, lm.lift(-x[:, 1:])
    if isinstance(apart, str):
        return x, lm.lift(at(radius / 2)[:, 1:].float())
    exact = lm.lift(x[:, 1:].double())
    v = torch.randn(exact.shape, dtype=torch.float64, generator=generator)
    v = v + lm.minkowski(exact, v, keepdim=True) * exact
    v = v / lm.minkowski(v, v, keepdim=True).sqrt() * apart
    return x, lm.lift(lm.expmap(exact, v)[:, 1:].float())


def oracle(x: Tensor, y: Tensor) -> list[float]:
    """Distances with 60 digits."""
    distances = []
    with mpmath.workdps(60):
        for a, b in zip(x[:, 1:].tolist(), y[:, 1:].tolist(), strict=True):
            s, t = [mpmath.mpf(v) for v in a], [mpmath.mpf(v) for v in b]
            times = mpmath.sqrt((1 + sum(v * v for v in s)) * (1 + sum(v * v for v in t)))
            cosh = times - sum(u * v for u, v in zip(s, t, strict=True))
            distances.append(float(mpmath.acosh(cosh if cosh > 1 else mpmath.mpf(1))))
    return distances


def errors(computed: Tensor, true: list[float]) -> tuple[float, float, float]:
    """Median and largest relative error over pairs that are apart, and the share of results that are not finite."""
    values = computed.double().tolist()
    finite = [(v, t) for v, t in zip(values, true, strict=True) if t > 0 and v == v and abs(v) != float("inf")]
    relative = [abs(v - t) / t for v, t in finite] or [float("nan")]
    return median(relative), max(relative), 1 - len(finite) / max(sum(t > 0 for t in true), 1)


def gradient_error(x: Tensor, y: Tensor, distance: Any) -> float:
    """Largest deviation from 1 of the Riemannian norm of the gradient."""
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(distance(x, y).sum(), x)
    space, grad = x.detach()[:, 1:].double(), grad.double()
    chart = grad[:, 1:] + grad[:, :1] * space / lm.lift(space)[:, :1]
    norm = (chart.square().sum(1) + (chart * space).sum(1).square()).sqrt()
    return float((norm - 1).abs().max())


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    peer = geoopt.Lorentz()
    generator = torch.Generator().manual_seed(0)
    rows = []
    print(f"{'r':>6} {'apart':>11} {'hyrel median':>13} {'max':>9} {'geoopt median':>14} {'not finite':>10}")
    for radius in RADII:
        for apart in APART:
            x, y = pairs(radius, apart, generator)
            true = oracle(x, y)
            middle, worst, _ = errors(lm.dist(x, y), true)
            theirs, _, lost = errors(peer.dist(x, y), true)
            print(f"{radius:>6g} {apart!s:>11} {middle:>13.1e} {worst:>9.1e} {theirs:>14.1e} {lost:>10.0%}")
            target = 1e-6 if radius <= 8 else 1e-4 if radius <= 10 else 1e-7
            rows.append(
                row(
                    f"largest relative error of float32 dist, r = {radius:g}, apart {apart}",
                    worst,
                    "1",
                    n=PAIRS,
                    reference=f"geoopt median {theirs:.1e}, not finite {lost:.0%}",
                    target=target,
                    met=worst <= target,
                )
            )
    for radius in (r for r in RADII if r <= 8):
        x, y = pairs(radius, 1e-4, generator)
        error = gradient_error(x, y, lm.dist)
        theirs = gradient_error(x, y, peer.dist)
        print(f"gradient norm - 1 at 1e-4 apart, r = {radius:g}: {error:.1e} (geoopt {theirs:.1e})")
        what = f"largest | |grad dist| - 1 | at 1e-4 apart, r = {radius:g}"
        rows.append(row(what, error, "1", n=PAIRS, reference=f"geoopt {theirs:.1e}", target=1e-3, met=error <= 1e-3))
    x = pairs(1.0, 0.5, generator)[0].requires_grad_()
    at_itself = float(torch.autograd.grad(lm.dist(x, x.detach()).sum(), x)[0].abs().max())
    rows.append(row("gradient of dist at x = y", at_itself, "1", n=PAIRS, target=0, met=at_itself == 0))
    for radius in (1e-6, 1e-4, 1e-2, 1.0, 8.0, 15.0, 20.0):
        way = torch.nn.functional.normalize(torch.randn(PAIRS, SPACE, generator=generator)) * radius
        v = torch.nn.functional.pad(way, (1, 0))
        error, theirs = (
            float(((log(exp(v)) - v).norm(dim=1) / v.norm(dim=1)).max())
            for exp, log in ((lm.expmap0, lm.logmap0), (peer.expmap0, peer.logmap0))
        )
        print(f"log0(exp0(v)), |v| = {radius:g}: {error:.1e} (geoopt {theirs:.1e})")
        what = f"largest relative error of log0(exp0(v)), |v| = {radius:g}"
        rows.append(row(what, error, "1", n=PAIRS, reference=f"geoopt {theirs:.1e}", target=2e-7, met=error <= 2e-7))
    print(save("lorentz_accuracy", asked("lorentz_accuracy"), rows, threads=1))


if __name__ == "__main__":
    main()
