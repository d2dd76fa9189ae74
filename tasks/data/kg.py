"""Knowledge graphs: files of head, relation, tail to id tensors, and the index of known answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from tasks.errors import UsageError

__all__ = ["KnowledgeGraph", "KnownTails", "graph_from_triples"]

SPLITS = ("train", "valid", "test")


class KnownTails:
    """All known tails of (head, relation), as a compressed table that is looked up in bulk."""

    def __init__(self, triples: Tensor, num_relations: int) -> None:
        unique = torch.unique(triples[:, [0, 1, 2]], dim=0)  # sorted by head, relation, tail
        key = unique[:, 0] * num_relations + unique[:, 1]
        self.num_relations = num_relations
        self.keys, counts = torch.unique_consecutive(key, return_counts=True)
        self.starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self.tails = unique[:, 2].contiguous()

    def to(self, device: torch.device) -> KnownTails:
        """Copy on a device."""
        moved = copy(self)
        moved.keys, moved.starts, moved.tails = self.keys.to(device), self.starts.to(device), self.tails.to(device)
        return moved

    def lookup(self, head: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
        """Find the known tails of (B,) queries: row numbers and tails, two int64 tensors of equal length."""
        key = head * self.num_relations + relation
        place = torch.searchsorted(self.keys, key).clamp(max=max(len(self.keys) - 1, 0))
        present = self.keys[place] == key
        start = self.starts[place]
        count = torch.where(present, self.starts[place + 1] - start, 0)
        row = torch.repeat_interleave(torch.arange(len(head), device=head.device), count)
        offset = torch.arange(len(row), device=head.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        return row, self.tails[start[row] + offset]


@dataclass
class KnowledgeGraph:
    """A knowledge graph in three splits.

    Attributes
    ----------
    train, valid, test : int64 Tensors, shape (N, 3): head, relation, tail
    entities, relations : names by id, sorted
    sha256 : of the triples of all splits
    """

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor
    entities: list[str]
    relations: list[str]
    sha256: str
    split: str = "published"
    warnings: list[str] = field(default_factory=list)

    @property
    def num_entities(self) -> int:
        """Count the entities of all splits."""
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        """Count the relations, inverses not counted."""
        return len(self.relations)

    @cached_property
    def _doubled(self) -> dict[str, Tensor]:
        doubled = {}
        for split in SPLITS:
            triples: Tensor = getattr(self, split)
            head, relation, tail = triples.unbind(1)
            doubled[split] = torch.cat([triples, torch.stack([tail, relation + self.num_relations, head], 1)])
        return doubled

    def with_inverses(self, split: str) -> Tensor:
        """Triples of a split followed by (tail, relation + R, head) of each, shape (2N, 3)."""
        return self._doubled[split]

    @cached_property
    def _known(self) -> dict[str, KnownTails]:
        everything = torch.cat([self.with_inverses(split) for split in SPLITS])
        count = 2 * self.num_relations
        return {"train": KnownTails(self.with_inverses("train"), count), "all": KnownTails(everything, count)}

    def known(self, which: str) -> KnownTails:
        """Index of the known answers of the ``"train"`` split or of ``"all"`` splits, inverses included."""
        return self._known[which]


def graph_from_triples(name: str, splits: Mapping[str, Iterable[tuple[str, str, str]]]) -> KnowledgeGraph:
    """Number the entities and relations of named triples in sorted order.

    Raises
    ------
    UsageError : a split is missing or empty.
    """
    rows = {split: list(splits.get(split, ())) for split in SPLITS}
    for split, triples in rows.items():
        if not triples:
            raise UsageError(f"the {split} split of {name} holds no triple")
    everything = [triple for split in SPLITS for triple in rows[split]]
    entities = sorted({entity for head, _, tail in everything for entity in (head, tail)})
    relations = sorted({relation for _, relation, _ in everything})
    entity_id = {entity: i for i, entity in enumerate(entities)}
    relation_id = {relation: i for i, relation in enumerate(relations)}
    tensors = {
        split: torch.tensor([(entity_id[h], relation_id[r], entity_id[t]) for h, r, t in triples])
        for split, triples in rows.items()
    }
    lines = ["\t".join((split, *triple)) for split in SPLITS for triple in rows[split]]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    warnings = []
    trained = torch.zeros(len(entities), dtype=torch.bool)
    trained[tensors["train"][:, [0, 2]].flatten()] = True
    unseen = int((~trained).sum())
    if unseen:
        warnings.append(f"{unseen} of {len(entities)} entities of {name} occur in no training triple")
    trained_on = set(rows["train"])
    for split in ("valid", "test"):
        if leaked := sum(triple in trained_on for triple in rows[split]):
            warnings.append(f"{leaked} of {len(rows[split])} {split} triples of {name} are training triples too")
    train, valid, test = (tensors[split] for split in SPLITS)
    return KnowledgeGraph(
        name, train, valid, test, entities=entities, relations=relations, sha256=digest, warnings=warnings
    )
