"""Labelled pairs of relations that the relation-similarity benchmarks share: ComBO phrases, samples of relations."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relsim.facts import Facts
from relsim.openie import read_openie

__all__ = ["Combo", "combo", "copies", "disjoint_parts", "folds", "knowledge_base", "names_of_properties"]

_FILES = {
    "FB15k-237": ("kg/FB15k-237/train.txt.gz",),
    "CoDEx-M": ("kg/CoDEx-M/train.txt",),
    "NELL-995": ("kg/NELL-995-h100/train.txt",),
}
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Combo:
    """ComBO validation, phrases with at least three occurrences and a gold relation.

    ``gold[r]``: the majority relation id of phrase r. ``types``: argument to ids of its types. ``type_names``: argument
    to English type names, where CoDEx knows them. ``mention_gold``: per phrase, how often it had which relation id.
    """

    facts: Facts
    gold: NDArray[np.str_]
    types: dict[str, list[str]]
    type_names: dict[str, list[str]]
    mention_gold: list[Counter[str]]


def combo(folder: Path, *, least: int = 3) -> Combo:
    """Read ComBO validation."""
    with gzip.open(folder / "openie/combo/revised.val.json.gz", "rt", encoding="utf-8") as stream:
        rows = json.load(stream)
    with gzip.open(folder / "kg/CoDEx/types.en.json.gz", "rt", encoding="utf-8") as stream:
        names = {key: value["label"] for key, value in json.load(stream).items()}
    triples = [tuple(" ".join(row[key]["name"]) for key in "hrt") for row in rows]
    occurrences = Counter(relation for _, relation, _ in triples)
    gold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    types: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for row, (head, relation, tail) in zip(rows, triples, strict=True):
        if row["r"]["id"]:
            gold[relation][row["r"]["id"]] += 1
        for argument, side in ((head, "h"), (tail, "t")):
            types[argument].update(dict.fromkeys(row[side]["instance"]))
    kept = {relation for relation, count in occurrences.items() if count >= least and relation in gold}
    facts = Facts.from_triples([triple for triple in triples if triple[1] in kept])
    named = {entity: [names[t] for t in found if t in names] for entity, found in types.items()}
    return Combo(
        facts=facts,
        gold=np.array([gold[relation].most_common(1)[0][0] for relation in facts.relations]),
        types={entity: list(found) for entity, found in types.items()},
        type_names={entity: found for entity, found in named.items() if found},
        mention_gold=[gold[relation] for relation in facts.relations],
    )


def names_of_properties(folder: Path) -> dict[str, str]:
    """English names of Wikidata properties."""
    content = json.loads((folder / "re/FewRel/pid2name.json").read_text("utf-8"))
    return {key: value[0] for key, value in content.items()}


def knowledge_base(folder: Path, name: str) -> Facts:
    """Facts of a knowledge base; those of WD50K by English relation name, relations without a name left out."""
    if name != "WD50K":
        return read_openie([folder / file for file in _FILES[name]])
    names = names_of_properties(folder)
    rows = []
    for part in ("train", "valid", "test"):
        for line in (folder / f"kg/WD50K/triples/{part}.txt").read_text("utf-8").splitlines():
            head, relation, tail = line.split(",")
            if relation in names:
                rows.append((head, names[relation], tail))
    return Facts.from_triples(rows)


def copies(facts: Facts, seed: int, *, least: int, most: int) -> tuple[Facts, NDArray[np.str_]]:
    """Two to four samples of ``least`` to ``most`` facts of every relation that has four times ``least``.

    The samples of a relation are drawn from a common part of it, at most four times ``most``, so that they overlap.
    Returns the facts and the relation behind each sample.
    """
    rng = np.random.default_rng(seed)
    relation = facts.relation.numpy()
    rows, phrases = [], []
    for r in np.flatnonzero(facts.support.numpy() >= 4 * least):
        own = np.flatnonzero(relation == r)
        part = rng.permutation(own)[: int(np.exp(rng.uniform(np.log(4 * least), np.log(4 * most))))]
        for copy in range(int(rng.integers(2, 5))):
            size = min(int(np.exp(rng.uniform(np.log(least), np.log(most)))), len(part))
            picked = rng.choice(part, size, replace=False)
            rows += picked.tolist()
            phrases += [f"q{r}x{copy}"] * size
    entities = facts.entities
    head, tail = facts.head.numpy()[rows], facts.tail.numpy()[rows]
    sample = Facts.from_triples([(entities[h], n, entities[t]) for h, n, t in zip(head, phrases, tail, strict=True)])
    return sample, np.array([name.split("x")[0] for name in sample.relations])


def disjoint_parts(
    facts: Facts, seed: int, *, least: int, most: int, parts: int = 4, others: int | None = None
) -> tuple[Facts, NDArray[np.str_]]:
    """Relations with ``least`` facts or more, at most ``most`` of each, every fact in one of ``parts`` parts.

    With ``others``, relations with fewer facts, but as many as that, stay whole beside them.
    """
    rng = np.random.default_rng(seed)
    relation, support = facts.relation.numpy(), facts.support.numpy()
    rows, phrases = [], []
    for r in np.flatnonzero(support >= (least if others is None else others)):
        own = rng.permutation(np.flatnonzero(relation == r))[:most]
        part = np.arange(len(own)) % parts if support[r] >= least else np.zeros(len(own), dtype=np.int64)
        rows += own.tolist()
        phrases += [f"q{r}x{p}" for p in part.tolist()]
    entities = facts.entities
    head, tail = facts.head.numpy()[rows], facts.tail.numpy()[rows]
    split = Facts.from_triples([(entities[h], n, entities[t]) for h, n, t in zip(head, phrases, tail, strict=True)])
    return split, np.array([name.split("x")[0] for name in split.relations])


def folds(groups: Ids, i: Ids, j: Ids, seed: int) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """(pairs to fit on, pairs to test on): pairs inside one half of the groups, and inside the other, both ways round.

    ``groups (R,)`` numbers what stays together: the phrase itself, or the relation behind a sample.
    """
    _, place = np.unique(groups, return_inverse=True)
    half = (np.random.default_rng(seed).permutation(int(place.max()) + 1) % 2)[place]
    for side in (0, 1):
        yield (half[i] != side) & (half[j] != side), (half[i] == side) & (half[j] == side)
