"""Pictures of the Poincaré disk: points, geodesic edges, labels, as deterministic SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_disk", "geodesic_circle", "geodesic_path"]

Array = NDArray[np.float64]

_INK = "#010203"  # stands for the page's text colour; written as currentColor, so the picture follows a dark page
_STRAIGHT = 1e-7  # twice the area under which three points are drawn as collinear: the arc's rise is below 1e-7


def geodesic_circle(u: ArrayLike, v: ArrayLike) -> tuple[Array, float] | None:
    """Return centre and radius of the circle that carries the geodesic through two points of the open unit disk.

    It meets the unit circle at right angles: ``2 <c, u> = 1 + |u|^2``, ``2 <c, v> = 1 + |v|^2``, ``r^2 = |c|^2 - 1``.

    Parameters
    ----------
    u, v
        Shape ``(2,)``, inside the unit circle.

    Returns
    -------
    tuple or None
        Centre ``(2,)`` and radius; None where the geodesic is a straight line through the origin.
    """
    u, v = np.asarray(u, dtype=float), np.asarray(v, dtype=float)
    det = u[0] * v[1] - u[1] * v[0]
    if abs(det) <= _STRAIGHT:
        return None
    a, b = (1 + u @ u) / 2, (1 + v @ v) / 2
    centre = np.array([a * v[1] - b * u[1], b * u[0] - a * v[0]]) / det
    return centre, float(np.sqrt(centre @ centre - 1))


def geodesic_path(u: ArrayLike, v: ArrayLike) -> Array:
    """Return the geodesic from ``u`` to ``v`` as a chain of cubic Bézier curves.

    Returns
    -------
    array
        Shape ``(1 + 3 m, 2)``: the start, then two control points and an end for each of m curves, none of which spans
        more than 45 degrees (a cubic then leaves the circle by less than 5e-6 of its radius).
    """
    u, v = np.asarray(u, dtype=float), np.asarray(v, dtype=float)
    circle = geodesic_circle(u, v)
    if circle is None:
        return np.stack([u, u + (v - u) / 3, v - (v - u) / 3, v])
    centre, radius = circle
    start = np.arctan2(*(u - centre)[::-1])
    turn = np.arctan2(*(v - centre)[::-1]) - start
    turn = (turn + np.pi) % (2 * np.pi) - np.pi  # the part inside the disk is the shorter one
    pieces = max(1, int(np.ceil(abs(turn) / (np.pi / 4))))
    angles = start + turn * np.arange(pieces + 1) / pieces
    on = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    tangent = radius * np.stack([-np.sin(angles), np.cos(angles)], axis=1) * (4 / 3 * np.tan(turn / pieces / 4))
    on[0], on[-1] = u, v
    curves = np.stack([on[:-1] + tangent[:-1], on[1:] - tangent[1:], on[1:]], axis=1)
    return np.concatenate([on[:1], curves.reshape(-1, 2)])


def draw_disk(
    points: ArrayLike,
    *,
    edges: Iterable[tuple[int, int]] = (),
    labels: Mapping[int, str] | None = None,
    depth: Sequence[int] | None = None,
    depth_name: str = "depth",
    title: str = "",
    note: str = "",
    size: float = 6.5,
) -> str:
    """Draw points of the Poincaré disk with geodesic edges, as an SVG document.

    The same input gives the same bytes: no date, fixed ids. Text and lines take the page's text colour.

    Parameters
    ----------
    points
        Shape ``(n, 2)``, inside the unit circle.
    edges
        Pairs of indices of ``points``.
    labels
        Index -> text. A label moves aside where there is room.
    depth
        One integer a point, for its colour; the colour scale is named ``depth_name``.
    title, note
        Above and below the disk.
    size
        Width in inches.

    Raises
    ------
    ValueError
        For points on or outside the unit circle (with the first such index), or indices out of range.
    """
    points = np.asarray(points, dtype=float)
    _check(points, edges := list(edges), labels := dict(labels or {}), depth)

    import matplotlib

    settings: dict[Any, Any] = {
        "svg.hashsalt": "hyrel",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,  # a dollar sign in a label is a dollar sign
        **{key: _INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")},
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The reader's fonts draw the text, so a glyph that matplotlib's own font lacks is not missing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return _draw(points, edges, labels, depth, depth_name, title, note, size)


def _check(points: Array, edges: list[tuple[int, int]], labels: Mapping[int, str], depth: Sequence[int] | None) -> None:
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"expected points of shape (n, 2), got {points.shape}; to_disk makes them from H^d")
    outside = ~(np.linalg.norm(points, axis=1) < 1)
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(f"{int(outside.sum())} points are not inside the unit circle, the first is {i}: {points[i]}")
    used = {index for edge in edges for index in edge} | set(labels)
    if wrong := [index for index in sorted(used) if not 0 <= index < len(points)]:
        raise ValueError(f"edges and labels name points {wrong[:5]}, but there are {len(points)}")
    if depth is not None and len(depth) != len(points):
        raise ValueError(f"{len(depth)} depths for {len(points)} points")


def _draw(
    points: Array,
    edges: list[tuple[int, int]],
    labels: Mapping[int, str],
    depth: Sequence[int] | None,
    depth_name: str,
    title: str,
    note: str,
    size: float,
) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle
    from matplotlib.path import Path

    figure = Figure(figsize=(size, size))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.02, 0.06, 0.96, 0.88))
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal")
    axes.axis("off")
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=_INK, linewidth=0.8))
    chains = [geodesic_path(points[i], points[j]) for i, j in edges]
    paths = [Path(c, [Path.MOVETO, *[Path.CURVE4] * (len(c) - 1)]) for c in chains]
    axes.add_collection(PathCollection(paths, facecolor="none", edgecolor="#888888", linewidth=0.5, zorder=1))
    style: dict[str, Any] = {"s": 14, "linewidths": 0, "zorder": 2}
    if depth is None:
        axes.scatter(*points.T, color="#1f77b4", **style)
    else:
        _scatter_by_depth(axes, points, depth, depth_name, style)
    _label(axes, points, labels)
    if title:
        figure.text(0.5, 0.96, title, ha="center", fontsize=11)
    if note:
        figure.text(0.5, 0.02, note, ha="center", fontsize=8)
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue().replace(_INK, "currentColor")


def _scatter_by_depth(axes: Axes, points: Array, depth: Sequence[int], depth_name: str, style: dict[str, Any]) -> None:
    from matplotlib import colormaps

    levels = sorted(set(depth))
    # The ends of the scale are left out: the lightest vanishes on white, the darkest on black.
    colours = colormaps["viridis"](np.linspace(0.25, 0.85, len(levels))[::-1])
    for level, colour in zip(levels, colours, strict=True):
        axes.scatter(*points[np.asarray(depth) == level].T, color=colour, label=str(level), **style)
    axes.legend(title=depth_name, loc="upper left", frameon=False, fontsize=8, handletextpad=0.1, borderpad=0)


def _label(axes: Axes, points: Array, labels: Mapping[int, str]) -> None:
    """Write labels beside their points, each on the side where it covers least of those already written."""
    boxes: list[Array] = []
    for index, text in labels.items():
        width, height = 0.0145 * len(text) + 0.01, 0.035
        x, y = points[index]
        offsets = [
            (0.015, -height / 2),
            (-0.015 - width, -height / 2),
            (-width / 2, 0.015),
            (-width / 2, -0.015 - height),
        ]
        options = [np.array([x + dx, y + dy, x + dx + width, y + dy + height]) for dx, dy in offsets]
        best = min(options, key=lambda box: sum(_overlap(box, other) for other in boxes) + _outside(box))
        boxes.append(best)
        axes.text(best[0], best[1] + 0.006, text, fontsize=7.5, va="baseline", zorder=3)


def _overlap(a: Array, b: Array) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(sides.prod()) if (sides > 0).all() else 0.0


def _outside(box: Array) -> float:
    """Ends beyond the drawing, weighed like a full overlap."""
    return float(np.maximum(box[2:] - 1, 0).sum() + np.maximum(-1 - box[:2], 0).sum())
