"""What kind of things a relation is about: profiles of argument words and argument types, and their centred cosine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Float, dot
from relsim.facts import Facts
from relsim.maths.rows import row_sums, tfidf, unit_rows
from relsim.phrases.text import tokens

__all__ = ["Profiles", "Types"]

Types = Mapping[str, Sequence[str]]


class Profiles:
    """Bags of words and of types that the arguments of each relation have, as sparse unit vectors.

    Every bag is ``log(1 + count) * log(1 + R / df)``, scaled to length 1. The cosine is taken after the mean of all
    relations is subtracted, ``cos(x_i - m, x_j - m)``: what all phrases share (people on the left) says nothing of two.

    Parameters
    ----------
    facts
        The facts.
    types
        Entity to the names or ids of its types; an entity may be missing. Without it type measures are not available.
    """

    def __init__(self, facts: Facts, *, types: Types | None = None) -> None:
        self.facts = facts
        self.types = types

    def words(self, i: NDArray[np.int64], j: NDArray[np.int64], *, swapped: bool = False) -> Float:
        """Centred cosine of the words of the arguments, each side apart, ``(P,)``, -1 to 1."""
        return self._cosine(self._words, i, j, swapped)

    def kinds(self, i: NDArray[np.int64], j: NDArray[np.int64], *, swapped: bool = False) -> Float:
        """Centred cosine of the types of the arguments, each side apart, ``(P,)``, -1 to 1."""
        return self._cosine(self._kinds, i, j, swapped)

    def signatures(self, i: NDArray[np.int64], j: NDArray[np.int64], *, swapped: bool = False) -> Float:
        """Centred cosine of the pairs of types, ``(P,)``, -1 to 1."""
        return self._cosine(self._signatures, i, j, swapped)

    def everything(self, i: NDArray[np.int64], j: NDArray[np.int64], *, swapped: bool = False) -> Float:
        """Centred cosine of argument words, argument types and the stems of the phrase in one bag, ``(P,)``, -1 to 1.

        The stems are left out when swapped: the words of a phrase do not say which argument comes first.
        """
        return self._cosine(self._no_stems if swapped else self._everything, i, j, swapped)

    def _cosine(self, bags: tuple[Any, Any], i: NDArray[np.int64], j: NDArray[np.int64], swapped: bool) -> Float:
        one, two = bags[0], bags[1] if swapped else bags[0]
        mean_one, mean_two = (np.asarray(bag.mean(axis=0)).reshape(-1) for bag in (one, two))
        between = float(mean_one @ mean_two)
        inner = dot(one, two, (i, j)) - (one @ mean_two)[i] - (two @ mean_one)[j] + between
        norms = []
        for bag, mean, at in ((one, mean_one, i), (two, mean_two, j)):
            own = row_sums(bag.multiply(bag))
            norms.append(np.sqrt(np.maximum(own - 2.0 * (bag @ mean) + mean @ mean, 0.0))[at])
        size = norms[0] * norms[1]
        # A bag that equals the mean has no direction: 0, not the rounding of 0 / 0.
        return np.asarray(np.divide(inner, size, out=np.zeros_like(inner), where=size > 1e-12))

    @cached_property
    def _entity_words(self) -> list[list[str]]:
        return [tokens(name) for name in self.facts.entities]

    @cached_property
    def _entity_types(self) -> list[Sequence[str]]:
        if self.types is None:
            raise ValueError("no types were given: pass types={entity: [type, ...]}")
        return [self.types.get(name, ()) for name in self.facts.entities]

    @cached_property
    def _words(self) -> tuple[Any, Any]:
        return self._two(self._sided(self._entity_words))

    @cached_property
    def _kinds(self) -> tuple[Any, Any]:
        return self._two(self._sided(self._entity_types))

    @cached_property
    def _signatures(self) -> tuple[Any, Any]:
        kinds = self._entity_types

        def both(swapped: bool) -> Iterable[tuple[int, Any]]:
            for r, h, t in self._rows():
                for a in kinds[h]:
                    for b in kinds[t]:
                        yield r, (b, a) if swapped else (a, b)

        return self._two(both)

    @cached_property
    def _everything(self) -> tuple[Any, Any]:
        return self._two(self._mixed(stems=True))

    @cached_property
    def _no_stems(self) -> tuple[Any, Any]:
        return self._two(self._mixed(stems=False))

    def _rows(self) -> Iterable[tuple[int, int, int]]:
        facts = self.facts
        return zip(facts.relation.tolist(), facts.head.tolist(), facts.tail.tolist(), strict=True)

    def _sided(self, labels: Sequence[Sequence[str]]) -> Any:
        def cells(swapped: bool) -> Iterable[tuple[int, Any]]:
            for r, h, t in self._rows():
                for side, entity in enumerate((t, h) if swapped else (h, t)):
                    for label in labels[entity]:
                        yield r, (side, label)

        return cells

    def _mixed(self, *, stems: bool) -> Any:
        parts = [self._sided(self._entity_words)]
        if self.types is not None:
            typed = self._sided(self._entity_types)
            parts.append(lambda swapped: ((r, ("type", *cell)) for r, cell in typed(swapped)))
        said = [tokens(phrase) for phrase in self.facts.relations]

        def cells(swapped: bool) -> Iterable[tuple[int, Any]]:
            for part in parts:
                yield from part(swapped)
            if stems:
                # Once a fact, like an argument's words, so that a phrase of many facts is not drowned by them.
                for r, _, _ in self._rows():
                    yield from ((r, ("stem", word)) for word in said[r])

        return cells

    def _two(self, cells: Any) -> tuple[Any, Any]:
        """The bags as they are and with the arguments exchanged, over the same columns."""
        from scipy import sparse

        columns: dict[Any, int] = {}
        size = self.facts.num_relations
        found = []
        for swapped in (False, True):
            place = [(r, columns.setdefault(cell, len(columns))) for r, cell in cells(swapped)]
            found.append(np.array(place, dtype=np.int64).reshape(-1, 2))
        out = []
        for rows in found:
            shape = (size, max(len(columns), 1))
            bag = sparse.csr_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=shape)
            out.append(unit_rows(tfidf(bag)))
        return out[0], out[1]
