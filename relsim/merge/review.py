"""Marks of a reader: accepted pairs must be merged, rejected ones must not, and all of them recalibrate the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Float
from relsim.merge.tables import plain, read_tsv

__all__ = ["REVIEWED", "Review", "read_review"]

REVIEWED = "review"
_SAME = {"same", "must", "equivalent"}
_YES = {"accept", "accepted", "yes", "y", "1", "true", "+"} | _SAME
_OTHER = {"inverse", "narrower", "broader"}  # kinds of rows that say something else than the same
_NO = {"reject", "rejected", "no", "n", "0", "false", "different", "-", "cannot"}
_LEAST_MARKS = 10
# How firmly the slope is held at 1 and the shift at 0: worth about a dozen marks of even odds.
_HOLD = 3.0


@dataclass(frozen=True)
class Review:
    """Pairs of phrases with a mark: True for the same, False for not.

    A mark speaks of the phrases as they stand, whatever they were scored as: of an inverse, True would merge ``has child``
    with ``is child of``.

    Parameters
    ----------
    marks
        (phrase, phrase) in sorted order to the mark.
    source
        Where they came from, for messages.
    confirmed
        Accepted rows of another kind than the same, which merge nothing.
    """

    marks: dict[tuple[str, str], bool]
    source: str = "review"
    confirmed: tuple[tuple[str, str], ...] = ()

    def rows(
        self, relations: Sequence[str], i: NDArray[np.int64], j: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the pairs ``(P,)`` are accepted, and which rejected."""
        found = [
            self.marks.get((min(a, b), max(a, b)))
            for a, b in ((relations[x], relations[y]) for x, y in zip(i.tolist(), j.tolist(), strict=True))
        ]
        return np.array([mark is True for mark in found], dtype=np.bool_), np.array(
            [mark is False for mark in found], dtype=np.bool_
        )

    def links(self, relations: Sequence[str], mark: bool) -> list[tuple[int, int]]:
        """Marked pairs of one kind as relation ids; pairs with a phrase that was not compared are left out."""
        number = {name: k for k, name in enumerate(relations)}
        return [
            (number[a], number[b])
            for (a, b), found in self.marks.items()
            if found is mark and a in number and b in number
        ]

    def words(self, pairs: Iterable[tuple[str, str, str]]) -> list[str]:
        """Cell of a column ``review`` for rows of phrase, phrase and kind, so that reading it gives these marks again."""
        confirmed, found = set(self.confirmed), []
        for a, b, kind in pairs:
            pair = min(a, b), max(a, b)
            mark = self.marks.get(pair)
            yes = ("same" if kind in _OTHER else "accept") if mark else ""
            right = mark is None and pair in confirmed and kind in _OTHER
            found.append("reject" if mark is False else "accept" if right else yes)
        return found

    def besides(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
        """Marks of other pairs than these, as phrase, phrase and ``accept`` or ``reject``."""
        known = {(min(pair), max(pair)) for pair in pairs}
        return [(*pair, "accept" if mark else "reject") for pair, mark in self.marks.items() if pair not in known]

    def lacks(self, other: Review) -> int:
        """How many marks of another review this one does not hold, or holds otherwise."""
        mine = set(self.marks.items()) | set(self.confirmed)
        return len((set(other.marks.items()) | set(other.confirmed)) - mine)

    def unknown(self, relations: Sequence[str]) -> list[str]:
        """Warnings about marks that merge and part nothing: of phrases that were not compared, of rows of another kind."""
        known = set(relations)
        lost = [pair for pair in self.marks if not known.issuperset(pair)]
        found = []
        if self.confirmed:
            a, b = self.confirmed[0]
            found.append(
                f"{len(self.confirmed):,} accepted rows of {self.source} are of the kinds inverse, narrower and broader, "
                f"such as {a!r} and {b!r}, and merge nothing; to merge a pair all the same, mark it with the word same"
            )
        if not lost:
            return found
        phrase = next(phrase for phrase in lost[0] if phrase not in known)
        return [
            *found,
            f"{len(lost):,} of {len(self.marks):,} marks of {self.source} change nothing: they name phrases that were not "
            f"compared, such as {phrase!r}; mark pairs.tsv of a run on the same files with the same options",
        ]

    def recalibration(
        self, relations: Sequence[str], i: NDArray[np.int64], j: NDArray[np.int64], p: Float
    ) -> Callable[[Float], Float]:
        """Map from stated probabilities to ones that fit the marks: ``sigmoid(a logit(p) + b)``, a and b held near 1, 0.

        With fewer than ten marks on the pairs, or marks of one kind only, the identity: nothing could be learned. Zero
        and one stay what they are.
        """
        accepted, rejected = self.rows(relations, i, j)
        rows = np.flatnonzero((accepted | rejected) & (p > 0.0) & (p < 1.0))
        label = accepted[rows].astype(np.float64)
        if len(rows) < _LEAST_MARKS or len(set(label.tolist())) < 2:
            return lambda values: values.copy()
        x = np.stack([_logit(p[rows]), np.ones(len(rows))], axis=1)
        start = np.array([1.0, 0.0])
        beta = start.copy()
        for _ in range(50):
            q = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -500, 500)))
            gradient = x.T @ (label - q) - _HOLD * (beta - start)
            hessian = (x * (q * (1.0 - q))[:, None]).T @ x + _HOLD * np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            beta += step / max(1.0, float(np.abs(step).max()))
            if np.abs(step).max() < 1e-10:
                break
        # A slope below 0 would turn the order round; marks that say so are noise or aimed at the hardest pairs.
        slope, shift = max(float(beta[0]), 0.0), float(beta[1])

        def apply(values: Float) -> Float:
            inside = (values > 0.0) & (values < 1.0)
            out = values.copy()
            out[inside] = 1.0 / (1.0 + np.exp(-np.clip(slope * _logit(values[inside]) + shift, -500, 500)))
            return out

        return apply


def _logit(p: Float) -> Float:
    return np.asarray(np.log(p) - np.log1p(-p))


def read_review(path: str | os.PathLike[str]) -> Review:
    """Read marks from a TSV with columns ``rel_a``, ``rel_b`` and ``review`` (or ``mark``, ``accept``), such as pairs.tsv.

    Cells of the mark: accept, yes, 1, + or reject, no, different, 0, -; an empty cell is no mark. Accepted are rows as they
    stand: one whose ``kind`` is inverse, narrower or broader is right and merges nothing, unless the mark is same.

    Raises
    ------
    ValueError
        For a missing column, an unknown mark, or a pair that is marked both ways.
    OSError
        When the file cannot be read.
    """
    marks: dict[tuple[str, str], bool] = {}
    confirmed: list[tuple[str, str]] = []
    header, rows = read_tsv(path)
    column = next((name for name in ("review", "mark", "accept") if name in header), None)
    if column is None or not {"rel_a", "rel_b"} <= set(header):
        raise ValueError(
            f"{path}: expected TAB columns rel_a, rel_b and review, got {', '.join(header) or 'nothing'}; add a "
            "column review to pairs.tsv and write accept or reject in it"
        )
    for number, row in enumerate(rows, 2):
        word = row.get(column, "").strip().lstrip("'").lower()
        if not word:
            continue
        if word not in _YES | _NO:
            raise ValueError(f"{path}:{number}: mark {word!r}, expected accept or reject, or nothing")
        a, b = sorted((plain(row.get("rel_a", "")), plain(row.get("rel_b", ""))))
        if word in _YES - _SAME and row.get("kind", "") in _OTHER:
            confirmed.append((a, b))
            continue
        if marks.setdefault((a, b), word in _YES) is not (word in _YES):
            raise ValueError(f"{path}:{number}: {a!r} and {b!r} are marked accept in one row and reject in another")
    return Review(marks, str(path), tuple(confirmed))
