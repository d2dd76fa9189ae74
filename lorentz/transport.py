"""Parallel transport of tangent vectors, in forms that do not cancel."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .math import K, space_of

__all__ = ["transport", "transport_from_origin", "transport_to_origin"]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _root(k: K, like: Tensor) -> Tensor:
    return (k.to(like) if isinstance(k, Tensor) else torch.tensor(k, dtype=like.dtype, device=like.device)).sqrt()


def _time(space: Tensor) -> Tensor:
    return (1 + _dot(space, space)).sqrt()


def _tangent(point: Tensor, space: Tensor) -> Tensor:
    """Tangent vector with this space part at a point of k = 1, given by its space part."""
    return torch.cat([_dot(point, space) / _time(point), space], -1)


def transport(
    x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], v: Float[Tensor, "... d"], *, k: K = 1.0
) -> Float[Tensor, "... d"]:
    r"""Parallel transport of `v` from `x` to `y`: :math:`v + \frac{\langle y, v\rangle_L}{k - \langle x, y\rangle_L}(x + y)`.

    Only space parts are read. As :math:`\langle x, v\rangle_L = 0`, the numerator is taken as
    :math:`\langle y - x, v\rangle_L`, which does not cancel for near points.

    Parameters
    ----------
    x, y : Tensor, shape (..., d), on the hyperboloid
    v : Tensor, shape (..., d), tangent at `x`

    Returns
    -------
    Tensor, shape (..., d), tangent at `y`, of the Lorentzian norm of `v`, in the dtype of `v`.
    """
    u = space_of(v).double()
    root = _root(k, u)
    a, b = space_of(x).double() / root, space_of(y).double() / root
    ta, tb = _time(a), _time(b)
    diff = b - a
    numerator = _dot(diff, u) - _dot(diff, a + b) / (ta + tb) * _dot(a, u) / ta
    return _tangent(b, u + numerator / (1 + ta * tb - _dot(a, b)) * (a + b)).to(v.dtype)


def transport_to_origin(x: Float[Tensor, "... d"], v: Float[Tensor, "... d"], *, k: K = 1.0) -> Float[Tensor, "... d"]:
    r"""Parallel transport of `v` from `x` to the origin: :math:`v_s - \frac{x_s \cdot v_s}{x_0 (\sqrt k + x_0)} x_s`.

    Shapes (..., d) and (..., d) to (..., d); the time of the result is 0.
    """
    u = space_of(v).double()
    a = space_of(x).double() / _root(k, u)
    t = _time(a)
    space = u - _dot(a, u) / (t * (1 + t)) * a
    return torch.cat([torch.zeros_like(space[..., :1]), space], -1).to(v.dtype)


def transport_from_origin(
    y: Float[Tensor, "... d"], v: Float[Tensor, "... d"], *, k: K = 1.0
) -> Float[Tensor, "... d"]:
    r"""Parallel transport of `v` from the origin to `y`: :math:`v_s + \frac{y_s \cdot v_s}{k + \sqrt k\, y_0} y_s`.

    Shapes (..., d) and (..., d) to (..., d), tangent at `y`. The inverse of :func:`transport_to_origin`.
    """
    u = space_of(v).double()
    b = space_of(y).double() / _root(k, u)
    return _tangent(b, u + _dot(b, u) / (1 + _time(b)) * b).to(v.dtype)
