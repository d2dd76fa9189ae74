"""Layers that the encoders need beside those of ``lorentz``: sparse inputs, tangent space, and the Euclidean twins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import Lorentz, LorentzLinear, SparseMatrix
from lorentz import math as lmath
from lorentz.segments import segment_softmax, segment_sum
from lorentz.transport import transport_from_origin

from .features import Inputs, sparse_dropout

__all__ = ["EuclideanLinear", "FeatureLinear", "GraphAttention", "TangentConv"]


class FeatureLinear(LorentzLinear):
    """Lorentz linear map of points, or of sparse features, which are lifted without being written out."""

    def forward(self, x: Inputs, *, addend: Tensor | None = None) -> Tensor:
        """Map points (N, in_features), or sparse features (N, in_features - 1), to points (N, out_features)."""
        if isinstance(x, Tensor):
            return super().forward(x, addend=addend)
        k = self.manifold.k.to(self.weight)
        x = sparse_dropout(x, self.dropout if self.training else 0.0)
        squares = x.with_value(x.value.square()) @ torch.ones(x.shape[1], 1, device=k.device)
        z = x @ self.weight[:, 1:].T + (k + squares).sqrt() * self.weight[:, 0]
        z = z if self.bias is None else z + self.bias
        if addend is not None:
            z = z + (addend if self.log_scale is None else F.pad(addend, (1, 0)))
        k = self.manifold_out.k.to(z)
        if self.log_scale is None:
            return lmath.lift(z, k=k)
        return lmath.bounded_lift(
            z, scale=self.log_scale.exp(), k=k, bound="space" if self.variant == "paper" else "time"
        )


class EuclideanLinear(nn.Linear):
    """Linear map of features, dense or sparse, with dropout on them."""

    def __init__(self, in_features: int, out_features: int, *, dropout: float) -> None:
        super().__init__(in_features, out_features)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)
        self.dropout = dropout

    def forward(self, x: Inputs) -> Tensor:
        """Map (N, in_features) to (N, out_features)."""
        if isinstance(x, Tensor):
            return super().forward(F.dropout(x, self.dropout, self.training))
        return sparse_dropout(x, self.dropout if self.training else 0.0) @ self.weight.T + self.bias


class GraphAttention(nn.Module):
    r"""Euclidean attention over edges: softmax of :math:`\mathrm{LeakyReLU}(a\cdot Wx_i + b\cdot Wx_j)`, heads concatenated.

    References
    ----------
    Velickovic et al., "Graph Attention Networks", ICLR 2018, equation 3.
    """

    def __init__(self, in_features: int, out_features: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.linear = EuclideanLinear(in_features, out_features, dropout=dropout)
        self.heads, self.dropout = heads, dropout
        self.target, self.source = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, out_features // heads))) for _ in range(2)
        )

    def forward(self, x: Inputs, graph: SparseMatrix) -> Tensor:
        """Map (N, in_features) to (N, out_features) over the places of `graph`, its values not read."""
        target, source = graph.index
        h = self.linear(x)
        nodes = len(h)
        h = h.view(nodes, self.heads, -1)
        logits = (h * self.target).sum(-1).index_select(0, target) + (h * self.source).sum(-1).index_select(0, source)
        weight = segment_softmax(F.leaky_relu(logits, 0.2), torch.ones_like(logits[:, 0]), target, nodes)
        total = segment_sum(weight, target, nodes, dim=-2)[..., None]
        weight = F.dropout(weight, self.dropout, self.training)
        moved = h.index_select(0, source) * weight[..., None]
        return (segment_sum(moved, target, nodes, dim=-3) / total).flatten(1)


class TangentConv(nn.Module):
    r"""Graph convolution in the tangent space at the origin, all but its bias.

    With u the tangent vector of a node, :math:`p = \exp_o(Wu)`, :math:`p' = \exp_p(\mathrm{PT}_{o\to p}(b))`, and the result
    :math:`\hat A \log_o(p')`: the maps between are those that do not cancel. As published, dropout is on W, and the length of
    Wu is bounded, at ``max_radius`` times the root of k, beyond which float32 holds no points.

    References
    ----------
    Chami et al., "Hyperbolic Graph Convolutional Neural Networks", NeurIPS 2019, section 4, without attention.
    """

    max_radius = 10.0

    def __init__(self, in_features: int, out_features: int, *, manifold: Lorentz, dropout: float) -> None:
        super().__init__()
        self.manifold = manifold
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(out_features, in_features), gain=2**0.5))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.dropout = dropout

    returns_points = False

    def forward(self, x: Inputs, graph: SparseMatrix) -> Tensor:
        """Tangent vectors (N, in_features) to (N, out_features), their times, which are 0, left out."""
        k = self.manifold.k
        u = x @ F.dropout(self.weight, self.dropout, self.training).T
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True).clamp_min(1e-12)
        u = u * (self.max_radius * k.sqrt().to(u) / length).clamp_max(1.0)
        p = lmath.expmap0(F.pad(u, (1, 0)), k=k)
        shift = transport_from_origin(p, F.pad(self.bias, (1, 0)).expand_as(p), k=k)
        tangent = lmath.logmap0(lmath.expmap(p, shift, k=k), k=k)
        return graph @ tangent[:, 1:]
