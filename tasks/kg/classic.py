"""The classic scorers TransE, DistMult and RESCAL, whose relation vectors relation similarity is compared with."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .scorers import Scorer

__all__ = ["CLASSIC", "RESCAL", "ClassicScorer", "DistMult", "TransE"]


class ClassicScorer(Scorer):
    """Entities and relations are free Euclidean parameters; relation r + num_relations is the inverse of r.

    `dim` counts a time axis that is not there, as for :class:`tasks.kg.scorers.MuRE`.
    """

    def __init__(self, num_entities: int, num_relations: int, config: ModelConfig) -> None:
        super().__init__(num_entities, num_relations, margin=config.margin)
        self.size = config.dim - 1
        self.entity = nn.Parameter(torch.randn(num_entities, self.size) * config.init_std)

    def embed(self, entities: Tensor | None) -> Tensor:
        """Vectors of these entities."""
        return self.entity if entities is None else F.embedding(entities, self.entity)

    @abstractmethod
    def relation_vectors(self) -> Tensor:
        """What stands for each relation, without the inverses: (R, m)."""


class TransE(ClassicScorer):
    r"""Translation: :math:`s = m - |h + r - t|^2 + b_h + b_t`, with the squared length of the loss of the paper.

    References
    ----------
    Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", NeurIPS 2013, equation 1.
    """

    def __init__(self, num_entities: int, num_relations: int, config: ModelConfig) -> None:
        super().__init__(num_entities, num_relations, config)
        self.relation = nn.Parameter(torch.randn(2 * num_relations, self.size) * config.init_std)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the translated heads."""
        x = head + self.relation[relation]
        return torch.cat([2 * x, -(x * x).sum(-1, keepdim=True), torch.ones_like(x[:, :1])], -1)

    def keys(self, tail: Tensor) -> Tensor:
        """Features of the tails."""
        return torch.cat([tail, torch.ones_like(tail[:, :1]), -(tail * tail).sum(-1, keepdim=True)], -1)

    def relation_vectors(self) -> Tensor:
        """Translations."""
        return self.relation[: self.num_relations]


class DistMult(ClassicScorer):
    r"""A diagonal form: :math:`s = m + \sum_i h_i r_i t_i + b_h + b_t`.

    References
    ----------
    Yang et al., "Embedding Entities and Relations for Learning and Inference in Knowledge Bases", ICLR 2015, equation 2.
    """

    def __init__(self, num_entities: int, num_relations: int, config: ModelConfig) -> None:
        super().__init__(num_entities, num_relations, config)
        self.relation = nn.Parameter(1.0 + torch.randn(2 * num_relations, self.size) * config.init_std)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the scaled heads."""
        return head * self.relation[relation]

    def keys(self, tail: Tensor) -> Tensor:
        """Tails as they are."""
        return tail

    def relation_vectors(self) -> Tensor:
        """Diagonals."""
        return self.relation[: self.num_relations]


class RESCAL(ClassicScorer):
    r"""A bilinear form: :math:`s = m + h^T W_r t + b_h + b_t`.

    References
    ----------
    Nickel, Tresp and Kriegel, "A Three-Way Model for Collective Learning on Multi-Relational Data", ICML 2011.
    """

    def __init__(self, num_entities: int, num_relations: int, config: ModelConfig) -> None:
        super().__init__(num_entities, num_relations, config)
        start = torch.randn(2 * num_relations, self.size, self.size) * config.init_std * self.size**-0.5
        self.weight = nn.Parameter(start + torch.eye(self.size))

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the transformed heads."""
        # Sorted by relation, each matrix is read once; gathering one a triple would copy B of them.
        order = torch.argsort(relation)
        present, sizes = torch.unique_consecutive(relation[order], return_counts=True)
        parts = torch.split(head[order], sizes.tolist())
        mapped = torch.cat([x @ self.weight[r] for x, r in zip(parts, present.tolist(), strict=True)])
        return mapped[torch.argsort(order)]

    def keys(self, tail: Tensor) -> Tensor:
        """Tails as they are."""
        return tail

    def relation_vectors(self) -> Tensor:
        """Matrices, flattened."""
        return self.weight[: self.num_relations].flatten(1)


CLASSIC: dict[str, Any] = {"transe": TransE, "distmult": DistMult, "rescal": RESCAL}
