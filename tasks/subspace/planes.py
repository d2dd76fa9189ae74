"""The landscape of a seen set: the plane through the methods' points, and random planes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltas.subspace import Plane
from deltas.subspace.objective import only
from tasks.text.rows import spread

from .study import JOINT, Study

__all__ = ["Planes", "planes_of"]


@dataclass(frozen=True)
class Planes:
    """Landscape of a seen set: the plane through the methods' points and random planes around the same centre.

    Attributes
    ----------
    axis, scores : of the plane through the points: coordinates, and mean score by method
    marks : coordinates of the methods' points
    share, low, high : part of the square where all methods keep 90 % of their best, with a 95 % interval over the rows
    random : that part of random planes
    """

    task: str
    dim: int
    axis: list[float]
    scores: dict[str, list[list[float]]]
    marks: dict[str, list[float]]
    share: float
    low: float
    high: float
    random: list[float]


def planes_of(study: Study) -> Planes | None:
    """Landscape of the first seen set in the largest joint subspace, of two dimensions and two methods or more."""
    config = study.config
    dim = max(config.dimensions)
    if config.grid < 2 or dim < 2 or len(study.labels) < 2:
        return None
    key = f"landscape {dim} {config.grid} {config.planes}"
    data = Path(config.sets[0]).name
    return Planes(**study.ledger.get(key, lambda: _measured(study, dim), of=study.made_of(JOINT, dim, data)))


def _measured(study: Study, dim: int) -> dict[str, Any]:
    solved, config = study.solved(), study.config
    space = study.space(JOINT, dim, solved)
    readers, data = study.readers, Path(config.sets[0]).name
    texts = study.texts(data)
    points = {label: space.encode(label, solved.vectors[data][label]).detach() for label in study.labels}
    rows = spread(readers.count(texts, "valid"), config.landscape_rows)
    batch = readers.batch(texts, "valid", rows)

    def right(label: str, vector: Tensor) -> np.ndarray:
        handle = readers.handles[label]
        only(handle)
        with torch.no_grad(), handle.applied(vector):
            return readers.right(label, texts.name, batch)

    best = {label: right(label, solved.vectors[data][label]) for label in study.labels}
    label = next(iter(batch.values()))["label"]
    chance = float(torch.bincount(label).max() / len(label))

    plane = Plane.through(list(points.values()))
    grid = space.landscape(right, plane, grid=config.grid)
    low, high = grid.interval(best, chance=chance)
    others = [
        space.landscape(right, plane.turned(seed), grid=config.grid).share(best, chance=chance)
        for seed in range(config.planes if dim > 2 else 0)  # of two dimensions there is one plane
    ]
    return {
        "task": data,
        "dim": dim,
        "axis": grid.axis.tolist(),
        "scores": {name: table.tolist() for name, table in grid.scores.items()},
        "marks": {name: list(plane.coordinates(point)) for name, point in points.items()},
        "share": grid.share(best, chance=chance),
        "low": low,
        "high": high,
        "random": others,
    }
