"""Heat map of transfers and contours of a landscape, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.report.svg import svg_figure

from .planes import Planes

__all__ = ["contours", "heat_map"]


def heat_map(table: Sequence[Sequence[float | None]], labels: Sequence[str]) -> str:
    """Relative performance by the method a point was trained through (row) and the one it was read by (column)."""
    values = np.array([[np.nan if v is None else v for v in row] for row in table])
    with svg_figure(1.6 + 0.9 * len(labels), 1.2 + 0.6 * len(labels), constrained=True) as (figure, out):
        axes = figure.add_subplot()
        axes.pcolormesh(values, cmap="viridis", vmin=0.0, vmax=1.0)
        axes.invert_yaxis()
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                shown = "–" if np.isnan(value) else f"{value:.2f}"
                axes.text(
                    column + 0.5, row + 0.5, shown, ha="center", va="center", color="black" if value > 0.6 else "white"
                )
        places = [place + 0.5 for place in range(len(labels))]
        axes.set_xticks(places, labels, rotation=30, ha="right")
        axes.set_yticks(places, labels)
        axes.set(xlabel="read by", ylabel="trained through")
    return out[0]


def contours(planes: Planes) -> str:
    """Score of every method over the plane through their points, which are marked."""
    names = list(planes.scores)
    with svg_figure(3.0 * len(names), 3.2, constrained=True) as (figure, out):
        grids = [np.array(planes.scores[name]) for name in names]
        low, high = min(g.min() for g in grids), max(g.max() for g in grids)
        levels = np.linspace(low, high if high > low else low + 1e-3, 9)
        for place, (name, grid) in enumerate(zip(names, grids, strict=True)):
            axes = figure.add_subplot(1, len(names), place + 1)
            drawn = axes.contourf(planes.axis, planes.axis, grid, levels=levels, cmap="viridis")
            for other, (x, y) in planes.marks.items():
                axes.plot(
                    x, y, "o", color="white" if other == name else "#d62728", markeredgecolor="black", markersize=5
                )
                axes.annotate(other, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color="white")
            axes.set(title=name, xticks=[], yticks=[])
            if place == len(names) - 1:
                figure.colorbar(drawn, ax=axes, label="share right")
    return out[0]
