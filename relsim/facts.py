"""Facts: the triples of a knowledge base or of Open-IE extractions as integer ids, validated once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from relsim.ingest.report import IngestReport

__all__ = ["Facts"]

_CHECKED = 1 << 20
_AGGREGATE = "Facts.from_triples and Facts.from_frame add the counts of equal rows up"


@dataclass(frozen=True, eq=False)
class Facts:
    """Distinct facts (head, relation, tail) with counts, and the names behind the ids.

    Parameters
    ----------
    head, relation, tail
        int64 ``(N,)``: ``head`` and ``tail`` index ``entities``, ``relation`` indexes ``relations``. No row may repeat.
    count
        float32 ``(N,)``, finite and positive: how often the fact was stated.
    entities, relations
        Names; position is id. ``N = 0`` with no relations is valid (an input in which nothing had enough support).
    head_type, tail_type
        int64 ``(N,)`` or None: a type id of the argument in that fact.
    types
        Names of the type ids, if they have names; "" is no type.
    ingest
        Where the facts came from and what was left out, when they were read from files.

    Raises
    ------
    ValueError
        For a wrong shape, an id out of range, a count that is not finite and positive, a repeated name or fact.
    TypeError
        For a wrong dtype.

    Examples
    --------
    >>> facts = Facts.from_triples([("Paris", "capital of", "France"), ("Rome", "capital of", "Italy")])
    >>> facts.relations, facts.support.tolist(), facts.entities[int(facts.head[0])]
    (['capital of'], [2], 'Paris')
    """

    head: Tensor
    relation: Tensor
    tail: Tensor
    count: Tensor
    entities: list[str]
    relations: list[str]
    head_type: Tensor | None = None
    tail_type: Tensor | None = None
    ingest: IngestReport | None = field(default=None, repr=False)
    types: list[str] | None = None

    def __post_init__(self) -> None:
        _check_column("count", self.count, torch.float32, len(self))
        for name, size in (("head", self.num_entities), ("relation", self.num_relations), ("tail", self.num_entities)):
            ids = getattr(self, name)
            _check_column(name, ids, torch.int64, len(self))
            if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < size):
                raise ValueError(f"{name} ids run from {int(ids.min())} to {int(ids.max())}, expected 0 to {size - 1}")
        for name in ("head_type", "tail_type"):
            if (ids := getattr(self, name)) is not None:
                _check_column(name, ids, torch.int64, len(self))
                if self.types is not None and len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.types):
                    raise ValueError(f"{name} ids run to {int(ids.max())}, expected 0 to {len(self.types) - 1}")
        if len(self) and not bool((torch.isfinite(self.count) & (self.count > 0)).all()):
            row = int((~(torch.isfinite(self.count) & (self.count > 0))).nonzero()[0])
            raise ValueError(f"count of fact {row} is {float(self.count[row])}, expected finite and above 0")
        for name, names in (("entities", self.entities), ("relations", self.relations)):
            if len(set(names)) != len(names):
                seen: set[str] = set()
                twice = next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
                raise ValueError(f"{name} holds {twice!r} twice, expected distinct names")
        if (repeated := _repeated(self.relation.numpy(), self.head.numpy(), self.tail.numpy())) is not None:
            r, h, t = (int(ids[repeated]) for ids in (self.relation, self.head, self.tail))
            fact = (self.entities[h], self.relations[r], self.entities[t])
            raise ValueError(f"fact {fact} occurs more than once: one row a fact, with a count. {_AGGREGATE}")

    def __len__(self) -> int:
        """Return the number of distinct facts N."""
        return int(self.count.shape[0])

    @property
    def num_entities(self) -> int:
        """Number of entities E."""
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        """Number of relations R."""
        return len(self.relations)

    @property
    def support(self) -> Tensor:
        """Distinct facts of each relation, int64 ``(R,)``."""
        return torch.bincount(self.relation, minlength=self.num_relations)

    @property
    def mentions(self) -> Tensor:
        """Sum of the counts of each relation, float64 ``(R,)``."""
        return torch.bincount(self.relation, weights=self.count.double(), minlength=self.num_relations)

    @classmethod
    def from_triples(
        cls, triples: Iterable[Any], *, counts: Iterable[float | int] | None = None, ingest: Any = None
    ) -> Facts:
        """Build from (head, relation, tail) names; equal triples become one fact and their counts add up.

        Parameters
        ----------
        triples
            Rows of three non-empty strings.
        counts
            One positive number a row; 1 each when left out.
        ingest
            Kept as the ``ingest`` field.

        Raises
        ------
        ValueError
            For a row that is not three non-empty strings, or counts that do not match.
        """
        if isinstance(triples, str) or not isinstance(triples, Iterable):
            raise TypeError(f"triples is a {type(triples).__name__}, expected rows of (head, relation, tail)")
        rows = []
        for number, row in enumerate(triples):
            # The letters of a three-letter word would pass for a triple.
            if isinstance(row, str | bytes) or not isinstance(row, Iterable):
                raise ValueError(f"row {number} is {row!r}, expected three non-empty strings (head, relation, tail)")
            rows.append(tuple(row))
        for number, row in enumerate(rows):
            if len(row) != 3 or not all(isinstance(cell, str) and cell.strip() for cell in row):
                raise ValueError(f"row {number} is {row!r}, expected three non-empty strings (head, relation, tail)")
        head, relation, tail = ([row[i] for row in rows] for i in range(3))
        return cls._aggregate(head, relation, tail, None if counts is None else list(counts), ingest)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        head: str | None = None,
        relation: str | None = None,
        tail: str | None = None,
        count: str | None = None,
    ) -> Facts:
        """Build from a table: pandas, polars, pyarrow, a DuckDB relation, or a dict of columns.

        Names are taken as they stand; :func:`relsim.read_openie` normalises.

        Parameters
        ----------
        frame
            The table. Equal rows become one fact and their counts add up.
        head, relation, tail
            Column names; by default the first column with a usual name (head, arg1, subject, ...; relation, rel,
            predicate, ...; tail, arg2, object, ...). Values that are numbers are read as their text.
        count
            Column of counts; by default the first with a usual name (count, freq, n, ...). Without one every row counts 1.

        Raises
        ------
        ValueError
            For a missing column (the nearest name is suggested), a missing value, or unequal column lengths.
        """
        from relsim.ingest.frames import columns

        names, counts = columns(frame, {"head": head, "relation": relation, "tail": tail}, count=count)
        return cls._aggregate(names[0], names[1], names[2], counts, None)

    @classmethod
    def _aggregate(
        cls, head: Sequence[str], relation: Sequence[str], tail: Sequence[str], counts: Any, ingest: Any
    ) -> Facts:
        n = len(head)
        weight = np.ones(n) if counts is None else np.asarray(counts, dtype=np.float64)
        if weight.shape != (n,):
            raise ValueError(f"{weight.shape[0] if weight.ndim else 1} counts for {n} triples, expected one each")
        if n and not (np.isfinite(weight) & (weight > 0)).all():
            row = int((~(np.isfinite(weight) & (weight > 0))).argmax())
            raise ValueError(f"count of row {row} is {weight[row]}, expected finite and above 0")
        entities = sorted({*head, *tail})
        relations = sorted(set(relation))
        entity_id = {name: i for i, name in enumerate(entities)}
        relation_id = {name: i for i, name in enumerate(relations)}
        r = np.fromiter(map(relation_id.__getitem__, relation), np.int64, n)
        h = np.fromiter(map(entity_id.__getitem__, head), np.int64, n)
        t = np.fromiter(map(entity_id.__getitem__, tail), np.int64, n)
        order = np.lexsort((t, h, r))
        keys = np.stack([r, h, t])[:, order]
        first = np.ones(n, dtype=np.bool_)
        first[1:] = (np.diff(keys) != 0).any(axis=0)
        total = np.add.reduceat(weight[order], np.flatnonzero(first)) if n else weight
        unique = np.ascontiguousarray(keys[:, first])
        return cls(
            head=torch.from_numpy(unique[1]),
            relation=torch.from_numpy(unique[0]),
            tail=torch.from_numpy(unique[2]),
            count=torch.from_numpy(total.astype(np.float32)),
            entities=entities,
            relations=relations,
            ingest=ingest,
        )

    def select(self, relations: Sequence[int] | Tensor) -> Facts:
        """Keep the facts of some relations, renumbered in the given order; the entity vocabulary stays whole.

        Parameters
        ----------
        relations
            Distinct relation ids.

        Raises
        ------
        ValueError
            For an id out of range or given twice.
        """
        ids = torch.as_tensor(relations, dtype=torch.int64).reshape(-1)
        if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < self.num_relations):
            raise ValueError(f"relation ids {ids.tolist()[:5]} ..., expected 0 to {self.num_relations - 1}")
        if len(set(ids.tolist())) != len(ids):
            raise ValueError("a relation id is given twice, expected distinct ids")
        new = torch.full((self.num_relations,), -1, dtype=torch.int64)
        new[ids] = torch.arange(len(ids))
        keep = new[self.relation] >= 0 if len(self) else torch.zeros(0, dtype=torch.bool)
        return replace(self._rows(keep), relation=new[self.relation[keep]], relations=[self.relations[i] for i in ids])

    def split(self, fraction: float, *, seed: int) -> tuple[Facts, Facts]:
        """Split into (kept, held out), the same share of every relation held out, every relation keeping a fact.

        Parameters
        ----------
        fraction
            Share of each relation's distinct facts to hold out, rounded down; 0 <= fraction < 1.
        seed
            Decides which facts; the same seed gives the same split.

        Raises
        ------
        ValueError
            For a fraction outside [0, 1).
        """
        if not 0.0 <= fraction < 1.0:
            raise ValueError(f"fraction is {fraction}, expected 0 <= fraction < 1")
        shuffled = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        order = shuffled[torch.argsort(self.relation[shuffled], stable=True)]
        support = self.support
        start = torch.cumsum(support, 0) - support
        relation = self.relation[order]
        place = torch.arange(len(self)) - start[relation]
        held = torch.zeros(len(self), dtype=torch.bool)
        held[order] = place < torch.floor(fraction * support.double()).long()[relation]
        return self._rows(~held), self._rows(held)

    def _rows(self, keep: Tensor) -> Facts:
        names = ("head", "relation", "tail", "count", "head_type", "tail_type")
        columns = {name: value[keep] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **columns)


def _repeated(relation: Any, head: Any, tail: Any) -> int | None:
    """Row of a fact that stands twice, or None; without a sort, and in little memory, if the rows are sorted."""

    def later(rows: slice) -> Any:
        """Whether each row but the first comes after the one before it."""
        first, second = slice(rows.start, rows.stop - 1), slice(rows.start + 1, rows.stop)
        r, h, t = (column[second] - column[first] for column in (relation, head, tail))
        return (r > 0) | ((r == 0) & ((h > 0) | ((h == 0) & (t > 0))))

    n = len(relation)
    if all(later(slice(start, min(start + _CHECKED + 1, n))).all() for start in range(0, n, _CHECKED)):
        return None
    order = np.lexsort((tail, head, relation))
    same = np.ones(max(n - 1, 0), dtype=np.bool_)
    for column in (relation, head, tail):
        ordered = column[order]
        same &= ordered[1:] == ordered[:-1]
    return int(order[int(same.argmax())]) if same.any() else None


def _check_column(name: str, column: Tensor, dtype: torch.dtype, n: int) -> None:
    if not isinstance(column, Tensor) or column.dtype != dtype:
        given = column.dtype if isinstance(column, Tensor) else type(column).__name__
        raise TypeError(f"{name} is {given}, expected a {dtype} tensor. {_AGGREGATE}")
    if column.shape != (n,) or column.device.type != "cpu":
        raise ValueError(f"{name} has shape {tuple(column.shape)} on {column.device}, expected ({n},) on cpu")
