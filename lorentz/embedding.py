"""Points that are looked up by index."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .manifold import Lorentz
from .points import PointParameters

__all__ = ["LorentzEmbedding"]


class LorentzEmbedding(PointParameters):
    r"""A table of points, stored by their space coordinates and lifted when looked up.

    What is stored cannot leave the hyperboloid, whatever an optimiser, a checkpoint or a sparse update does to it.

    Parameters
    ----------
    num_embeddings : int
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    padding_idx : int or None. This row starts at the origin and gets no gradient.
    sparse : bool. Sparse gradients for ``weight``.
    std : float, > 0. Standard deviation of each initial space coordinate.

    Attributes
    ----------
    weight : Parameter, shape (num_embeddings, dim - 1), space coordinates; ``weight.manifold`` is the manifold, by
        which Riemannian optimisers know it.

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : no rows, `dim` below 2, or `padding_idx` outside of the rows.

    Examples
    --------
    >>> table = LorentzEmbedding(10, 5, manifold=Lorentz(k=1.0), padding_idx=0)
    >>> table(torch.tensor([0]))
    tensor([[1., 0., 0., 0., 0.]], grad_fn=<CatBackward0>)
    """

    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        manifold: Lorentz,
        padding_idx: int | None = None,
        sparse: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if num_embeddings < 1 or dim < 2:
            raise ValueError(
                f"an embedding needs at least 1 row and, with the time axis, 2 coordinates; "
                f"got {num_embeddings} and {dim}"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx {padding_idx} is outside the {num_embeddings} rows")
        self.num_embeddings, self.dim, self.sparse, self.std = num_embeddings, dim, sparse, std
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.manifold = manifold
        self.weight = nn.Parameter(torch.empty(num_embeddings, dim - 1))
        self._tag()
        self.reset_parameters()

    def _tag(self) -> None:
        self.weight.manifold = self.manifold  # type: ignore[attr-defined]

    def reset_parameters(self) -> None:
        """Draw normal space coordinates with deviation ``std``; put the padding row at the origin."""
        with torch.no_grad():
            self.weight.normal_(0, self.std)
            if self.padding_idx is not None:
                self.weight[self.padding_idx] = 0

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return f"{self.num_embeddings}, {self.dim}" + (
            "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        )

    def forward(self, index: Int[Tensor, "*batch"] | None = None) -> Float[Tensor, "*batch dim"]:
        """Points (..., dim) of integer indices (...), on the hyperboloid; all rows in order if `index` is None."""
        if index is None:
            index = (
                torch.arange(self.num_embeddings, device=self.weight.device) if self.padding_idx is not None else None
            )
        if index is None:
            return self.manifold.lift(self.weight)
        return self.manifold.lift(F.embedding(index, self.weight, self.padding_idx, sparse=self.sparse))
