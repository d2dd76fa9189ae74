"""The fact distribution in either geometry. The Lorentzian one hands ``FactDistribution`` an embedding and a lift."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lorentz import Lorentz, LorentzEmbedding
from lorentz import math as lmath
from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.model.warmstart import entity_vectors, warm_start

from .config import DistributionConfig

__all__ = ["LorentzFeatures", "LorentzNatural", "make_distribution"]


class LorentzFeatures(nn.Module):
    r"""Entities as points p of the hyperboloid, as features :math:`(\sqrt k - p_0, s_p)`.

    With a point x as natural parameter :math:`x \cdot f = \langle x, p\rangle_L + \sqrt k\, x_0`, where the last term is the
    same for all entities. What is left of the time has no large part that cancels, so the form holds for flat spaces too
    (large k), where it tends to :math:`s_x \cdot s_p - |s_p|^2 / 2`.
    """

    def __init__(self, num_entities: int, dim: int, *, manifold: Lorentz, std: float) -> None:
        super().__init__()
        self.points = LorentzEmbedding(num_entities, dim, manifold=manifold, std=std)

    def forward(self) -> Tensor:
        """Features (E, d)."""
        points: Tensor = self.points()
        space = points[:, 1:]
        root = self.points.manifold.k.sqrt().to(points.dtype)
        return torch.cat([-(space * space).sum(1, keepdim=True) / (points[:, :1] + root), space], 1)


class LorentzNatural(nn.Module):
    """The point whose space part is the network's output without its first coordinate, (..., d) to (..., d)."""

    def __init__(self, manifold: Lorentz) -> None:
        super().__init__()
        self.manifold = manifold

    def forward(self, x: Tensor) -> Tensor:
        """Lift."""
        return lmath.lift(x[..., 1:], k=self.manifold.k)


def make_distribution(config: DistributionConfig, facts: Facts, *, seed: int) -> FactDistribution:
    """Make the distribution of the facts that `config` describes, started from counts if it says so.

    With ``geometry="lorentz"`` the logits are Lorentzian inner products of the lifted network output and the entity's
    point; a point has dim - 1 free coordinates.
    """
    sizes = facts.num_entities, facts.num_relations
    if config.geometry == "euclidean":
        model = FactDistribution(*sizes, dim=config.dim, hidden=config.hidden, dropout=config.dropout, seed=seed)
        if config.warm_start:
            warm_start(model, facts, seed=seed)
        return model
    manifold = Lorentz(config.k)
    features = LorentzFeatures(facts.num_entities, config.dim, manifold=manifold, std=config.dim**-0.5)
    model = FactDistribution(
        *sizes,
        hidden=config.hidden,
        dropout=config.dropout,
        entity=features,
        natural=LorentzNatural(manifold),
        seed=seed,
    )
    if config.warm_start:
        warm_start(model, facts, seed=seed)
        with torch.no_grad():
            features.points.weight.copy_(entity_vectors(facts, config.dim - 1, seed=seed))
    return model
