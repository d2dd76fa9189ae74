"""The geometry in which a delta works, chosen from the module that it meets. The only file that knows `lorentz`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

import lorentz
from lorentz.flat import EuclideanLinear

from .kernels import timed_linear

__all__ = [
    "Euclidean",
    "Hyperboloid",
    "Space",
    "expansion",
    "geometry",
    "is_layer",
    "logarithm",
    "space_before",
    "space_of",
]


@runtime_checkable
class Space(Protocol):
    """What a method needs to know of a geometry; every method is written once against it.

    A delta works on free coordinates (space coordinates of points) and lifts what it adds, so it never leaves the
    hyperboloid. ``columns`` is the number of coordinates that a matrix sees besides the free ones: 0, or 1 for the time.
    """

    name: str
    columns: int

    def coordinates(self, x: Tensor) -> Tensor:
        """Free coordinates of x: all of them, or the space part of points."""

    def lift(self, u: Tensor) -> Tensor:
        """What has the free coordinates `u`."""

    def linear(self, u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``weight`` (m, n + columns) times what has the free coordinates `u` (..., n), origin at 0."""

    def project(self, host: nn.Module, h: Tensor, weight: Tensor) -> Tensor:
        """``weight`` (m, in_features) times what ``host.weight`` multiplies, where the layer `host` sees `h`."""

    def time(self, u: Tensor, host: nn.Module | None = None) -> Tensor | None:
        """What the time column multiplies, (..., 1), of what has the free coordinates `u`; None where there is none.

        In :meth:`linear`, or in the layer `host`: for a matrix that treats that column apart from the others.
        """


class Euclidean:
    """Flat space: coordinates are what they seem."""

    name, columns = "euclidean", 0

    def coordinates(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x

    def lift(self, u: Tensor) -> Tensor:
        """`u` itself."""
        return u

    def linear(self, u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``u W^T + b``."""
        return F.linear(u, weight, bias)

    def project(self, host: nn.Module, h: Tensor, weight: Tensor) -> Tensor:
        """``h W^T``."""
        return F.linear(h, weight)

    def time(self, u: Tensor, host: nn.Module | None = None) -> Tensor | None:
        """None."""
        return None

    def __repr__(self) -> str:
        return "Euclidean()"


class Hyperboloid:
    r"""The Lorentz model of curvature -1/k: matrices see the time of a point too.

    :math:`\mathrm{linear}(u) = W\,(\sqrt{k + |u|^2} - \sqrt k,\ u) + b`, for k to infinity that of flat space.

    Parameters
    ----------
    manifold : lorentz.Lorentz
    """

    name, columns = "lorentz", 1

    def __init__(self, manifold: lorentz.Lorentz) -> None:
        self.manifold = manifold

    @property
    def k(self) -> float:
        """Minus the inverse of the curvature."""
        return float(self.manifold.k)

    def coordinates(self, x: Tensor) -> Tensor:
        """Space coordinates."""
        return x[..., 1:]

    def lift(self, u: Tensor) -> Tensor:
        """The point with the space coordinates `u`."""
        return self.manifold.lift(u)

    def linear(self, u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Time above that of the origin, and space."""
        return timed_linear(u, weight, bias, self.manifold.k.to(u))

    def project(self, host: nn.Module, h: Tensor, weight: Tensor) -> Tensor:
        """As ``LorentzLinear`` multiplies: the whole point, from the origin if the layer is centred."""
        if not getattr(host, "centred", False):
            return F.linear(h, weight)
        return F.linear(h, weight, -_source(host).k.sqrt().to(weight) * weight[:, 0])

    def time(self, u: Tensor, host: nn.Module | None = None) -> Tensor:
        """The time above that of the origin; the time itself in a layer that is not centred."""
        k = (self.manifold if host is None else _source(host)).k.to(u)
        square = (u * u).sum(-1, keepdim=True)
        above = square / ((k + square).sqrt() + k.sqrt())
        return above if host is None or getattr(host, "centred", False) else above + k.sqrt()

    def __repr__(self) -> str:
        return f"Hyperboloid(k={self.k:g})"


def _source(host: nn.Module) -> lorentz.Lorentz:
    """The manifold of the points that a layer takes, which is not always that of its result."""
    manifold = host.manifold
    assert isinstance(manifold, lorentz.Lorentz)
    return manifold


def space_before(module: nn.Module) -> Space:
    """The geometry of what a linear layer takes: that of its ``manifold``; flat where it has none."""
    manifold = getattr(module, "manifold", None)
    return Hyperboloid(manifold) if isinstance(manifold, lorentz.Lorentz) else Euclidean()


def space_of(module: nn.Module) -> Space:
    """The geometry of a module's result: that of its ``manifold``, ``manifold_out`` first; flat where it has none."""
    manifold = getattr(module, "manifold_out", None) or getattr(module, "manifold", None)
    return Hyperboloid(manifold) if isinstance(manifold, lorentz.Lorentz) else Euclidean()


def expansion(v: Tensor, *, k: float) -> Tensor:
    r"""By what exp at the origin lengthens tangent vectors v (..., n): :math:`\exp_o(v)_s = c v`; c (..., 1) in float64."""
    v = v.double()
    return lorentz.math.sinhc((v * v).sum(-1, keepdim=True) / k)


def logarithm(u: Tensor, *, k: float) -> Tensor:
    """The space part of the logarithm at the origin of the point that has the space coordinates u (..., n)."""
    return lorentz.math.arsinhc((u * u).sum(-1, keepdim=True) / k) * u


def is_layer(module: nn.Module) -> bool:
    """Whether a linear layer is one of `lorentz`, which works in the steps ``prepare``, ``preactivation``, ``finish``."""
    return isinstance(module, lorentz.LorentzLinear | EuclideanLinear)


def geometry(model: nn.Module) -> dict[str, Any]:
    """Geometry and k of a model, as a checkpoint names them."""
    found = [m for m in model.modules() if isinstance(m, lorentz.Lorentz)]
    return {"geometry": "lorentz", "k": float(found[0].k.detach())} if found else {"geometry": "euclidean", "k": None}


def off_manifold(model: nn.Module, call: Callable[[], Any]) -> list[str]:
    """One line for every layer that leaves the hyperboloid during a call."""
    with lorentz.check.watch(model) as report:
        call()
    return report.failures
