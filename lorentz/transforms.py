"""Lorentz transforms as layers: boost, rotation, and their product, which is every isometry of the hyperboloid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .factorisation import ORDERS, Nearest, Polar, _embed, boost, boost_matrix, nearest_lorentz, polar
from .manifold import Lorentz
from .points import check_points
from .rotations import PARAMETRISATIONS, givens, rotation_matrix

__all__ = [
    "PARAMETRISATIONS",
    "Boost",
    "LorentzTransform",
    "Nearest",
    "Polar",
    "Rotation",
    "boost",
    "boost_matrix",
    "givens",
    "nearest_lorentz",
    "polar",
    "rotation_matrix",
]


def _check_size(dim: int, manifold: Lorentz) -> None:
    if not isinstance(manifold, Lorentz):
        raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
    if dim < 2:
        raise ValueError(f"dim counts the time axis, so it is at least 2; got {dim}")


class Boost(nn.Module):
    r"""Learned boost, the hyperbolic translation: moves the origin by :math:`\sqrt k\,|w|` in direction w.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    std : float, >= 0. Standard deviation of the initial rapidity; 0 starts at the identity.

    Attributes
    ----------
    rapidity : Parameter, shape (dim - 1,), unbounded; see :func:`lorentz.boost`.

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `dim` below 2, or a negative `std`.

    Examples
    --------
    >>> manifold = Lorentz(k=1.0)
    >>> Boost(3, manifold=manifold)(manifold.origin(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, dim: int, *, manifold: Lorentz, std: float = 0.0) -> None:
        super().__init__()
        _check_size(dim, manifold)
        if not std >= 0:
            raise ValueError(f"std is a number >= 0, got {std}")
        self.dim, self.manifold, self.std = dim, manifold, std
        self.rapidity = nn.Parameter(torch.empty(dim - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a normal rapidity with deviation ``std``."""
        nn.init.normal_(self.rapidity, 0.0, self.std)

    def extra_repr(self) -> str:
        """Size, shown by ``print``."""
        return f"{self.dim}"

    def matrix(self) -> Float[Tensor, "dim dim"]:
        """The transform as a matrix (dim, dim)."""
        return boost_matrix(self.rapidity)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Boost points (..., dim)."""
        check_points("Boost", x, self.dim)
        return boost(x, self.rapidity, k=self.manifold.k)


class Rotation(nn.Module):
    r"""Learned rotation of the space part, :math:`R = R_0\,Q(\text{raw})`, about the origin.

    Q is the identity at the start and reaches every rotation (``"cayley"``: every one but those that turn a plane by half a
    turn exactly). :math:`R_0` is a constant orthogonal matrix, the identity unless made by :meth:`from_matrix`.

    ``"matrix_exp"``
        :math:`Q = \exp(A - A^T)`, A strictly lower triangular.
    ``"cayley"``
        :math:`Q = (I + S)^{-1}(I - S)`, S = A - A^T; the cheapest.
    ``"householder"``
        Q the product of an even number of reflections :math:`I - 2 v v^T / |v|^2`, initially equal in pairs.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    parametrisation : str, one of ``PARAMETRISATIONS``

    Attributes
    ----------
    raw : Parameter, (n (n - 1) / 2,) for n = dim - 1, or (n, even count) of vectors; None once frozen.
    base : buffer (dim - 1, dim - 1), the constant factor, or all of R once frozen. Never below float32.

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `dim` below 2, or an unknown `parametrisation`.

    Notes
    -----
    R and its application are computed in float32 at least, whatever autocast says. An unfrozen ``"matrix_exp"`` rotation
    has no ONNX operator: freeze first.

    References
    ----------
    Lezcano-Casado and Martinez-Rubio, "Cheap orthogonal constraints in neural networks", ICML 2019.
    """

    base: Tensor

    def __init__(self, dim: int, *, manifold: Lorentz, parametrisation: str = "matrix_exp") -> None:
        super().__init__()
        _check_size(dim, manifold)
        if parametrisation not in PARAMETRISATIONS:
            raise ValueError(
                f"parametrisation is one of {', '.join(map(repr, PARAMETRISATIONS))}; got {parametrisation!r}"
            )
        self.dim, self.manifold, self.parametrisation = dim, manifold, parametrisation
        n = dim - 1
        shape = (n, n - n % 2) if parametrisation == "householder" else (n * (n - 1) // 2,)
        self.raw: nn.Parameter | None = nn.Parameter(torch.empty(shape))
        self.register_buffer("base", torch.eye(n))
        self.reset_parameters()

    @classmethod
    def from_matrix(
        cls, rotation: Float[Tensor, "n n"], *, manifold: Lorentz, parametrisation: str = "matrix_exp"
    ) -> Rotation:
        """Rotation that starts at this orthogonal matrix (dim - 1, dim - 1); a reflection (determinant -1) stays one."""
        layer = cls(rotation.shape[-1] + 1, manifold=manifold, parametrisation=parametrisation)
        wide = rotation.detach().double()
        product = wide.mT @ wide
        residual = float((product - torch.eye(len(wide), dtype=wide.dtype, device=wide.device)).abs().max())
        if not residual <= 64 * torch.finfo(rotation.dtype).eps * len(wide):
            raise ValueError(f"not an orthogonal matrix: max|R^T R - I| = {residual:.3g}")
        layer.to(rotation.device)
        # One Newton step takes what rounding left of the residual.
        layer.base = (1.5 * wide - 0.5 * wide @ product).to(torch.promote_types(rotation.dtype, torch.float32))
        if rotation.dtype == torch.float64:
            layer.double()
        return layer

    @property
    def reflection(self) -> bool:
        """Whether the determinant is -1."""
        return bool(torch.linalg.det(self.base) < 0)

    def reset_parameters(self) -> None:
        """Start at ``base``."""
        if self.raw is None:
            return
        with torch.no_grad():
            if self.parametrisation == "householder":
                nn.init.normal_(self.raw)
                self.raw[:, 1::2] = self.raw[:, ::2]
            else:
                nn.init.zeros_(self.raw)

    def extra_repr(self) -> str:
        """Size and parametrisation, shown by ``print``."""
        return f"{self.dim}, parametrisation={self.parametrisation!r}" + (", frozen" if self.raw is None else "")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # model.to(bfloat16) must not round an orthogonal matrix.
        kept = self.base
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if kept.is_meta and not self.base.is_meta:  # to_empty(): reset_parameters() does not know of it
            self.base = torch.eye(self.dim - 1, device=self.base.device, dtype=self.base.dtype)
            kept = self.base
        if self.base.dtype in (torch.float16, torch.bfloat16):
            self.base = kept.to(self.base.device, torch.promote_types(kept.dtype, torch.float32))
        return self

    def matrix(self) -> Float[Tensor, "n n"]:
        """R, shape (dim - 1, dim - 1), in float32 at least."""
        if self.raw is None:
            return self.base
        with torch.autocast(self.raw.device.type, enabled=False):
            raw = self.raw.to(torch.promote_types(self.raw.dtype, torch.float32))
            turn = rotation_matrix(raw, parametrisation=self.parametrisation)
            matrix: Tensor = self.base.to(turn) @ turn
            return matrix

    @torch.no_grad()
    def freeze(self) -> Rotation:
        """Bake the matrix into the buffer ``base`` and drop the parameter, for inference, pickle and ONNX. Returns self."""
        self.base = self.matrix().clone()
        self.raw = None
        return self

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Rotate points (..., dim): :math:`y_s = R s`."""
        check_points("Rotation", x, self.dim)
        matrix = self.matrix()
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, matrix.dtype)
            space = math.space_of(x).to(dtype) @ matrix.to(dtype).mT
        return math.lift(space.to(x.dtype), k=self.manifold.k)


class LorentzTransform(nn.Module):
    r"""Learned isometry of the hyperboloid, a boost and a rotation: every one that keeps time (and the orientation).

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    parametrisation : str, of the :class:`Rotation`
    order : str. ``"rotation_first"``: :math:`\Lambda = B R`; ``"boost_first"``: :math:`\Lambda = R B`.
    std : float, >= 0. Standard deviation of the initial rapidity.

    Raises
    ------
    TypeError, ValueError : as :class:`Boost` and :class:`Rotation`; an unknown `order`.

    Examples
    --------
    >>> layer = LorentzTransform(3, manifold=Lorentz(k=1.0))
    >>> torch.equal(layer.matrix(), torch.eye(3))
    True
    """

    def __init__(
        self,
        dim: int,
        *,
        manifold: Lorentz,
        parametrisation: str = "matrix_exp",
        order: str = "rotation_first",
        std: float = 0.0,
    ) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order is one of {', '.join(map(repr, ORDERS))}; got {order!r}")
        self.dim, self.manifold, self.order = dim, manifold, order
        self.boost = Boost(dim, manifold=manifold, std=std)
        self.rotation = Rotation(dim, manifold=manifold, parametrisation=parametrisation)

    @classmethod
    def from_matrix(
        cls,
        matrix: Float[Tensor, "d d"],
        *,
        manifold: Lorentz,
        parametrisation: str = "matrix_exp",
        order: str = "rotation_first",
        tolerance: float | None = None,
    ) -> LorentzTransform:
        """Layer that starts at this Lorentz transform (dim, dim), in its dtype; refused as by :func:`lorentz.polar`.

        A transform of determinant -1 gives a layer whose ``reflection`` is True, and stays one whatever is learned.
        """
        factors = polar(matrix, order=order, tolerance=tolerance)
        layer = cls(len(matrix), manifold=manifold, parametrisation=parametrisation, order=order)
        layer.rotation = Rotation.from_matrix(factors.rotation, manifold=manifold, parametrisation=parametrisation)
        layer.boost.rapidity = nn.Parameter(factors.rapidity.clone())
        return layer

    @property
    def reflection(self) -> bool:
        """Whether the determinant is -1."""
        return self.rotation.reflection

    def extra_repr(self) -> str:
        """Size and order of the factors, shown by ``print``."""
        return f"{self.dim}, order={self.order!r}"

    def freeze(self) -> LorentzTransform:
        """Bake the rotation into a buffer; see :meth:`Rotation.freeze`. Returns self."""
        self.rotation.freeze()
        return self

    def matrix(self) -> Float[Tensor, "dim dim"]:
        """The transform as a matrix (dim, dim)."""
        rotation = _embed(self.rotation.matrix())
        boosting = self.boost.matrix().to(rotation)
        matrix: Tensor = boosting @ rotation if self.order == "rotation_first" else rotation @ boosting
        return matrix

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Transform points (..., dim)."""
        check_points("LorentzTransform", x, self.dim)
        y: Tensor = self.boost(self.rotation(x)) if self.order == "rotation_first" else self.rotation(self.boost(x))
        return y
