r"""Pure functions of the Lorentz model, in forms that do not cancel.

A point is ``x = (time, space)`` with ``<x, x>_L = -time^2 + |space|^2 = -k`` and ``time > 0``; the curvature is
``-1/k``. Every function reads the *space* part alone and derives time anew, so a point whose stored time has drifted (or
was rounded to bfloat16) is as good as an exact one. Distances, logarithms and centroids reduce in float64 inside,
whatever the dtype.

Tangent vectors are in ``lorentz.tangent`` and ``lorentz.transport``, lines in ``lorentz.geodesics``, balls and half space
in ``lorentz.models``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .forms import (
    NO_DIRECTION,
    K,
    arsinhc,
    asinh,
    at_least_float32,
    chord,
    double_space,
    gram,
    safe_sqrt,
    scalar,
    sinhc,
    space_of,
    sqrt_k,
    squeeze,
    total,
    unit_pair,
    unit_space,
)

__all__ = [
    "NO_DIRECTION",
    "K",
    "arsinhc",
    "bounded_lift",
    "centroid",
    "dist",
    "dist0",
    "dist2",
    "expmap",
    "expmap0",
    "from_origin",
    "lift",
    "logmap",
    "logmap0",
    "minkowski",
    "sinhc",
    "space_of",
    "sqdist",
]


def lift(space: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Put the point with these space coordinates on the hyperboloid: :math:`x = (\sqrt{k + |s|^2}, s)`.

    Parameters
    ----------
    space : Tensor, shape (..., d - 1)
    k : float or scalar tensor, > 0

    Returns
    -------
    Tensor, shape (..., d), on the hyperboloid, in the dtype of `space`. In bfloat16 and float16 the time is computed in
    float32 and rounded once.

    Examples
    --------
    >>> lift(torch.tensor([3.0, 0.0]), k=16.0)
    tensor([5., 3., 0.])
    """
    s = at_least_float32(space)
    time = (scalar(k, s) + total(s * s, dim)).sqrt()
    return torch.cat([time.to(space.dtype), space], dim)


def from_origin(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Ambient vector from the origin to a point, :math:`x - o = (|s|^2 / (\sqrt{k + |s|^2} + \sqrt k),\; s)`.

    Shape (..., d) to (..., d). Its first entry, the time above that of the origin, does not cancel for large k, where it
    tends to :math:`|s|^2 / (2 \sqrt k)`.
    """
    s = at_least_float32(space_of(x, dim=dim))
    squared, kk = total(s * s, dim), scalar(k, s)
    above = squared / ((kk + squared).sqrt() + kk.sqrt())
    return torch.cat([above.to(x.dtype), space_of(x, dim=dim)], dim)


def minkowski(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Inner product of the ambient space, :math:`\langle x, y\rangle_L = -x_0 y_0 + \sum_{i>0} x_i y_i`.

    Shapes (..., d) and (..., d), broadcast, to (...). Any vectors, not only points.
    """
    product = x * y
    time = product.narrow(dim, 0, 1)
    return squeeze(total(space_of(product, dim=dim), dim) - time, dim, keepdim)


def sqdist(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Squared Lorentzian distance :math:`|x - y|_L^2 = -2k - 2\langle x, y\rangle_L \ge 0`.

    Shapes (..., d) and (..., d), broadcast, to (...). Not the square of :func:`dist`.
    """
    a, b, diff = unit_pair(x, y, k, dim)
    q = chord(a, b, diff, dim) * scalar(k, a)
    return squeeze(q, dim, keepdim).to(x.dtype)


def dist(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Geodesic distance :math:`\sqrt k\,\operatorname{arcosh}(-\langle x, y\rangle_L / k)`, >= 0.

    Computed as :math:`2\sqrt k\,\operatorname{arsinh}(\tfrac12\sqrt{q})` of the squared Lorentzian distance q (k = 1),
    which keeps full precision for near points. The gradient has Riemannian norm 1, and is exactly 0 at x = y.

    Shapes (..., d) and (..., d), broadcast, to (...). ``dist(x, y) == dist(y, x)`` to the bit.
    """
    a, b, diff = unit_pair(x, y, k, dim)
    length = 2 * asinh(safe_sqrt(chord(a, b, diff, dim)) / 2) * sqrt_k(k, a)
    return squeeze(length, dim, keepdim).to(x.dtype)


def dist2(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Square of the geodesic distance, :math:`4k \operatorname{arsinh}^2(\tfrac12\sqrt q)`, q as in :func:`dist`.

    A smooth function of q, so it has every derivative at x = y, where :func:`dist` has none.

    Shapes (..., d) and (..., d), broadcast, to (...).
    """
    a, b, diff = unit_pair(x, y, k, dim)
    q = chord(a, b, diff, dim)
    return squeeze(q * arsinhc(q / 4) ** 2 * scalar(k, a), dim, keepdim).to(x.dtype)


def dist0(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False) -> Float[Tensor, "..."]:
    r"""Distance to the origin, the radius of `x`: :math:`\sqrt k \operatorname{arsinh}(|s| / \sqrt k)`.

    Shape (..., d) to (...). The gradient at the origin is exactly 0.
    """
    a = unit_space(x, k, dim)
    return squeeze(asinh(safe_sqrt(total(a * a, dim))) * sqrt_k(k, a), dim, keepdim).to(x.dtype)


def expmap0(v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Exponential map at the origin: :math:`s = \sqrt k \sinh(|v|/\sqrt k)\, v/|v|`, then lifted.

    Parameters
    ----------
    v : Tensor, shape (..., d): tangent at the origin, ``v = (0, space)``; its first entry is not read.

    Returns
    -------
    Tensor, shape (..., d), on the hyperboloid at distance ``|v|`` from the origin.
    """
    space = double_space(v, dim)
    norm_sq = total(space * space, dim) / scalar(k, space)
    return lift((sinhc(norm_sq) * space).to(v.dtype), k=k, dim=dim)


def logmap0(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Logarithm at the origin: :math:`v = (0,\; \sqrt k \operatorname{arsinh}(|s|/\sqrt k)\, s/|s|)`.

    Shape (..., d) to (..., d). The inverse of :func:`expmap0`; the origin maps to 0.
    """
    space = double_space(x, dim)
    norm_sq = total(space * space, dim) / scalar(k, space)
    v = (arsinhc(norm_sq) * space).to(x.dtype)
    return torch.cat([torch.zeros_like(v.narrow(dim, 0, 1)), v], dim)


def expmap(x: Float[Tensor, "..."], v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Exponential map at `x`: :math:`\cosh(|v|/\sqrt k)\, x + \sqrt k \sinh(|v|/\sqrt k)\, v/|v|`.

    `v` (..., d) is tangent at `x`, ``<x, v>_L = 0``; its time is derived from its space part. The norm is taken as
    :math:`|v|^2 = (|v_s|^2 + |x_s|^2 |v_{s\perp x_s}|^2) / x_0^2` (k = 1), a sum of squares.

    Returns a tensor (..., d) on the hyperboloid.
    """
    s = unit_space(x, k, dim)
    u = unit_space(v, k, dim)
    u_sq = total(u * u, dim)
    norm_sq = (u_sq + gram(u, u, s, u_sq, dim)) / (1 + total(s * s, dim))
    half = sinhc(norm_sq / 4)
    y = s * (1 + norm_sq / 2 * half * half) + sinhc(norm_sq) * u
    return lift((y * sqrt_k(k, y)).to(x.dtype), k=k, dim=dim)


def logmap(x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Logarithm of `y` at `x`, :math:`\frac{d}{\sinh d}(y - \cosh(d)\, x)` for k = 1: the tangent that leads to `y`.

    Shapes (..., d) and (..., d), broadcast, to (..., d), tangent at `x`, Lorentzian norm ``dist(x, y)``; 0 at x = y.
    """
    a, b, diff = unit_pair(x, y, k, dim)
    q = chord(a, b, diff, dim)
    ratio = arsinhc(q / 4) / (1 + q / 4).sqrt()
    space = -ratio * (diff + q / 2 * a)
    time = total(a * space, dim) / (1 + total(a * a, dim)).sqrt()
    return (torch.cat([time, space], dim) * sqrt_k(k, space)).to(x.dtype)


def centroid(
    x: Float[Tensor, "..."], weight: Float[Tensor, "..."] | None = None, *, k: K = 1.0
) -> Float[Tensor, "..."]:
    r"""Lorentzian centroid :math:`\sqrt k\, a / \sqrt{-\langle a, a\rangle_L}`, :math:`a = \sum_j w_j x_j`.

    The point that minimises the weighted sum of squared Lorentzian distances (Law et al., 2019, eq. 7;
    Chen et al., 2022, eq. 6).

    Parameters
    ----------
    x : Tensor, shape (..., n, d), on the hyperboloid
    weight : Tensor, shape (..., n) for one centroid or (..., m, n) for m of them, >= 0 and not all 0; uniform if None.
        A weight with as many dimensions as `x` is read as (..., m, n).

    Returns
    -------
    Tensor, shape (..., d) or (..., m, d), on the hyperboloid.

    Raises
    ------
    ValueError : weights whose shape is not that of the points.

    Notes
    -----
    :math:`-\langle a, a\rangle_L` is a difference of squares. For one centroid of float64 points it is taken as
    :math:`(a_0 - |a_s|)(a_0 + |a_s|)`, the first factor a sum of positive numbers, good to radius 30 (k = 1): the centroid of
    one point is the point. For m of them that takes memory for m n d numbers, and points in other dtypes are lost before:
    there the relative error is about 1e-16 times the squared time, good to radius 15, and beyond 18 results come out nearer
    to the origin than they are, by the bound :math:`k (\sum_j w_j)^2`.
    """
    _check_weight(x, weight)
    points = lift(double_space(x, -1), k=k)
    kk = scalar(k, points)
    many = weight is not None and weight.ndim == x.ndim
    combined = _combine(points, weight)
    if many or x.dtype != torch.float64:
        sum_of_weights = x.shape[-2] if weight is None else total(weight.double(), -1)
        # Where rounding leaves less than the bound the value is the bound, and the derivative stays that of the difference
        # as far as it is known: up to its rounding error.
        plain = -minkowski(combined, combined, keepdim=True)
        bound = (kk * sum_of_weights**2).detach()
        noise = torch.finfo(plain.dtype).eps * combined[..., :1].detach().square()
        slope = torch.where(plain <= bound, bound / torch.maximum(noise, bound), torch.ones_like(plain)).detach()
        norm_sq = torch.maximum(plain, bound).detach() + slope * (plain - plain.detach())
    else:
        norm_sq = _length_squared(points, weight, combined, kk)
    return lift((space_of(combined) * (kk / norm_sq).sqrt()).to(x.dtype), k=k)


def _combine(x: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted sum of the rows of x (..., n, d): (..., d), or (..., m, d) of weights (..., m, n)."""
    if weight is None:
        return x.sum(-2)
    w = weight.double()
    return w @ x if w.ndim == x.ndim else (w.unsqueeze(-2) @ x).squeeze(-2)


def _length_squared(points: Tensor, weight: Tensor | None, a: Tensor, k: Tensor) -> Tensor:
    r"""Compute :math:`-\langle a, a\rangle_L` (..., 1) of :math:`a = \sum_j w_j x_j`, also where its terms cancel.

    With u the direction of :math:`a_s`, :math:`a_0 - |a_s| = \sum_j w_j (x_{j0} - u \cdot x_{js})`, whose terms are
    :math:`(k + |x_{js \perp u}|^2) / (x_{j0} + u \cdot x_{js})`. Near the axis nothing cancels, and u may not exist.
    """
    time, space = a[..., :1], space_of(a)
    plain = -minkowski(a, a, keepdim=True)
    far = plain < 0.5 * time * time
    length = torch.where(far, total(space * space, -1), torch.ones_like(time)).sqrt()
    unit = torch.where(far, space / length, torch.zeros_like(space)).unsqueeze(-2)
    own = space_of(points)
    along = own @ unit.mT
    across = torch.addcmul(own, along, unit, value=-1)
    ahead = along > 0
    reach = points[..., :1] + torch.where(ahead, along, torch.zeros_like(along))
    gap = torch.where(ahead, (k + total(across * across, -1)) / reach, points[..., :1] - along)
    return torch.where(far, _combine(gap, weight) * (time + length), plain)


def _check_weight(x: Tensor, weight: Tensor | None) -> None:
    if x.ndim < 2:
        raise ValueError(f"a centroid is that of n points, shape (..., n, d); got shape {tuple(x.shape)}")
    if weight is None:
        return
    *batch, n, _ = x.shape
    given = tuple(weight.shape)
    theirs = given[: -2 if weight.ndim == x.ndim else -1]
    fits = all(a == b or 1 in (a, b) for a, b in zip(reversed(theirs), reversed(batch), strict=False))
    if not given or given[-1] != n or not fits:
        raise ValueError(
            f"{n} points, of shape {tuple(x.shape)}, take weights of shape (..., {n}), or (..., m, {n}) for m centroids; "
            f"got {given}"
        )


def bounded_lift(z: Float[Tensor, "... d"], *, scale: K, k: K = 1.0, bound: str = "space") -> Float[Tensor, "... d"]:
    r"""Send any vector to a point whose radius a sigmoid of its first entry bounds.

    ``bound="space"`` (Chen et al., 2022, eq. 3): :math:`|s| = \lambda\sigma(z_0)`, so the radius is below
    :math:`\sqrt k \operatorname{arsinh}(\lambda/\sqrt k)` and the origin can be approached.
    ``bound="time"`` (the form used in practice): :math:`x_0 = 1.1\sqrt k + \lambda\sigma(z_0)`, so the origin and its
    surroundings, radius below :math:`\sqrt k \operatorname{arcosh}(1.1)`, cannot be reached.
    The direction is that of the rest of `z`; where that is shorter than 1e-15 the result is the origin.

    Shape (..., d) to (..., d), on the hyperboloid.
    """
    wide = at_least_float32(z)
    gate = scalar(scale, wide) * torch.sigmoid(wide.narrow(-1, 0, 1))
    if bound == "space":
        norm = gate
    elif bound == "time":
        root = sqrt_k(k, wide)
        over = gate + 0.1 * root  # t - sqrt(k), so that t^2 - k = over * (over + 2 sqrt(k)) does not cancel
        norm = (over * (over + 2 * root)).sqrt()
    else:
        raise ValueError(f"bound is 'space' or 'time', got {bound!r}")
    space = space_of(wide)
    length_sq = total(space * space, -1)
    flat = length_sq < NO_DIRECTION**2
    unit = torch.where(flat, torch.ones_like(length_sq), length_sq).rsqrt()
    unit = torch.where(flat, torch.zeros_like(unit), unit) + 0 * length_sq  # an overflow gives NaN, not the origin
    return lift((space * (norm * unit)).to(z.dtype), k=k)
