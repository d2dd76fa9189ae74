"""A matrix for each relation: HyboNet, and MuRE, its Euclidean twin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import Lorentz
from lorentz import math as lmath
from tasks.kg.config import ModelConfig

from .base import EuclideanDistanceScorer, LorentzScorer
from .relations import apply_relations, start_matrices

__all__ = ["HyboNet", "MuRE"]


class _RelationTransform(nn.Module):
    r"""One Lorentz linear map a relation: :math:`z = W_r (x_0 / \sqrt k, s)`, a sigmoid of its first entry bounds the radius.

    The bias joins the space part of z afterwards. The time axis is in units of sqrt(k), so that z stays of one size
    however flat the space is.
    """

    def __init__(self, num_relations: int, config: ModelConfig, *, manifold: Lorentz) -> None:
        super().__init__()
        self.manifold, self.scale, self.bound = manifold, config.scale, config.bound
        self.weight = nn.Parameter(start_matrices(num_relations, config.dim, config.start, time_axis=True))
        self.bias = nn.Parameter(torch.zeros(num_relations, config.dim - 1))

    def forward(self, x: Tensor, relation: Tensor) -> Tensor:
        root = self.manifold.k.sqrt().to(x.dtype)
        unit = torch.cat([x[..., :1] / root, lmath.space_of(x)], -1)
        z = apply_relations(self.weight, unit, relation) + F.pad(self.bias[relation], (1, 0))
        return lmath.bounded_lift(z, scale=self.scale, k=self.manifold.k, bound=self.bound)


class HyboNet(LorentzScorer):
    r"""Negative squared Lorentzian distance of the transformed head to the tail.

    .. math:: s(h, r, t) = m - d_L^2(L_r(h), t) + b_h + b_t

    The published script writes :math:`8 + 2\langle L_r(h), t\rangle_L`, which is m = 6 at k = 1, and bounds the time of
    L_r(h) (``bound: time``), which keeps it :math:`0.44\sqrt k` and more from the origin; ``bound: space`` is the equation
    of the paper, and the one with a flat limit.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, section 4.1.
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        self.relation = _RelationTransform(count, config, manifold=self.manifold)

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Points that the relations' linear maps send the heads to."""
        moved: Tensor = self.relation(head, relation)
        return moved


class MuRE(EuclideanDistanceScorer):
    r"""The Euclidean twin, with a full matrix a relation: :math:`s = m - |W_r h + b_r - t|^2 + b_h + b_t`.

    References
    ----------
    Balazevic et al., "Multi-relational Poincare Graph Embeddings", NeurIPS 2019, equation 3 (there with a diagonal).
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        self.weight = nn.Parameter(start_matrices(count, self.size, config.start))
        self.bias = nn.Parameter(torch.zeros(count, self.size))

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Heads, transformed."""
        return apply_relations(self.weight, head, relation) + self.bias[relation]
