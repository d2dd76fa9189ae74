"""Phrase similarity by a sentence encoder that the caller hands over: any function from texts to vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Float
from relsim.evidence.profiles import Types
from relsim.facts import Facts

__all__ = ["VIEWS", "Encoded", "Encoder"]

Encoder = Callable[[list[str]], Any]
_VIEWS: dict[str, Callable[[str, str, str], str]] = {
    "phrase": lambda h, r, t: r,
    "fact": lambda h, r, t: f"{h} {r} {t}",
    "object": lambda h, r, t: f"it {r} {t}",
    "heads": lambda h, r, t: h,
    "tails": lambda h, r, t: t,
}
VIEWS = (*_VIEWS, "typed")


class Encoded:
    """Mean vectors of the texts of each relation's facts, centred over the relations, of length 1.

    Views: ``phrase`` (the phrase alone), ``fact`` (head, phrase, tail), ``object`` (it, phrase, tail), ``heads`` and
    ``tails`` (the arguments alone), and with types ``typed`` (type of head, phrase, type of tail).

    Parameters
    ----------
    facts
        The facts.
    encoder
        Texts to an array ``(n, d)``, one row a text in order.
    types
        Entity to its type names, words rather than ids; the first one is used, the entity itself where it has none.
    most
        Facts a relation that are read, the most counted first.

    Raises
    ------
    ValueError
        When the encoder returns another shape, or a value that is not finite.
    """

    def __init__(self, facts: Facts, encoder: Encoder, *, types: Types | None = None, most: int = 20) -> None:
        self.facts = facts
        rows = _first_facts(facts, most)
        relation = facts.relation.numpy()[rows]
        names, phrases = facts.entities, facts.relations
        triples = [
            (names[h], phrases[r], names[t])
            for h, r, t in zip(
                facts.head.numpy()[rows].tolist(), relation.tolist(), facts.tail.numpy()[rows].tolist(), strict=True
            )
        ]
        weight = facts.count.double().numpy()[rows]
        views = {name: [view(*triple) for triple in triples] for name, view in _VIEWS.items()}
        if types is not None:
            views["typed"] = [f"{_named(types, h)} {r} {_named(types, t)}" for h, r, t in triples]
        texts = sorted({text for view in views.values() for text in view})
        place = {text: k for k, text in enumerate(texts)}
        vectors = np.asarray(encoder(texts), dtype=np.float64) if texts else np.zeros((0, 1))
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ValueError(
                f"the encoder returned shape {vectors.shape} for {len(texts)} texts, expected one row of finite "
                "numbers a text"
            )
        self.vectors = {
            name: _centred(vectors[[place[text] for text in view]], relation, weight, facts.num_relations)
            for name, view in views.items()
        }

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views there are."""
        return tuple(self.vectors)

    def cosine(self, view: str, i: NDArray[np.int64], j: NDArray[np.int64]) -> Float:
        """Centred cosine of a view, ``(P,)``, -1 to 1."""
        vectors = self.vectors[view]
        return np.asarray(np.einsum("pd,pd->p", vectors[i], vectors[j]))


def _named(types: Types, entity: str) -> str:
    found: Sequence[str] = types.get(entity, ())
    return found[0] if found else entity


def _first_facts(facts: Facts, most: int) -> NDArray[np.int64]:
    """Rows of the ``most`` most counted facts of each relation, in the order of the facts."""
    relation, count = facts.relation.numpy(), facts.count.numpy()
    order = np.lexsort((np.arange(len(facts)), -count, relation))
    support = np.bincount(relation, minlength=facts.num_relations)
    rank = np.arange(len(facts)) - np.repeat(np.cumsum(support) - support, support)
    return np.sort(order[rank < most])


def _centred(vectors: Float, relation: NDArray[np.int64], weight: Float, size: int) -> Float:
    from scipy import sparse

    mean = sparse.csr_matrix((weight, (relation, np.arange(len(relation)))), shape=(size, len(relation))) @ vectors
    mean = _unit(np.asarray(mean))
    return _unit(mean - mean.mean(axis=0))


def _unit(vectors: Float) -> Float:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 1e-12))
