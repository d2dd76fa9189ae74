"""The classic scorers TransE, DistMult, ComplEx and RESCAL, whose relation vectors relation similarity is compared with."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.kg.config import ModelConfig

from .base import EuclideanDistanceScorer, EuclideanScorer
from .relations import apply_relations

__all__ = ["RESCAL", "ComplEx", "DiagonalScorer", "DistMult", "TransE"]


class TransE(EuclideanDistanceScorer):
    r"""Translation: :math:`s = m - |h + r - t|^2 + b_h + b_t`, with the squared length of the loss of the paper.

    References
    ----------
    Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", NeurIPS 2013, equation 1.
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        self.relation = nn.Parameter(torch.randn(count, self.size) * config.init_std)

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Heads, translated."""
        return head + self.relation[relation]

    def relation_vectors(self) -> Tensor:
        """Translations."""
        return self.relation[: self.num_relations]


class DiagonalScorer(EuclideanScorer):
    """A scorer that multiplies head, relation and tail number by number, real or complex."""

    relation: nn.Parameter

    @abstractmethod
    def moduli(self, x: Tensor) -> Tensor:
        """Absolute values of the numbers that a vector (..., n) holds."""

    def n3(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Sum of the cubed moduli of head, relation and tail, the mean over triples (Lacroix et al., ICML 2018, eq. 6)."""
        entities = F.embedding(torch.cat([head, tail]), self.entity, sparse=self.sparse)
        cubes = self.moduli(entities).pow(3).sum() + self.moduli(self.relation[relation]).pow(3).sum()
        return cubes / len(head)

    def keys(self, tail: Tensor) -> Tensor:
        """Tails as they are."""
        return tail

    def relation_vectors(self) -> Tensor:
        """Diagonals; of complex ones the real, then the imaginary parts."""
        return self.relation[: self.num_relations]


class DistMult(DiagonalScorer):
    r"""A diagonal form: :math:`s = m + \sum_i h_i r_i t_i + b_h + b_t`.

    References
    ----------
    Yang et al., "Embedding Entities and Relations for Learning and Inference in Knowledge Bases", ICLR 2015, equation 2.
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        self.relation = nn.Parameter(1.0 + torch.randn(count, self.size) * config.init_std)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the scaled heads."""
        return head * self.relation[relation]

    def moduli(self, x: Tensor) -> Tensor:
        """Absolute values of the numbers that a vector (..., n) holds, for the N3 norm."""
        return x.abs()


class ComplEx(DiagonalScorer):
    r"""A diagonal form of complex vectors: :math:`s = m + \operatorname{Re}\sum_i h_i r_i \bar t_i + b_h + b_t`.

    A vector holds the real parts, then the imaginary ones, so ``dim - 1`` is even.

    References
    ----------
    Trouillon et al., "Complex Embeddings for Simple Link Prediction", ICML 2016, equation 10.
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        one = torch.cat([torch.ones(self.size // 2), torch.zeros(self.size // 2)])
        self.relation = nn.Parameter(one + torch.randn(count, self.size) * config.init_std)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the heads times their relations."""
        (a, b), (c, d) = head.chunk(2, -1), self.relation[relation].chunk(2, -1)
        return torch.cat([a * c - b * d, a * d + b * c], -1)

    def moduli(self, x: Tensor) -> Tensor:
        """Moduli of the complex numbers that a vector (..., n) holds, (..., n / 2), for the N3 norm."""
        a, b = x.chunk(2, -1)
        return torch.linalg.vector_norm(torch.stack([a, b]), dim=0)


class RESCAL(EuclideanScorer):
    r"""A bilinear form: :math:`s = m + h^T W_r t + b_h + b_t`.

    References
    ----------
    Nickel, Tresp and Kriegel, "A Three-Way Model for Collective Learning on Multi-Relational Data", ICML 2011.
    """

    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of the relations."""
        start = torch.randn(count, self.size, self.size) * config.init_std * self.size**-0.5
        self.weight = nn.Parameter(start + torch.eye(self.size))

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the transformed heads."""
        return apply_relations(self.weight, head, relation, transpose=True)

    def keys(self, tail: Tensor) -> Tensor:
        """Tails as they are."""
        return tail

    def relation_vectors(self) -> Tensor:
        """Matrices, flattened."""
        return self.weight[: self.num_relations].flatten(1)
