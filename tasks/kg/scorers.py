"""Scorers of triples. Each is a bilinear form of a query and a key, so ranking is one matrix product."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import Lorentz, LorentzEmbedding
from lorentz import math as lmath

from .config import ModelConfig

__all__ = ["SCORERS", "HyboNet", "MuRE", "Scorer"]


class Scorer(nn.Module):
    """Plausibility of triples (head, relation, tail); the inverse of relation r is ``r + num_relations``.

    Subclasses give `query` (B, m) and `keys` (E, m) whose inner product is the score without the tail's bias and the
    margin.
    """

    def __init__(self, num_entities: int, num_relations: int, *, margin: float) -> None:
        super().__init__()
        self.num_entities, self.num_relations, self.margin = num_entities, num_relations, margin
        self.head_bias = nn.Parameter(torch.zeros(num_entities))
        self.tail_bias = nn.Parameter(torch.zeros(num_entities))

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

    def score_tails(self, head: Tensor, relation: Tensor, entities: Tensor | None = None) -> Tensor:
        """Score every entity, or these (E,), as the tail of (B,) heads and relations, to (B, E)."""
        query, keys = self.query(self.embed(head), relation), self.keys(self.embed(entities))
        tail_bias = self.tail_bias if entities is None else self.tail_bias[entities]
        return self._outer(query, keys, self.head_bias[head], tail_bias)

    def score_batch(self, head: Tensor, relation: Tensor, tail: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch (B,) and its shared negative tails (B, N) with one look at the embedding table."""
        n = len(head)
        points = self.embed(torch.cat([head, tail, negatives]))
        query, keys = self.query(points[:n], relation), self.keys(points[n:])
        head_bias = self.head_bias[head]
        positive = self.margin + head_bias + self.tail_bias[tail] + (query * keys[:n]).sum(-1)
        return positive, self._outer(query, keys[n:], head_bias, self.tail_bias[negatives])

    def _outer(self, query: Tensor, keys: Tensor, head_bias: Tensor, tail_bias: Tensor) -> Tensor:
        # Biases ride in the matrix product as two more columns: no pass over (B, E) beyond it.
        rows = torch.cat([query, (head_bias + self.margin)[:, None], torch.ones_like(query[:, :1])], 1)
        columns = torch.cat([keys, torch.ones_like(keys[:, :1]), tail_bias[:, None]], 1)
        return rows @ columns.T


def _apply_relations(weight: Tensor, x: Tensor, relation: Tensor) -> Tensor:
    """``weight[relation] @ x`` for weights (R, d, d), vectors (B, d) and relations (B,)."""
    count, size, _ = weight.shape
    if count <= 64:  # one product with every matrix beats gathering B matrices
        every = (x @ weight.reshape(count * size, size).T).view(-1, count, size)
        return every[torch.arange(len(x), device=x.device), relation]
    return torch.bmm(weight[relation], x.unsqueeze(-1)).squeeze(-1)


def _start(count: int, size: int, start: str, *, time_axis: bool = False) -> Tensor:
    """Initial matrices (count, size, size): uniform in +-1/size, for ``"identity"`` around the identity on space."""
    weight = torch.empty(count, size, size).uniform_(-1 / size, 1 / size)
    if start == "identity":
        weight += torch.diag(torch.tensor([0.0 if time_axis and i == 0 else 1.0 for i in range(size)]))
    return weight


class _RelationTransform(nn.Module):
    """One Lorentz linear map a relation: ``z = W_r x``, its sigmoid bounds the time, the bias joins the space part."""

    def __init__(self, num_relations: int, dim: int, *, manifold: Lorentz, scale: float, start: str) -> None:
        super().__init__()
        self.manifold, self.scale = manifold, scale
        self.weight = nn.Parameter(_start(num_relations, dim, start, time_axis=True))
        self.bias = nn.Parameter(torch.zeros(num_relations, dim - 1))

    def forward(self, x: Tensor, relation: Tensor) -> Tensor:
        z = _apply_relations(self.weight, x, relation) + F.pad(self.bias[relation], (1, 0))
        return lmath.bounded_lift(z, scale=self.scale, k=self.manifold.k, bound="time")


class HyboNet(Scorer):
    r"""Negative squared Lorentzian distance of the transformed head to the tail.

    .. math:: s(h, r, t) = m - d_L^2(L_r(h), t) + b_h + b_t

    The published script writes :math:`8 + 2\langle L_r(h), t\rangle_L`, which is m = 6 at k = 1. With
    :math:`\tilde x = x_0 - \sqrt k`, :math:`-d_L^2 = 2(s\cdot s' - \tilde x\tilde y - \sqrt k(\tilde x + \tilde y))`, which
    does not cancel for large k and tends to the Euclidean distance.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, section 4.1.
    """

    def __init__(self, num_entities: int, num_relations: int, config: ModelConfig) -> None:
        super().__init__(num_entities, num_relations, margin=config.margin)
        self.manifold = Lorentz(config.k)
        self.entity = LorentzEmbedding(num_entities, config.dim, manifold=self.manifold, std=config.init_std)
        self.relation = _RelationTransform(
            2 * num_relations, config.dim, manifold=self.manifold, scale=config.scale, start=config.start
        )

    def embed(self, entities: Tensor | None) -> Tensor:
        """Points of these entities."""
        return self.entity(entities)

    def _over(self, x: Tensor) -> Tensor:
        """x_0 - sqrt(k), from the space part."""
        space = lmath.space_of(x)
        root = self.manifold.k.sqrt().to(x.dtype)
        return (space * space).sum(-1, keepdim=True) / (x[..., :1] + root)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the transformed heads."""
        x = self.relation(head, relation)
        over, root = self._over(x), self.manifold.k.sqrt().to(x.dtype)
        return 2 * torch.cat([lmath.space_of(x), -over, -root * over, torch.ones_like(over)], -1)

    def keys(self, tail: Tensor) -> Tensor:
        """Features of the tails."""
        over, root = self._over(tail), self.manifold.k.sqrt().to(tail.dtype)
        return torch.cat([lmath.space_of(tail), over, torch.ones_like(over), -root * over], -1)


class MuRE(Scorer):
    r"""The Euclidean twin, with a full matrix a relation: :math:`s = m - |W_r h + b_r - t|^2 + b_h + b_t`.

    `dim` counts a time axis that is not there, so the twin of H^(d-1) is R^(d-1).

    References
    ----------
    Balazevic et al., "Multi-relational Poincare Graph Embeddings", NeurIPS 2019, equation 3 (there with a diagonal).
    """

    def __init__(self, num_entities: int, num_relations: int, config: ModelConfig) -> None:
        super().__init__(num_entities, num_relations, margin=config.margin)
        size = config.dim - 1
        self.entity = nn.Parameter(torch.randn(num_entities, size) * config.init_std)
        self.weight = nn.Parameter(_start(2 * num_relations, size, config.start))
        self.bias = nn.Parameter(torch.zeros(2 * num_relations, size))

    def embed(self, entities: Tensor | None) -> Tensor:
        """Vectors of these entities."""
        return self.entity if entities is None else F.embedding(entities, self.entity)

    def query(self, head: Tensor, relation: Tensor) -> Tensor:
        """Features of the transformed heads."""
        x = _apply_relations(self.weight, head, relation) + self.bias[relation]
        return torch.cat([2 * x, -(x * x).sum(-1, keepdim=True), torch.ones_like(x[:, :1])], -1)

    def keys(self, tail: Tensor) -> Tensor:
        """Features of the tails."""
        return torch.cat([tail, torch.ones_like(tail[:, :1]), -(tail * tail).sum(-1, keepdim=True)], -1)


SCORERS: dict[str, Any] = {"hybonet": HyboNet, "mure": MuRE}
