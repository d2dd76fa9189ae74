r"""Geodesics, and the Busemann function that measures along them from infinity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .forms import K, arsinhc, asinh, chord, double_space, sinhc, sqrt_k, squeeze, total, unit_pair, unit_space
from .math import expmap, lift
from .tangent import norm

__all__ = ["busemann", "geodesic", "geodesic_unit"]


def _parameter(t: float | Tensor, x: Tensor, dim: int) -> tuple[Tensor, int]:
    """The parameter in float64 and the axis of coordinates counted from the end, as `t` may add axes in front."""
    axis = dim if dim < 0 else dim - x.ndim
    wide = torch.as_tensor(t, dtype=torch.float64, device=x.device)
    if wide.ndim >= -axis and wide.shape[axis] != 1:
        raise ValueError(
            f"t has one number a point, so it is a scalar or has size 1 along the coordinates, dim {dim}; got shape "
            f"{tuple(wide.shape)} for points {tuple(x.shape)}: t.unsqueeze({dim}) adds that axis"
        )
    return wide, axis


def geodesic(
    t: float | Tensor, x: Float[Tensor, "..."], y: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1
) -> Float[Tensor, "..."]:
    r"""Point at parameter t of the geodesic from `x` to `y`,
    :math:`\gamma(t) = (\sinh((1 - t)\theta)\, x + \sinh(t\theta)\, y) / \sinh\theta`, :math:`\theta = d(x, y)/\sqrt k`.

    :math:`d(x, \gamma(t)) = t\, d(x, y)`. Any real t: below 0 and above 1 the geodesic goes on. x = y is an ordinary
    input, where the result is x and every derivative exists.

    Parameters
    ----------
    t : float or Tensor, broadcast against the points: a scalar, or size 1 along `dim`
    x, y : Tensor, shape (..., d), on the hyperboloid

    Returns
    -------
    Tensor, shape (..., d), on the hyperboloid, in the dtype of `x`.

    Raises
    ------
    ValueError : t has another size along `dim`.
    """  # noqa: D205
    wide, dim = _parameter(t, x, dim)
    q = chord(*unit_pair(x, y, k, dim), dim)
    angle_sq = q * arsinhc(q / 4) ** 2
    whole = sinhc(angle_sq)

    def share(part: Tensor) -> Tensor:
        return part * sinhc(part * part * angle_sq) / whole

    space = share(1 - wide) * double_space(x, dim) + share(wide) * double_space(y, dim)
    return lift(space.to(x.dtype), k=k, dim=dim)


def geodesic_unit(
    t: float | Tensor, x: Float[Tensor, "..."], u: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1
) -> Float[Tensor, "..."]:
    r"""Point at distance t from `x` on the geodesic that leaves in direction `u`: :math:`\exp_x(t\, u / |u|)`.

    Parameters
    ----------
    t : float or Tensor, broadcast against the points: a scalar, or size 1 along `dim`; negative goes backwards
    x : Tensor, shape (..., d), on the hyperboloid
    u : Tensor, shape (..., d), tangent at `x`. Its length is not read; a zero vector has no direction and stays at `x`.

    Returns
    -------
    Tensor, shape (..., d), on the hyperboloid, in the dtype of `x`.
    """
    wide, dim = _parameter(t, x, dim)
    v = u.double()
    length = norm(x, v, k=k, dim=dim, keepdim=True)
    return expmap(x, wide * v / torch.where(length == 0, torch.ones_like(length), length), k=k, dim=dim)


def busemann(
    x: Float[Tensor, "..."], w: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1, keepdim: bool = False
) -> Float[Tensor, "..."]:
    r"""Busemann function of the ideal point in direction w: :math:`B_w(x) = \sqrt k \log((x_0 - w\cdot x_s)/\sqrt k)`.

    The distance to a point far out in direction w, less that of the origin, in the limit: 0 at the origin, -t at distance t
    towards w, and constant on the horospheres of w. The difference cancels towards w; with :math:`a = x_s/\sqrt k` and
    :math:`m = \sqrt{1 + |a_{\perp w}|^2}` it is taken as
    :math:`B_w(x) = \sqrt k\,(\log m - \operatorname{arsinh}(w\cdot a / m))`, which is smooth.

    Parameters
    ----------
    x : Tensor, shape (..., d), on the hyperboloid
    w : Tensor, shape (..., d - 1), broadcast: directions, whose lengths are not read; 0 is none and gives NaN

    Returns
    -------
    Tensor, shape (...), in the dtype of `x`.

    Raises
    ------
    ValueError : w does not have the size of a space part.
    """
    axis = dim if dim < 0 else dim - x.ndim
    if w.ndim < -axis or w.shape[axis] != x.shape[axis] - 1:
        raise ValueError(
            f"points of {x.shape[axis]} coordinates, time first, take directions of {x.shape[axis] - 1} along dim {dim}; "
            f"got shape {tuple(w.shape)}"
        )
    a, way = unit_space(x, k, axis), w.double()
    way = way / torch.linalg.vector_norm(way, dim=axis, keepdim=True)
    along = total(a * way, axis)
    beside = a - along * way
    beside_sq = total(beside * beside, axis)
    value = torch.log1p(beside_sq) / 2 - asinh(along / (1 + beside_sq).sqrt())
    return squeeze(value * sqrt_k(k, a), axis, keepdim).to(x.dtype)
