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
    metric : of the scores
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
    metric: str = "accuracy"

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
        # Of a correlation it is 1 / sqrt(rows) at zero, and with classes of equal size that of the accuracy, twice.
        spread = 1 - self.full**2 if self.metric == "mcc" else self.full * (1 - self.full)
        error = np.sqrt(max(spread, 1e-12) / self.rows)
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
    """Mean difference of two kinds of subspace over pairs of seed and task, with a 95 % t interval.

    Attributes
    ----------
    half : half of the interval; None with one pair
    """

    value: float
    half: float | None
    pairs: int


def difference(cells: Iterable[Cell], control: str) -> Difference | None:
    """Chance-corrected relative performance of the joint subspace less that of a control.

    Cells of one seed and task are averaged first: methods on one task are not independent. Nor are the seeds of one task, nor
    the tasks of one seed, which share the subspace: the interval is the wider of that over tasks, their seeds averaged, and
    that over seeds, their tasks averaged.
    """
    table: dict[tuple[int, str], dict[str, list[float]]] = {}
    for cell in cells:
        if cell.kind in ("joint", control):
            table.setdefault((cell.seed, cell.task), {}).setdefault(cell.kind, []).append(cell.corrected)
    pairs = {key: mean(row["joint"]) - mean(row[control]) for key, row in table.items() if len(row) == 2}
    if not pairs:
        return None
    halves = []
    for place in (0, 1):
        groups: dict[object, list[float]] = {}
        for key, value in pairs.items():
            groups.setdefault(key[place], []).append(value)
        if len(groups) > 1:
            means = [mean(values) for values in groups.values()]
            halves.append(float(t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5))
    return Difference(mean(pairs.values()), max(halves, default=None), len(pairs))
