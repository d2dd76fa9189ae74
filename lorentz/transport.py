"""Parallel transport of tangent vectors, in forms that do not cancel."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .forms import K, chord, double_space, total, unit_pair, unit_space, unit_time
from .tangent import with_time

__all__ = ["transport", "transport_from_origin", "transport_to_origin"]


def _along(a: Tensor, b: Tensor, diff: Tensor, u: Tensor, dim: int) -> Tensor:
    r"""Inner product of the point b = a + diff with the vector u that is tangent at a (k = 1), by the space parts.

    Near points and long vectors cancel in :math:`b\cdot u - t_b\, a\cdot u / t_a`. With :math:`b = \beta a + b_\perp` it is
    :math:`b_\perp\cdot u_\perp + (a\cdot u)\,\frac{(\beta-1)(\beta+1) - |b_\perp|^2}{t_a(\beta t_a + t_b)}`,
    where :math:`\beta - 1 = a\cdot(b - a)/|a|^2`; for :math:`\beta \le 0` the last factor is
    :math:`\beta - t_b/t_a`. Below |a| = 1, where nothing is lost, the difference b - a alone is taken out.
    """
    ta, tb = unit_time(a, dim), unit_time(b, dim)
    au, a_sq = total(a * u, dim), total(a * a, dim)
    short = a_sq < 1
    safe = torch.where(short, torch.ones_like(a_sq), a_sq)
    more = total(a * diff, dim) / safe
    beta = more + 1
    b_perp, u_perp = diff - more * a, u - au / safe * a
    ahead = beta > 0
    slope = (more * (beta + 1) - total(b_perp * b_perp, dim)) / (ta * (torch.where(ahead, beta, -beta) * ta + tb))
    slope = torch.where(ahead, slope, beta - tb / ta)
    near_origin = total(diff * u, dim) - total(diff * (a + b), dim) / (ta + tb) * au / ta
    return torch.where(short, near_origin, total(b_perp * u_perp, dim) + au * slope)


def transport(
    x: Float[Tensor, "..."], y: Float[Tensor, "..."], v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1
) -> Float[Tensor, "..."]:
    r"""Parallel transport of `v` from `x` to `y`: :math:`v + \frac{\langle y, v\rangle_L}{k - \langle x, y\rangle_L}(x + y)`.

    Only space parts are read, and neither fraction cancels, for near points as for far ones.

    Parameters
    ----------
    x, y : Tensor, shape (..., d), on the hyperboloid
    v : Tensor, shape (..., d), tangent at `x`

    Returns
    -------
    Tensor, shape (..., d), tangent at `y`, of the Lorentzian norm of `v`, in the dtype of `v`.
    """
    u = double_space(v, dim)
    a, b, diff = unit_pair(x, y, k, dim)
    ratio = _along(a, b, -diff, u, dim) / (2 + chord(a, b, diff, dim) / 2)
    return with_time(b, u + ratio * (a + b), dim).to(v.dtype)


def transport_to_origin(
    x: Float[Tensor, "..."], v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1
) -> Float[Tensor, "..."]:
    r"""Parallel transport of `v` from `x` to the origin: :math:`v_s - \frac{x_s \cdot v_s}{x_0 (\sqrt k + x_0)} x_s`.

    Shapes (..., d) and (..., d) to (..., d); the time of the result is 0.
    """
    u, a = double_space(v, dim), unit_space(x, k, dim)
    t = unit_time(a, dim)
    space = u - total(a * u, dim) / (t * (1 + t)) * a
    return torch.cat([torch.zeros_like(space.narrow(dim, 0, 1)), space], dim).to(v.dtype)


def transport_from_origin(
    y: Float[Tensor, "..."], v: Float[Tensor, "..."], *, k: K = 1.0, dim: int = -1
) -> Float[Tensor, "..."]:
    r"""Parallel transport of `v` from the origin to `y`: :math:`v_s + \frac{y_s \cdot v_s}{k + \sqrt k\, y_0} y_s`.

    Shapes (..., d) and (..., d) to (..., d), tangent at `y`. The inverse of :func:`transport_to_origin`.
    """
    u, b = double_space(v, dim), unit_space(y, k, dim)
    return with_time(b, u + total(b * u, dim) / (1 + unit_time(b, dim)) * b, dim).to(v.dtype)
