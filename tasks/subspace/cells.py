"""Scores of points, in relation to those of whole deltas and of a guess."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean

import numpy as np
from scipy.stats import t

from tasks.text.metrics import scores

__all__ = ["Cell", "Difference", "best_guess", "difference", "relative", "solvable"]


@dataclass(frozen=True)
class Cell:
    """A point, trained through one method, in one method's delta.

    Attributes
    ----------
    seed, dim, task : of the study; dimension; set of texts
    kind : of the subspace: ``"joint"`` or a control
    via : method through which the point was trained
    to : method whose delta is read at the point; with `via` itself it is the optimisation, with others a transfer
    score, full, chance : on the test split: of the point; of the method's own delta, trained whole; of the best guess
    rows : test rows
    """

    seed: int
    kind: str
    dim: int
    task: str
    via: str
    to: str
    score: float
    full: float
    chance: float
    rows: int

    @property
    def transferred(self) -> bool:
        """Whether it was trained through another method."""
        return self.via != self.to

    @property
    def corrected(self) -> float:
        """(score - chance) / (full - chance): 1 for what the whole delta reaches, 0 for a guess."""
        return (self.score - self.chance) / (self.full - self.chance)

    @property
    def plain(self) -> float:
        """Score / full, as in Yi et al. 2022."""
        return self.score / self.full

    @property
    def above_chance(self) -> bool:
        """Whether the whole delta is above a guess by two standard errors; otherwise nothing is related to it."""
        error = np.sqrt(max(self.full * (1 - self.full), 1e-12) / self.rows)
        return bool(self.full - self.chance > 2 * error)


def best_guess(label: np.ndarray, classes: int, metric: str) -> float:
    """Score of the one class that is right most often, for every text alike.

    Not of the majority of the training texts: of few shots, which have all classes alike, that is any class.
    """
    return max(
        scores("classification", label, np.eye(classes)[np.full(len(label), c)], classes)[metric]
        for c in range(classes)
    )


def solvable(cells: Iterable[Cell]) -> tuple[list[Cell], list[str]]:
    """Cells of tasks that the whole deltas solve better than a guess, and remarks on those left out."""
    cells = list(cells)
    bad = sorted({(c.task, c.to, c.seed) for c in cells if not c.above_chance})
    lost = set(bad)
    kept = [c for c in cells if (c.task, c.to, c.seed) not in lost and (c.task, c.via, c.seed) not in lost]
    return kept, [
        f"{task} with {to}, seed {seed}: the whole delta is not above chance, left out" for task, to, seed in bad
    ]


def relative(cells: Iterable[Cell], *, plain: bool = False) -> float | None:
    """Mean relative performance; None without cells."""
    values = [cell.plain if plain else cell.corrected for cell in cells]
    return mean(values) if values else None


@dataclass(frozen=True)
class Difference:
    """Mean difference of two kinds of subspace, with a 95 % t interval over pairs of seed and task.

    Attributes
    ----------
    half : half of the interval; None with one pair
    """

    value: float
    half: float | None
    pairs: int


def difference(cells: Iterable[Cell], control: str) -> Difference | None:
    """Chance-corrected relative performance of the joint subspace less that of a control.

    Cells of one seed and task are averaged first: methods on one task are not independent.
    """
    table: dict[tuple[int, str], dict[str, list[float]]] = {}
    for cell in cells:
        if cell.kind in ("joint", control):
            table.setdefault((cell.seed, cell.task), {}).setdefault(cell.kind, []).append(cell.corrected)
    pairs = [mean(row["joint"]) - mean(row[control]) for row in table.values() if len(row) == 2]
    if not pairs:
        return None
    half = None if len(pairs) < 2 else float(t.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / len(pairs) ** 0.5)
    return Difference(mean(pairs), half, len(pairs))
