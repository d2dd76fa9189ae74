"""The Lorentz manifold: geoopt's interface on cancellation-free formulas."""

from __future__ import annotations

from math import isfinite

import geoopt
import torch
from torch import Tensor, nn

from . import math

__all__ = ["Lorentz"]


class Lorentz(geoopt.Lorentz):  # type: ignore[misc]
    r"""The hyperboloid :math:`\{x : \langle x, x\rangle_L = -k,\ x_0 > 0\}` of curvature :math:`-1/k`.

    A ``geoopt.Lorentz`` whose distance, and exponential and logarithm at the origin, keep full float32 precision to radius
    20 (see ``lorentz.math`` for these and for the limits of the rest); it works with geoopt's optimisers and parameters.

    Parameters
    ----------
    k : float, > 0. Larger is flatter.
    learnable : bool. Then :math:`k = k_0 e^\rho` with a parameter ``rho`` that starts at 0, so k stays positive.

    Raises
    ------
    ValueError : k is not a positive finite number.

    Examples
    --------
    >>> manifold = Lorentz(k=2.0)
    >>> manifold.curvature
    tensor(-0.5000, dtype=torch.float64)
    """

    def __init__(self, k: float = 1.0, learnable: bool = False) -> None:
        value = float(k)
        if not (isfinite(value) and value > 0):
            raise ValueError(f"k must be a positive finite number (the curvature is -1/k), got {k}")
        super(geoopt.Lorentz, self).__init__()
        # A plain attribute, not a buffer: model.to(bfloat16) must not round the curvature.
        self._k0 = torch.tensor(value, dtype=torch.float64)
        self.rho = nn.Parameter(torch.zeros((), dtype=torch.float64)) if learnable else None

    @property
    def k(self) -> Tensor:
        """Scalar tensor k > 0; equals the given value to the bit until it is trained."""
        if self.rho is None:
            return self._k0
        k: Tensor = self._k0.to(self.rho.device) * self.rho.double().exp()
        return k

    @property
    def learnable(self) -> bool:
        """Whether k is trained."""
        return self.rho is not None

    @property
    def curvature(self) -> Tensor:
        """Sectional curvature, -1/k."""
        return -1 / self.k

    def extra_repr(self) -> str:
        """Value of k, shown by ``print``."""
        return f"k={float(self.k.detach()):g}" + (", learnable=True" if self.learnable else "")

    def lift(self, space: Tensor, *, dim: int = -1) -> Tensor:
        """Point with these space coordinates; see :func:`lorentz.math.lift`."""
        return math.lift(space, k=self.k, dim=dim)

    def origin(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """Points at the origin (sqrt(k), 0, ...), of this shape."""
        return math.lift(torch.zeros(*size[:-1], size[-1] - 1, dtype=dtype, device=device), k=self.k)

    def minkowski(self, x: Tensor, y: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Inner product of the ambient space; see :func:`lorentz.math.minkowski`."""
        return math.minkowski(x, y, dim=dim, keepdim=keepdim)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Geodesic distance; see :func:`lorentz.math.dist`."""
        return math.dist(x, y, k=self.k, keepdim=keepdim, dim=dim)

    def sqdist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Squared Lorentzian distance; see :func:`lorentz.math.sqdist`."""
        return math.sqdist(x, y, k=self.k, keepdim=keepdim, dim=dim)

    def dist0(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Distance to the origin, the radius of `x`."""
        radius: Tensor = torch.linalg.vector_norm(math.logmap0(x, k=self.k, dim=dim), dim=dim, keepdim=keepdim)
        return radius

    def expmap(self, x: Tensor, u: Tensor, *, norm_tan: bool = True, project: bool = True, dim: int = -1) -> Tensor:
        """Exponential map; always on the hyperboloid, so `norm_tan` and `project` change nothing."""
        return math.expmap(x, u, k=self.k, dim=dim)

    def logmap(self, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithm of `y` at `x`; see :func:`lorentz.math.logmap`."""
        return math.logmap(x, y, k=self.k, dim=dim)

    def expmap0(self, u: Tensor, *, project: bool = True, dim: int = -1) -> Tensor:
        """Exponential map at the origin; always on the hyperboloid, so `project` changes nothing."""
        return math.expmap0(u, k=self.k, dim=dim)

    def logmap0(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithm at the origin; see :func:`lorentz.math.logmap0`."""
        return math.logmap0(x, k=self.k, dim=dim)

    def centroid(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted Lorentzian centroid; see :func:`lorentz.math.centroid`."""
        return math.centroid(x, weight, k=self.k)

    def projx(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Nearest point in the space chart: the time is derived anew."""
        return math.lift(math.space_of(x, dim=dim), k=self.k, dim=dim)

    def to_poincare(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Isometry to the Poincare ball of radius sqrt(k)."""
        return math.to_poincare(x, k=self.k, dim=dim)

    def from_poincare(self, p: Tensor, *, dim: int = -1) -> Tensor:
        """Isometry from the Poincare ball of radius sqrt(k)."""
        return math.from_poincare(p, k=self.k, dim=dim)
