"""Draw the pairs of relations that tasks/data/relation_judgements.tsv grades: by name, description and a seed alone.

    python -m benchmarks.relsim_judged_draw

Prints the drawn pairs in the order drawn, relation TAB relation TAB stratum. No fact of a relation is looked at but their
number, and no score of any kind. Data from the folder that HYREL_DATA names.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from tasks.data.judgements import signatures
from tasks.data.load import load
from tasks.data.locate import candidates

LEAST, SEED = 50, 20
SIZE = {"related": 60, "signature": 80, "one side": 80, "unrelated": 80}
# Equivalent, inverse or sub-property by what their names and descriptions say; the other strata leave these pairs out.
RELATED = """
    P22-P40 P25-P40 P36-P1376 P355-P749 P361-P527 P155-P156 P1365-P1366 P127-P1830 P131-P150 P710-P1344 P802-P1066
    P1346-P2522 P674-P1441 P170-P800 P1344-P1346 P22-P1038 P25-P1038 P40-P1038 P26-P1038 P1038-P3373 P26-P451 P103-P1412
    P364-P407 P37-P2936 P162-P1431 P57-P3092 P344-P3092 P1040-P3092 P2515-P3092 P2554-P3092 P3092-P3275 P161-P725
    P175-P725 P161-P175 P58-P170 P57-P170 P86-P170 P131-P276 P276-P706 P27-P1532 P17-P131 P17-P495 P102-P463 P54-P463
    P108-P1416 P463-P1416 P39-P106 P101-P106 P509-P1196 P159-P276 P276-P740 P115-P276 P144-P1877 P737-P1066 P179-P361
    P127-P749 P355-P1830 P840-P1434 P462-P1552 P462-P1340 P462-P1884 P607-P1344 P1344-P2522 P112-P170 P725-P2438 P449-P750
    P31-P279 P155-P1365 P156-P1366 P206-P276 P17-P27 P551-P937 P276-P1001
"""


def texts() -> dict[str, list[str]]:
    """Name and description of the relations of Wikidata, by id."""
    found = next(path for folder in candidates() if (path := folder / "re" / "FewRel" / "pid2name.json").is_file())
    names: dict[str, list[str]] = json.loads(found.read_text("utf-8"))
    return names


def relations() -> dict[str, tuple[str, str]]:
    """Types of subject and object of the relations to draw from: enough facts for training, and a name."""
    signature = signatures()
    graph = load("WD50K")
    count = Counter(graph.train[:, 1].tolist())
    names = texts()
    chosen = [name for i, name in enumerate(graph.relations) if count[i] >= LEAST and name in names]
    return {name: signature[name] for name in sorted(chosen, key=number)}


def number(relation: str) -> int:
    return int(relation.removeprefix("P"))


def round_robin(groups: list[list[tuple[str, str]]], wanted: int) -> Iterator[tuple[str, str]]:
    """One pair of each group in turn, so that the largest signature does not fill the stratum."""
    given = 0
    while given < wanted and any(groups):
        for group in groups:
            if group and given < wanted:
                yield group.pop()
                given += 1


def draw(seed: int = SEED) -> list[tuple[str, str, str]]:
    generator = random.Random(seed)
    types = relations()
    related = [(a, b) for a, b in (pair.split("-") for pair in RELATED.split())]
    strata: dict[str, list[tuple[str, str]]] = {name: [] for name in SIZE}
    for a, b in combinations(types, 2):
        if (a, b) not in related:
            same = sum(one == two for one, two in zip(types[a], types[b], strict=True))
            strata[("unrelated", "one side", "signature")[same]].append((a, b))
    strata["related"] = related
    drawn = []
    for name, pairs in strata.items():
        generator.shuffle(pairs)
        if name == "signature":
            groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
            for pair in pairs:
                groups.setdefault(types[pair[0]], []).append(pair)
            pairs = list(round_robin(list(groups.values()), SIZE[name]))
        drawn += [(*pair, name) for pair in pairs[: SIZE[name]]]
    generator.shuffle(drawn)
    return drawn


def main() -> None:
    for row in draw():
        print("\t".join(row))


if __name__ == "__main__":
    main()
