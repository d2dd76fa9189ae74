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
        head, relation, tail = triples.unbind(1)
        key = head * num_relations + relation
        first, size = (int(x.max()) + 1 if len(x) else 1 for x in (key, tail))
        if first * size < 2**63:  # one number a triple: some forty times faster than unique rows
            unique = torch.unique(key * size + tail)
            key, self.tails = unique // size, unique % size
        else:
            key, self.tails = torch.unique(torch.stack([key, tail], 1), dim=0).T.contiguous()
        self.num_relations = num_relations
        self.keys, counts = torch.unique_consecutive(key, return_counts=True)
        self.starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self._by_tail: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> KnownTails:
        """Copy on a device."""
        moved = copy(self)
        moved._by_tail = None
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

    def among(self, head: Tensor, relation: Tensor, entities: Tensor) -> tuple[Tensor, Tensor]:
        """Find which of these different entities (N,) are known tails of (B,) queries: row numbers and places in `entities`.

        As :meth:`lookup`, and cheaper where a query has more known tails than there are entities to look at.
        """
        if self._by_tail is None:  # keys sorted by their tail, and where those of a tail start
            order = torch.argsort(self.tails, stable=True)
            key = torch.repeat_interleave(self.keys, self.starts.diff())[order]
            ends = torch.bincount(self.tails, minlength=int(entities.max()) + 1).cumsum(0)
            self._by_tail = key, torch.cat([ends.new_zeros(1), ends])
        keys, starts = self._by_tail
        inside = entities.clamp(max=len(starts) - 2)
        start = starts[inside]
        count = torch.where(inside == entities, starts[inside + 1] - start, 0)
        place = torch.repeat_interleave(torch.arange(len(entities), device=head.device), count)
        first = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
        candidates = keys[first + torch.arange(len(place), device=head.device)]
        wanted, order = torch.sort(head * self.num_relations + relation)
        low, high = torch.searchsorted(wanted, candidates), torch.searchsorted(wanted, candidates, right=True)
        found = (high > low).nonzero().squeeze(1)
        low, count = low[found], (high - low)[found]  # rows of a batch may ask the same
        first = torch.repeat_interleave(low - (count.cumsum(0) - count), count)
        row = order[first + torch.arange(len(first), device=head.device)]
        return row, torch.repeat_interleave(place[found], count)


@dataclass
class KnowledgeGraph:
    """A knowledge graph in three splits.

    Attributes
    ----------
    train, valid, test : int64 Tensors, shape (N, 3): head, relation, tail
    entities, relations : names by id, sorted
    sha256 : of the triples of all splits
    negatives : false triples of the ``"valid"`` and ``"test"`` split, as the splits, where the data set has them
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
    negatives: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_entities(self) -> int:
        """Count the entities of all splits."""
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        """Count the relations, inverses not counted."""
        return len(self.relations)

    @cached_property
    def entity_ids(self) -> dict[str, int]:
        """Id of every entity by its name."""
        return {name: i for i, name in enumerate(self.entities)}

    @cached_property
    def relation_ids(self) -> dict[str, int]:
        """Id of every relation by its name."""
        return {name: i for i, name in enumerate(self.relations)}

    def holds(self, head: int, relation: int, tail: int) -> bool:
        """Whether a triple stands in any split."""
        tails = self.known("all").lookup(torch.tensor([head]), torch.tensor([relation]))[1]
        return bool((tails == tail).any())

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
    def known_relations(self) -> KnownTails:
        """Index of the relations that hold between a head and a tail in any split: its `relation` is the tail."""
        everything = torch.cat([getattr(self, split) for split in SPLITS])
        return KnownTails(everything[:, [0, 2, 1]], self.num_entities)

    @cached_property
    def _known(self) -> dict[str, KnownTails]:
        return {}

    def known(self, which: str) -> KnownTails:
        """Index of the known answers of the ``"train"`` split or of ``"all"`` splits, inverses included."""
        if which not in self._known:
            triples = torch.cat([self.with_inverses(split) for split in (SPLITS if which == "all" else (which,))])
            self._known[which] = KnownTails(triples, 2 * self.num_relations)
        return self._known[which]


Triples = Iterable[tuple[str, str, str]]


def graph_from_triples(
    name: str, splits: Mapping[str, Triples], *, negatives: Mapping[str, Triples] | None = None
) -> KnowledgeGraph:
    """Number the entities and relations of named triples in sorted order.

    Parameters
    ----------
    name : of the graph
    splits : triples of train, valid and test
    negatives : false triples of valid and test, if any

    Raises
    ------
    UsageError : a split is missing or empty; a negative names what no split has.
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

    def numbered(triples: Triples) -> Tensor:
        return torch.tensor([(entity_id[h], relation_id[r], entity_id[t]) for h, r, t in triples])

    tensors = {split: numbered(triples) for split, triples in rows.items()}
    hard = {split: list(triples) for split, triples in (negatives or {}).items()}
    for split, triples in hard.items():
        for h, r, t in triples:
            if not (h in entity_id and t in entity_id and r in relation_id):
                raise UsageError(f"a negative of the {split} split of {name} has a name that no split has: {h} {r} {t}")
    lines = ["\t".join((split, *triple)) for split in SPLITS for triple in rows[split]]
    lines += ["\t".join((f"negatives of {split}", *triple)) for split, triples in hard.items() for triple in triples]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    warnings = []
    trained = torch.zeros(len(entities), dtype=torch.bool)
    trained[tensors["train"][:, [0, 2]].flatten()] = True
    unseen = int((~trained).sum())
    if unseen:
        warnings.append(f"{unseen} of {len(entities)} entities of {name} occur in no training triple")
    if unseen := len(relations) - len(tensors["train"][:, 1].unique()):
        warnings.append(f"{unseen} of {len(relations)} relations of {name} occur in no training triple")
    trained_on = set(rows["train"])
    for split in ("valid", "test"):
        if leaked := sum(triple in trained_on for triple in rows[split]):
            warnings.append(f"{leaked} of {len(rows[split])} {split} triples of {name} are training triples too")
        if split == "test" and (leaked := len(set(rows["valid"]) & set(rows["test"]))):
            warnings.append(f"{leaked} of {len(rows[split])} test triples of {name} are validation triples too")
        known = set(rows[split])
        if wrong := sum(triple in known for triple in hard.get(split, ())):
            warnings.append(
                f"{wrong} of {len(hard[split])} negatives of the {split} split of {name} are true triples of it"
            )
    train, valid, test = (tensors[split] for split in SPLITS)
    return KnowledgeGraph(
        name,
        train,
        valid,
        test,
        entities=entities,
        relations=relations,
        sha256=digest,
        warnings=warnings,
        negatives={split: numbered(triples) for split, triples in hard.items() if triples},
    )
