"""Cheap sums over tails: a weighted sample of tails for each relation, which exact sums correct."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.kl.pool import capped, systematic

__all__ = ["TailSample", "draw_tails", "heaviest_tails"]

_OWN, _COMMON = 6, 12  # pilot heads: of the relation itself, and of all relations
_TOGETHER = 8  # relations in one product with all features
_FLOOR = 0.05  # share of the sample that is spread evenly, against tails that the pilot heads did not show


@dataclass(frozen=True, eq=False)
class TailSample:
    """Tails drawn for each relation, with weights that make sums over them estimate sums over all tails.

    Parameters
    ----------
    features
        ``(R, K, d)``: the features of the K tails of each relation.
    log_weight
        ``(R, K)``: minus the log of their inclusion probabilities.
    """

    features: Tensor
    log_weight: Tensor

    def moments(self, natural: Tensor, *, mean: bool = True) -> tuple[Tensor, Tensor]:
        """Estimated log-partition ``(R, b)`` and mean ``(R, b, d)`` at natural parameters ``(R, b, d)``.

        Without ``mean`` the second is empty.
        """
        partition = natural.new_empty(natural.shape[:2])
        means = natural.new_empty(natural.shape if mean else (0,))
        # One relation at a time, so that its logits stay in a core's cache.
        for r, (x, features, log_weight) in enumerate(zip(natural, self.features, self.log_weight, strict=True)):
            terms = torch.addmm(log_weight, x, features.T)
            peak = terms.amax(1, keepdim=True)
            terms.sub_(peak).exp_()
            total = terms.sum(1, keepdim=True)
            partition[r] = (peak + total.log()).squeeze(1)
            if mean:
                torch.div(terms @ features, total, out=means[r])
        return partition, means


def draw_tails(
    dist: FactDistribution,
    head_prob: Tensor,
    features: Tensor,
    size: int,
    own_size: int,
    *,
    generator: torch.Generator,
) -> tuple[TailSample, TailSample]:
    r"""Draw tails of each relation twice: for use at heads of any relation, and at those of the relation itself.

    The inclusion probabilities are proportional to the root mean square of ``P(t | h, r)`` over pilot heads, which
    minimises the variance of the estimated normaliser; a twentieth of the sample is spread evenly. Tails that take
    more than their share are taken with certainty.

    Parameters
    ----------
    dist
        The model.
    head_prob
        ``P(h | r)``, float64 ``(R, E)``.
    features
        Entity features ``(E, d)``, in the dtype of the sums.
    size, own_size
        Tails a relation in the two samples, each from 1 to E - 1.
    generator
        Source of the draws.

    References
    ----------
    Sarndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, section 3.6.
    """
    order = torch.randperm(len(features), generator=generator)
    samples: tuple[list[TailSample], list[TailSample]] = [], []
    for typical, anywhere in _measures(dist, head_prob, features, generator):
        for sample, measure, n in zip(samples, (typical + anywhere, typical), (size, own_size), strict=True):
            pi = capped(measure / measure.sum() * (1.0 - _FLOOR) + _FLOOR / len(features), float(n))
            chosen = systematic(pi, order, generator=generator)
            sample.append(TailSample(features[chosen], -pi[chosen].log().to(features.dtype)))
    return _stacked(samples[0]), _stacked(samples[1])


def heaviest_tails(
    dist: FactDistribution, head_prob: Tensor, features: Tensor, size: int, *, generator: torch.Generator
) -> TailSample:
    """The ``size`` tails of each relation that weigh most, unweighted: partial sums, which bound those over all tails.

    Parameters as in :func:`draw_tails`; ``generator`` draws the heads by which weight is judged.
    """
    sample = []
    for typical, anywhere in _measures(dist, head_prob, features, generator):
        chosen = (typical + anywhere).topk(size).indices
        sample.append(TailSample(features[chosen], features.new_zeros(size)))
    return _stacked(sample)


def _stacked(samples: list[TailSample]) -> TailSample:
    return TailSample(torch.stack([one.features for one in samples]), torch.stack([one.log_weight for one in samples]))


def _measures(
    dist: FactDistribution, head_prob: Tensor, features: Tensor, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Root mean square of ``P(t | h, r)`` over heads of r and over heads of all relations, float64 ``(E,)``, for each r."""
    own = torch.multinomial(head_prob, _OWN, replacement=True, generator=generator)
    common = torch.multinomial(head_prob.mean(0), _COMMON, replacement=True, generator=generator)
    natural = dist.tail_natural_all(common).to(features.dtype)
    average = torch.zeros(2, _OWN + _COMMON, dtype=features.dtype)
    average[0, :_OWN], average[1, _OWN:] = 1.0 / _OWN, 1.0 / _COMMON
    for some in torch.split(torch.arange(len(head_prob)), _TOGETHER):
        mine = dist.tail_natural(own[some].flatten(), some.repeat_interleave(_OWN)).to(features.dtype)
        rows = torch.cat([mine.view(len(some), _OWN, -1), natural[:, some].transpose(0, 1)], 1)
        square = torch.softmax(rows.flatten(0, 1) @ features.T, 1).square_()
        for each in torch.split(square, _OWN + _COMMON):
            typical, anywhere = (average @ each).double().sqrt()
            yield typical, anywhere
