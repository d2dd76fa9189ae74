"""What scorers of triples share: each is an inner product of a query and a key, so ranking is one matrix product."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import Lorentz, LorentzDropout, LorentzEmbedding
from lorentz import math as lmath
from tasks.kg.config import ModelConfig

__all__ = ["EuclideanDistanceScorer", "EuclideanScorer", "LorentzScorer", "Scorer"]


class Scorer(nn.Module):
    """Plausibility of triples (head, relation, tail); the inverse of relation r is ``r + num_relations``.

    Subclasses give `query` (B, m) and `keys` (E, m) whose inner product is the score without the biases and the margin.

    Parameters
    ----------
    num_entities, num_relations : int, inverses not counted
    config : ModelConfig
    dropout : probability by which coordinates of looked-up entities become 0 in training
    sparse : whether the gradient of the entity table holds the rows of a batch alone
    """

    def __init__(
        self, num_entities: int, num_relations: int, config: ModelConfig, *, dropout: float = 0.0, sparse: bool = False
    ) -> None:
        super().__init__()
        self.num_entities, self.num_relations, self.margin = num_entities, num_relations, config.margin
        self.dropout, self.sparse = dropout, sparse
        self.head_bias = nn.Parameter(torch.zeros(num_entities))
        self.tail_bias = nn.Parameter(torch.zeros(num_entities))
        self.add_entities(config)
        self.add_relations(2 * num_relations, config)

    @abstractmethod
    def add_entities(self, config: ModelConfig) -> None:
        """Make ``entity``, a table of them."""

    @abstractmethod
    def add_relations(self, count: int, config: ModelConfig) -> None:
        """Make the parameters of this many relations, inverses included."""

    @abstractmethod
    def embed(self, entities: Tensor | None) -> Tensor:
        """Embeddings of these entities, all if None."""

    @abstractmethod
    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features (B, m) of embedded heads (B, d) under relations (B,)."""

    @abstractmethod
    def keys(self, tail: Tensor) -> Tensor:
        """Features (E, m) of embedded tails (E, d)."""

    def score(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Score triples (B,), (B,), (B,) to (B,)."""
        both = self.embed(torch.cat([head, tail]))
        query, keys = self.query(both[: len(head)], relation), self.keys(both[len(head) :])
        return self.margin + self.head_bias[head] + self.tail_bias[tail] + (query * keys).sum(-1)

    def columns(self, entities: Tensor | None = None) -> Tensor:
        """Features of every entity, or of these (E,), as a tail, its bias included, (E, m + 2): see `score_columns`."""
        bias = self.tail_bias if entities is None else self.tail_bias[entities]
        return self._columns(self.keys(self.embed(entities)), bias)

    def score_columns(self, head: Tensor, relation: Tensor, columns: Tensor) -> Tensor:
        """Score tails whose `columns` (E, m + 2) were made beforehand, to (B, E)."""
        return self._rows(self.query(self.embed(head), relation), self.head_bias[head]) @ columns.T

    def score_tails(self, head: Tensor, relation: Tensor, entities: Tensor | None = None) -> Tensor:
        """Score every entity, or these (E,), as the tail of (B,) heads and relations, to (B, E)."""
        return self.score_columns(head, relation, self.columns(entities))

    def score_batch(self, head: Tensor, relation: Tensor, tail: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch (B,) and negative tails, shared (N,) or a row each (B, N), with one look at the entity table.

        Returns scores (B,) of the triples and (B, N) of the corrupted ones.
        """
        n = len(head)
        points = self.embed(torch.cat([head, tail, negatives.flatten()]))
        query, keys = self.query(points[:n], relation), self.keys(points[n:])
        head_bias = self.head_bias[head]
        positive = self.margin + head_bias + self.tail_bias[tail] + (query * keys[:n]).sum(-1)
        if negatives.ndim == 1:
            columns = self._columns(keys[n:], self.tail_bias[negatives])
            return positive, self._rows(query, head_bias) @ columns.T
        own = torch.bmm(keys[n:].view(*negatives.shape, -1), query.unsqueeze(-1)).squeeze(-1)
        return positive, own + self.tail_bias[negatives] + (self.margin + head_bias)[:, None]

    # Biases ride in the matrix product as two more columns: no pass over (B, E) beyond it.
    def _rows(self, query: Tensor, head_bias: Tensor) -> Tensor:
        return torch.cat([query, (head_bias + self.margin)[:, None], torch.ones_like(query[:, :1])], 1)

    def _columns(self, keys: Tensor, tail_bias: Tensor) -> Tensor:
        return torch.cat([keys, torch.ones_like(keys[:, :1]), tail_bias[:, None]], 1)


class EuclideanScorer(Scorer):
    """Entities are vectors; `dim` counts a time axis that is not there, so the twin of H^(d-1) is R^(d-1)."""

    def add_entities(self, config: ModelConfig) -> None:
        """Draw normal coordinates."""
        self.size = config.dim - 1
        self.entity = nn.Parameter(torch.randn(self.num_entities, self.size) * config.init_std)

    def embed(self, entities: Tensor | None) -> Tensor:
        """Vectors of these entities."""
        vectors = self.entity if entities is None else F.embedding(entities, self.entity, sparse=self.sparse)
        return F.dropout(vectors, self.dropout, self.training) if self.dropout else vectors


class EuclideanDistanceScorer(EuclideanScorer):
    """Scored by the negative squared Euclidean distance of the transformed head to the tail."""

    @abstractmethod
    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Vectors (B, d) that the relations (B,) move the heads (B, d) to."""

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the transformed heads."""
        x = self.transform(head, relation)
        return torch.cat([2 * x, -(x * x).sum(-1, keepdim=True), torch.ones_like(x[:, :1])], -1)

    def keys(self, tail: Tensor) -> Tensor:
        """Features of the tails."""
        return torch.cat([tail, torch.ones_like(tail[:, :1]), -(tail * tail).sum(-1, keepdim=True)], -1)


class LorentzScorer(Scorer):
    r"""Entities are points, scored by the negative squared Lorentzian distance.

    With :math:`\tilde x = x_0 - \sqrt k`, :math:`-d_L^2 = 2(s\cdot s' - \tilde x\tilde y - \sqrt k(\tilde x + \tilde y))`,
    which does not cancel for large k and tends to the Euclidean distance.
    """

    def add_entities(self, config: ModelConfig) -> None:
        """Draw normal coordinates."""
        self.manifold = Lorentz(config.k)
        self.entity = LorentzEmbedding(
            self.num_entities, config.dim, manifold=self.manifold, std=config.init_std, sparse=self.sparse
        )
        self.entity_dropout = LorentzDropout(self.dropout, manifold=self.manifold) if self.dropout else None

    def embed(self, entities: Tensor | None) -> Tensor:
        """Points of these entities."""
        points: Tensor = self.entity(entities)
        return points if self.entity_dropout is None else self.entity_dropout(points)

    def _over(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Space part, x_0 - sqrt(k) from it, and sqrt(k)."""
        space, root = lmath.space_of(x), self.manifold.k.sqrt().to(x.dtype)
        return space, (space * space).sum(-1, keepdim=True) / (x[..., :1] + root), root

    @abstractmethod
    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Points (B, d) that the relations (B,) move the heads (B, d) to."""

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the transformed heads."""
        space, over, root = self._over(self.transform(head, relation))
        return 2 * torch.cat([space, -over, -root * over, torch.ones_like(over)], -1)

    def keys(self, tail: Tensor) -> Tensor:
        """Features of the tails."""
        space, over, root = self._over(tail)
        return torch.cat([space, over, torch.ones_like(over), -root * over], -1)
