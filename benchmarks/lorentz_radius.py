"""Radius of points behind freshly made layers, by width, curvature and variant, beside the closed form.

    python -m benchmarks.lorentz_radius

With entries of variance 1 / (3 d_in) and a point of space norm S, the pre-activation of a layer has
E|z|^2 = (d_out - 1)(k + 2 S^2) / (3 d_in). An unbounded layer puts the point at this space norm; the bounded ones put it
where their gate stands open by one half, whatever S is. Median over points and draws of the weights, float64.
"""

from __future__ import annotations

from math import acosh, asinh, sinh, sqrt
from statistics import stdev

import torch
from torch import Tensor, nn

from lorentz import Lorentz, LorentzLinear
from lorentz.linear import VARIANTS

from .common import asked, row, save

WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
SAVED = (16, 64, 256, 1024)
CURVATURES = (0.1, 1.0, 10.0)
MARGIN = 56
POINTS, DRAWS, DEPTH, SCALE = 32, 64, 6, 10.0
UNIT, AT_ROOT, STACK = "unit features", "points at radius sqrt(k)", f"{DEPTH} unbounded layers on unit features"


def points(kind: str, width: int, k: float, generator: torch.Generator) -> Tensor:
    """Space coordinates: normal ones of deviation 1, or random directions at radius sqrt(k)."""
    s = torch.randn(POINTS, width - 1, dtype=torch.float64, generator=generator)
    return sqrt(k) * sinh(1) * nn.functional.normalize(s) if kind == AT_ROOT else s


def norm_sq(kind: str, width: int, k: float) -> float:
    """Mean of their squared length."""
    return k * sinh(1) ** 2 if kind == AT_ROOT else width - 1.0


def expected(kind: str, width: int, k: float, variant: str, depth: int) -> float:
    """Radius by the closed form."""
    if variant == "paper":
        return sqrt(k) * asinh(SCALE / 2 / sqrt(k))
    if variant == "sigmoid_time":
        return sqrt(k) * acosh(1.1 + SCALE / 2 / sqrt(k))
    squared = norm_sq(kind, width, k)
    for _ in range(depth):
        squared = (width - 1) / (3 * width) * (k + 2 * squared)
    return sqrt(k) * asinh(sqrt(squared / k))


def measured(kind: str, width: int, k: float, variant: str, depth: int, *, bias: bool) -> tuple[float, float]:
    """Median radius behind `depth` layers, and the deviation of the median between draws of the weights."""
    manifold = Lorentz(k)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    radii = []
    for _ in range(DRAWS):
        x = manifold.lift(points(kind, width, k, generator))
        for _ in range(depth):
            layer = LorentzLinear(width, width, manifold=manifold, variant=variant, bias=bias, scale=SCALE)
            x = layer.double()(x)
        radii.append(manifold.dist0(x.detach()))
    return float(torch.stack(radii).median()), stdev(float(r.median()) for r in radii)


def main() -> None:
    torch.set_num_threads(1)
    cells = [(kind, k, variant, 1) for kind in (UNIT, AT_ROOT) for k in CURVATURES for variant in VARIANTS]
    cells += [(STACK, k, "unbounded", DEPTH) for k in CURVATURES]
    print("median radius (closed form)\n" + " " * MARGIN + "".join(f"{width:>14}" for width in WIDTHS))
    rows, off = [], {width: 0.0 for width in WIDTHS}
    by_bias = 0.0
    for kind, k, variant, depth in cells:
        line = f"{kind}, k = {k:g}, {variant}"
        cell = []
        for width in WIDTHS:
            value, spread = measured(kind, width, k, variant, depth, bias=True)
            form = expected(kind, width, k, variant, depth)
            off[width] = max(off[width], abs(value / form - 1))
            cell.append(f"{f'{value:.2f} ({form:.2f})':>14}")
            if width in SAVED:
                what = f"initial radius, {line}, {width} wide"
                rows.append(row(what, value, "radius", n=DRAWS, sd=spread, reference=form))
            if width == WIDTHS[0]:
                by_bias = max(by_bias, abs(value - measured(kind, width, k, variant, depth, bias=False)[0]))
        print(f"{line:<{MARGIN}}" + "".join(cell))
    for width in SAVED:
        rows.append(row(f"largest relative difference from the closed form, {width} wide", off[width], "1", n=DRAWS))
    what = f"largest difference between bias=True and bias=False, {WIDTHS[0]} wide"
    rows.append(row(what, by_bias, "radius", n=DRAWS, target=0, met=by_bias == 0))
    print(f"{'largest relative difference':<{MARGIN}}" + "".join(f"{off[width]:>14.1%}" for width in WIDTHS))
    print(f"largest difference between bias=True and bias=False: {by_bias:g}")
    print(save("lorentz_radius", asked("lorentz_radius"), rows, threads=1))


if __name__ == "__main__":
    main()
