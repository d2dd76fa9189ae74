"""Positions of tokens: learned, sinusoidal, rotary; all act on space coordinates."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import math
from .rotations import givens

__all__ = ["LearnedPositions", "SinusoidalPositions", "rotary", "rotate", "shift"]


def shift(
    x: Float[Tensor, "*batch dim"], addend: Float[Tensor, "*batch space"], *, k: float | Tensor = 1.0
) -> Float[Tensor, "*batch dim"]:
    """Add `addend` (..., dim - 1) to the space coordinates of points `x` (..., dim) and lift anew.

    Returns points (..., dim) on the hyperboloid, in the dtype of `x`.
    """
    return math.lift((math.space_of(x) + addend).to(x.dtype), k=k)


class LearnedPositions(nn.Module):
    """A learned vector of space coordinates for every position.

    Parameters
    ----------
    max_length : int, >= 1. Positions 0 to ``max_length - 1`` exist.
    dim : int, >= 2. Size of the points it is added to, time axis included.
    std : float, > 0. Deviation of the initial coordinates.

    Attributes
    ----------
    weight : Parameter, shape (max_length, dim - 1)

    Raises
    ------
    ValueError : no positions, or `dim` below 2.

    Examples
    --------
    >>> LearnedPositions(8, 5)(torch.arange(3)).shape
    torch.Size([3, 4])
    """

    def __init__(self, max_length: int, dim: int, *, std: float = 0.02) -> None:
        super().__init__()
        if max_length < 1 or dim < 2:
            raise ValueError(
                f"positions need at least 1 of them and, with the time axis, 2 coordinates; got {max_length} and {dim}"
            )
        self.max_length, self.dim, self.std = max_length, dim, std
        self.weight = nn.Parameter(torch.empty(max_length, dim - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw normal coordinates with deviation ``std``."""
        nn.init.normal_(self.weight, 0, self.std)

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"{self.max_length}, {self.dim}"

    def forward(self, positions: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch space"]:
        """Space coordinates (..., dim - 1) of integer positions (...), for ``addend`` or :func:`shift`.

        Raises
        ------
        IndexError : a position is outside 0 to max_length - 1.
        """
        return F.embedding(positions, self.weight)


def _angles(positions: Tensor, pairs: int, base: float) -> Tensor:
    """Angle of every pair, positions (...) to (..., pairs), in float64: float32 is 0.01 off at position 200,000."""
    index = torch.arange(pairs, dtype=torch.float64, device=positions.device)
    return positions.double().unsqueeze(-1) * torch.exp(index * (-log(base) / pairs))


class SinusoidalPositions(nn.Module):
    r"""Fixed sines and cosines for every position, computed when asked for: nothing to save and no longest sequence.

    Coordinates :math:`2i` and :math:`2i + 1` are sine and cosine of :math:`p\, b^{-2i / (dim - 1)}`, times ``scale``.

    Parameters
    ----------
    dim : int, >= 2. Size of the points it is added to, time axis included.
    base : float, > 1, b above
    scale : float. The vector has length ``scale * sqrt((dim - 1) / 2)``.

    Raises
    ------
    ValueError : `dim` below 2, or `base` not above 1.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """

    def __init__(self, dim: int, *, base: float = 10000.0, scale: float = 1.0) -> None:
        super().__init__()
        if dim < 2 or not base > 1:
            raise ValueError(f"dim counts the time axis and is at least 2, base is above 1; got dim={dim}, base={base}")
        self.dim, self.base, self.scale = dim, base, scale

    def extra_repr(self) -> str:
        """Size, base and scale, shown by ``print``."""
        return f"{self.dim}, base={self.base:g}, scale={self.scale:g}"

    def forward(
        self, positions: Int[Tensor, "*batch"], *, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*batch space"]:
        """Space coordinates (..., dim - 1) of integer positions (...), for ``addend`` or :func:`shift`.

        `dtype` is that of the result, torch's default if None.
        """
        angles = _angles(positions, self.dim // 2, self.base)  # the last cosine is left out if dim - 1 is odd
        waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., : self.dim - 1]
        return (self.scale * waves).to(torch.get_default_dtype() if dtype is None else dtype)


def rotate(
    space: Float[Tensor, "... s n"], positions: Int[Tensor, "..."], *, base: float = 10000.0
) -> Float[Tensor, "... s n"]:
    r"""Rotate the pairs (i, i + n/2) of space coordinates by the angles :math:`p\, b^{-2i/n}`.

    Parameters
    ----------
    space : Tensor, shape (..., s, n), n even
    positions : integer Tensor, broadcast to (..., s)

    Returns
    -------
    Tensor, shape (..., s, n), of the same norms.

    Raises
    ------
    ValueError : an odd number of space coordinates.

    References
    ----------
    Su et al., "RoFormer", 2021, equation 34.
    """
    n = space.shape[-1]
    if n % 2:
        raise ValueError(f"a rotation turns pairs of space coordinates, so their number is even; got {n}")
    return givens(space, _angles(positions, n // 2, base))


def rotary(
    q: Float[Tensor, "*batch s d"],
    k: Float[Tensor, "*batch t d"],
    positions: Int[Tensor, "..."],
    *,
    key_positions: Int[Tensor, "..."] | None = None,
    base: float = 10000.0,
) -> tuple[Float[Tensor, "*batch s d"], Float[Tensor, "*batch t d"]]:
    """Rotate the space part of queries and keys by their positions; the times stay.

    The inner product of a rotated query and key depends on the difference of their positions alone.

    Parameters
    ----------
    q, k : Tensor, points (..., s, d) and (..., t, d) of a head, d odd
    positions : integer Tensor, broadcast to (..., s)
    key_positions : integer Tensor, broadcast to (..., t); `positions` if None

    Returns
    -------
    (Tensor, Tensor), of the shapes of q and k, on the hyperboloids of q and k.
    """
    where = positions if key_positions is None else key_positions
    turned = [rotate(math.space_of(x), p, base=base) for x, p in ((q, positions), (k, where))]
    return torch.cat([q[..., :1], turned[0]], -1), torch.cat([k[..., :1], turned[1]], -1)
