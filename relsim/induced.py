"""Types of entities where none are given: clusters of entities that stand in the same relations."""

from __future__ import annotations

import numpy as np

from relsim.facts import Facts

__all__ = ["induced_types"]


def induced_types(facts: Facts, *, clusters: int | None = None, dim: int = 32, seed: int = 0) -> dict[str, list[str]]:
    """Group entities by the relations and sides they occur in: truncated SVD, then k-means.

    Row e of the matrix counts how often e is head or tail of each relation, as ``log(1 + count) * log(1 + E / df)`` of
    length 1; its left singular vectors, scaled, are clustered. An entity seen in a single fact has no type: its only
    relation would be its type.

    Parameters
    ----------
    facts
        The facts.
    clusters
        Number of clusters; by default ``sqrt(entities with two facts or more)``, 2 to 128.
    dim
        Singular vectors kept.
    seed
        Of k-means and the start of the SVD.

    Returns
    -------
    dict
        Entity to ``["type K"]``; entities without evidence are missing.
    """
    from scipy import sparse
    from scipy.sparse.linalg import svds
    from sklearn.cluster import MiniBatchKMeans

    size, relations = facts.num_entities, facts.num_relations
    head, tail, relation = facts.head.numpy(), facts.tail.numpy(), facts.relation.numpy()
    weight = np.concatenate([facts.count.double().numpy()] * 2)
    where = (np.concatenate([head, tail]), np.concatenate([relation, relation + relations]))
    table = sparse.csr_matrix((weight, where), shape=(size, 2 * relations))
    seen = np.bincount(where[0], minlength=size)
    rows = np.flatnonzero(seen >= 2)
    rank = min(dim, len(rows) - 1, 2 * relations - 1)
    if rank < 1:
        return {}
    table = table[rows].log1p()
    df = np.asarray(table.sign().sum(axis=0)).reshape(-1)
    table = table.multiply(np.log1p(len(rows) / np.maximum(df, 1.0))).tocsr()
    length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).reshape(-1))
    table = sparse.diags(1.0 / length) @ table
    start = np.random.default_rng(seed).standard_normal(min(table.shape))
    left, value, _ = svds(table, k=rank, v0=start)
    points = left * value
    count = clusters or int(np.clip(np.sqrt(len(rows)), 2, 128))
    label = MiniBatchKMeans(min(count, len(rows)), random_state=seed, n_init=3).fit_predict(points)
    return {facts.entities[e]: [f"type {k}"] for e, k in zip(rows.tolist(), label.tolist(), strict=True)}
