r"""Pure functions of the Lorentz model, in forms that do not cancel.

A point is ``x = (time, space)`` with ``<x, x>_L = -time^2 + |space|^2 = -k`` and ``time > 0``; the curvature is
``-1/k``. Every function reads the *space* part alone and derives time anew, so a point whose stored time has drifted (or
was rounded to bfloat16) is as good as an exact one. Distances, logarithms and centroids reduce in float64 inside,
whatever the dtype.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "bounded_lift",
    "centroid",
    "dist",
    "expmap",
    "expmap0",
    "from_poincare",
    "lift",
    "logmap",
    "logmap0",
    "minkowski",
    "space_of",
    "sqdist",
    "to_poincare",
]

K = float | Tensor
NO_DIRECTION = 1e-15  # length below which a vector has no direction that a gradient could follow


def space_of(x: Float[Tensor, "..."], *, dim: int = -1) -> Float[Tensor, "..."]:
    """Space coordinates of points: everything but the first entry along `dim`."""
    return x.narrow(dim, 1, x.shape[dim] - 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _sum(x: Tensor, dim: int) -> Tensor:
    return x.sum(dim, keepdim=True)


def _scalar(k: K, like: Tensor) -> Tensor:
    """Scalar tensor of a number or tensor, in the dtype of `like` (a Python float would first become float32)."""
    return k.to(like) if isinstance(k, Tensor) else torch.tensor(k, dtype=like.dtype, device=like.device)


def _sqrt_k(k: K, like: Tensor) -> Tensor:
    return _scalar(k, like).sqrt()


def _safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, not infinite: there is no direction to move in."""
    zero = x == 0
    return torch.where(zero, torch.zeros_like(x), torch.where(zero, torch.ones_like(x), x).sqrt())


def _squeeze(x: Tensor, dim: int, keepdim: bool) -> Tensor:
    return x if keepdim else x.squeeze(dim)


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
    s = _at_least_float32(space)
    time = (_scalar(k, s) + _sum(s * s, dim)).sqrt()
    return torch.cat([time.to(space.dtype), space], dim)


def minkowski(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Inner product of the ambient space, :math:`\langle x, y\rangle_L = -x_0 y_0 + \sum_{i>0} x_i y_i`.

    Shapes (..., d) and (..., d), broadcast, to (...). Any vectors, not only points.
    """
    product = x * y
    time = product.narrow(dim, 0, 1)
    return _squeeze(_sum(space_of(product, dim=dim), dim) - time, dim, keepdim)


def _unit_space(x: Tensor, k: K, dim: int) -> Tensor:
    """Space part in float64, scaled to the hyperboloid of k = 1."""
    s = space_of(x, dim=dim).double()
    return s / _sqrt_k(k, s)


def _gram(u: Tensor, s: Tensor, u_sq: Tensor, dim: int) -> Tensor:
    """``|u|^2 |s|^2 - (u.s)^2 = |s|^2 |u_perp|^2 >= 0``, to a precision relative to ``|u|^2``.

    The second form does not cancel for long s; the first has every derivative at s = 0.
    """
    s_sq, dot = _sum(s * s, dim), _sum(u * s, dim)
    short = s_sq < 1
    perp = u - dot / torch.where(short, torch.ones_like(s_sq), s_sq) * s
    return torch.where(short, u_sq * s_sq - dot * dot, s_sq * _sum(perp * perp, dim))


def _chord(a: Tensor, b: Tensor, dim: int) -> Tensor:
    r"""Squared Lorentzian distance q of the points of k = 1 with space parts a and b, without cancellation.

    With D = a - b and S = a + b, Lagrange's identity gives
    :math:`(tt')^2 - (1 + a\cdot b)^2 = |D|^2 + |S|^2 |D_{\perp S}|^2 / 4`, a sum of squares, hence
    :math:`q = 2(tt' - a\cdot b - 1) = 2(|D|^2 + |S|^2|D_{\perp S}|^2/4) / (1 + tt' + a\cdot b)`. Symmetric to the bit.
    Where a.b <= -1 nothing cancels in the plain form and the denominator would.
    """
    diff, total = a - b, a + b
    diff_sq = _sum(diff * diff, dim)
    gram = _gram(diff, total, diff_sq, dim) / 4
    inner = _sum(a * b, dim)
    times = ((1 + _sum(a * a, dim)) * (1 + _sum(b * b, dim))).sqrt()
    opposite = inner <= -1
    close = 2 * (diff_sq + gram)
    close = close / torch.where(opposite, torch.ones_like(inner), 1 + times + inner)
    return torch.where(opposite, 2 * (times - inner) - 2, close)


def sqdist(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Squared Lorentzian distance :math:`|x - y|_L^2 = -2k - 2\langle x, y\rangle_L \ge 0`.

    Shapes (..., d) and (..., d), broadcast, to (...). Not the square of :func:`dist`.
    """
    a, b = _unit_space(x, k, dim), _unit_space(y, k, dim)
    q = _chord(a, b, dim) * _scalar(k, a)
    return _squeeze(q, dim, keepdim).to(x.dtype)


def dist(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Geodesic distance :math:`\sqrt k\,\operatorname{arcosh}(-\langle x, y\rangle_L / k)`, >= 0.

    Computed as :math:`2\sqrt k\,\operatorname{arsinh}(\tfrac12\sqrt{q})` of the squared Lorentzian distance q (k = 1),
    which keeps full precision for near points. The gradient has Riemannian norm 1, and is exactly 0 at x = y.

    Shapes (..., d) and (..., d), broadcast, to (...). ``dist(x, y) == dist(y, x)`` to the bit.
    """
    a, b = _unit_space(x, k, dim), _unit_space(y, k, dim)
    length = 2 * torch.asinh(_safe_sqrt(_chord(a, b, dim)) / 2) * _sqrt_k(k, a)
    return _squeeze(length, dim, keepdim).to(x.dtype)


def sinhc(squared: Tensor) -> Tensor:
    """sinh(n) / n of n = sqrt(squared); the series below 1e-4 is exact in float64 and has every derivative."""
    small = squared < 1e-4
    n = torch.where(small, torch.ones_like(squared), squared).sqrt()
    series = 1 + squared / 6 * (1 + squared / 20 * (1 + squared / 42))
    return torch.where(small, series, torch.sinh(n) / n)


def arsinhc(squared: Tensor) -> Tensor:
    """asinh(n) / n of n = sqrt(squared)."""
    small = squared < 1e-4
    n = torch.where(small, torch.ones_like(squared), squared).sqrt()
    series = 1 - squared / 6 * (1 - squared * 9 / 20 * (1 - squared * 25 / 42))
    return torch.where(small, series, torch.asinh(n) / n)


def expmap0(v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Exponential map at the origin: :math:`s = \sqrt k \sinh(|v|/\sqrt k)\, v/|v|`, then lifted.

    Parameters
    ----------
    v : Tensor, shape (..., d): tangent at the origin, ``v = (0, space)``; its first entry is not read.

    Returns
    -------
    Tensor, shape (..., d), on the hyperboloid at distance ``|v|`` from the origin.
    """
    space = space_of(v, dim=dim).double()
    norm_sq = _sum(space * space, dim) / _scalar(k, space)
    return lift((sinhc(norm_sq) * space).to(v.dtype), k=k, dim=dim)


def logmap0(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Logarithm at the origin: :math:`v = (0,\; \sqrt k \operatorname{arsinh}(|s|/\sqrt k)\, s/|s|)`.

    Shape (..., d) to (..., d). The inverse of :func:`expmap0`; the origin maps to 0.
    """
    space = space_of(x, dim=dim).double()
    norm_sq = _sum(space * space, dim) / _scalar(k, space)
    v = (arsinhc(norm_sq) * space).to(x.dtype)
    return torch.cat([torch.zeros_like(v.narrow(dim, 0, 1)), v], dim)


def expmap(x: Float[Tensor, "..."], v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Exponential map at `x`: :math:`\cosh(|v|/\sqrt k)\, x + \sqrt k \sinh(|v|/\sqrt k)\, v/|v|`.

    `v` (..., d) is tangent at `x`, ``<x, v>_L = 0``; its time is derived from its space part. The norm is taken as
    :math:`|v|^2 = (|v_s|^2 + |x_s|^2 |v_{s\perp x_s}|^2) / x_0^2` (k = 1), a sum of squares.

    Returns a tensor (..., d) on the hyperboloid.
    """
    s = _unit_space(x, k, dim)
    u = _unit_space(v, k, dim)
    u_sq = _sum(u * u, dim)
    norm_sq = (u_sq + _gram(u, s, u_sq, dim)) / (1 + _sum(s * s, dim))
    half = sinhc(norm_sq / 4)
    y = s * (1 + norm_sq / 2 * half * half) + sinhc(norm_sq) * u
    return lift((y * _sqrt_k(k, y)).to(x.dtype), k=k, dim=dim)


def logmap(x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Logarithm of `y` at `x`, :math:`\frac{d}{\sinh d}(y - \cosh(d)\, x)` for k = 1: the tangent that leads to `y`.

    Shapes (..., d) and (..., d), broadcast, to (..., d), tangent at `x`, Lorentzian norm ``dist(x, y)``; 0 at x = y.
    """
    a, b = _unit_space(x, k, dim), _unit_space(y, k, dim)
    q = _chord(a, b, dim)
    ratio = arsinhc(q / 4) / (1 + q / 4).sqrt()
    space = ratio * (b - a - q / 2 * a)
    time = _sum(a * space, dim) / (1 + _sum(a * a, dim)).sqrt()
    return (torch.cat([time, space], dim) * _sqrt_k(k, space)).to(x.dtype)


def centroid(
    x: Float[Tensor, "... n d"], weight: Float[Tensor, "..."] | None = None, *, k: K = 1.0
) -> Float[Tensor, "... d"]:
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

    Notes
    -----
    :math:`-\langle a, a\rangle_L` is a difference of squares: its relative error is about 1e-16 times the squared time, so
    results are good to radius 15 (k = 1) and lost beyond 18, in every dtype.
    """
    points = lift(space_of(x).double(), k=k)
    if weight is None:
        total = points.sum(-2)
    elif weight.ndim == x.ndim:
        total = weight.double() @ points
    else:
        total = (weight.double().unsqueeze(-2) @ points).squeeze(-2)
    norm = (-minkowski(total, total, keepdim=True)).sqrt()
    return lift((space_of(total) / norm * _sqrt_k(k, norm)).to(x.dtype), k=k)


def to_poincare(x: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Isometry to the Poincare ball of radius :math:`\sqrt k`: :math:`p = \sqrt k\, s / (x_0 + \sqrt k)`.

    Shape (..., d) to (..., d - 1). The ball is that of ``geoopt.PoincareBall(c=1 / k)``. A float32 ball cannot tell apart
    points beyond radius 17 (k = 1): on its boundary they have no way back.
    """
    space = space_of(x, dim=dim).double()
    root = _sqrt_k(k, space)
    time = (root * root + _sum(space * space, dim)).sqrt()
    return (root * space / (time + root)).to(x.dtype)


def from_poincare(p: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1) -> Float[Tensor, "..."]:
    r"""Inverse of :func:`to_poincare`: :math:`s = 2 k p / (k - |p|^2)`, then lifted.

    Shape (..., d - 1) to (..., d). A point on or outside the ball has no image and gives NaN.
    """
    ball = p.double()
    kk = _scalar(k, ball)
    room = kk - _sum(ball * ball, dim)
    space = 2 * kk * ball / torch.where(room > 0, room, torch.full_like(room, float("nan")))
    return lift(space.to(p.dtype), k=k, dim=dim)


def bounded_lift(z: Float[Tensor, "... d"], *, scale: K, k: K = 1.0, bound: str = "space") -> Float[Tensor, "... d"]:
    r"""Send any vector to a point whose radius a sigmoid of its first entry bounds.

    ``bound="space"`` (Chen et al., 2022, eq. 3): :math:`|s| = \lambda\sigma(z_0)`, so the radius is below
    :math:`\sqrt k \operatorname{arsinh}(\lambda/\sqrt k)` and the origin can be approached.
    ``bound="time"`` (the form used in practice): :math:`x_0 = 1.1\sqrt k + \lambda\sigma(z_0)`, so the origin and its
    surroundings, radius below :math:`\sqrt k \operatorname{arcosh}(1.1)`, cannot be reached.
    The direction is that of the rest of `z`; where that is shorter than 1e-15 the result is the origin.

    Shape (..., d) to (..., d), on the hyperboloid.
    """
    wide = _at_least_float32(z)
    gate = _scalar(scale, wide) * torch.sigmoid(wide.narrow(-1, 0, 1))
    if bound == "space":
        norm = gate
    elif bound == "time":
        root = _sqrt_k(k, wide)
        over = gate + 0.1 * root  # t - sqrt(k), so that t^2 - k = over * (over + 2 sqrt(k)) does not cancel
        norm = (over * (over + 2 * root)).sqrt()
    else:
        raise ValueError(f"bound is 'space' or 'time', got {bound!r}")
    space = space_of(wide)
    length_sq = _sum(space * space, -1)
    flat = length_sq < NO_DIRECTION**2
    unit = torch.where(flat, torch.ones_like(length_sq), length_sq).rsqrt()
    unit = torch.where(flat, torch.zeros_like(unit), unit) + 0 * length_sq  # an overflow gives NaN, not the origin
    return lift((space * (norm * unit)).to(z.dtype), k=k)
