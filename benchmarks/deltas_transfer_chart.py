"""Matrices as heat maps, in one SVG figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.report.svg import svg_figure

__all__ = ["heat_maps"]


def heat_maps(panels: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str]) -> str:
    """SVG of matrices (rows, columns) of ratios, by title; 1 is in the middle of the colours, NaN is left white."""
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    size = (1.6 + 0.62 * len(columns), 1.4 + 0.4 * len(rows))
    with svg_figure(size[0] * across, size[1] * down, constrained=True) as (figure, out):
        for number, (title, table) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(down, across, number)
            axes.pcolormesh(np.ma.masked_invalid(table), cmap="RdBu", vmin=0, vmax=2)
            for (i, j), value in np.ndenumerate(table):
                if np.isfinite(value):
                    dark = abs(value - 1) > 0.7
                    axes.text(j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center", color="w" if dark else "k")
            axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=45, ha="right")
            axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
            axes.invert_yaxis()
            axes.set(title=title, xlabel="evaluated on", ylabel="delta of")
    return out[0]
