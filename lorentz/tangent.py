"""Tangent vectors: their inner product and norm, and the projection of ambient vectors and gradients.

A vector u is tangent at x if ``<x, u>_L = 0``, so its time follows from its space part, ``u_0 = x_s . u_s / x_0``. Only
the space part of a tangent vector is read, and every tangent vector that is returned has its time from it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .forms import K, double_space, gram, safe_sqrt, squeeze, total, unit_space, unit_time

__all__ = ["inner", "norm", "project", "riemannian_gradient", "with_time"]


def with_time(a: Tensor, space: Tensor, dim: int) -> Tensor:
    """Tangent vector with this space part at the point of k = 1 with space part `a`; the same for every k."""
    return torch.cat([total(a * space, dim) / unit_time(a, dim), space], dim)


def _inner(x: Tensor, u: Tensor, v: Tensor | None, k: K, dim: int) -> Tensor:
    s = unit_space(x, k, dim)
    a = double_space(u, dim)
    b = a if v is None or v is u else double_space(v, dim)
    ab = total(a * b, dim)
    return (ab + gram(a, b, s, ab, dim)) / (1 + total(s * s, dim))


def inner(
    x: Float[Tensor, "..."],
    u: Float[Tensor, "..."],
    v: Float[Tensor, "..."] | None = None,
    *,
    k: K = 1.0,
    dim: int = -1,
    keepdim: bool = False,
) -> Float[Tensor, "..."]:
    r"""Riemannian inner product of tangent vectors at `x`, :math:`\langle u, v\rangle_L`.

    Taken as :math:`(k\, u_s\cdot v_s + |x_s|^2\, u_{s\perp x_s}\cdot v_{s\perp x_s}) / x_0^2`, for u = v a sum of squares,
    where :math:`-u_0 v_0 + u_s\cdot v_s` cancels by the factor :math:`x_0^2/k`.

    Parameters
    ----------
    x : Tensor, shape (..., d), on the hyperboloid
    u, v : Tensor, shape (..., d), tangent at `x`; `v` is `u` if None

    Returns
    -------
    Tensor, shape (...), in the dtype of `u`.
    """
    return squeeze(_inner(x, u, v, k, dim), dim, keepdim).to(u.dtype)


def norm(
    x: Float[Tensor, "..."], u: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Riemannian length of a tangent vector at `x`, :math:`\sqrt{\langle u, u\rangle_L} \ge 0`; see :func:`inner`.

    Shapes (..., d) and (..., d) to (...). The gradient at u = 0 is exactly 0.
    """
    return squeeze(safe_sqrt(_inner(x, u, None, k, dim)), dim, keepdim).to(u.dtype)


def _project(x: Tensor, time: Tensor, space: Tensor, k: K, dim: int) -> Tensor:
    a = unit_space(x, k, dim)
    along = total(a * space, dim) - unit_time(a, dim) * time
    return with_time(a, space + along * a, dim)


def project(x: Float[Tensor, "..."], v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Orthogonal projection of an ambient vector on the tangent space at `x`, :math:`v + \langle x, v\rangle_L\, x / k`.

    Here the time of `v` counts: an error in it grows by :math:`x_0^2/k` on the way to the result, whoever computes it.

    Shapes (..., d) and (..., d) to (..., d), in the dtype of `v`.
    """
    time = v.narrow(dim, 0, 1).double()
    return _project(x, time, double_space(v, dim), k, dim).to(v.dtype)


def riemannian_gradient(
    x: Float[Tensor, "..."], grad: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1
) -> Float[Tensor, "..."]:
    r"""Riemannian gradient of a function with ambient gradient g: the projection of :math:`(-g_0, g_s)`.

    Shapes (..., d) and (..., d) to (..., d), tangent at `x`, in the dtype of `grad`, which stays as it is.
    """
    time = -grad.narrow(dim, 0, 1).double()
    return _project(x, time, double_space(grad, dim), k, dim).to(grad.dtype)
