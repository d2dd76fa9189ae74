"""Probes: words as points, whose distances are to be those in the tree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lorentz import Lorentz, LorentzLinear

from .config import ProbeConfig

__all__ = ["LinearOrder", "Probe"]


class Probe(nn.Module):
    r"""A map of states to points, and squared distances between them or from the origin.

    ========== ============================ ================================================
    geometry   point of a state h           distance of two points
    ========== ============================ ================================================
    euclidean  :math:`B h`                  :math:`|x - y|^2`
    lorentz    LorentzLinear(lift(h))       :math:`-2k - 2\langle x, y\rangle_L`
    poincare   :math:`\exp_o(B h)`          :math:`d(x, y)^2`, geodesic
    ========== ============================ ================================================

    A probe of depths measures from the origin (0 in the Euclidean case). For k to infinity all three are the first. The
    Poincaré probe's second map, a Möbius product, is part of B: :math:`Q \otimes \exp_o(P h) = \exp_o(Q P h)`.

    Parameters
    ----------
    dim : size of a state
    config : geometry, rank, k and target

    References
    ----------
    Hewitt and Manning, "A Structural Probe for Finding Syntax in Word Representations", NAACL 2019, section 2 (euclidean);
    Chen et al., "Probing BERT in Hyperbolic Spaces", ICLR 2021, section 3 (poincare); Chen et al., "Fully Hyperbolic Neural
    Networks", ACL 2022, for the layer (lorentz).
    """

    returns_points = False

    def __init__(self, dim: int, config: ProbeConfig) -> None:
        super().__init__()
        self.config = config
        self.manifold = None if config.geometry == "euclidean" else Lorentz(config.k, learnable=config.learnable_k)
        self.map: Any
        if config.geometry == "lorentz":
            assert self.manifold is not None
            self.map = LorentzLinear(dim + 1, config.rank + 1, manifold=self.manifold, bias=False, variant="unbounded")
        else:
            self.map = nn.Linear(dim, config.rank, bias=False)

    def points(self, states: Tensor) -> Tensor:
        """Points (..., rank) of states (..., dim), with a time in front in the hyperbolic cases."""
        if self.manifold is None:
            found: Tensor = self.map(states)
        elif self.config.geometry == "lorentz":
            found = self.map(self.manifold.lift(states))
        else:
            found = self.manifold.expmap0(nn.functional.pad(self.map(states), (1, 0)))
        return found

    def measure(self, x: Tensor, y: Tensor) -> Tensor:
        """Squared distance of points."""
        if self.manifold is None:
            return (x - y).square().sum(-1)
        return self.manifold.sqdist(x, y) if self.config.geometry == "lorentz" else self.manifold.dist2(x, y)

    def forward(self, states: Tensor) -> Tensor:
        """Distances (B, S, S) of the words' states (B, S, dim), or depths (B, S)."""
        points = self.points(states)
        if self.config.target == "distance":
            return self.measure(points[:, :, None], points[:, None])
        origin = torch.zeros_like(points)
        return self.measure(points, origin if self.manifold is None else self.manifold.projx(origin))


class LinearOrder(nn.Module):
    """The control: words are as far apart as they stand, and as deep as their place in the sentence."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("fitted", torch.ones(()))  # a run stores a model, and this one has no parameter

    def forward(self, states: Tensor) -> Tensor:
        """Distances (B, S, S) or depths (B, S) of states (B, S, dim), of which the shape alone is read."""
        place = torch.arange(states.shape[1], dtype=torch.float32)
        found = (place[:, None] - place).abs() if self.target == "distance" else place
        return found.expand(len(states), *found.shape)
