"""``hyrel plot``: a trained hierarchy on the Poincaré disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from .data.hierarchy import Hierarchy
from .errors import RunError, UsageError
from .folder import RunFolder, atomic_write, explain_os_error
from .report.disk import draw_disk
from .report.html import Report
from .report.projection import DiskView, hyperbolic_distance, to_disk

__all__ = ["distortion", "plot"]

_LABELS = 14
_SOURCES = 200


def plot(folder: Path, *, out: Path | None = None, nodes: int = 400, data_dir: str | Path | None = None) -> str:
    """Write ``disk.svg`` and ``plot.html`` of a finished hierarchy run; returns where they are, and the distortion.

    Parameters
    ----------
    folder : run folder
    out : folder to write to; the run folder by default
    nodes : how many are drawn: those with most descendants, so every ancestor of a drawn node is drawn

    Raises
    ------
    UsageError : no finished run of the task hierarchy, or one in a geometry that has no disk.
    RunError : damaged weights, or a folder that cannot be written.
    """
    data, space, k = _load(Path(folder), data_dir)
    chosen, edges = _chosen(data, nodes)
    view = to_disk(space[chosen], k=k)
    error, pairs = distortion(data, space, k=k)
    depth = _depth(data)[chosen]
    title = f"{data.name}: {len(chosen)} of {data.num_nodes} nodes"
    labels = {i: data.nodes[chosen[i]] for i in range(min(_LABELS, len(chosen)))}
    svg = draw_disk(view.points, edges=edges, labels=labels, depth=depth.tolist(), title=title, note=_note(view, space))
    place = Path(folder if out is None else out)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RunError(explain_os_error(problem, place)) from None
    atomic_write(place / "disk.svg", svg)
    report = Report(title, f"run {folder}, H^{space.shape[1]} with k = {k:g}")
    section = report.section("Poincaré disk", "Lines are geodesics between a node and its direct ancestors.")
    section.add_figure(svg, f"The {len(chosen)} nodes with most descendants. {_note(view, space).capitalize()}.")
    section.add_numbers(
        {
            "distortion of the embedding: mean |d / edges on the path - 1| at the best common scale": error,
            "pairs behind it": pairs,
            "error that the picture adds to distances": view.distortion,
        }
    )
    report.save(place / "plot.html")
    return f"{place / 'disk.svg'}\n{place / 'plot.html'}\ndistortion {error:.3f} against path lengths; {_note(view, space)}"


def _load(folder: Path, data_dir: str | Path | None) -> tuple[Hierarchy, NDArray[np.float64], float]:
    run = RunFolder(Path(folder))
    config = run.config()
    if config["task"] != "hierarchy":
        raise UsageError(f"{folder} is a run of task {config['task']!r}; hyrel plot draws runs of 'hierarchy'")
    from .api import configure

    settings = configure("hierarchy", overrides={key: value for key, value in config.items() if key != "task"})
    model = settings.model
    if model.geometry != "lorentz":
        raise UsageError(
            f"{folder} is a run in {model.geometry} space, which has no disk; plot one of geometry lorentz"
        )
    if not run.finished:
        raise UsageError(f"{folder} is not finished; go on with: hyrel resume {folder}")
    from .data.load import load

    data = load(settings.data, data_dir)
    if data.sha256 != run.result()["data"]["sha256"]:
        raise UsageError(f"the data of {data.name} has changed since {folder} was trained")
    return data, _points(run.path / "model.safetensors", (data.num_nodes, model.dim - 1)), float(model.k)


def _points(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        space = load_file(path)["points.weight"].astype(np.float64)
    except (OSError, KeyError, SafetensorError):
        raise RunError(f"{path} is missing or damaged; delete result.json beside it and resume the run") from None
    if space.shape != shape or not np.isfinite(space).all():
        raise RunError(f"{path} holds points {space.shape}, expected finite ones {shape}: it is of another run")
    return space


def _chosen(data: Hierarchy, count: int) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Nodes with most descendants, most first, and the direct edges among them by their places."""
    below = np.bincount(data.edges[:, 1].numpy(), minlength=data.num_nodes)
    chosen = np.argsort(-below, kind="stable")[:count]
    place = np.full(data.num_nodes, -1)
    place[chosen] = np.arange(len(chosen))
    edges = place[data.direct.numpy()]
    return chosen, [(int(a), int(b)) for a, b in edges[(edges >= 0).all(axis=1)]]


def _depth(data: Hierarchy) -> NDArray[np.int64]:
    """Edges from each node to the nearest root."""
    up = data.direct.numpy()
    roots = np.flatnonzero(data.starts.diff().numpy() == 0)
    graph = sparse.csr_matrix((np.ones(len(up)), (up[:, 1], up[:, 0])), shape=(data.num_nodes,) * 2)
    return np.asarray(csgraph.dijkstra(graph, indices=roots, unweighted=True, min_only=True)).astype(np.int64)


def _note(view: DiskView, space: NDArray[np.float64]) -> str:
    return "distances as they are: the embedding is two-dimensional" if space.shape[1] <= 2 else view.note


def distortion(data: Hierarchy, space: NDArray[np.float64], *, k: float, seed: int = 0) -> tuple[float, int]:
    r"""Mean of :math:`|c\,d_H / d_G - 1|` over pairs of nodes, and how many pairs.

    d_G counts the direct edges on the shortest path, d_H is the geodesic distance, and c the common scale with the least
    such mean (a weighted median of the ratios, as the unit of an embedding is its own). Pairs are those of up to 200 nodes,
    drawn at random, with every node that can be reached.
    """
    direct = data.direct.numpy()
    graph = sparse.csr_matrix((np.ones(len(direct)), direct.T), shape=(data.num_nodes,) * 2)
    count = min(_SOURCES, data.num_nodes)
    sources = np.random.default_rng(seed).choice(data.num_nodes, count, replace=False)
    steps = csgraph.shortest_path(graph, directed=False, unweighted=True, indices=sources)
    ratio = np.stack([hyperbolic_distance(space[s], space, k=k) for s in sources])
    known = np.isfinite(steps) & (steps > 0)
    ratio = np.sort(ratio[known] / steps[known])
    if not len(ratio) or ratio[-1] == 0:
        return float("nan"), len(ratio)
    weight = np.cumsum(ratio)
    scale = 1 / ratio[np.searchsorted(weight, weight[-1] / 2)]
    return float(np.abs(scale * ratio - 1).mean()), len(ratio)
