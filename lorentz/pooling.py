"""One point of a sequence of points."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .flat import Euclidean
from .geometry import geometry_of
from .manifold import Lorentz

__all__ = ["POOLINGS", "LorentzPooling"]

POOLINGS = ("centroid", "first")


class LorentzPooling(nn.Module):
    r"""One point for each sequence: the centroid of its tokens, or its first token.

    Parameters
    ----------
    kind : str, one of ``POOLINGS``
    manifold : Lorentz, or ``lorentz.flat.Euclidean()`` for the flat twin, whose centroid is the mean

    Raises
    ------
    ValueError : an unknown `kind`.

    Notes
    -----
    The centroid of points in many directions lies near the origin, at a radius that falls with their radius; their mean in
    flat space does not. Where both are to be alike, normalise the result.

    Examples
    --------
    >>> manifold = Lorentz(k=1.0)
    >>> LorentzPooling(manifold=manifold)(manifold.origin(2, 5, 17)).shape
    torch.Size([2, 17])
    """

    def __init__(self, kind: str = "centroid", *, manifold: Lorentz | Euclidean) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f"kind is one of {', '.join(map(repr, POOLINGS))}; got {kind!r}")
        self._geometry = geometry_of(manifold)
        self.kind, self.manifold = kind, manifold

    def extra_repr(self) -> str:
        """Kind, shown by ``print``."""
        return f"{self.kind!r}"

    def forward(
        self, x: Float[Tensor, "*batch s dim"], *, key_padding_mask: Bool[Tensor, "*batch s"] | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Points (..., S, dim) to points (..., dim) on the hyperboloid, in the dtype of `x`.

        Parameters
        ----------
        key_padding_mask : bool, shape (..., S). True is a token, others do not count. A sequence without tokens, or of length
            0, gives the origin.
        """
        if x.shape[-2] == 0:
            return self._origin(x.new_zeros(*x.shape[:-2], x.shape[-1]))
        if key_padding_mask is None:
            return x[..., 0, :] if self.kind == "first" else self.manifold.centroid(x)
        some = key_padding_mask.any(-1, keepdim=True)
        if self.kind == "first":
            first = key_padding_mask.int().argmax(-1)[..., None, None].expand(*x.shape[:-2], 1, x.shape[-1])
            point = x.gather(-2, first).squeeze(-2)
        else:
            point = self.manifold.centroid(x, (key_padding_mask | ~some).to(x.dtype))
        return torch.where(some, point, self._origin(point))

    def _origin(self, like: Tensor) -> Tensor:
        return self.manifold.lift(torch.zeros_like(self._geometry.space_of(like)))
