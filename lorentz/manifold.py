"""The Lorentz manifold: geoopt's interface on cancellation-free formulas."""

from __future__ import annotations

import geoopt
import torch
from geoopt.manifolds.base import ScalingInfo
from geoopt.utils import size2shape
from torch import Tensor

from . import geodesics, math, models, tangent, transport
from .curvature import Curvature
from .forms import unit_space, unit_time
from .sampling import wrapped_normal

__all__ = ["Lorentz"]

Check = tuple[bool, str | None]


class Lorentz(Curvature, geoopt.Lorentz):  # type: ignore[misc]
    r"""The hyperboloid :math:`\{x : \langle x, x\rangle_L = -k,\ x_0 > 0\}` of curvature :math:`-1/k`.

    A ``geoopt.Lorentz`` whose operations do not cancel (see ``lorentz.math``, ``lorentz.tangent``, ``lorentz.transport``
    and ``lorentz.geodesics`` for the formulas and their limits); it works with geoopt's optimisers, parameters, products
    and ``Scaled``. Points and tangent vectors are plain tensors whose space part alone is read, along `dim`.

    Parameters
    ----------
    k : float, > 0. Larger is flatter.
    learnable : bool. Then :math:`k = k_0 e^\rho` with a parameter ``rho`` that starts at 0, so k stays positive.

    Raises
    ------
    TypeError : k is no number, or learnable no bool.
    ValueError : k is not positive and finite.

    Notes
    -----
    k keeps its float64 value under ``.to(dtype)`` and is part of ``state_dict()``: loading the state of another k into a
    fixed manifold is an error that names both; a learnable one takes it over. A device without float64, as Apple's MPS, takes
    no Lorentz layer.

    Examples
    --------
    >>> manifold = Lorentz(k=2.0)
    >>> manifold.curvature
    tensor(-0.5000, dtype=torch.float64)
    """

    __scaling__ = geoopt.Lorentz.__scaling__.copy()  # how results change under geoopt.Scaled
    __scaling__.update(sqdist=ScalingInfo(2), busemann=ScalingInfo(1))

    def __init__(self, k: float = 1.0, learnable: bool = False) -> None:
        super(geoopt.Lorentz, self).__init__()  # geoopt's own would store k in float32
        self._start(k, learnable)

    @property
    def dtype(self) -> torch.dtype | None:
        """None: k is float64, and points of any dtype are taken."""
        return None

    def extra_repr(self) -> str:
        """Value of k, shown by ``print``."""
        return f"k={float(self.k.detach()):g}" + (", learnable=True" if self.learnable else "")

    # Points

    def lift(self, space: Tensor, *, dim: int = -1) -> Tensor:
        """Point with these space coordinates; see :func:`lorentz.math.lift`."""
        return math.lift(space, k=self.k, dim=dim)

    def projx(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Nearest point in the space chart: the time is derived anew."""
        return math.lift(math.space_of(x, dim=dim), k=self.k, dim=dim)

    def origin(
        self,
        *size: int | tuple[int, ...],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        seed: int | None = 42,
    ) -> Tensor:
        """Points at the origin (sqrt(k), 0, ...), of this shape; nothing is drawn, so `seed` changes nothing."""
        shape = self._shape(size)
        return self.lift(torch.zeros(*shape[:-1], shape[-1] - 1, dtype=dtype, device=device))

    def random_normal(
        self,
        *size: int | tuple[int, ...],
        mean: Tensor | float = 0.0,
        std: Tensor | float = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Wrapped normal points about `mean`, a point, or 0 for the origin; see :func:`lorentz.sampling.wrapped_normal`."""
        if not isinstance(mean, Tensor) and mean != 0:
            raise ValueError(f"mean is a point of the manifold, or 0 for the origin; got {mean}")
        return wrapped_normal(
            self._shape(size),
            mean=mean if isinstance(mean, Tensor) else None,
            std=std,
            k=self.k,
            dtype=dtype,
            device=self.k0.device if device is None and not isinstance(mean, Tensor) else device,
            generator=generator,
        )

    random = random_normal

    def centroid(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted Lorentzian centroid; see :func:`lorentz.math.centroid`."""
        return math.centroid(x, weight, k=self.k)

    # Distances

    def minkowski(self, x: Tensor, y: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Inner product of the ambient space; see :func:`lorentz.math.minkowski`."""
        return math.minkowski(x, y, dim=dim, keepdim=keepdim)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Geodesic distance; see :func:`lorentz.math.dist`."""
        return math.dist(x, y, k=self.k, keepdim=keepdim, dim=dim)

    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Square of the geodesic distance; see :func:`lorentz.math.dist2`."""
        return math.dist2(x, y, k=self.k, keepdim=keepdim, dim=dim)

    def sqdist(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Squared Lorentzian distance; see :func:`lorentz.math.sqdist`."""
        return math.sqdist(x, y, k=self.k, keepdim=keepdim, dim=dim)

    def dist0(self, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Distance to the origin, the radius of `x`; see :func:`lorentz.math.dist0`."""
        return math.dist0(x, k=self.k, dim=dim, keepdim=keepdim)

    def busemann(self, x: Tensor, w: Tensor, *, dim: int = -1, keepdim: bool = False) -> Tensor:
        """Busemann function of the ideal point in direction `w`; see :func:`lorentz.geodesics.busemann`."""
        return geodesics.busemann(x, w, k=self.k, dim=dim, keepdim=keepdim)

    # Exponential, logarithm, geodesics

    def expmap(self, x: Tensor, u: Tensor, *, norm_tan: bool = True, project: bool = True, dim: int = -1) -> Tensor:
        """Exponential map; always on the hyperboloid, so `norm_tan` and `project` change nothing."""
        return math.expmap(x, u, k=self.k, dim=dim)

    retr = expmap

    def logmap(self, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithm of `y` at `x`; see :func:`lorentz.math.logmap`."""
        return math.logmap(x, y, k=self.k, dim=dim)

    def expmap0(self, u: Tensor, *, project: bool = True, dim: int = -1) -> Tensor:
        """Exponential map at the origin; always on the hyperboloid, so `project` changes nothing."""
        return math.expmap0(u, k=self.k, dim=dim)

    def logmap0(self, y: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithm at the origin; see :func:`lorentz.math.logmap0`."""
        return math.logmap0(y, k=self.k, dim=dim)

    def logmap0back(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Logarithm of the origin at `x`."""
        return math.logmap(x, self.lift(torch.zeros_like(math.space_of(x, dim=dim)), dim=dim), k=self.k, dim=dim)

    def geodesic(self, t: Tensor | float, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """Point at parameter t of the geodesic from `x` to `y`; see :func:`lorentz.geodesics.geodesic`."""
        return geodesics.geodesic(t, x, y, k=self.k, dim=dim)

    def geodesic_unit(self, t: Tensor | float, x: Tensor, u: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Point at distance t from `x` in direction `u`; see :func:`lorentz.geodesics.geodesic_unit`."""
        return geodesics.geodesic_unit(t, x, u, k=self.k, dim=dim)

    # Tangent vectors

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian inner product of tangent vectors at `x`; see :func:`lorentz.tangent.inner`."""
        return tangent.inner(x, u, v, k=self.k, dim=dim, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor | None = None, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian length of a tangent vector `u` at `x`; see :func:`lorentz.tangent.norm`.

        Raises
        ------
        TypeError : one argument, geoopt's ``norm(u)``: far out the length is lost in the coordinates of u alone.
        """
        if u is None:
            raise TypeError("the length of a tangent vector needs its point, as its own coordinates cancel: norm(x, u)")
        return tangent.norm(x, u, k=self.k, dim=dim, keepdim=keepdim)

    def inner0(self, v: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        r"""Minkowski inner product of any vector with the origin, :math:`-\sqrt k\, v_0`."""
        product = -v.narrow(dim, 0, 1) * self.k.sqrt().to(v)
        return product if keepdim else product.squeeze(dim)

    def proju(self, x: Tensor, v: Tensor, *, dim: int = -1) -> Tensor:
        """Projection of an ambient vector on the tangent space at `x`; see :func:`lorentz.tangent.project`."""
        return tangent.project(x, v, k=self.k, dim=dim)

    def egrad2rgrad(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Riemannian gradient of an ambient one, which stays as it is; see :func:`lorentz.tangent.riemannian_gradient`."""
        return tangent.riemannian_gradient(x, u, k=self.k, dim=dim)

    def transp(self, x: Tensor, y: Tensor, v: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport of `v` from `x` to `y`; see :func:`lorentz.transport.transport`."""
        return transport.transport(x, y, v, k=self.k, dim=dim)

    def transp0(self, y: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport from the origin to `y`; see :func:`lorentz.transport.transport_from_origin`."""
        return transport.transport_from_origin(y, u, k=self.k, dim=dim)

    def transp0back(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport from `x` to the origin; see :func:`lorentz.transport.transport_to_origin`."""
        return transport.transport_to_origin(x, u, k=self.k, dim=dim)

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
        """Exponential map of `u`, and `v` transported to where it leads."""
        y = self.expmap(x, u, dim=dim)
        return y, self.transp(x, y, v, dim=dim)

    retr_transp = expmap_transp

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """`v` transported from `x` to the exponential map of `u`."""
        return self.expmap_transp(x, u, v, dim=dim)[1]

    transp_follow_retr = transp_follow_expmap

    # Other models

    def to_poincare(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Isometry to the Poincaré ball of radius sqrt(k)."""
        return models.to_poincare(x, k=self.k, dim=dim)

    def from_poincare(self, p: Tensor, *, dim: int = -1) -> Tensor:
        """Isometry from the Poincaré ball of radius sqrt(k)."""
        return models.from_poincare(p, k=self.k, dim=dim)

    def to_klein(self, x: Tensor, *, dim: int = -1) -> Tensor:
        """Map to the Klein ball of radius sqrt(k), where geodesics are straight."""
        return models.to_klein(x, k=self.k, dim=dim)

    def from_klein(self, p: Tensor, *, dim: int = -1) -> Tensor:
        """Map from the Klein ball of radius sqrt(k)."""
        return models.from_klein(p, k=self.k, dim=dim)

    # Checks

    def _shape(self, size: tuple[int | tuple[int, ...], ...]) -> tuple[int, ...]:
        shape: tuple[int, ...] = tuple(size2shape(*size))
        ok, reason = self._check_shape(shape, "size")
        if not ok:
            raise ValueError(reason)
        return shape

    def _check_shape(self, shape: tuple[int, ...], name: str) -> Check:
        if len(shape) and shape[-1] >= 2:
            return True, None
        return False, f"'{name}' ends in the coordinates, time first, at least 2; got shape {tuple(shape)}"

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5, dim: int = -1) -> Check:
        wide, k = x.detach().double(), float(self.k.detach())
        time_sq = wide.narrow(dim, 0, 1).square()
        error = (math.minkowski(wide, wide, dim=dim, keepdim=True) + k).abs()
        # atol is of k, rtol of the squared time, which is what rounding of coordinates amounts to.
        allowed = (max(rtol, 4 * torch.finfo(x.dtype).eps) * time_sq).clamp(min=atol * k)
        if bool(((error <= allowed) & (wide.narrow(dim, 0, 1) > 0)).all()):
            return True, None
        return False, (
            f"'x' is off the hyperboloid of k = {k:g}: worst |<x, x> + k| / time^2 is {float((error / time_sq).max()):.2g}, "
            f"least time {float(wide.narrow(dim, 0, 1).min()):.4g}. projx derives the time anew; Euclidean features become "
            f"points by lift"
        )

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5, dim: int = -1
    ) -> Check:
        a, wide = unit_space(x.detach(), self.k.detach(), dim), u.detach().double()
        time = unit_time(a, dim)
        product = (a * math.space_of(wide, dim=dim)).sum(dim, keepdim=True) - time * wide.narrow(dim, 0, 1)
        length = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
        eps = 4 * max(torch.finfo(t.dtype).eps for t in (x, u))
        allowed = (max(rtol, eps) * time).clamp(min=atol) * length
        if bool((product.abs() <= allowed).all()):
            return True, None
        worst = float((product.abs() / (time * length)).max())
        return False, (
            f"'u' is not tangent at 'x': worst |<x, u>| / (time |u|) is {worst:.2g}. proju projects an ambient vector"
        )
