"""Two-phase estimate of the tail divergences: cheap sums at many heads, corrected by exact sums at some of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.divergence import TailEstimate, centred_features, certified
from relsim.kl.blocks import BlockStore
from relsim.kl.ownheads import OwnCells, exact_at_own_heads
from relsim.kl.pool import draw_pool, own_heads
from relsim.kl.sums import TailSums
from relsim.kl.tails import draw_tails
from relsim.maths.expfamily import SMALL_KL, bregman_kl, moments

__all__ = ["Sizes", "two_phase_kl"]

_BLOCK, _LITTLE = 128, 8  # heads evaluated together, and in one pass of the network, whose layers then stay in cache
_SEEN = 1e-5  # a head that a relation has less often adds too little to its lower bounds to be worth an exact mean
_NOISE = 4.0  # standard errors of the cheap sums that a divergence must exceed to be told from zero by them
_SINGLE = 1e-6  # rounding of sums in float32, relative


@dataclass(frozen=True)
class Sizes:
    """How much a two-phase estimate looks at.

    Parameters
    ----------
    heads
        Heads of the first phase.
    tails, own_tails
        Tails a relation in the cheap sums for its log-partition at any head, and in those for its mean at its own.
    own
        Heads a relation at which its own log-partition and mean are summed exactly.
    columns
        Heads at which the log-partitions of all relations are summed exactly.
    """

    heads: int
    tails: int
    own_tails: int
    own: int
    columns: int


@torch.no_grad()
def two_phase_kl(
    dist: FactDistribution,
    head_prob: Tensor,
    sizes: Sizes,
    *,
    head: Tensor,
    generator: torch.Generator,
    store: BlockStore | None = None,
    part: str = "pool",
) -> TailEstimate:
    r"""``E_{h ~ P_i} KL(P_i(t|h) || P_j(t|h))`` for all pairs, from cheap sums over tails and exact ones at fewer heads.

    With ``D_ij(h) = A_j - [A_i - x_i . mu_i] - x_j . mu_i`` the estimate is

    .. math:: \sum_{h \in S} w_{ih} \tilde D_{ij}(h)
              + \sum_{h \in S_i} w'_{ih} \big(D_{ij} - \tilde D_{ij}\big)\big|_{A_i,\mu_i}(h)
              + \sum_{h \in C} u_{ih} \big(A_j - \tilde A_j\big)(h)

    where the tilde marks sums over :class:`relsim.kl.tails.TailSample`, S is the pool, and the error of the cheap sums is
    estimated apart for what belongs to relation i (at own heads ``S_i``, which cost one row of logits each) and for the
    log-partition of relation j (at columns C, which cost R rows). Each term is unbiased but for the ratio form of the
    weights, the variances of the three draws add up, and however crude the cheap sums, no bias remains.

    A divergence that the noise of the cheap sums could hide is summed exactly at the own heads of i instead, and in the
    centred form below 1e-2 nats, so that it is never negative and is 0 for equal relations.

    Parameters
    ----------
    dist
        The model; logits are in float32.
    head_prob
        ``P(h | r)``, float64 ``(R, E)``.
    sizes
        How many heads and tails.
    head
        float64 ``(R, R)``: the divergences of the heads; the centred form is spent on pairs that are small in all.
    generator
        Source of the draws.
    store, part
        Where running sums are kept, and under which name.

    References
    ----------
    Sarndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, chapter 9 (two-phase sampling).
    """
    run = _Run(dist, head_prob, head, sizes, generator)
    if store is not None and (kept := store.load(part)) is not None:
        run.done, run.sums = kept[0], _Sums.from_state(kept[1])
    while run.done < len(run.pool.heads):
        run.step()
        if store is not None:
            store.save(part, run.done, run.sums.state(), last=run.done == len(run.pool.heads))
    return run.estimate()


@dataclass(eq=False)
class _Sums:
    """What is known after some blocks of heads."""

    cheap: TailSums
    own: TailSums
    cells: OwnCells
    gaps: Tensor  # A_j - cheap A_j at the columns so far, (c, R)
    lower: Tensor  # sum of P(h|i) D_ij(h) over them, (R, R)
    largest: Tensor  # largest natural parameter, ()

    @classmethod
    def zeros(cls, relations: int, dim: int) -> _Sums:
        gaps, lower = torch.zeros(0, relations).double(), torch.zeros(relations, relations).double()
        sums = TailSums.zeros(relations), TailSums.zeros(relations)
        return cls(*sums, OwnCells.none(dim), gaps, lower, torch.zeros(1).double())

    def state(self) -> dict[str, Tensor]:
        parts = {"gaps": self.gaps, "lower": self.lower, "largest": self.largest}
        return parts | self.cheap.state("cheap") | self.own.state("own") | self.cells.state()

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> _Sums:
        sums = TailSums.from_state(state, "cheap"), TailSums.from_state(state, "own")
        return cls(*sums, OwnCells.from_state(state), state["gaps"], state["lower"], state["largest"])


class _Run:
    """One pass over the heads of a pool; all draws are made before it starts."""

    def __init__(
        self, dist: FactDistribution, head_prob: Tensor, head: Tensor, sizes: Sizes, generator: torch.Generator
    ) -> None:
        self.dist, self.head = dist, head
        self.features = centred_features(dist, torch.float32)
        self.pool = draw_pool(head_prob, sizes.heads, generator=generator)
        self.sample, self.own_sample = draw_tails(
            dist, head_prob, self.features, sizes.tails, sizes.own_tails, generator=generator
        )
        self.second, self.second_variance = own_heads(self.pool.weight, sizes.own, generator=generator)
        self.columns = draw_pool(self.pool.weight, sizes.columns, generator=generator)
        self.is_column = torch.zeros(len(self.pool.heads), dtype=torch.bool).index_fill_(0, self.columns.heads, True)
        self.sums, self.done = _Sums.zeros(len(head), dist.dim), 0

    def step(self) -> None:
        """Evaluate one block of heads."""
        block, sums = slice(self.done, self.done + _BLOCK), self.sums
        little = torch.split(self.pool.heads[block], _LITTLE)
        natural = torch.cat([self.dist.tail_natural_all(heads).float() for heads in little])
        partition = self.sample.moments(natural.transpose(0, 1), mean=False)[0].T
        own, mean = (value.transpose(0, 1) for value in self.own_sample.moments(natural.transpose(0, 1)))
        rest = own - (natural * mean).sum(2)
        one = torch.ones_like(rest)
        left = torch.cat([mean, rest[:, :, None], one[:, :, None]], 2)
        right = torch.cat([-natural, -one[:, :, None], partition[:, :, None]], 2)
        weight, variance = self.pool.weight[:, block].T.float(), self.pool.variance[:, block].T.float()
        for part in torch.split(torch.arange(len(natural)), _LITTLE):
            across = torch.bmm(left[part], right[part].transpose(1, 2))  # A_j - (A_i - x_i . mu_i) - x_j . mu_i
            sums.cheap.add_block(across, weight[part], variance[part])
        self._own(block, natural, own, mean)
        self._columns(block, natural, partition)
        sums.largest = torch.maximum(sums.largest, natural.norm(dim=2).max().double())
        self.done += len(natural)

    def _own(self, block: slice, natural: Tensor, partition: Tensor, mean: Tensor) -> None:
        """What the cheap sums got wrong of ``A_i`` and ``mu_i``, at the own heads of each relation."""
        place, rows = (self.second[:, block].T > 0.0).nonzero().T
        exact, exact_mean = moments(natural[place, rows], self.features)
        shift = exact_mean.float() - mean[place, rows]
        error = (natural[place, rows] * shift).sum(1) - (exact - partition[place, rows]).float()
        across = torch.cat([shift[place == k] @ natural[k].T for k in range(len(natural))])
        at = rows, self.done + place
        weight, over_draw = self.second[at], self.second_variance[at]
        both = over_draw + self.pool.variance[at] * weight / self.pool.weight[at]
        self.sums.own.add(rows, (error[:, None] - across).double(), weight, over_draw)
        found = OwnCells(rows, self.pool.heads[at[1]], weight, both, exact, exact_mean)
        self.sums.cells = self.sums.cells.extended(found)

    def _columns(self, block: slice, natural: Tensor, partition: Tensor) -> None:
        """What they got wrong of ``A_j`` for every j at the columns, and the exact divergences there."""
        place = self.is_column[block].nonzero().squeeze(1)
        mass = self.pool.mass[:, block].T[place]
        active = mass > _SEEN
        exact, mean = moments(natural[place].flatten(0, 1), self.features, mean_of=active.flatten())
        exact = exact.view(mass.shape)
        self.sums.gaps = torch.cat([self.sums.gaps, exact - partition[place]])
        for k, mu in enumerate(torch.split(mean, active.sum(1).tolist())):
            rows = active[k].nonzero().squeeze(1)
            divergence = bregman_kl(natural[place[k]].double(), exact[k], mu, rows)
            self.sums.lower[rows] += mass[k, rows, None] * divergence

    def estimate(self) -> TailEstimate:
        """Add the three parts up, and sum exactly what their noise could hide."""
        sums = self.sums
        kl, first = sums.cheap.estimate(_SINGLE)
        own, second = sums.own.estimate()
        # Few columns matter to one relation, so the spread of the errors of A_j is taken over all of them.
        share = self.columns.weight.mean(0)
        spread = share @ (sums.gaps - share @ sums.gaps) ** 2
        third = spread / self.columns.ess[:, None]
        kl = (kl + own + self.columns.weight @ sums.gaps).fill_diagonal_(0.0)
        variance = (first + second + third).fill_diagonal_(0.0)
        df = variance**2 / (first**2 / self.pool.df[:, None] + second**2 / _df(self.second_variance)[:, None])
        df = torch.nan_to_num(df, nan=torch.inf)
        close = (kl < torch.clamp(_NOISE * (second + third).sqrt(), min=SMALL_KL)).fill_diagonal_(False)
        for i in close.any(1).nonzero().squeeze(1).tolist():
            j = close[i].nonzero().squeeze(1)
            exact = exact_at_own_heads(self.dist, sums.cells.of(i), i, j, self.features, self.head[i, j])
            kl[i, j], variance[i, j], df[i, j] = exact
        lower = certified(sums.lower, float(sums.largest) * float(self.features.norm(dim=1).max()), torch.float32)
        # Only the draw of heads is skewed, and only its share of the variance counts.
        share = torch.nan_to_num(first.sum(1) / (first + second + third).sum(1))
        skewness = sums.cheap.skewness() * share**1.5
        return TailEstimate(kl, variance, self.pool.ess, df, lower, skewness, len(self.pool.heads))


def _df(variance: Tensor) -> Tensor:
    """Degrees of freedom of sums with these variance factors, ``(R,)``, infinite where they are 0."""
    return torch.nan_to_num(variance.sum(1) ** 2 / (variance**2).sum(1), nan=torch.inf)
