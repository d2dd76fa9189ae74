"""Sparse count matrices of facts, and the products of their rows that every count measure is made of."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from relsim.facts import Facts
from relsim.maths.rows import row_sums

if TYPE_CHECKING:
    from relsim.evidence.contradiction import Coverage

__all__ = ["At", "Counts", "Float", "dot"]

Float = NDArray[np.float64]
# Where to evaluate a measure: every pair (None), some rows against all relations, or pairs (i, j).
At = None | NDArray[np.int64] | tuple[NDArray[np.int64], NDArray[np.int64]]

_CHUNK = 1 << 17


def dot(a: Any, b: Any, at: At = None) -> Float:
    """Inner products of the rows of two sparse matrices.

    Parameters
    ----------
    a, b
        Sparse ``(R, n)``.
    at
        None for ``(R, R)``; ids ``(B,)`` of rows of ``a`` for ``(B, R)``; a pair of id arrays ``(P,)`` for ``(P,)``.
    """
    if at is None:
        return np.asarray((a @ b.T).toarray(), dtype=np.float64)
    if isinstance(at, tuple):
        i, j = at
        out = np.empty(len(i))
        for start in range(0, len(i), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = row_sums(a[i[part]].multiply(b[j[part]]))
        return out
    return np.asarray((a[at] @ b.T).toarray(), dtype=np.float64)


class Counts:
    """Head, tail and pair counts of every relation as sparse matrices, built once and reused by every measure.

    Parameters
    ----------
    facts
        The facts.
    weight
        float64 ``(N,)``: counts to use instead of ``facts.count`` (a bootstrap replicate); facts of weight 0 vanish.
    """

    def __init__(self, facts: Facts, *, weight: Float | None = None) -> None:
        self.facts = facts
        self._weight = facts.count.double().numpy() if weight is None else weight

    def _matrix(self, columns: NDArray[np.int64], size: int, weight: Float) -> Any:
        from scipy import sparse

        shape = (self.facts.num_relations, max(size, 1))
        matrix = sparse.csr_matrix((weight, (self.facts.relation.numpy(), columns)), shape=shape)
        matrix.eliminate_zeros()
        return matrix

    @cached_property
    def head(self) -> Any:
        """Sparse ``(R, E)``: how often each relation has each head."""
        return self._matrix(self.facts.head.numpy(), self.facts.num_entities, self._weight)

    @cached_property
    def tail(self) -> Any:
        """Sparse ``(R, E)``: how often each relation has each tail."""
        return self._matrix(self.facts.tail.numpy(), self.facts.num_entities, self._weight)

    @cached_property
    def _pairs(self) -> tuple[Any, Any]:
        # One column a distinct pair; the swapped matrix holds fact (h, t) in the column of (t, h), if that exists.
        h, t = self.facts.head.numpy(), self.facts.tail.numpy()
        n = max(self.facts.num_entities, 1)
        keys, column = np.unique(np.concatenate([h * n + t, t * n + h]), return_inverse=True)
        ones = (self._weight > 0).astype(np.float64)
        straight, swapped = column.reshape(2, -1)
        return self._matrix(straight, len(keys), ones), self._matrix(swapped, len(keys), ones)

    @property
    def pair(self) -> Any:
        """Sparse ``(R, pairs)``: 1 where the relation has the argument pair."""
        return self._pairs[0]

    @property
    def pair_swapped(self) -> Any:
        """Sparse ``(R, pairs)``: 1 where the relation has the argument pair the other way round."""
        return self._pairs[1]

    @cached_property
    def total(self) -> Float:
        """Float64 ``(R,)``: counts of each relation."""
        return row_sums(self.head)

    @cached_property
    def coverage(self) -> dict[str, Coverage]:
        """For "head" and "tail", how many different others each relation has with each argument."""
        from relsim.evidence.contradiction import Coverage

        seen = (self._weight > 0).astype(np.float64)
        sides = {"head": self.facts.head.numpy(), "tail": self.facts.tail.numpy()}
        return {name: Coverage(self._matrix(ids, self.facts.num_entities, seen)) for name, ids in sides.items()}

    @cached_property
    def text(self) -> Any:
        """Sparse ``(R, V)`` tokens of the phrases and their weights ``(V,)``."""
        from relsim.phrases.text import token_matrix

        return token_matrix(self.facts.relations)

    @property
    def fact_square(self) -> Float:
        """Float64 ``(R,)``: sum of the squared counts of the facts of each relation."""
        relation = self.facts.relation.numpy()
        return np.bincount(relation, weights=self._weight**2, minlength=self.facts.num_relations).astype(np.float64)
