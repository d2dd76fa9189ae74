"""Which heads to look at: one pool shared by all relations, drawn with unequal probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HeadPool", "draw_pool", "every_head", "inclusion_probability"]

_ROUNDS = 20  # of the multiplicative updates; the variances have settled to about 1 % by then
_GOAL = 12.0  # effective heads that the design gives each relation before it lowers the average variance
_LEAST = 10.0  # a design that leaves a relation with fewer has failed: the pool is too small for all relations


@dataclass(frozen=True, eq=False)
class HeadPool:
    """Heads with the weights that turn their conditional divergences into an estimate for each relation.

    Parameters
    ----------
    heads
        int64 ``(M,)``, ascending, distinct.
    weight
        float64 ``(R, M)``, rows sum to 1: ``P(h | r) / pi_h`` normalised (Hajek). The estimate is ``sum_h weight D_h``.
    variance
        float64 ``(R, M)``: the variance is ``sum_h variance (D_h - D)^2``. It is
        ``(1 - pi) weight^2 / (1 - weight)``, so heads taken with certainty add none, and the denominator makes up for
        residuals that shrink toward the one heavy head they are measured from. Scaled up where the draw missed heads
        that the design counts on.
    ess
        float64 ``(R,)``: independent draws from P(h | r) with the same variance; infinite where nothing was left to
        chance.
    df
        float64 ``(R,)``: degrees of freedom of the variance (Satterthwaite); infinite likewise.
    """

    heads: Tensor
    weight: Tensor
    variance: Tensor
    ess: Tensor
    df: Tensor


def every_head(head_prob: Tensor) -> HeadPool:
    """The pool of all E heads, whose estimate is the exact value: ``head_prob (R, E)``, rows summing to 1."""
    weight = head_prob.double()
    endless = torch.full((len(weight),), torch.inf, dtype=torch.float64)
    return HeadPool(torch.arange(weight.shape[1]), weight, torch.zeros_like(weight), endless, endless.clone())


def _capped(size: Tensor, total: float) -> Tensor:
    """Probabilities proportional to size that sum to total, none above 1."""
    certain = torch.zeros(len(size), dtype=torch.bool)
    while True:
        left = total - float(certain.sum())
        rest = size.masked_fill(certain, 0.0)
        pi = rest * (left / rest.sum())
        above = (pi >= 1.0) & ~certain
        if not bool(above.any()):
            return pi.masked_fill(certain, 1.0)
        certain |= above


def inclusion_probability(head_prob: Tensor, size: int) -> Tensor:
    r"""Inclusion probabilities of ``size`` heads that serve every relation.

    With ``V_r = \sum_h P(h|r)^2 (1/\pi_h - 1)``, the variance factor of relation r, the probabilities minimise
    ``\sum_r \lambda_r V_r``: ``\pi_h \propto (\sum_r \lambda_r P(h|r)^2)^{1/2}``, capped at 1. The multipliers start at
    1 and grow for the relations that would otherwise get fewer than 12 effective heads, so that no relation with a
    flat or a rare set of heads is left out of a pool that suits the others. Where the pool is too small for that, all
    multipliers are 1: pulling every relation to the same low number would spoil the good ones and save none.

    Parameters
    ----------
    head_prob
        ``(R, E)``, rows summing to 1.
    size
        Expected number of heads, from 1 to E - 1.

    Returns
    -------
    Tensor
        float64 ``(E,)`` in (0, 1], summing to ``size``.

    References
    ----------
    Sarndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, sections 3.6 and 12.7.
    """
    relations, entities = head_prob.shape
    if not 1 <= size < entities:
        raise ValueError(f"a pool of {size} heads asked for, expected 1 to {entities - 1} of {entities} entities")
    square = head_prob.double() ** 2
    multiplier = torch.ones(relations, dtype=torch.float64)
    # A floor keeps every head that some relation can have reachable, so that no estimate is biased.
    floor = 1e-3 * head_prob.double().mean(0)
    average = _capped((multiplier @ square).sqrt() + floor, float(size))
    for _ in range(_ROUNDS):
        pi = _capped((multiplier @ square).sqrt() + floor, float(size))
        factor = square @ (1.0 / pi - 1.0)
        multiplier = (multiplier * (factor * _GOAL).sqrt()).clamp_(min=1.0)
    pi = _capped((multiplier @ square).sqrt() + floor, float(size))
    return pi if float((square @ (1.0 / pi - 1.0)).max()) <= 1.0 / _LEAST else average


def draw_pool(head_prob: Tensor, size: int, *, generator: torch.Generator, inclusion: Tensor | None = None) -> HeadPool:
    """Draw a pool by systematic sampling with the probabilities of :func:`inclusion_probability`.

    Heads are passed in the order of the relation that wants them most, shuffled inside, which spreads the pool over
    the relations in proportion (implicit stratification).

    Parameters
    ----------
    head_prob
        ``(R, E)``, rows summing to 1.
    size
        Expected number of heads; from E on, all of them are taken.
    generator
        Source of the draw.
    inclusion
        ``(E,)``: the probabilities, where they are known already.
    """
    if size >= head_prob.shape[1]:
        return every_head(head_prob)
    pi = inclusion_probability(head_prob, size) if inclusion is None else inclusion
    certain = pi >= 1.0
    shuffled = torch.randperm(len(pi), generator=generator)
    order = shuffled[torch.argsort(head_prob.argmax(0)[shuffled], stable=True)]
    order = order[~certain[order]]
    steps = torch.cumsum(pi[order], 0)
    points = torch.arange(float(steps[-1]) + 1.0, dtype=torch.float64) + torch.rand(
        1, generator=generator, dtype=torch.float64
    )
    drawn = order[torch.searchsorted(steps, points[points < steps[-1]], right=True)]
    heads = torch.cat([certain.nonzero().squeeze(1), drawn]).sort().values
    raw = head_prob[:, heads].double() / pi[heads]
    weight = raw / raw.sum(1, keepdim=True)
    chance = weight**2 * (1.0 - pi[heads])
    # A pool that happens to miss the uncertain heads of a relation would call itself certain; what the design expects
    # is known, and is the least that is claimed.
    expected = (head_prob.double() ** 2 * (1.0 / pi - 1.0)).sum(1)
    realised = chance.sum(1)
    claimed = torch.maximum(realised, expected)
    variance = chance / (1.0 - weight) * (claimed / realised)[:, None]
    # One head carries the whole relation: its spread cannot be seen at all, which the standard error must say.
    unseen = ((weight >= 1.0) & (chance > 0.0)) | ((realised == 0.0) & (expected > 0.0))[:, None]
    variance = torch.where(unseen, torch.inf, torch.nan_to_num(variance))
    spread = variance.sum(1)
    df = torch.where(torch.isinf(spread), 1.0, torch.nan_to_num(spread**2 / (variance**2).sum(1), nan=torch.inf))
    return HeadPool(heads, weight, variance, 1.0 / claimed, df)
