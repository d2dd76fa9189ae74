"""Node features as the published scripts prepare them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from lorentz import SparseMatrix
from tasks.data.graphs import Graph

__all__ = ["Inputs", "has_negative", "node_features", "sparse_dropout"]

Inputs = Tensor | SparseMatrix
DENSE = 64  # columns up to which features are kept dense
HIGHEST_DEGREE = 5


def _degrees(edges: np.ndarray, nodes: int) -> np.ndarray:
    """Degree one-hot, 5 and above together, and a constant; a loop counts twice."""
    degree = np.bincount(edges.ravel(), minlength=nodes).clip(max=HIGHEST_DEGREE)
    return np.concatenate([np.eye(HIGHEST_DEGREE + 1)[degree], np.ones((nodes, 1))], 1)


def has_negative(features: sp.spmatrix | np.ndarray | None) -> bool:
    """Whether features have a value below 0, for which a division by the sum of a row was not made."""
    return features is not None and bool(features.min() < 0)


def node_features(graph: Graph, edges: np.ndarray, *, classify: bool, normalise: bool) -> Inputs:
    """Features (N, d): a float32 tensor, or a sparse matrix where there are many columns.

    Parameters
    ----------
    edges : of the graph that passes messages, whose degrees count
    classify : leave out the column from which the labels were made
    normalise : divide each row by its sum, where that is not 0
    """
    if graph.features is None:
        every = torch.arange(graph.nodes)
        return SparseMatrix(torch.stack([every, every]), None, (graph.nodes, graph.nodes))
    matrix = sp.csr_matrix(graph.features, dtype=np.float64)
    if classify and graph.label_column is not None:
        kept = [i for i in range(matrix.shape[1]) if i != graph.label_column]
        matrix = matrix[:, kept]
    if normalise:
        total = np.asarray(matrix.sum(1)).ravel()
        matrix = sp.diags(np.divide(1.0, total, out=np.zeros_like(total), where=total != 0)) @ matrix
    if graph.degrees:
        matrix = sp.hstack([matrix, _degrees(edges, graph.nodes)])
    if matrix.shape[1] <= DENSE:
        return torch.from_numpy(matrix.toarray()).float()
    entries = matrix.tocoo()
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    return SparseMatrix(index, torch.from_numpy(entries.data).float(), matrix.shape)


def sparse_dropout(features: SparseMatrix, p: float) -> SparseMatrix:
    """Dropout of the entries, which for those that are 0 changes nothing."""
    return features if p == 0 else features.with_value(torch.nn.functional.dropout(features.value, p))
