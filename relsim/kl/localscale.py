"""Ranking by divergence relative to the neighbourhood, for relations that lie in regions of different density."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["local_scaling"]


def local_scaling(divergence: NDArray[np.float64], *, neighbours: int = 10, floor: float = 1e-3) -> NDArray[np.float64]:
    r"""Cross-domain similarity local scaling of symmetric divergences: larger means more alike than the surroundings.

    .. math:: s_{ij} = \tfrac12 (m_i + m_j) - \log(D_{ij} + \varepsilon), \qquad
              m_i = \text{mean of } \log(D_{ij} + \varepsilon) \text{ over the nearest } j \ne i

    One threshold on D treats a pair of currencies, among which everything is close, like a pair of places, among which
    nothing is. Groups about as large as ``neighbours`` lose what small groups win, so it suits lists in which few
    relations mean the same.

    Parameters
    ----------
    divergence
        ``(R, R)``, symmetric, at least 0; the diagonal is not looked at.
    neighbours
        At least 1; at most the R - 1 others are used.
    floor
        Epsilon above 0: divergences far below it count as equal.

    Returns
    -------
    NDArray
        float64 ``(R, R)``, symmetric; the diagonal is infinite.

    Raises
    ------
    ValueError
        For a matrix that is not square, symmetric and at least 0, or parameters out of range.

    References
    ----------
    Conneau et al., Word Translation Without Parallel Data, ICLR 2018, section 2.3.
    """
    size = len(divergence)
    if divergence.shape != (size, size) or size < 2 or not np.array_equal(divergence, divergence.T):
        raise ValueError(f"divergence has shape {divergence.shape}, expected square, symmetric, at least 2 relations")
    if neighbours < 1 or not floor > 0:
        raise ValueError(f"neighbours is {neighbours} and floor {floor}, expected at least 1 and above 0")
    apart = ~np.eye(size, dtype=np.bool_)
    if not (divergence[apart] >= 0).all():
        raise ValueError(f"the smallest divergence is {divergence[apart].min()}, expected at least 0")
    value = np.log(np.where(apart, divergence, np.inf) + floor)
    near = np.sort(value, axis=1)[:, : min(neighbours, size - 1)].mean(axis=1)
    return np.asarray(0.5 * (near[:, None] + near[None, :]) - np.where(apart, value, -np.inf))
