r"""Lorentz transforms as functions: boosts, the polar factors of a transform, the transform nearest to a matrix.

:math:`O^+(1, n)` are the matrices with :math:`\Lambda^T J \Lambda = J`, :math:`J = \mathrm{diag}(-1, 1, \dots, 1)`,
that keep the direction of time. They are the isometries of the hyperboloid of every k.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import math
from .forms import double_space
from .math import arsinhc, sinhc

__all__ = ["ORDERS", "Nearest", "Polar", "boost", "boost_matrix", "nearest_lorentz", "polar"]

ORDERS = ("rotation_first", "boost_first")


def _coshc(squared: Tensor) -> Tensor:
    """(cosh(n) - 1) / n^2 of n = sqrt(squared), by 2 sinh^2(n / 2)."""
    return sinhc(squared / 4).square() / 2


def boost(
    x: Float[Tensor, "*batch d"], rapidity: Float[Tensor, "*b space"], *, k: float | Tensor = 1.0
) -> Float[Tensor, "*batch d"]:
    r"""Boost points: with :math:`u = w / |w|` and rapidity vector w,
    :math:`y_s = s + ((\cosh|w| - 1)\langle u, s\rangle + \sinh|w|\, x_0)\, u`.

    The isometry that moves the origin by :math:`\sqrt k\,|w|` in direction w. No matrix is formed, nothing bounds w, and
    w = 0 is an ordinary value with every derivative. ``boost(boost(x, w), -w) == x`` up to rounding.

    Parameters
    ----------
    x : Tensor, shape (..., d), on the hyperboloid
    rapidity : Tensor, shape (d - 1,) or one for each point, (..., d - 1)
    k : float or scalar tensor, > 0

    Returns
    -------
    Tensor, shape (..., d), on the hyperboloid, in the dtype of `x`; computed in float64.

    Raises
    ------
    ValueError : `rapidity` has another number of coordinates than the points have of space.
    """  # noqa: D205
    if rapidity.shape[-1] != x.shape[-1] - 1:
        raise ValueError(
            f"points of {x.shape[-1]} coordinates, time first, take a rapidity of {x.shape[-1] - 1} coordinates; "
            f"got {rapidity.shape[-1]}"
        )
    s, w = double_space(x, -1), rapidity.double()
    time = math.lift(s, k=k)[..., :1]
    squared = (w * w).sum(-1, keepdim=True)
    along = _coshc(squared) * (w * s).sum(-1, keepdim=True) + sinhc(squared) * time
    return math.lift((s + along * w).to(x.dtype), k=k)


def boost_matrix(rapidity: Float[Tensor, "*batch space"]) -> Float[Tensor, "*batch d d"]:
    r"""Symmetric matrix of a boost: :math:`(\cosh|w|, \sinh|w|\,u^T; \sinh|w|\,u, I + (\cosh|w| - 1) u u^T)`.

    Shape (..., d - 1) to (..., d, d), the same for every k.
    """
    squared = (rapidity * rapidity).sum(-1, keepdim=True)
    side = sinhc(squared) * rapidity
    corner = 1 + squared * _coshc(squared)
    block = _coshc(squared).unsqueeze(-1) * rapidity.unsqueeze(-1) * rapidity.unsqueeze(-2)
    block = block + torch.eye(rapidity.shape[-1], dtype=rapidity.dtype, device=rapidity.device)
    top = torch.cat([corner, side], -1).unsqueeze(-2)
    return torch.cat([top, torch.cat([side.unsqueeze(-1), block], -1)], -2)


def _embed(rotation: Tensor) -> Tensor:
    """The transform diag(1, R) of an orthogonal R."""
    n = rotation.shape[-1]
    out = rotation.new_zeros(*rotation.shape[:-2], n + 1, n + 1)
    out[..., 0, 0] = 1
    out[..., 1:, 1:] = rotation
    return out


class Polar(NamedTuple):
    """Factors of a Lorentz transform."""

    rapidity: Float[Tensor, "*batch space"]
    rotation: Float[Tensor, "*batch space space"]
    reflection: Bool[Tensor, "*batch"]


def polar(matrix: Float[Tensor, "..."], *, order: str = "rotation_first", tolerance: float | None = None) -> Polar:
    r"""Factor a Lorentz transform into a boost and a rotation, which are unique.

    ``"rotation_first"``: :math:`\Lambda = B(w)\,\mathrm{diag}(1, R)`, w from the first column;
    ``"boost_first"``: :math:`\Lambda = \mathrm{diag}(1, R)\,B(w)`, w from the first row. R is the same in both,
    :math:`R = \Lambda_{ss} - c\,r^T / (1 + \Lambda_{00})` with the first column c and row r, and
    :math:`w = \operatorname{arsinh}|c|\; c / |c|`, exact for rapidities near 0 as well.

    Parameters
    ----------
    matrix : Tensor, shape (..., d, d)
    order : str, which factor acts on a point first
    tolerance : float or None. Largest accepted residual; by default a few hundred roundings of the largest entry's square.

    Returns
    -------
    Polar : rapidity (..., d - 1), rotation (..., d - 1, d - 1) in O(d - 1), and reflection (...): whether the determinant
        of the transform, and so of the rotation part, is -1.

    Raises
    ------
    ValueError : no Lorentz transform, with its residual :math:`\max|\Lambda^T J \Lambda - J|`; or one that reverses time.
    """
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(map(repr, ORDERS))}; got {order!r}")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(f"a Lorentz transform is a square matrix of size 2 or more, got shape {tuple(matrix.shape)}")
    wide = matrix.detach().double()
    _check(wide, matrix.dtype, tolerance)
    column, row = wide[..., 1:, 0], wide[..., 0, 1:]
    corner = (1 + (column * column).sum(-1)).sqrt()[..., None, None]
    rotation = wide[..., 1:, 1:] - column.unsqueeze(-1) * row.unsqueeze(-2) / (1 + corner)
    # One Newton step to the nearest orthogonal matrix squares what rounding of the large entries left over.
    rotation = 1.5 * rotation - 0.5 * rotation @ rotation.mT @ rotation
    side = column if order == "rotation_first" else row
    rapidity = arsinhc((side * side).sum(-1, keepdim=True)) * side
    reflection = torch.linalg.det(rotation) < 0
    return Polar(rapidity.to(matrix.dtype), rotation.to(matrix.dtype), reflection)


def _check(wide: Tensor, dtype: torch.dtype, tolerance: float | None) -> None:
    if wide.numel() == 0:
        return
    form = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
    form[0, 0] = -1
    residual = (wide.mT @ form @ wide - form).abs().amax((-2, -1))
    bound = wide.abs().amax((-2, -1)).square() * (256 * torch.finfo(dtype).eps) if tolerance is None else tolerance
    bad = ~(residual <= bound)
    if bool(bad.any()):
        worst = float(residual[bad].nan_to_num(torch.inf).max())
        raise ValueError(
            f"not a Lorentz transform: max|L^T J L - J| = {worst:.3g}, J = diag(-1, 1, ..., 1); "
            f"nearest_lorentz gives the nearest transform and how far it is"
        )
    if bool((wide[..., 0, 0] < 0).any()):
        raise ValueError(
            f"the transform reverses time (its corner is {float(wide[..., 0, 0].min()):.4g}, expected >= 1) and takes the "
            f"hyperboloid to its other sheet; -L keeps time"
        )


class Nearest(NamedTuple):
    """A Lorentz transform and how far a matrix is from it, relative to the matrix."""

    matrix: Float[Tensor, "d d"]
    residual: float


def nearest_lorentz(weight: Float[Tensor, "rows d"], *, steps: int = 100) -> Nearest:
    r"""Lorentz transform next to a matrix in the Frobenius norm, to see what a trained layer does.

    For each rapidity the best rotation is a Procrustes problem; the rapidity is found by L-BFGS from that of the first
    column. A local minimum of :math:`|W - \Lambda|_F`, and the exact one if W is a transform.

    Parameters
    ----------
    weight : Tensor, shape (d, d), or (d - 1, d): the space rows alone, as ``LorentzLinear.weight`` of
        ``variant="unbounded"`` (``weight[1:]`` of the others, whose row 0 is no time row)
    steps : int, >= 1

    Returns
    -------
    Nearest : matrix (d, d), in the dtype of `weight`, and residual :math:`|W - \Lambda|_F / |W|_F`, over the rows given.

    Raises
    ------
    ValueError : a weight between different sizes, or with entries that are not finite.
    """
    size = weight.shape[-1]
    if weight.ndim != 2 or weight.shape[0] not in (size - 1, size) or size < 2:
        raise ValueError(
            f"the weight has shape (d, d), or (d - 1, d) without its time row; got {tuple(weight.shape)}. A layer between "
            f"different sizes is no Lorentz transform"
        )
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("the weight has entries that are not finite")
    target = weight.detach().double()
    first = size - target.shape[0]  # row of a transform that the first row given corresponds to
    column = target[1 - first :, 0]
    w = (arsinhc((column * column).sum()) * column).requires_grad_()

    def transform(w: Tensor) -> Tensor:
        with torch.no_grad():  # the rotation is optimal, so the derivative does not see it
            block = boost_matrix(w)[first:, 1:].mT @ target[:, 1:]
            left, _, right = torch.linalg.svd(block)
        return boost_matrix(w) @ _embed(left @ right)

    def loss() -> Tensor:
        solver.zero_grad()
        value = (transform(w)[first:] - target).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver = torch.optim.LBFGS(
        [w], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-16
    )
    with torch.enable_grad():
        start = float(loss().detach())
        if start > 1e-20 * float(target.square().sum()):
            solver.step(loss)  # type: ignore[no-untyped-call]
    matrix = transform(w.detach())
    residual = float((matrix[first:] - target).norm() / target.norm())
    return Nearest(matrix.to(weight.dtype), residual)
