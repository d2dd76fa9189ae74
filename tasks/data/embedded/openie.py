"""Open-IE extractions with known truth: a seeded generator over real facts.

Each phrase of ``phrases.tsv`` says one *sense* (a predicate of the fact tables, or a union of two), forwards or with
its arguments swapped, and mentions a part of that sense's facts: well-known facts more often, a few with a wrong
argument. Phrases of one sense are synonyms, a swapped phrase is the inverse, a sense inside a union is narrower.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from tasks.data.embedded.tables import Pair, facts, read_table
from tasks.folder import atomic_write

__all__ = ["NOISE", "Extraction", "PlantedTruth", "extractions", "phrase_facts", "truth", "write_extractions"]

Extraction = tuple[str, str, str, float]

NOISE = 0.03
"""Chance that an extracted fact has its second argument replaced by a wrong one."""
_REPEATS = 0.3  # extra mentions of facts, as a share of a phrase's facts

# Senses that are not a predicate of the same name.
_UNIONS = {
    "city": ("capital", "other_city"),
    "studied": ("graduated", "attended"),
    "appeared": ("starred", "support_actor"),
    "spoken": ("official", "other_language"),
    "mountain": ("highest", "other_mountain"),
}
_NARROWER = {
    "capital": "city",
    "graduated": "studied",
    "starred": "appeared",
    "official": "spoken",
    "highest": "mountain",
}


@dataclass(frozen=True)
class _Phrase:
    text: str
    sense: str
    swapped: bool
    share: float


@dataclass(frozen=True)
class PlantedTruth:
    """What is true of the phrases of ``extractions``: every other pair is different.

    Parameters
    ----------
    synonym_groups
        Phrases that mean the same, 2 to 4 a group.
    inverse_pairs
        Phrases that mean the same with their arguments swapped: (first phrase of its group, the swapped phrase).
    narrower_pairs
        (narrower, broader): the facts of the first are facts of the second.
    senses
        Phrase -> (sense, whether its arguments are swapped), from which ``kind`` answers for every pair.

    Examples
    --------
    >>> truth().kind("penned", "is the author of"), truth().kind("penned", "was written by")
    ('equivalent', 'inverse')
    """

    synonym_groups: tuple[tuple[str, ...], ...]
    inverse_pairs: tuple[tuple[str, str], ...]
    narrower_pairs: tuple[tuple[str, str], ...]
    senses: dict[str, tuple[str, bool]]

    @property
    def phrases(self) -> tuple[str, ...]:
        """All phrases, in the order of the plan."""
        return tuple(self.senses)

    def kind(self, rel_a: str, rel_b: str) -> str:
        """How ``rel_a`` stands to ``rel_b``: equivalent, inverse, narrower, broader or different.

        Holds for every two phrases, also those that follow from the planted ones (a synonym of a narrower phrase is
        narrower).

        Raises
        ------
        KeyError
            For a phrase that is not one of ``phrases``.
        """
        (sense_a, swapped_a), (sense_b, swapped_b) = self.senses[rel_a], self.senses[rel_b]
        if sense_a == sense_b:
            return "equivalent" if swapped_a == swapped_b else "inverse"
        if swapped_a == swapped_b:
            if _NARROWER.get(sense_a) == sense_b:
                return "narrower"
            if _NARROWER.get(sense_b) == sense_a:
                return "broader"
        return "different"

    def pairs(self) -> list[tuple[str, str, str]]:
        """Every pair of phrases that is not different, as (rel_a, rel_b, kind)."""
        related = ((a, b, self.kind(a, b)) for a, b in combinations(self.phrases, 2))
        return [row for row in related if row[2] != "different"]


@cache
def _plan() -> dict[str, _Phrase]:
    rows = read_table("phrases")
    return {
        row["phrase"]: _Phrase(row["phrase"], row["sense"], row["direction"] == "-", float(row["share"]))
        for row in rows
    }


@cache
def truth() -> PlantedTruth:
    """The planted truth: 10 synonym groups, 5 inverse pairs and 5 narrower pairs among 80 phrases."""
    forward: dict[str, list[str]] = {}
    swapped: dict[str, list[str]] = {}
    for phrase in _plan().values():
        (swapped if phrase.swapped else forward).setdefault(phrase.sense, []).append(phrase.text)
    return PlantedTruth(
        synonym_groups=tuple(tuple(group) for group in forward.values() if len(group) > 1),
        inverse_pairs=tuple((forward[sense][0], group[0]) for sense, group in swapped.items()),
        narrower_pairs=tuple((forward[narrow][0], forward[broad][0]) for narrow, broad in _NARROWER.items()),
        senses={phrase.text: (phrase.sense, phrase.swapped) for phrase in _plan().values()},
    )


def phrase_facts(phrase: str) -> tuple[Pair, ...]:
    """All facts a phrase is true of, as (arg1, arg2); its extractions mention a part of them.

    Raises
    ------
    KeyError
        For a phrase that is not one of ``truth().phrases``.
    """
    plan = _plan()[phrase]
    pairs = [pair for predicate in _UNIONS.get(plan.sense, (plan.sense,)) for pair in facts()[predicate]]
    return tuple((value, subject) if plan.swapped else (subject, value) for subject, value in dict.fromkeys(pairs))


def extractions(seed: int = 0) -> list[Extraction]:
    """Extractions (arg1, rel, arg2, confidence), one a mention; the same seed gives the same rows.

    Returns
    -------
    list
        About 3,800 rows over 80 phrases; confidence lies in (0, 1) and tends to be lower for a wrong row.
    """
    rows = [row for phrase in _plan().values() for row in _mentions(phrase, random.Random(f"{seed}/{phrase.text}"))]
    order = random.Random(f"{seed}/order")
    keys = [order.random() for _ in rows]
    return [rows[i] for i in sorted(range(len(rows)), key=keys.__getitem__)]


def _mentions(phrase: _Phrase, rng: random.Random) -> list[Extraction]:
    """Mentions of one phrase: a weighted sample of its facts, then repeats of the best known among them.

    Only ``random()`` is drawn, the one method whose sequence Python promises to keep.
    """
    pairs = phrase_facts(phrase.text)
    true = set(pairs)
    weights = [(rank + 10) ** -0.5 for rank in range(len(pairs))]
    # Weighted sampling without replacement: the largest keys log(u)/w (Efraimidis and Spirakis).
    keys = [math.log(1 - rng.random()) / weight for weight in weights]
    size = round(phrase.share * len(pairs))
    chosen = sorted(range(len(pairs)), key=lambda i: -keys[i])[:size]
    stated: list[tuple[Pair, bool]] = []
    for i in sorted(chosen):
        arg1, arg2 = pairs[i]
        wrong = [other for _, other in pairs if (arg1, other) not in true]
        noisy = bool(wrong) and rng.random() < NOISE
        stated.append(((arg1, wrong[int(rng.random() * len(wrong))]) if noisy else (arg1, arg2), noisy))
    rows = [(*pair, noisy) for pair, noisy in stated]
    correct = [pair for pair, noisy in stated if not noisy]
    for _ in range(round(_REPEATS * size)):
        # A log-uniform rank: mentions fall off as 1/rank, as Zipf's law says of frequencies.
        rows.append((*correct[int(len(correct) ** rng.random()) - 1], False))
    return [(arg1, phrase.text, arg2, _confidence(noisy, rng)) for arg1, arg2, noisy in rows]


def _confidence(noisy: bool, rng: random.Random) -> float:
    low, high = (0.25, 0.75) if noisy else (0.45, 0.99)
    return round(low + (high - low) * max(rng.random(), rng.random()), 2)


def write_extractions(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write the extractions as a TAB separated file (a header, then arg1, rel, arg2, confidence) and return its path.

    The same seed gives the same bytes on every machine.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(("arg1", "rel", "arg2", "confidence"))
    writer.writerows((arg1, rel, arg2, f"{confidence:.2f}") for arg1, rel, arg2, confidence in extractions(seed))
    path = Path(path)
    atomic_write(path, text.getvalue())
    return path
