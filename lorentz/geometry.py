"""The choice of a geometry, made once: what a model of several layers is built of, by its manifold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from . import math
from .attention import LorentzMultiheadAttention
from .attention_base import DistanceAttention
from .flat import Euclidean, EuclideanClassifier, EuclideanLinear, EuclideanMultiheadAttention
from .heads import LorentzClassifier
from .linear import LorentzLinear
from .manifold import Lorentz
from .normalization import LorentzLayerNorm

__all__ = ["Geometry", "geometry_of"]


class Geometry:
    """Layers of the hyperboloid. Every size counts the time axis.

    Parameters
    ----------
    manifold : Lorentz
    """

    time_axes = 1

    def __init__(self, manifold: Any) -> None:
        self.manifold = manifold

    def space_of(self, x: Tensor) -> Tensor:
        """Space coordinates of points."""
        return math.space_of(x)

    def linear(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        variant: str = "unbounded",
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
    ) -> nn.Module:
        """Linear layer whose space coordinates start as those of ``nn.Linear``."""
        return LorentzLinear(
            in_features,
            out_features,
            manifold=self.manifold,
            bias=bias,
            variant=variant,
            activation=activation,
            dropout=dropout,
            centred=True,
        )

    def attention(self, dim: int, num_heads: int, **options: Any) -> DistanceAttention:
        """Attention by distances; options of ``LorentzMultiheadAttention``."""
        return LorentzMultiheadAttention(dim, num_heads, manifold=self.manifold, centred=True, **options)

    def norm(self, dim: int, *, eps: float = 1e-5) -> nn.Module:
        """Layer normalisation of space coordinates."""
        return LorentzLayerNorm(dim, manifold=self.manifold, eps=eps)

    def classifier(self, dim: int, num_classes: int, *, kind: str, bias: bool = True) -> nn.Module:
        """Output layer."""
        return LorentzClassifier(dim, num_classes, manifold=self.manifold, kind=kind, bias=bias)

    def hidden_size(self, dim: int, hidden: int, *, attentions: int) -> int:
        """Size of the feed-forward layer of a block with so many attention layers."""
        return hidden


class _Flat(Geometry):
    """The twins, of as many free coordinates: one number less for every size."""

    time_axes = 0

    def space_of(self, x: Tensor) -> Tensor:
        return x

    def linear(self, in_features: int, out_features: int, *, variant: str = "unbounded", **options: Any) -> nn.Module:
        return EuclideanLinear(in_features - 1, out_features - 1, **options)

    def attention(self, dim: int, num_heads: int, **options: Any) -> DistanceAttention:
        return EuclideanMultiheadAttention(dim - 1, num_heads, **options)

    def norm(self, dim: int, *, eps: float = 1e-5) -> nn.Module:
        return nn.LayerNorm(dim - 1, eps=eps)

    def classifier(self, dim: int, num_classes: int, *, kind: str, bias: bool = True) -> nn.Module:
        return EuclideanClassifier(dim - 1, num_classes, kind=kind, bias=bias)

    def hidden_size(self, dim: int, hidden: int, *, attentions: int) -> int:
        # The hidden layer takes the parameters of the time columns: those of four maps an attention, and its own two.
        columns = (4 * attentions + 1) * (dim - 1) + hidden - 1
        return hidden + round(columns / (2 * dim - 1))


def geometry_of(manifold: Lorentz | Euclidean) -> Geometry:
    """The layers of a manifold.

    Raises
    ------
    TypeError : another manifold.
    """
    if isinstance(manifold, Lorentz):
        return Geometry(manifold)
    if isinstance(manifold, Euclidean):
        return _Flat(manifold)
    raise TypeError(
        f"manifold is a lorentz.Lorentz object, or lorentz.flat.Euclidean() for the flat twin; got {manifold!r}"
    )
