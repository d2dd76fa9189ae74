"""Figures as SVG, the same bytes at every run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["svg_figure"]


@contextmanager
def svg_figure(width: float, height: float, *, constrained: bool = False) -> Iterator[tuple[Any, list[str]]]:
    """A matplotlib figure to draw on in a ``with`` block, and a list that holds its SVG after it.

    Parameters
    ----------
    width, height : in inches
    constrained : whether matplotlib makes room for labels by itself
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.hashsalt": "hyrel",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained" if constrained else None)
        FigureCanvasSVG(figure)
        out: list[str] = []
        yield figure, out
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        out.append(text.getvalue())
