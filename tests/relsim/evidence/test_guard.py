"""What words may say of a pair when there are few facts, or none in common, to hold against them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from relsim import Facts, redundancy

PEOPLE = [
    f"{a} {b}"
    for b in ["Smith", "Jones", "Hall", "King"]
    for a in ["John", "Mary", "Ann", "Peter", "Paul", "Lisa", "Tom", "Kate"]
]
FIRMS = [
    f"{a} {b}"
    for b in ["Inc", "Corp", "Labs", "Media"]
    for a in ["Acme", "Apex", "Nova", "Orion", "Delta", "Sigma", "Vega", "Titan"]
]
PLACES = [
    f"{a}{b} Town"
    for a in ["New", "Old", "North", "South", "East"]
    for b in ["ville", "burg", "ford", "field", "port", "ham"]
]
OTHERS = "lies in", "borders", "sends goods to", "was renamed", "competes with", "is twinned with"


def background(seed: int = 0) -> list[tuple[str, str, str]]:
    """Relations of places, so that those of people and firms stand out by their arguments."""
    draw = random.Random(seed)
    return [(draw.choice(PLACES), name, draw.choice(PLACES)) for name in OTHERS for _ in range(8)]


def pair(rows: list[tuple[str, str, str]], a: str, b: str, **options: Any) -> tuple[dict[str, Any], str]:
    """Row of the pair, and what was held against its words."""
    result = redundancy(Facts.from_triples(rows), neural="never", **options)
    at = next(k for k, row in enumerate(result.pairs) if {row["rel_a"], row["rel_b"]} == {a, b})
    return result.pairs.rows()[at], str(result.details["held"][at])


def between(name: str, heads: list[str], tails: list[str]) -> list[tuple[str, str, str]]:
    return [(h, name, t) for h, t in zip(heads, tails, strict=True)]


def test_siblings_without_a_common_fact_are_not_merged() -> None:
    """The same kinds of arguments, and never the same fact: nothing tells this from a synonym."""
    rows = background() + between("is the father of", PEOPLE[:8], PEOPLE[16:24])
    rows += between("is the mother of", PEOPLE[8:16], PEOPLE[24:])
    row, held = pair(rows, "is the father of", "is the mother of")
    assert row["kind"] != "equivalent" and row["p_redundant"] == 0.49
    assert held == "too few common facts"


def test_a_common_word_merges_without_a_common_fact_but_is_not_sure() -> None:
    rows = background() + between("was elected mayor of", PEOPLE[:8], FIRMS[:8])
    rows += between("had been elected mayor of", PEOPLE[8:16], FIRMS[8:16])
    row, held = pair(rows, "was elected mayor of", "had been elected mayor of")
    assert (row["kind"], row["p_redundant"], held) == ("equivalent", 0.9, "too few common facts")


@pytest.mark.parametrize(("common", "inverse"), [(0, False), (1, False), (2, True)])
def test_an_inverse_needs_two_common_facts_the_other_way_round(common: int, inverse: bool) -> None:
    rows = background() + between("employs", FIRMS[:8], PEOPLE[:8])
    rows += between("is on the payroll of", PEOPLE[8 - common : 16 - common], FIRMS[8 - common : 16 - common])
    row, held = pair(rows, "employs", "is on the payroll of")
    assert (row["kind"] == "inverse", row["p_redundant"] >= 0.5) == (inverse, inverse)
    assert held == ("" if inverse else "as an inverse: too few common facts")


def test_agreement_far_below_two_samples_is_not_merged_by_words() -> None:
    """Of eight common arguments one has the same other one: too few for a veto, too many for a synonym."""
    rows = background() + between("contains", FIRMS[:8], PEOPLE[:8])
    rows += between("is part of", FIRMS[:8], [PEOPLE[0], *PEOPLE[9:16]]) + between(
        "is part of", FIRMS[8:20], PEOPLE[:12]
    )
    row, _ = pair(rows, "contains", "is part of")
    assert row["kind"] == "different" and row["p_redundant"] <= 0.49


def test_an_encoder_speaks_for_phrases_without_a_common_word() -> None:
    def encoder(texts: Any) -> list[list[float]]:
        return [[1.0, 0.0] if "mayor" in text or "heads" in text else [0.0, 1.0] for text in texts]

    rows = (
        background() + between("is the mayor of", PEOPLE[:8], FIRMS[:8]) + between("heads", PEOPLE[8:16], FIRMS[8:16])
    )
    assert pair(rows, "is the mayor of", "heads")[0]["p_redundant"] <= 0.49
    assert 0.5 < pair(rows, "is the mayor of", "heads", encoder=encoder)[0]["p_redundant"] <= 0.9


@pytest.mark.parametrize(("common", "kind"), [(0, "different"), (6, "equivalent")])
def test_a_passive_without_its_agent_is_no_form_of_the_active(common: int, kind: str) -> None:
    rows = background() + between("use", PEOPLE[:8], FIRMS[:8])
    rows += between("be use", PEOPLE[8 - common : 16 - common], FIRMS[8 - common : 16 - common])
    assert pair(rows, "use", "be use")[0]["kind"] == kind


def test_walking_beside_is_no_passive() -> None:
    rows = background() + between("walks", PEOPLE[:8], FIRMS[:8])
    rows += between("is walking by", PEOPLE[8:16], FIRMS[8:16])
    row, _ = pair(rows, "walks", "is walking by")
    assert row["kind"] != "inverse" and not row["decided_by"].startswith("voice")
