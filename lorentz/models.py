r"""Other models of hyperbolic space: the Poincaré ball, the Klein ball and the half space, each an isometry both ways.

Points of the hyperboloid are (..., d), time first; points of the other models (..., d - 1). All maps reduce in float64,
read the space part of a point alone, and take any number of dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .forms import K, scalar, sqrt_k, total, unit_space, unit_time
from .math import lift

__all__ = ["from_half_space", "from_klein", "from_poincare", "to_half_space", "to_klein", "to_poincare"]


def _inside(room: Tensor) -> Tensor:
    """NaN where there is no room left: a point on or beyond the boundary has no image."""
    return torch.where(room > 0, room, torch.full_like(room, float("nan")))


def to_poincare(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Isometry to the Poincaré ball of radius :math:`\sqrt k`: :math:`p = \sqrt k\, s / (x_0 + \sqrt k)`.

    Shape (..., d) to (..., d - 1). The ball is that of ``geoopt.PoincareBall(c=1 / k)``. A float32 ball cannot tell apart
    points beyond radius 17 (k = 1): on its boundary they have no way back.
    """
    a = unit_space(x, k, dim)
    return (a * sqrt_k(k, a) / (unit_time(a, dim) + 1)).to(x.dtype)


def from_poincare(p: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Inverse of :func:`to_poincare`: :math:`s = 2 k p / (k - |p|^2)`, then lifted.

    Shape (..., d - 1) to (..., d). A point on or outside the ball has no image and gives NaN.
    """
    ball = p.double()
    kk = scalar(k, ball)
    space = 2 * kk * ball / _inside(kk - total(ball * ball, dim))
    return lift(space.to(p.dtype), k=k, dim=dim)


def to_klein(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Map to the Klein (Beltrami) ball of radius :math:`\sqrt k`, where geodesics are straight: :math:`\sqrt k\, s / x_0`.

    Shape (..., d) to (..., d - 1). It crowds points to the boundary twice as fast as the Poincaré ball: a float32 ball
    cannot tell apart points beyond radius 9 (k = 1).
    """
    a = unit_space(x, k, dim)
    return (a * sqrt_k(k, a) / unit_time(a, dim)).to(x.dtype)


def from_klein(p: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Inverse of :func:`to_klein`: :math:`s = p / \sqrt{1 - |p|^2 / k}`, then lifted.

    Shape (..., d - 1) to (..., d). A point on or outside the ball has no image and gives NaN.
    """
    ball = p.double()
    kk = scalar(k, ball)
    space = ball * (kk / _inside(kk - total(ball * ball, dim))).sqrt()
    return lift(space.to(p.dtype), k=k, dim=dim)


def to_half_space(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Map to the half space :math:`\{(z, h) : h > 0\}` with metric :math:`k (|dz|^2 + dh^2) / h^2`, height last.

    With p the last space coordinate, :math:`h = \sqrt k / (x_0 - p)` and z the other coordinates over
    :math:`x_0 - p`; the origin goes to (0, 1), and h grows towards the ideal point of the last axis. For p > 0 the
    denominator is taken as :math:`(k + |s|^2 - p^2) / (x_0 + p)`.

    Shape (..., d) to (..., d - 1), d >= 2.
    """
    a = unit_space(x, k, dim)
    size = a.shape[dim]
    rest, p = a.narrow(dim, 0, size - 1), a.narrow(dim, size - 1, 1)
    past = p > 0
    # x_0 + |p| and x_0 - |p|, whose product is 1 + |rest|^2
    far = unit_time(a, dim) + torch.where(past, p, -p)
    height = torch.where(past, far / (1 + total(rest * rest, dim)), 1 / far)
    return torch.cat([rest * height, height], dim).to(x.dtype)


def from_half_space(y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Inverse of :func:`to_half_space`: :math:`s = \sqrt k\, (z / h,\; ((h - 1)(h + 1) + |z|^2) / 2h)`, then lifted.

    Shape (..., d - 1) to (..., d). A point whose height is not positive has no image and gives NaN.
    """
    wide = y.double()
    size = wide.shape[dim]
    rest, height = wide.narrow(dim, 0, size - 1), _inside(wide.narrow(dim, size - 1, 1))
    last = ((height - 1) * (height + 1) + total(rest * rest, dim)) / (2 * height)
    space = torch.cat([rest / height, last], dim) * sqrt_k(k, wide)
    return lift(space.to(y.dtype), k=k, dim=dim)
