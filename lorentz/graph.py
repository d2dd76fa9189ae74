"""Graph convolution: a Lorentz linear map of every node, then the weighted centroid of its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .fused_heads import merge_heads
from .linear import LorentzLinear
from .manifold import Lorentz
from .segments import check_edges, propagation, segment_sum, with_self_loops
from .sparse import SparseMatrix

__all__ = ["NORMALISATIONS", "LorentzGraphConv", "neighbourhood"]

NORMALISATIONS = ("symmetric", "row")


def _check_normalisation(normalisation: str) -> None:
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation is one of {', '.join(map(repr, NORMALISATIONS))}; got {normalisation!r}")


def neighbourhood(
    edge_index: Tensor,
    nodes: int,
    edge_weight: Tensor | None = None,
    *,
    normalisation: str = "symmetric",
    self_loops: bool = True,
) -> SparseMatrix:
    """Weights of a fixed graph, prepared once for :class:`LorentzGraphConv`, which then multiplies instead of gathering.

    Parameters
    ----------
    edge_index : int64 Tensor, shape (2, M): sources and targets
    nodes : int, number of nodes
    edge_weight : Tensor, shape (M,), >= 0, or None for ones
    normalisation, self_loops : as in :class:`LorentzGraphConv`

    Returns
    -------
    SparseMatrix (nodes, nodes); each row sums to 1, or is empty: a node that nothing leads to.

    Raises
    ------
    ValueError : an unknown `normalisation`, or edges or weights that do not fit `num_nodes`.
    """
    _check_normalisation(normalisation)
    check_edges(edge_index, edge_weight, nodes)
    like = torch.ones((), dtype=torch.float64, device=edge_index.device)
    source, target, weight = with_self_loops(edge_index, edge_weight, nodes, loops=self_loops, like=like)
    weight = propagation(source, target, weight, nodes, normalisation)
    total = segment_sum(weight, target, nodes, dim=-1)
    share = weight / total.index_select(0, target)
    kept = weight != 0
    return SparseMatrix(torch.stack([target, source])[:, kept], share[kept], (nodes, nodes))


class LorentzGraphConv(nn.Module):
    r"""Graph convolution in hyperbolic space: :class:`LorentzLinear` of every node, then a centroid over its neighbours.

    .. math:: h_j = \mathrm{LorentzLinear}(x_j), \qquad
              y_i = \sqrt k\, a_i / \sqrt{-\langle a_i, a_i\rangle_L}, \quad a_i = \sum_j w_{ij} h_j .

    ``"symmetric"`` weights are :math:`a_{ij} / \sqrt{d_i d_j}`, ``"row"`` weights :math:`a_{ij} / d_i`, with the weights
    a of the edges j to i, loops included, and d their sums over the edges that lead to a node. A centroid does not depend
    on the scale of its weights, so the two differ by :math:`\sqrt{d_j}` alone.

    A node without edges keeps its own :math:`h_i`, by its loop; without ``self_loops`` it becomes the origin.

    Parameters
    ----------
    in_features, out_features : int, >= 2. Sizes of a point, time axis included.
    manifold : Lorentz, of input and result
    normalisation : str, one of ``NORMALISATIONS``
    self_loops : bool. Give every node an edge of weight 1 to itself, beside those it has.
    bias, variant, activation, dropout, scale : as in :class:`LorentzLinear`

    Attributes
    ----------
    linear : LorentzLinear

    Raises
    ------
    TypeError, ValueError : as :class:`LorentzLinear`; an unknown `normalisation`; in a call, edges of nodes that are not
        there, or weights beside a prepared graph.

    Notes
    -----
    The centroid is computed in float64, whatever the dtype, as in :func:`lorentz.math.centroid`; only edge lists, nothing of
    size N x N, are made.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, section 4.3; Kipf and Welling, ICLR 2017, equation 2.

    Examples
    --------
    >>> layer = LorentzGraphConv(5, 3, manifold=Lorentz(k=1.0))
    >>> layer(layer.manifold.origin(4, 5), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        manifold: Lorentz,
        normalisation: str = "symmetric",
        self_loops: bool = True,
        bias: bool = True,
        variant: str = "paper",
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        _check_normalisation(normalisation)
        self.in_features, self.out_features = in_features, out_features
        self.normalisation, self.self_loops = normalisation, self_loops
        self.linear = LorentzLinear(
            in_features,
            out_features,
            manifold=manifold,
            bias=bias,
            variant=variant,
            activation=activation,
            dropout=dropout,
            scale=scale,
        )
        self.manifold = manifold

    def extra_repr(self) -> str:
        """Sizes and weights, shown by ``print``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, normalisation={self.normalisation!r}, "
            f"self_loops={self.self_loops}"
        )

    def forward(
        self,
        x: Float[Tensor, "*batch n in_features"],
        edge_index: Tensor | SparseMatrix,
        edge_weight: Tensor | None = None,
    ) -> Float[Tensor, "*batch n out_features"]:
        """Map the nodes (..., N, in_features) to points (..., N, out_features), in the dtype of `x`.

        Parameters
        ----------
        x : Tensor, shape (..., N, in_features), on the hyperboloid; graphs of a batch share their edges
        edge_index : int64 Tensor, shape (2, M): sources and targets; edges that occur twice add up. Or what
            :func:`neighbourhood` made of it: the same result, faster for a graph that is used again. Its own
            normalisation and loops count then.
        edge_weight : Tensor, shape (M,), >= 0 (NaN results below), or None for ones

        Raises
        ------
        ValueError : shapes that do not fit, or a node that is not there.
        """
        return self.combine(self.linear(x), edge_index, edge_weight)

    def combine(self, h: Tensor, edge_index: Tensor | SparseMatrix, edge_weight: Tensor | None = None) -> Tensor:
        """Centroids alone, of points (..., N, d): what :meth:`forward` does after ``linear``."""
        nodes = h.shape[-2]
        points = self.manifold.lift(math.space_of(h).double())
        if isinstance(edge_index, SparseMatrix):
            if edge_weight is not None:
                raise ValueError(
                    "edge_weight is part of what neighbourhood() made: give it there, or here with edge_index"
                )
            if edge_index.shape != (nodes, nodes):
                raise ValueError(f"the points given are {nodes} nodes, the prepared graph has {edge_index.shape[0]}")
            combined, total = edge_index @ points, None
        else:
            check_edges(edge_index, edge_weight, nodes)
            source, target, weight = with_self_loops(edge_index, edge_weight, nodes, loops=self.self_loops, like=points)
            weight = propagation(source, target, weight, nodes, self.normalisation)
            total = segment_sum(weight, target, nodes, dim=-1)
            total = torch.where(total == 0, torch.ones_like(total), total)[:, None]
            combined = segment_sum(points.index_select(-2, source) * weight[:, None], target, nodes, dim=-2) / total
        flat = combined.reshape(prod(combined.shape[:-2]), 1, nodes, combined.shape[-1])
        dead = (
            None if self.self_loops and total is not None else flat[..., :1] == 0
        )  # a sum of points has a time above 0
        return merge_heads(flat, k=self.manifold.k.to(flat), dead=dead).reshape(combined.shape).to(h.dtype)
