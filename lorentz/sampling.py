"""Random points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .forms import K, space_of
from .math import expmap, expmap0, lift
from .transport import transport_from_origin

__all__ = ["wrapped_normal"]


def wrapped_normal(
    size: tuple[int, ...],
    *,
    mean: Tensor | None = None,
    std: float | Tensor = 1.0,
    k: K = 1.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    r"""Wrapped normal points: :math:`\exp_\mu(\mathrm{PT}_{o \to \mu}(v))` of a normal tangent v at the origin.

    Every space coordinate of v has deviation `std`, so the radius about the mean is that of a normal vector in d - 1
    dimensions, about ``std * sqrt(d - 1)``.

    Parameters
    ----------
    size : tuple of int, shape of the result (..., d), d >= 2 with the time axis
    mean : Tensor, shape (..., d), on the hyperboloid, broadcast to `size`; the origin if None
    std : float or Tensor, >= 0, broadcast to (..., d - 1)
    dtype, device : of the result; those of `mean`, or torch's defaults
    generator : torch.Generator or None

    Returns
    -------
    Tensor of shape `size`, on the hyperboloid.

    Raises
    ------
    ValueError : d < 2, std < 0, or a mean or std that does not broadcast to the size.

    References
    ----------
    Nagano et al., "A Wrapped Normal Distribution on Hyperbolic Space for Gradient-Based Learning", ICML 2019, section 3.1.
    """
    if not size or size[-1] < 2:
        raise ValueError(f"a point has at least 2 coordinates, time first; got size {size}")
    if not (bool((std >= 0).all()) if isinstance(std, Tensor) else std >= 0):
        raise ValueError(f"std is a deviation, >= 0; got {std}")
    space = (*size[:-1], size[-1] - 1)
    _check_broadcast("mean", mean, size)
    _check_broadcast("std", std, space)
    if mean is not None:
        dtype, device = dtype or mean.dtype, device or mean.device
    noise = torch.randn(space, dtype=torch.float64, device=device, generator=generator) * std
    tangent = F.pad(noise, (1, 0))
    if mean is None:
        points = expmap0(tangent, k=k)
    else:
        moved = transport_from_origin(mean, tangent, k=k)
        points = expmap(mean.double(), moved, k=k)
    return lift(space_of(points).to(torch.get_default_dtype() if dtype is None else dtype), k=k)


def _check_broadcast(name: str, value: float | Tensor | None, size: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor):
        return
    given = tuple(value.shape)
    fits = len(given) <= len(size) and all(a in (1, b) for a, b in zip(reversed(given), reversed(size), strict=False))
    if not fits or (name == "mean" and (not given or given[-1] != size[-1])):
        raise ValueError(f"{name} broadcasts to {size}, got shape {given}")
