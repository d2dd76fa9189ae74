"""Ratings of how alike two relations are, and how well a score agrees with them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from relsim.evidence.counts import Float
from relsim.ingest.report import IngestError

__all__ = ["Agreement", "Ratings", "agreement", "ceiling", "partial_correlation", "pearson", "read_ratings", "spearman"]

_COLUMNS = ("relation_a", "relation_b", "rater", "grade")
_HIGHEST = 4.0
_LEAST = 3  # pairs: two always correlate perfectly
Correlation = Callable[[Float, Float], float]


@dataclass(frozen=True, eq=False)
class Ratings:
    """Grades of pairs of relations.

    Parameters
    ----------
    pairs
        Distinct unordered pairs of names; the first of each sorts before the second.
    raters
        Names of the raters, sorted.
    grades
        float64 ``(pairs, raters)``, 0 to 4, NaN where a rater did not grade a pair.

    Examples
    --------
    >>> ratings = Ratings([("child", "father")], ["a", "b"], np.array([[3.0, 4.0]]))
    >>> ratings.mean.tolist()
    [3.5]
    """

    pairs: list[tuple[str, str]]
    raters: list[str]
    grades: Float

    @property
    def mean(self) -> Float:
        """Mean grade of each pair over the raters who graded it, float64 ``(pairs,)``."""
        return np.asarray(np.nanmean(self.grades, axis=1))


@dataclass(frozen=True)
class Agreement:
    """A correlation with the limits of its 95 % bootstrap interval over relations."""

    value: float
    low: float
    high: float


def read_ratings(path: str | Path) -> Ratings:
    """Read tab-separated ratings: relation, relation, rater, grade 0 to 4; the order of the two relations is free.

    Lines at the top that begin with ``#`` are comments. A first line with the names ``relation_a, relation_b, rater,
    grade`` places the columns among others; without it the first four columns are they.

    Raises
    ------
    IngestError
        For a file that is not there, no UTF-8 or empty, a short line, a grade that is not a number from 0 to 4, a pair of
        one relation with itself, or a pair that a rater grades twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise IngestError(f"{path} is not UTF-8 text (byte {error.start}); ratings are tab-separated text") from None
    except OSError as error:
        raise IngestError(f"{path} cannot be read: {error.strerror}") from None
    skipped = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    rows = csv.reader(lines[skipped:], delimiter="\t", quoting=csv.QUOTE_NONE)
    columns, first = list(range(len(_COLUMNS))), next(rows, None)
    if first is None:
        raise IngestError(f"{path} holds no ratings; expected lines of {', '.join(_COLUMNS)}, tab-separated")
    if set(_COLUMNS) <= set(first):
        columns = [first.index(name) for name in _COLUMNS]
    else:
        rows = csv.reader(lines[skipped:], delimiter="\t", quoting=csv.QUOTE_NONE)
        skipped -= 1
    found: dict[tuple[str, str], dict[str, float]] = {}
    for number, cells in enumerate(rows, skipped + 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}, line {number}"
        if len(cells) <= max(columns) or not all(cells[c].strip() for c in columns):
            raise IngestError(f"{where}: expected {', '.join(_COLUMNS)}, tab-separated, got {cells[:5]}")
        a, b, rater, grade = (cells[c].strip() for c in columns)
        if a == b:
            raise IngestError(f"{where}: {a!r} is compared with itself; leave the line out")
        grades = found.setdefault((min(a, b), max(a, b)), {})
        if rater in grades:
            raise IngestError(f"{where}: rater {rater!r} grades {a!r} and {b!r} twice; keep one line")
        grades[rater] = _grade(grade, where)
    if not found:
        raise IngestError(f"{path} holds a head line and no ratings")
    raters = sorted({rater for grades in found.values() for rater in grades})
    table = np.array([[grades.get(rater, np.nan) for rater in raters] for grades in found.values()])
    return Ratings(list(found), raters, table)


def _grade(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0.0 <= value <= _HIGHEST:
        raise IngestError(f"{where}: the grade is {text!r}, expected a number from 0 to 4")
    return value


def pearson(x: Float, y: Float) -> float:
    """Pearson correlation of two vectors ``(n,)``, -1 to 1; NaN where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def spearman(x: Float, y: Float) -> float:
    """Pearson correlation of the ranks, ties sharing their mean rank, -1 to 1; NaN where a vector is constant."""
    return pearson(rankdata(x), rankdata(y))


def partial_correlation(x: Float, y: Float, controls: Float, *, ranks: bool = True) -> float:
    """Correlation of what a least-squares fit on the controls, with an intercept, leaves of x and of y.

    Parameters
    ----------
    x, y
        ``(n,)``.
    controls
        ``(n, c)``: taken as they stand; give categories as indicator columns.
    ranks
        Replace x and y by their ranks first: the partial Spearman correlation.
    """
    if len(controls) != len(x) or len(x) != len(y):
        raise ValueError(f"x, y and controls have {len(x)}, {len(y)} and {len(controls)} rows, expected as many each")
    design = np.column_stack([np.ones(len(x)), controls])
    both = np.column_stack([rankdata(x), rankdata(y)] if ranks else [x, y]).astype(np.float64)
    rest = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
    # What a fit explains wholly is left with rounding, whose correlation means nothing.
    if (np.linalg.norm(rest, axis=0) <= 1e-9 * np.linalg.norm(both - both.mean(0), axis=0)).any():
        return float("nan")
    return pearson(rest[:, 0], rest[:, 1])


def agreement(
    pairs: Sequence[tuple[str, str]],
    statistic: Callable[[NDArray[np.int64]], float],
    *,
    seed: int = 0,
    samples: int = 2000,
) -> Agreement:
    """A statistic of pairs with its 95 % percentile interval under resampling of relations.

    Relations, not pairs, are drawn with replacement: pairs that share a relation are not independent. A pair then counts as
    often as its relations were drawn, their numbers multiplied. Samples in which the statistic is NaN are left out.

    Parameters
    ----------
    pairs
        n pairs of names.
    statistic
        Takes rows of ``pairs``, int64, repeated as often as they count, and gives a number.
    seed, samples
        Of the resampling.

    Raises
    ------
    ValueError
        For fewer than three pairs.

    References
    ----------
    Snijders and Borgatti, Non-parametric standard errors and tests for network statistics, Connections 22, 1999.
    """
    if len(pairs) < _LEAST:
        raise ValueError(f"{len(pairs)} pairs, expected at least {_LEAST} to correlate")
    names = sorted({name for pair in pairs for name in pair})
    place = {name: i for i, name in enumerate(names)}
    ends = np.array([[place[a], place[b]] for a, b in pairs])
    generator, rows, values = np.random.default_rng(seed), np.arange(len(pairs)), []
    for _ in range(samples):
        times = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        drawn = np.repeat(rows, times[ends[:, 0]] * times[ends[:, 1]])
        if len(drawn) >= _LEAST:
            values.append(statistic(drawn))
    kept = np.array([value for value in values if np.isfinite(value)])
    low, high = np.quantile(kept, (0.025, 0.975)) if len(kept) else (np.nan, np.nan)
    return Agreement(statistic(rows), float(low), float(high))


def ceiling(ratings: Ratings, correlation: Correlation = spearman) -> float:
    """Leave-one-rater-out ceiling: mean correlation of each rater with the mean of the others, over pairs both graded.

    Raises
    ------
    ValueError
        For one rater, or raters who share fewer than three pairs with the others.
    """
    if len(ratings.raters) < 2:
        raise ValueError(f"{len(ratings.raters)} rater, expected at least 2: a ceiling compares raters")
    values = []
    for k in range(len(ratings.raters)):
        own, others = ratings.grades[:, k], np.delete(ratings.grades, k, axis=1)
        both = np.isfinite(own) & np.isfinite(others).any(axis=1)
        if int(both.sum()) < 3:
            raise ValueError(
                f"rater {ratings.raters[k]!r} shares {int(both.sum())} pairs with others, expected 3 or more"
            )
        values.append(correlation(own[both], np.asarray(np.nanmean(others[both], axis=1))))
    return float(np.mean(values))
