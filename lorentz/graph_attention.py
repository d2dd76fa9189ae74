"""Attention over the edges of a graph, by Lorentzian distances and centroids, in memory that grows with the edges."""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .attention import Heads
from .forms import at_least_float32, space_of
from .fused_heads import merge_heads
from .manifold import Lorentz
from .segments import check_edges, segment_softmax, segment_sum, with_self_loops

__all__ = ["LorentzGraphAttention"]


class LorentzGraphAttention(nn.Module):
    r"""Attention of every node over the nodes that have an edge to it, with a softmax by Lorentzian distance.

    Per head, with :math:`d_L^2(q, k) = -2k - 2\langle q, k\rangle_L`, a learned scale :math:`\lambda > 0` and the weights
    a of the edges j to i,

    .. math:: w_{ij} = \frac{a_{ij} e^{-d_L^2(q_i, k_j) / \lambda}}{\sum_l a_{il} e^{-d_L^2(q_i, k_l) / \lambda}}, \qquad
              y_i = \sqrt k\, c_i / \sqrt{-\langle c_i, c_i\rangle_L}, \quad c_i = \sum_j w_{ij} v_j .

    As in :class:`LorentzMultiheadAttention` every head is a hyperboloid of its own, and queries, keys and values are
    ``"unbounded"`` maps; the result holds the space coordinates of all heads. Nothing of size N x N exists.

    A node without edges attends to itself alone, by its loop; without ``self_loops`` it becomes the origin.

    Parameters
    ----------
    in_features, out_features : int, >= 2. Sizes of a point, time axis included.
    num_heads : int, divides ``out_features - 1``
    manifold : Lorentz, of input and result
    self_loops : bool. Give every node an edge of weight 1 to itself, beside those it has.
    bias : bool, of the three linear maps
    activation : callable on the space part of the *input*, or None
    dropout : float in [0, 1), on the weights. A head that loses all of them gives the origin.

    Attributes
    ----------
    query, key, value : LorentzLinear
    log_scale : Parameter, scalar. Starts at :math:`\lambda = 2\sqrt{(out\_features - 1) / num\_heads}`.

    Raises
    ------
    ValueError : heads that do not divide the space coordinates, `dropout` outside of [0, 1); in a call, edges of nodes that
        are not there.

    Notes
    -----
    Softmax and centroids are computed in float64, whatever the dtype; logits are not, and have an error of about
    ``eps * time * (time - sqrt(k))`` over :math:`\lambda`, the times of query and key, which for a large k is half of eps
    times the squared length of the key.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, equations 5 and 6; Velickovic et al., "Graph Attention
    Networks", ICLR 2018, equation 3 for the softmax over edges.

    Examples
    --------
    >>> layer = LorentzGraphAttention(5, 9, 2, manifold=Lorentz(k=1.0))
    >>> layer(layer.manifold.origin(4, 5), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
    torch.Size([4, 9])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_heads: int = 1,
        *,
        manifold: Lorentz,
        self_loops: bool = True,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if out_features < 2 or num_heads < 1 or (out_features - 1) % num_heads:
            raise ValueError(
                f"out_features counts the time axis, so num_heads divides out_features - 1; got {out_features} and "
                f"num_heads={num_heads}. The next out_features that fits is "
                f"{max(-(-(out_features - 1) // max(num_heads, 1)), 1) * max(num_heads, 1) + 1}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {dropout}")
        self.in_features, self.out_features, self.num_heads = in_features, out_features, num_heads
        self.self_loops, self.dropout = self_loops, dropout

        maps: dict[str, Any] = {
            "manifold": manifold, "bias": bias, "in_features": in_features, "activation": activation,
        }  # fmt: skip
        self.query = Heads(out_features, num_heads, role="query", **maps)
        self.key = Heads(out_features, num_heads, role="key", **maps)
        self.value = Heads(out_features, num_heads, role="value", **maps)
        self.manifold = manifold
        self.log_scale = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to twice the root of the head's size; the maps have their own."""
        nn.init.constant_(self.log_scale, log(2 * ((self.out_features - 1) // self.num_heads) ** 0.5))

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, num_heads={self.num_heads}, "
            f"self_loops={self.self_loops}, dropout={self.dropout}"
        )

    def forward(
        self,
        x: Float[Tensor, "*batch n in_features"],
        edge_index: Int[Tensor, "two edges"],
        edge_weight: Float[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "*batch n out_features"]:
        """Map the nodes (..., N, in_features) to points (..., N, out_features), in the dtype of `x`.

        Parameters
        ----------
        x : Tensor, shape (..., N, in_features), on the hyperboloid; graphs of a batch share their edges
        edge_index : int64 Tensor, shape (2, M): sources and targets; edges that occur twice count twice
        edge_weight : Tensor, shape (M,), >= 0 (NaN results below), or None for ones. An edge of weight 0 is none.

        Raises
        ------
        ValueError : shapes that do not fit, or a node that is not there.
        """
        query = at_least_float32(self.query(x, factor=2 * torch.exp(-self.log_scale)))
        key, value = at_least_float32(self.key(x)), self.manifold.lift(space_of(self.value(x)).double())
        *batch, nodes, heads, _ = value.shape
        check_edges(edge_index, edge_weight, nodes)
        source, target, prior = with_self_loops(edge_index, edge_weight, nodes, loops=self.self_loops, like=value)
        logits = (query.index_select(-3, target) * key.index_select(-3, source)).sum(-1).double()
        weight = segment_softmax(logits, prior, target, nodes)
        p = self.dropout if self.training else 0.0
        weight = F.dropout(weight, p, p > 0)
        left = segment_sum(weight, target, nodes, dim=-2)[..., None]
        # What is left of a node that lost all but a rounding error has a gradient that overflows: it has no edges.
        lost = left < torch.finfo(left.dtype).eps if p > 0 else left == 0
        moved = value.index_select(-3, source) * weight[..., None]
        combined = segment_sum(moved, target, nodes, dim=-3) / torch.where(lost, torch.ones_like(left), left)
        dead = None if self.self_loops and p == 0 else lost
        a, gone = (
            None if t is None else t.reshape(prod(batch), nodes, heads, t.shape[-1]).transpose(1, 2)
            for t in (combined, dead)
        )
        assert a is not None
        return merge_heads(a, k=self.manifold.k.to(a), dead=gone).reshape(*batch, nodes, self.out_features).to(x.dtype)
