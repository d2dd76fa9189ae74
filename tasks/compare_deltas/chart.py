"""Score against trained parameters, as one SVG figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.report.svg import svg_figure

if TYPE_CHECKING:
    from .command import Row

__all__ = ["chart"]

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
_INK = "#333333"


def chart(rows: Sequence[Row]) -> str:
    """SVG of the mean score over the data sets by method and backbone; baselines are dashed lines."""
    with svg_figure(7.5, 4.5) as (figure, out):
        axes = figure.add_axes((0.1, 0.12, 0.87, 0.84))
        means: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            means[row.model][row.method.name].append(row)
        for colour, (model, methods) in zip(_COLOURS * 9, means.items(), strict=False):
            shown = Path(model).name
            for name, found in methods.items():
                score = sum(row.mean for row in found) / len(found)
                count = found[0].method.parameters
                if count is None:
                    axes.axhline(score, color=colour, linestyle=":" if name == "majority" else "--", linewidth=0.8)
                    axes.text(1, score, f" {name}", color=_INK, fontsize=7, va="bottom")
                    continue
                axes.scatter(max(count, 1), score, color=colour, s=22, label=shown)
                axes.annotate(
                    name, (max(count, 1), score), xytext=(4, 3), textcoords="offset points", fontsize=7, color=_INK
                )
                shown = "_nolegend_"
        axes.set_xscale("log")
        axes.set(xlabel="trained parameters besides the head (the head alone at 1)", ylabel="mean test score")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", frameon=False)
    return out[0]
