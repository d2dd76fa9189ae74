"""Tables of a study."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from .cells import Cell, difference, relative, solvable
from .study import JOINT

__all__ = ["COLUMNS", "PUBLISHED", "cell_rows", "difference_rows", "performance_rows", "transfer_table"]

COLUMNS = [
    "seed", "subspace", "dim", "set", "trained through", "read by", "score", "whole", "chance", "corrected", "plain"
]  # fmt: skip

# Yi et al. 2022, tables 1 and 2 (one task) and 4 and 3 (many): mean plain relative performance of optimisation and transfer.
# Of T5 on other tasks: beside ours for orientation only.
PUBLISHED = {"one task": (0.849, 0.826), "many tasks": (0.887, 0.847)}


def cell_rows(cells: Sequence[Cell]) -> list[list[object]]:
    """Every score."""
    return [
        [
            c.seed, c.kind, c.dim, c.task, c.via, c.to, round(c.score, 4), round(c.full, 4), round(c.chance, 4),
            round(c.corrected, 4) if c.full != c.chance else "", round(c.plain, 4) if c.full else "",
        ]
        for c in cells
    ]  # fmt: skip


def performance_rows(cells: Sequence[Cell]) -> list[list[object]]:
    """Relative performance by subspace and dimension: of optimisation by method, their mean, and the mean of transfers."""
    kept, _ = solvable(cells)
    methods = list(dict.fromkeys(c.to for c in cells))
    rows: list[list[object]] = []
    for dim, kind in dict.fromkeys((c.dim, c.kind) for c in cells):
        here = [c for c in kept if (c.dim, c.kind) == (dim, kind)]
        own, moved = [c for c in here if not c.transferred], [c for c in here if c.transferred]
        by_method: list[object] = [relative(c for c in own if c.to == m) for m in methods]
        both = [relative(own), relative(own, plain=True), relative(moved), relative(moved, plain=True)]
        rows.append([kind, dim, *by_method, *both])
    return rows


def performance_columns(cells: Sequence[Cell]) -> list[str]:
    """Columns of :func:`performance_rows`."""
    methods = list(dict.fromkeys(c.to for c in cells))
    means = ["optimisation", "optimisation, plain", "transfer", "transfer, plain"]
    return ["subspace", "dim", *methods, *means]


def difference_rows(cells: Sequence[Cell]) -> list[list[object]]:
    """The joint subspace less each control: dimension, control, what, difference, half of its 95 % interval, pairs."""
    kept, _ = solvable(cells)
    controls = [kind for kind in dict.fromkeys(c.kind for c in cells) if kind != JOINT]
    rows: list[list[object]] = []
    for dim, control, moved in product(dict.fromkeys(c.dim for c in cells), controls, (False, True)):
        found = difference([c for c in kept if (c.dim, c.transferred) == (dim, moved)], control)
        if found is not None:
            what = "transfer" if moved else "optimisation"
            rows.append([dim, control, what, found.value, found.half, found.pairs])
    return rows


def transfer_table(cells: Sequence[Cell], dim: int, kind: str = JOINT) -> tuple[list[list[float | None]], list[str]]:
    """Relative performance by the method a point was trained through and the one it was read by."""
    kept, _ = solvable(cells)
    here = [c for c in kept if (c.dim, c.kind) == (dim, kind)]
    labels = list(dict.fromkeys(c.to for c in cells))
    return [[relative(c for c in here if (c.via, c.to) == (a, b)) for b in labels] for a in labels], labels
