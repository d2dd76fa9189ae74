"""Rotations of space coordinates as functions: of one rotation, or of one for each row of a batch."""

from __future__ import annotations

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor

from .forms import at_least_float32

__all__ = ["PARAMETRISATIONS", "givens", "rotation_matrix"]

PARAMETRISATIONS = ("matrix_exp", "cayley", "householder")


def givens(space: Float[Tensor, "*batch n"], angles: Float[Tensor, "*b pairs"]) -> Float[Tensor, "*batch n"]:
    r"""Rotate the pairs (i, i + n/2) of coordinates: :math:`(a\cos\phi - b\sin\phi,\; a\sin\phi + b\cos\phi)`.

    The block-diagonal rotation, and the product with :math:`e^{i\phi}` of complex numbers a + ib; no matrix is formed.

    Parameters
    ----------
    space : Tensor, shape (..., n), n >= 2; of an odd n the last coordinate stays
    angles : Tensor, shape (..., n // 2), broadcast over the rows, in radians

    Returns
    -------
    Tensor, shape (..., n), of the same norms, in the dtype of `space`; computed in float32 at least.

    Raises
    ------
    ValueError : not one angle for each pair of coordinates.
    """
    n = space.shape[-1]
    if n < 2 or angles.shape[-1] != n // 2:
        raise ValueError(
            f"vectors of {n} coordinates take an angle for each of their {n // 2} pairs, at least one; "
            f"got {angles.shape[-1]}"
        )
    wide = at_least_float32(space)
    cos, sin = angles.cos().to(wide), angles.sin().to(wide)
    half = n // 2
    a, b = wide[..., :half], wide[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, wide[..., 2 * half :]], -1).to(space.dtype)


def rotation_matrix(raw: Float[Tensor, "..."], *, parametrisation: str = "matrix_exp") -> Float[Tensor, "..."]:
    r"""Rotation matrices of free parameters; see :class:`lorentz.Rotation` for the parametrisations.

    Parameters
    ----------
    raw : Tensor, shape (..., n (n - 1) / 2), the strict lower triangle of A in rows; for ``"householder"``
        (..., n, count), reflection vectors in columns
    parametrisation : str, one of ``PARAMETRISATIONS``

    Returns
    -------
    Tensor, shape (..., n, n), orthogonal with determinant 1 (for ``"householder"`` the sign of ``(-1)^count``).

    Raises
    ------
    ValueError : an unknown `parametrisation`, or a number of parameters that no rotation has.
    """
    if parametrisation == "householder":
        # Product of reflections in compact form: I - V T^-1 V^T, T upper triangular of the inner products.
        inner = raw.mT @ raw
        triangle = inner.triu(1) + torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1) / 2)
        eye = torch.eye(raw.shape[-2], dtype=raw.dtype, device=raw.device)
        reflected: Tensor = torch.linalg.solve_triangular(triangle, raw.mT, upper=True)
        return eye - raw @ reflected
    if parametrisation not in PARAMETRISATIONS:
        raise ValueError(f"parametrisation is one of {', '.join(map(repr, PARAMETRISATIONS))}; got {parametrisation!r}")
    count = raw.shape[-1]
    n = (1 + isqrt(1 + 8 * count)) // 2
    if n * (n - 1) // 2 != count:
        raise ValueError(f"a rotation of n coordinates has n (n - 1) / 2 parameters (1, 3, 6, 10, ...); got {count}")
    eye = torch.eye(n, dtype=raw.dtype, device=raw.device)
    i, j = torch.tril_indices(n, n, -1, device=raw.device)
    flat = torch.zeros(*raw.shape[:-1], n * n, dtype=raw.dtype, device=raw.device)
    lower = flat.index_copy(-1, i * n + j, raw).reshape(*raw.shape[:-1], n, n)
    skew = lower - lower.mT
    if parametrisation == "cayley":
        turn: Tensor = torch.linalg.solve(eye + skew, eye - skew)
        return turn
    return _exponential(skew)


def _exponential(matrix: Tensor) -> Tensor:
    """Matrix exponential; of one matrix alone, torch takes a wrong coefficient and is off by up to 5e-5 (pytorch#196592)."""
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    if len(flat) == 1:
        flat = torch.cat([flat, torch.zeros_like(flat)])
    exponential: Tensor = torch.linalg.matrix_exp(flat)[: matrix.shape[:-2].numel()]
    return exponential.reshape(matrix.shape)
