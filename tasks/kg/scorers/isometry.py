"""Relations that are isometries: rotations and boosts of the hyperboloid, and their Euclidean twins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lorentz import boost
from lorentz import math as lmath
from tasks.kg.config import ModelConfig

from .base import EuclideanDistanceScorer, LorentzScorer
from .relations import RelationRotation

__all__ = ["LorentzRotE", "LorentzRotatE", "LorentzTransE", "RotE", "RotatE"]


class _LorentzIsometry(LorentzScorer):
    """A rotation about the origin, then a boost; a subclass says which of the two there are."""

    rotates: bool
    boosts: bool

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        size = config.dim - 1
        if self.rotates:
            self.rotation = RelationRotation(count, size, kind=config.rotation, start=config.start)
        if self.boosts:
            self.translation = nn.Parameter(torch.randn(count, size) * config.init_std)

    def rapidity(self) -> Tensor:
        """Rapidity vectors of the relations without their inverses, (R, dim - 1)."""
        return self.translation[: self.num_relations] / self.manifold.k.sqrt().to(self.translation)

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Rotated, then boosted heads."""
        k = self.manifold.k
        if self.rotates:
            head = lmath.lift(self.rotation(lmath.space_of(head), relation), k=k)
        if self.boosts:
            head = boost(head, self.translation[relation] / k.sqrt().to(head.dtype), k=k)
        return head


class LorentzTransE(_LorentzIsometry):
    r"""A boost: :math:`s = m - d_L^2(B(w_r) h, t) + b_h + b_t`, which tends to TransE as k grows.

    The parameter is :math:`\sqrt k\, w_r`, how far and where the origin moves, so that it tends to TransE's translation.
    """

    rotates, boosts = False, True


class LorentzRotatE(_LorentzIsometry):
    r"""A rotation of the space part: :math:`s = m - d_L^2(R_r h, t) + b_h + b_t`, which tends to RotatE as k grows."""

    rotates, boosts = True, False


class LorentzRotE(_LorentzIsometry):
    r"""A rotation and a boost, every isometry of the hyperboloid: :math:`s = m - d_L^2(B(w_r) R_r h, t) + b_h + b_t`."""

    rotates, boosts = True, True


class RotatE(EuclideanDistanceScorer):
    r"""A rotation: :math:`s = m - |R_r h - t|^2 + b_h + b_t`, with the square of the Euclidean norm of the difference.

    With ``rotation: givens`` R is the multiplication by unit complex numbers of the paper, which sums moduli (no inner
    product) where this sums their squares.

    References
    ----------
    Sun et al., "RotatE: Knowledge Graph Embedding by Relational Rotation in Complex Space", ICLR 2019, equation 3.
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        self.rotation = RelationRotation(count, self.size, kind=config.rotation, start=config.start)

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Heads, rotated."""
        rotated: Tensor = self.rotation(head, relation)
        return rotated


class RotE(RotatE):
    r"""A rotation and a translation: :math:`s = m - |R_r h + b_r - t|^2 + b_h + b_t`.

    References
    ----------
    Chami et al., "Low-Dimensional Hyperbolic Knowledge Graph Embeddings", ACL 2020, section 4.2 (there the baseline of RotH).
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        super().add_relations(count, config)
        self.translation = nn.Parameter(torch.randn(count, self.size) * config.init_std)

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Heads, rotated and translated."""
        return self.rotation(head, relation) + self.translation[relation]
