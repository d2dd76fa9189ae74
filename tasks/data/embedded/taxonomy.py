"""A small knowledge graph of living things: the classification of some 200 well-known animals and plants."""

from __future__ import annotations

import random
from functools import cache

from tasks.data.embedded.tables import read_table

__all__ = ["Triple", "common_names", "depths", "ranks", "taxonomy"]

Triple = tuple[str, str, str]

_IS_A = "is a"
_OTHER = {"lives_in": "lives in", "native_to": "native to", "eats": "eats"}
_SEED = 0
_TEST, _VALID = 0.30, 0.15  # shares of the edges that may be held out
_TOO_EASY = ("domain", "kingdom")  # all, or half, of everything belongs to them


@cache
def _parents() -> dict[str, str]:
    return {row["taxon"]: row["parent"] for row in read_table("taxonomy") if row["parent"]}


def _ancestors(taxon: str) -> list[str]:
    """All taxa above one, nearest first."""
    above = []
    while (taxon := _parents().get(taxon, "")) != "":
        above.append(taxon)
    return above


def taxonomy() -> dict[str, list[Triple]]:
    """Triples (head, relation, tail) by split: which higher groups a species belongs to is what has to be predicted.

    The relation ``is a`` is the transitive closure of the classification. Every direct edge is in train; of the edges
    from a species to the families, orders, classes and phyla above its direct group, 15 % are in valid and 30 % in
    test. ``lives in``, ``native to`` and ``eats`` are in train only. Entities of valid and test all occur in train.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``, disjoint, the same at every call.

    Examples
    --------
    >>> ("Panthera leo", "is a", "Panthera") in taxonomy()["train"]
    True
    """
    splits: dict[str, list[Triple]] = {"train": [], "valid": [], "test": []}
    rng = random.Random(_SEED)
    for row in read_table("taxonomy"):
        taxon = row["taxon"]
        for height, group in enumerate(_ancestors(taxon)):
            split = "train"
            if height > 0 and row["rank"] == "species" and ranks()[group] not in _TOO_EASY:
                draw = rng.random()
                split = "test" if draw < _TEST else "valid" if draw < _TEST + _VALID else "train"
            splits[split].append((taxon, _IS_A, group))
        for column, relation in _OTHER.items():
            splits["train"].extend((taxon, relation, value) for value in row[column].split(";") if value)
    return splits


@cache
def depths() -> dict[str, int]:
    """Steps from the root to each taxon: 0 for all living things with a nucleus, 5 to 7 for a species."""
    return {row["taxon"]: len(_ancestors(row["taxon"])) for row in read_table("taxonomy")}


@cache
def ranks() -> dict[str, str]:
    """Rank of each taxon: domain, kingdom, phylum, class, order, family, genus or species."""
    return {row["taxon"]: row["rank"] for row in read_table("taxonomy")}


@cache
def common_names() -> dict[str, str]:
    """English name of each taxon, for labels; the scientific name where there is none (most genera)."""
    return {row["taxon"]: row["common"] or row["taxon"] for row in read_table("taxonomy")}
