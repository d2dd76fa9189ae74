"""Certified lower bounds of the divergences from each relation to all others, kept for those that may be near."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.divergence import centred_features, head_prob
from relsim.kl.tails import TailSample, heaviest_tails
from relsim.maths.expfamily import bregman_kl, moments

__all__ = ["Candidates", "Screen"]

_TAILS = 512  # tails a relation in the partial sums
_HELD = 1 << 24  # bounds held at a time
_BLOCK = 32  # heads evaluated together


@dataclass(frozen=True, eq=False)
class Candidates:
    """The relations that one relation may be near to, by the divergence from it to them.

    Parameters
    ----------
    ids
        int64 ``(n,)``, by rising lower bound.
    low, guess, head
        float64 ``(n,)``: lower bound of the divergence, an estimate of it, and its part from the heads.
    floor
        Lower bound of the divergence to every relation that is not listed.
    """

    ids: Tensor
    low: Tensor
    guess: Tensor
    head: Tensor
    floor: float


class Screen:
    r"""Lower bounds from the heads that each relation has most.

    No conditional divergence is negative, so that the sum over the n most probable heads of relation i, on top of the
    divergence of the heads, is a lower bound. In ``D_ij(h) = A_j - [A_i - x_i . mu_i] - x_j . mu_i`` the terms of i are
    exact (n cells a relation), and ``A_j`` is bounded from below by the sum over the tails that weigh most for j.

    Memory is linear in R: n d numbers a relation and a block of bounds.

    Parameters
    ----------
    dist
        The model.
    heads
        Heads a relation, n.
    seed
        Of the heads by which tails are chosen.
    """

    def __init__(self, dist: FactDistribution, heads: int, *, seed: int) -> None:
        self.dist, self.features = dist, centred_features(dist, torch.float32)
        self._double = centred_features(dist, torch.float64)
        self._natural = dist.head_natural(torch.arange(dist.num_relations)).double()
        self._partition, self._mean = moments(self._natural, self._double)
        prob = head_prob(dist)
        top = prob.topk(min(heads, dist.num_entities), dim=1)
        self.mass, self.heads = top.values, top.indices
        size = min(_TAILS, dist.num_entities)
        generator = torch.Generator().manual_seed(seed)
        self._sample: TailSample = heaviest_tails(dist, prob, self.features, size, generator=generator)
        means, rest = [], []
        for r, mine in enumerate(self.heads):
            natural = dist.tail_natural(mine, torch.full_like(mine, r)).float()
            partition, mean = moments(natural, self.features)
            means.append(mean.float())
            rest.append((partition - (natural.double() * mean).sum(1)).float())
        self._means, self._rest = torch.stack(means), torch.stack(rest)
        self.largest, self.cells = 0.0, self.heads.numel()
        self.radius = float(self.features.norm(dim=1).max())

    def head_row(self, i: int) -> Tensor:
        """``P(h | i)`` of all heads, float64 ``(E,)``."""
        return torch.softmax(self._double @ self._natural[i], 0)

    def head_kl(self, rows: Tensor) -> Tensor:
        """Divergences of the heads from some relations to all: ``rows (n,) -> (n, R)`` float64."""
        return bregman_kl(self._natural, self._partition, self._mean[rows], rows)

    def candidates(self, rows: Tensor, k: int, limit: float | None) -> list[Candidates]:
        """What some relations may be near to: all whose lower bound is at most a limit.

        Parameters
        ----------
        rows
            int64 ``(n,)``, ascending.
        k
            From 1 to R - 1.
        limit
            Nats; by default twice the k-th smallest guess plus one.
        """
        found = []
        for block in torch.split(rows, max(1, _HELD // self.dist.num_relations)):
            head = self.head_kl(block)
            tail = self._tail_bounds(block).double()
            seen = self.mass[block].sum(1, keepdim=True)
            low = head + tail - 2e-6 * self.largest * self.radius
            guess = head + tail / seen
            for b, i in enumerate(block.tolist()):
                low[b, i] = guess[b, i] = torch.inf
                reach = 2.0 * float(guess[b].kthvalue(k).values) + 1.0 if limit is None else limit
                order = torch.argsort(low[b], stable=True)
                count = max(k + 1, int((low[b] <= reach).sum()))
                ids = order[: min(count, len(order) - 1)]
                floor = float(low[b, order[len(ids)]])
                found.append(Candidates(ids, low[b, ids].clone(), guess[b, ids].clone(), head[b, ids].clone(), floor))
        return found

    def _tail_bounds(self, rows: Tensor) -> Tensor:
        """``sum_h P(h|i) max(0, D_ij(h))`` over the top heads of i, with partial ``A_j``: float32 ``(n, R)``."""
        total = torch.zeros(len(rows), self.dist.num_relations)
        flat = self.heads[rows].flatten()
        order = torch.argsort(flat, stable=True)
        heads, counts = torch.unique_consecutive(flat[order], return_counts=True)
        cells = torch.split(order, counts.tolist())
        width = self.heads.shape[1]
        for start in range(0, len(heads), _BLOCK):
            natural = self.dist.tail_natural_all(heads[start : start + _BLOCK]).float()
            self.largest = max(self.largest, float(natural.norm(dim=2).max()))
            partition = self._sample.moments(natural.transpose(0, 1), mean=False)[0].T
            for x, across, cell in zip(natural, partition, cells[start : start + _BLOCK], strict=True):
                row, place = cell // width, cell % width
                mean, rest = self._means[rows[row], place], self._rest[rows[row], place]
                divergence = torch.addmm(across - rest[:, None], mean, x.T, alpha=-1.0)
                # A true divergence is at least 0, which the partial sum may not show.
                total.index_add_(0, row, divergence.clamp_(min=0.0) * self.mass[rows[row], place, None].float())
        return total
