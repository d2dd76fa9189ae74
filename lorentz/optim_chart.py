r"""Steps along geodesics in the space chart, in place and in few passes over memory; what ``lorentz.optim`` is made of.

A point is held by its space coordinates s, with time :math:`t = \sqrt{k + |s|^2}`. A gradient is held as a *covector* p,
the plain derivative with respect to s. The inverse metric of the chart is :math:`I + s s^T / k`, hence

* Riemannian gradient :math:`p + (p\cdot s)\, s / k`, squared norm :math:`|p|^2 + (p\cdot s)^2 / k`, a sum of squares;
* the geodesic with this velocity ends at
  :math:`s' = (\cosh\theta + \tfrac{\sinh\theta}{\theta}\tfrac{p\cdot s}{k})\, s + \tfrac{\sinh\theta}{\theta}\, p`, with
  :math:`\theta` the norm over :math:`\sqrt k`;
* parallel transport of p along its own geodesic is multiplication by :math:`t / t'`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sinh, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Chart", "chunks", "covector", "squared_norm", "travel_"]

_CHUNK = 1 << 19  # numbers of a block on a CPU: bounds temporary memory, and keeps a block near the cache
_TINY = 1e-30  # of angles: sinh(_TINY) / _TINY is 1


class Chart(NamedTuple):
    """Curvature parameter k and the largest radius (geodesic distance to the origin) a point may have."""

    k: float
    max_radius: float

    @property
    def max_norm(self) -> float:
        """Length of the space part at the largest radius."""
        return sqrt(self.k) * sinh(self.max_radius / sqrt(self.k))


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows of tensors with the same number of rows; on an accelerator all rows at once."""
    first = tensors[0]
    rows = len(first)
    size = max(1, _CHUNK * rows // max(1, first.numel())) if first.device.type == "cpu" else max(1, rows)
    for start in range(0, rows, size):
        yield tuple(t[start : start + size] for t in tensors)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _norm(a: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    return norm


def _surely_shorter(a: Tensor, norm: float) -> bool:
    """Whether the largest number alone tells that no row is longer than `norm`; much cheaper than all lengths."""
    low, high = torch.aminmax(a)
    return float(torch.maximum(-low, high)) * sqrt(a.shape[-1]) <= norm


def covector(grad: Tensor, space: Tensor, k: float) -> Tensor:
    r"""Derivative with respect to s of a function given by its ambient gradient g: :math:`g_s + g_t\, s / t`."""
    time = (k + _norm(space).square()).sqrt()
    return torch.addcmul(grad[..., 1:], space, grad[..., :1] / time)


def squared_norm(p: Tensor, space: Tensor, k: float) -> Tensor:
    """Riemannian squared norm of covectors (..., d) at points (..., d), shape (..., 1), >= 0 however it is rounded."""
    along = _dot(p, space)
    return _norm(p).square_().addcmul_(along, along, value=1 / k)


def _radial_(space: Tensor, p: Tensor, norm: Tensor, new_norm: Tensor, k: float) -> None:
    """Move points along their radius from `norm` to `new_norm`; parallel transport scales the radial part of p by t/t'."""
    at_origin = norm == 0
    safe = torch.where(at_origin, torch.ones_like(norm), norm)
    ratio = ((k + norm.square()) / (k + new_norm.square())).sqrt()
    outwards = space / safe
    p.addcmul_(outwards, (ratio - 1) * _dot(p, outwards))
    space.mul_(torch.where(at_origin, torch.ones_like(norm), new_norm / safe))


def _long_step(
    space: Tensor, p: Tensor, rate: Tensor | float, chart: Chart, limit: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Velocity, its product with s, angle <= `limit`, factor, and whether it was cut; of p scaled so as not to overflow."""
    size = p.abs().amax(-1, keepdim=True)
    size = torch.where(size > 0, size, torch.ones_like(size))
    unit, rate = p / size, rate * size
    along = _dot(unit, space)
    speed = _norm(unit).square_().addcmul_(along, along, value=1 / chart.k).sqrt_() / sqrt(chart.k)
    angle = (speed * rate).abs_().clamp_(min=_TINY)
    far = angle > limit
    cut = torch.where(far, limit, angle)
    forward = torch.sinh(cut) * torch.where(far, torch.sign(rate) / speed, rate / angle)
    return unit, along, cut, forward, far


def travel_(space: Tensor, p: Tensor, rate: Tensor | float, chart: Chart, *, shrink: float = 1.0) -> int:
    """Move points by ``exp(rate * gradient of p)`` and transport p along, in place.

    Parameters
    ----------
    space, p : Tensor, shape (n, ..., d): points and covectors
    rate : Tensor, shape (n, ..., 1), or float
    chart : Chart. A point that would end beyond its radius is put on it, along its own radius.
    shrink : float. Radii are multiplied by this after the move.

    Returns
    -------
    int, how many points the radius stopped.
    """
    k, root = chart.k, sqrt(chart.k)
    along = _dot(p, space)
    angle = _norm(p).square_().addcmul_(along, along, value=1 / k).sqrt_().mul_(rate / root).abs_().clamp_(min=_TINY)
    forward = torch.sinh(angle).div_(angle).mul_(rate)
    # A step across the whole ball leaves it whatever its length; cutting it there keeps sinh finite.
    limit = 2 * chart.max_radius / root + 1
    velocity, far = p, None
    if not float(angle.max()) <= limit:
        velocity, along, angle, forward, far = _long_step(space, p, rate, chart, limit)
    grow = torch.sinh(angle / 2).square_().mul_(2).addcmul_(forward, along, value=1 / k)
    space.addcmul_(space, grow).addcmul_(velocity, forward)
    # t'/t, which is at least exp(-angle); rounding could miss that after a step of many units inwards.
    p.div_(torch.maximum(grow.add_(1), angle.neg_().exp_()))
    if shrink == 1.0 and far is None and _surely_shorter(space, chart.max_norm):
        return 0
    norm = _norm(space)
    target = norm if shrink == 1.0 else torch.sinh(torch.asinh(norm / root).mul_(shrink)).mul_(root)
    over = target > chart.max_norm
    if shrink != 1.0 or bool(over.any()):
        _radial_(space, p, norm, torch.where(over, chart.max_norm, target), k)
    return int((over if far is None else over | far).sum())
