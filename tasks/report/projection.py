"""Points of hyperbolic space of any dimension, shown on the Poincaré disk, with the distortion that this costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["DiskView", "hyperbolic_distance", "to_disk"]

Array = NDArray[np.float64]

_MAX_PAIRS = 50_000


def hyperbolic_distance(x: ArrayLike, y: ArrayLike, *, k: float = 1.0) -> Array:
    """Return the geodesic distance of points given by their space coordinates.

    ``sinh^2(d / 2 sqrt k) = sinh^2((a - b) / 2) + sinh a sinh b |x/|x| - y/|y||^2 / 4`` with ``sinh a = |x| / sqrt k``,
    a sum of squares: nothing cancels.

    Parameters
    ----------
    x, y
        Space coordinates, shape ``(..., d - 1)``.
    k
        Curvature is ``-1 / k``.

    Returns
    -------
    array
        Shape ``(...)``, not negative.
    """
    x, y = np.asarray(x, dtype=float) / np.sqrt(k), np.asarray(y, dtype=float) / np.sqrt(k)
    p, q = np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1)
    apart = x / np.where(p > 0, p, 1)[..., None] - y / np.where(q > 0, q, 1)[..., None]
    radial = np.sinh((np.arcsinh(p) - np.arcsinh(q)) / 2)
    return np.asarray(2 * np.sqrt(k) * np.arcsinh(np.sqrt(radial**2 + p * q * (apart**2).sum(axis=-1) / 4)))


@dataclass(frozen=True)
class DiskView:
    """A two-dimensional picture of points of hyperbolic space.

    Parameters
    ----------
    points
        Shape ``(n, 2)``, inside the unit circle.
    distortion
        Mean relative error of pairwise distances, ``|d_disk - d| / d``: 0 is a faithful picture. NaN if no two points
        differ.
    n_pairs
        Pairs behind that mean.
    """

    points: Array
    distortion: float
    n_pairs: int

    @property
    def note(self) -> str:
        """One sentence to be printed beside the picture."""
        return (
            f"mean relative error of pairwise distances in this picture, which has two dimensions of many: "
            f"{self.distortion:.2f} ({self.n_pairs} pairs)"
        )


def to_disk(space: ArrayLike, *, k: float = 1.0, centre: str = "centroid") -> DiskView:
    """Show points of hyperbolic space of any dimension on the disk, by PCA in the tangent space at a centre.

    The points are boosted so that the centre is the origin, taken to its tangent space by log, projected onto the two
    directions of largest second moment, and taken back by exp: distances to the centre can only shrink.

    Parameters
    ----------
    space
        Space coordinates on the hyperboloid ``<x, x>_L = -k``, shape ``(n, d - 1)``.
    k
        Curvature is ``-1 / k``.
    centre
        "centroid" (Lorentz centroid of the points) or "origin".

    Raises
    ------
    ValueError
        For another shape, values that are not finite, or an unknown centre.
    """
    x = np.asarray(space, dtype=float)
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"expected space coordinates of shape (n, d - 1), got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x).all(axis=1)).sum())} of {len(x)} points are not finite")
    if centre not in ("centroid", "origin"):
        raise ValueError(f"unknown centre {centre!r}, expected 'centroid' or 'origin'")
    x = x / np.sqrt(k)
    moved = _boost_to_origin(x) if centre == "centroid" else x
    norm = np.linalg.norm(moved, axis=1, keepdims=True)
    tangent = moved * (np.arcsinh(norm) / np.where(norm > 0, norm, 1))
    axes = np.linalg.svd(tangent, full_matrices=False)[2][:2]
    # Singular vectors have no sign of their own: let the largest entry be positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    flat = tangent @ axes.T
    flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(length > 0, length, 1)
    first, second = _pairs(len(x))
    true = hyperbolic_distance(x[first], x[second])
    lifted = unit * np.sinh(length)
    seen = hyperbolic_distance(lifted[first], lifted[second])
    apart = true > 0
    error = np.abs(seen - true)[apart] / true[apart]
    return DiskView(unit * np.tanh(length / 2), float(error.mean()) if len(error) else float("nan"), len(error))


def _boost_to_origin(x: Array) -> Array:
    """Boost (k = 1) that takes the points' centroid to the origin: ``s - m (t + t') / (1 + m_t)``, t' the new time."""
    time = np.sqrt(1 + (x**2).sum(axis=1))
    total, total_time = x.sum(axis=0), time.sum()
    scale = np.sqrt((total_time - np.linalg.norm(total)) * (total_time + np.linalg.norm(total)))
    mean, mean_time = total / scale, total_time / scale
    new_time = mean_time * time - x @ mean
    return np.asarray(x - mean * ((time + new_time) / (1 + mean_time))[:, None])


def _pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of n points, or a fixed random sample of them."""
    if n * (n - 1) // 2 <= _MAX_PAIRS:
        first, second = np.triu_indices(n, 1)
        return first, second
    rng = np.random.default_rng(0)
    first = rng.integers(n, size=_MAX_PAIRS)
    return first, (first + rng.integers(1, n, size=_MAX_PAIRS)) % n
