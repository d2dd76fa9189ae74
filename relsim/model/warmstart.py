"""Starting values of a fact distribution from counts: relations with like arguments start alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relsim.distribution import EntityTable, FactDistribution
from relsim.facts import Facts

__all__ = ["entity_vectors", "relation_vectors", "warm_start"]

_OVERSAMPLE, _POWER = 20, 4


def _ppmi(rows: Tensor, columns: Tensor, weight: Tensor, shape: tuple[int, int]) -> Any:
    """Positive pointwise mutual information ``max(0, log n_ij n / (n_i n_j))`` as a sparse matrix."""
    from scipy import sparse

    table = sparse.coo_matrix((weight.double().numpy(), (rows.numpy(), columns.numpy())), shape=shape)
    table.sum_duplicates()
    left, right = (np.asarray(table.sum(axis=axis), dtype=np.float64).reshape(-1) for axis in (1, 0))
    value = np.log(table.data * table.data.sum() / (left[table.row] * right[table.col]))
    keep = value > 0
    return sparse.csr_matrix((value[keep], (table.row[keep], table.col[keep])), shape=shape)


def _leading(table: Any, rank: int, seed: int) -> NDArray[np.float64]:
    """``U sqrt(S)`` of the leading singular vectors by a randomised range finder, ``(n, rank)``.

    References
    ----------
    Halko, Martinsson and Tropp, Finding structure with randomness, 2011, algorithm 4.4.
    """
    width = min(rank + _OVERSAMPLE, *table.shape)
    basis = np.linalg.qr(table @ np.random.default_rng(seed).standard_normal((table.shape[1], width)))[0]
    for _ in range(_POWER):
        basis = np.linalg.qr(table @ np.linalg.qr(table.T @ basis)[0])[0]
    u, s, _ = np.linalg.svd(np.asarray((table.T @ basis).T), full_matrices=False)
    return np.asarray((basis @ u[:, :rank]) * np.sqrt(s[:rank]))


def _one_length(factors: NDArray[np.float64], dim: int, length: float, seed: int) -> Tensor:
    """Rows with columns of 0 added up to dim, signs of the columns settled, brought to one length; empty rows random."""
    # Singular vectors have no sign of their own: the largest entry is made positive, so that it is always the same.
    signs = np.sign(factors[np.abs(factors).argmax(axis=0), np.arange(factors.shape[1])])
    rows = np.zeros((len(factors), dim))
    rows[:, : factors.shape[1]] = factors * signs
    norm = np.linalg.norm(rows, axis=1)
    empty = norm <= 1e-6 * norm.max(initial=0.0)
    rows[empty] = np.random.default_rng(seed).standard_normal((int(empty.sum()), dim))
    return torch.from_numpy(rows * (length / np.linalg.norm(rows, axis=1, keepdims=True))).float()


def entity_vectors(facts: Facts, dim: int, *, seed: int = 0) -> Tensor:
    """Vectors of length 1 from what each entity stands beside: its neighbours, and the relations on either side.

    ``U sqrt(S)`` of the positive pointwise mutual information of the ``E x (E + 2 R)`` table.

    Parameters
    ----------
    facts
        At least one fact.
    dim
        Width d.
    seed
        Of the start of the decomposition, and of the vectors of entities without facts.

    Returns
    -------
    Tensor
        float32 ``(E, d)``.
    """
    e, r = facts.num_entities, facts.num_relations
    rows = torch.cat([facts.head, facts.tail, facts.head, facts.tail])
    columns = torch.cat([facts.tail, facts.head, e + facts.relation, e + r + facts.relation])
    table = _ppmi(rows, columns, facts.count.repeat(4), (e, e + 2 * r))
    return _one_length(_leading(table, min(dim, e), seed), dim, 1.0, seed)


def relation_vectors(facts: Facts, dim: int, *, length: float = 3.0, seed: int = 0) -> Tensor:
    """Vectors of one length from the mean vector of the heads and that of the tails, float32 ``(R, d)``.

    ``U sqrt(S)`` of the centred ``R x 2 d`` table of the means of :func:`entity_vectors`.

    Parameters
    ----------
    facts, dim, seed
        As in :func:`entity_vectors`.
    length
        Length of each vector.
    """
    entity, weight = entity_vectors(facts, dim, seed=seed).double(), facts.count.double()[:, None]
    means = []
    for ids in (facts.head, facts.tail):
        total = torch.zeros(facts.num_relations, dim + 1, dtype=torch.float64)
        total.index_add_(0, facts.relation, torch.cat([weight * entity[ids], weight], 1))
        means.append(total[:, :dim] / total[:, dim:].clamp(min=torch.finfo(torch.float64).tiny))
    table = torch.cat(means, 1)
    u, s, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return _one_length((u * s.sqrt()).numpy()[:, :dim], dim, length, seed)


@torch.no_grad()
def warm_start(model: FactDistribution, facts: Facts, *, seed: int = 0) -> None:
    """Set the relation vectors, and the entity table where the model has a free one, from counts, in place.

    Two relations with the same arguments then start at the same point, so what training adds to their divergence is
    what their facts say and not where chance had put them.

    Parameters
    ----------
    model
        A model that has not been fitted.
    facts
        What it will be fitted to; sizes must be those of the model.
    seed
        See :func:`entity_vectors`.

    Raises
    ------
    ValueError
        For facts of other sizes, or none.
    """
    sizes, expected = (facts.num_entities, facts.num_relations), (model.num_entities, model.num_relations)
    if sizes != expected or len(facts) == 0:
        raise ValueError(f"facts have (entities, relations) = {sizes} and {len(facts)} rows, the model has {expected}")
    length = float(model.relation.norm(dim=1).median())
    model.relation.copy_(relation_vectors(facts, model.dim, length=length, seed=seed))
    if isinstance(model.entity, EntityTable):
        model.entity.weight.copy_(entity_vectors(facts, model.dim, seed=seed))
