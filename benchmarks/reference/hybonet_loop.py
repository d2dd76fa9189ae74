r"""HyboNet as its equations read, with no thought of speed: one row of scores at a time, dense optimiser steps.

Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, section 4.1, k = 1. A relation moves a head x by
:math:`z = W_r x,\; t = \lambda\sigma(z_0) + 1.1,\; y = (t, \sqrt{t^2 - 1}\,(z_s + b_r) / |z_s + b_r|)`, and
:math:`s = m + 2\langle y, x_t\rangle_L + b_h + b_t`. Each triple has its own 50 uniform corrupted tails under the logistic
loss; entities are a ``geoopt.ManifoldParameter`` on ``geoopt.Lorentz``, stepped by ``geoopt.optim.RiemannianAdam`` at the
published rate, their space norm capped. Every candidate's point is gathered and scored by itself, in training and ranking.
"""

from __future__ import annotations

import geoopt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.data.kg import KnowledgeGraph

__all__ = ["PlainHyboNet", "epoch_batches", "rank_queries", "train_batch"]

NEGATIVES, BATCH, RATE, MARGIN, SCALE, CAP, CLIP = 50, 1000, 5e-3, 8.0, 3.5, 1.5, 1.0


class PlainHyboNet(nn.Module):
    """Entities on the hyperboloid, a matrix and a bias a relation (inverses included), a bias for each end."""

    def __init__(self, num_entities: int, num_relations: int, dim: int) -> None:
        super().__init__()
        self.manifold = geoopt.Lorentz(k=1.0)
        space = torch.randn(num_entities, dim - 1) * 0.3
        points = torch.cat([(1 + (space * space).sum(-1, keepdim=True)).sqrt(), space], -1)
        self.entity = geoopt.ManifoldParameter(points, manifold=self.manifold)
        self.weight = nn.Parameter(torch.empty(2 * num_relations, dim, dim).uniform_(-1 / dim, 1 / dim))
        self.bias = nn.Parameter(torch.zeros(2 * num_relations, dim - 1))
        self.head_bias = nn.Parameter(torch.zeros(num_entities))
        self.tail_bias = nn.Parameter(torch.zeros(num_entities))

    def transform(self, head: Tensor, relation: Tensor) -> Tensor:
        """Moved heads (B, d)."""
        z = torch.einsum("bij,bj->bi", self.weight[relation], self.entity[head])
        time = SCALE * torch.sigmoid(z[:, :1]) + 1.1
        space = z[:, 1:] + self.bias[relation]
        factor = ((time * time - 1) / (space * space).sum(-1, keepdim=True).clamp_min(1e-8)).sqrt()
        return torch.cat([time, space * factor], -1)

    def forward(self, head: Tensor, relation: Tensor, tails: Tensor) -> Tensor:
        """Scores (B, n) of candidate tails (B, n)."""
        moved = self.transform(head, relation)
        points = self.entity[tails]
        product = (moved[:, None, 1:] * points[..., 1:]).sum(-1) - moved[:, None, 0] * points[..., 0]
        return MARGIN + 2 * product + self.head_bias[head][:, None] + self.tail_bias[tails]


def epoch_batches(data: KnowledgeGraph, seed: int, epoch: int) -> list[Tensor]:
    """Shuffled triples and inverses of an epoch, in batches."""
    triples = data.with_inverses("train")
    order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(1000 * seed + epoch))
    return list(triples[order].split(BATCH))


def train_batch(model: PlainHyboNet, optimizer: torch.optim.Optimizer, batch: Tensor) -> float:
    """One step; returns the loss."""
    head, relation, tail = batch.unbind(1)
    wrong = torch.randint(len(model.head_bias), (len(batch), NEGATIVES))
    scores = model(head, relation, torch.cat([tail[:, None], wrong], 1))
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    loss = F.binary_cross_entropy_with_logits(scores, labels)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    with torch.no_grad():
        space = model.entity[:, 1:]
        space = space * (CAP / space.norm(dim=-1, keepdim=True)).clamp(max=1)
        model.entity.copy_(torch.cat([(1 + (space * space).sum(-1, keepdim=True)).sqrt(), space], -1))
    return float(loss.detach())


@torch.no_grad()
def rank_queries(model: PlainHyboNet, queries: Tensor, answers: dict[tuple[int, int], set[int]]) -> list[int]:
    """Ranks of the tails of queries (N, 3) in the published script's protocol, known answers and the head left out."""
    every = torch.arange(len(model.head_bias))
    ranks = []
    for head, relation, tail in queries.tolist():
        scores = model(torch.tensor([head]), torch.tensor([relation]), every[None])[0]
        target = scores[tail].clone()
        for other in answers.get((head, relation), ()):
            scores[other] = -torch.inf
        if head != tail:
            scores[head] = -torch.inf
        scores[tail] = target
        ranks.append(int((scores >= target).sum()))
    return ranks
