"""A type for every entity: given with the facts, or induced by clustering entities by the relations they stand in."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relsim.facts import Facts
from relsim.maths.rows import tfidf, unit_rows

__all__ = ["entity_types", "given_types", "induced_types", "type_names"]


def entity_types(facts: Facts, *, types: int | None = None, seed: int = 0) -> Tensor:
    """Type id of every entity, int64 ``(E,)``: the given ones where the facts have them, else induced ones."""
    return induced_types(facts, types=types, seed=seed) if facts.head_type is None else given_types(facts)


def given_types(facts: Facts) -> Tensor:
    """The type each entity most often has as an argument, int64 ``(E,)``; one more type for entities without any.

    Raises
    ------
    ValueError
        For facts that carry no types.
    """
    if facts.head_type is None or facts.tail_type is None:
        raise ValueError("the facts carry no head_type and tail_type: use induced_types(facts)")
    kind = torch.cat([facts.head_type, facts.tail_type])
    size = int(kind.max()) + 1 if len(kind) else 0
    key, count = torch.cat([facts.head, facts.tail]) * size + kind, facts.count.double().repeat(2)
    if facts.types is not None and "" in facts.types:  # an argument without a type
        typed = kind != list(facts.types).index("")
        key, count = key[typed], count[typed]
    found, place = torch.unique(key, return_inverse=True)
    votes = torch.zeros(len(found), dtype=torch.float64).index_add_(0, place, count)
    order = torch.argsort(votes, stable=True)  # the last write, that of the most votes, stays
    result = torch.full((facts.num_entities,), size, dtype=torch.int64)
    for entity, own in zip((found[order] // size).tolist(), (found[order] % size).tolist(), strict=True):
        result[entity] = own
    return result


def induced_types(facts: Facts, *, types: int | None = None, dim: int = 32, seed: int = 0) -> Tensor:
    """Types by clustering entities by the relations and sides they occur in: truncated SVD, then k-means.

    Row e of the matrix counts how often e is head or tail of each relation, as ``log(1 + count) * log(1 + E / df)`` of
    length 1; its left singular vectors, scaled, are clustered. An entity seen in a single fact has no type: its only
    relation would be its type.

    Parameters
    ----------
    facts
        The facts.
    types
        Number of types; by default ``sqrt(entities with two facts or more)``, 2 to 128.
    dim
        Singular vectors kept.
    seed
        Of k-means and the SVD: equal arguments give equal types.

    Returns
    -------
    Tensor
        int64 ``(E,)``; entities without a type have the id after the last.

    Raises
    ------
    ValueError
        For fewer than 1 type, or more than entities.
    """
    rows, label, size = _clusters(facts, types, dim, seed)
    result = torch.full((facts.num_entities,), size, dtype=torch.int64)
    result[torch.from_numpy(rows)] = torch.from_numpy(label)
    return result


def type_names(facts: Facts, *, types: int | None = None, dim: int = 32, seed: int = 0) -> dict[str, list[str]]:
    """Entity to ``["type K"]``, K as in :func:`induced_types`; entities without a type are missing."""
    rows, label, _ = _clusters(facts, types, dim, seed)
    return {facts.entities[e]: [f"type {k}"] for e, k in zip(rows.tolist(), label.tolist(), strict=True)}


def _clusters(facts: Facts, types: int | None, dim: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Entities of two facts or more, the cluster of each, and the number of clusters."""
    from scipy import sparse
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.utils.extmath import randomized_svd

    size, relations = facts.num_entities, facts.num_relations
    if types is not None and not 1 <= types <= size:
        raise ValueError(f"types is {types}, expected from 1 to the {size} entities")
    entity = np.concatenate([facts.head.numpy(), facts.tail.numpy()])
    column = np.concatenate([facts.relation.numpy(), facts.relation.numpy() + relations])
    weight = np.concatenate([facts.count.double().numpy()] * 2)
    rows = np.flatnonzero(np.bincount(entity, minlength=size) >= 2)
    rank = min(dim, len(rows) - 1, 2 * relations - 1)
    if rank < 1:
        return rows[:0], rows[:0], 0
    table = unit_rows(tfidf(sparse.csr_matrix((weight, (entity, column)), shape=(size, 2 * relations))[rows]))
    # SciPy's ARPACK is given a start and still returns other vectors at every call where the table has no full rank.
    left, value, _ = randomized_svd(table, rank, n_oversamples=20, n_iter=7, random_state=seed)
    count = min(int(np.clip(np.sqrt(len(rows)), 2, 128)) if types is None else types, len(rows))
    label = MiniBatchKMeans(count, random_state=seed, n_init=3).fit_predict(left * value)
    return rows, label.astype(np.int64), count
