"""Rows of sparse matrices: their sums, shares, weights by rarity, and unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["row_shares", "row_sums", "tfidf", "unit_rows"]


def row_sums(matrix: Any) -> NDArray[np.float64]:
    """Sum of each row of a sparse ``(R, n)``, float64 ``(R,)``."""
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).reshape(-1)


def row_shares(matrix: Any) -> Any:
    """Rows divided by their sums, sparse ``(R, n)``; an empty row stays empty."""
    return _scaled(matrix, row_sums(matrix))


def unit_rows(matrix: Any) -> Any:
    """Rows divided by their Euclidean length, sparse ``(R, n)``; an empty row stays empty."""
    return _scaled(matrix, np.sqrt(row_sums(matrix.multiply(matrix))))


def tfidf(matrix: Any, df: NDArray[np.float64] | None = None) -> Any:
    """``log(1 + count) * log(1 + R / df)``, sparse ``(R, n)``.

    Parameters
    ----------
    matrix
        Counts, sparse ``(R, n)``.
    df
        How many rows have each column, ``(n,)``; counted here when left out.
    """
    frequency = np.asarray(matrix.sign().sum(axis=0)).reshape(-1) if df is None else df
    return matrix.log1p().multiply(np.log1p(matrix.shape[0] / np.maximum(frequency, 1.0))).tocsr()


def _scaled(matrix: Any, size: NDArray[np.float64]) -> Any:
    from scipy import sparse

    return (sparse.diags(np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)) @ matrix).tocsr()
