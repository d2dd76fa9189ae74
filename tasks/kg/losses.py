"""Losses of scores (B,) of true triples against (B, N) of corrupted ones; a score of minus infinity takes no part."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import LossConfig

__all__ = ["contrast", "cross_entropy", "logistic", "margin_ranking", "multi_label", "self_adversarial"]


def contrast(positive: Tensor, negative: Tensor, config: LossConfig, *, weight: float) -> Tensor:
    """Loss that a configuration names, of scores (B,) and (B, N); `weight` is that of the negatives together."""
    if config.kind == "logistic":
        return logistic(positive, negative, weight=weight, smoothing=config.smoothing)
    if config.kind == "self_adversarial":
        return self_adversarial(positive, negative, temperature=config.temperature)
    if config.kind == "cross_entropy":
        return cross_entropy(positive, negative, smoothing=config.smoothing)
    return margin_ranking(positive, negative, margin=config.margin)


def _binary(score: Tensor, *, true: bool, smoothing: float) -> Tensor:
    """Logistic loss of each score whose label is 1 - smoothing, or smoothing; 0 of a score of minus infinity."""
    loss = F.softplus(-score if true else score)
    if smoothing:
        loss = loss + smoothing * (score if true else -score.masked_fill(score == -torch.inf, 0))
    return loss


def logistic(positive: Tensor, negative: Tensor, *, weight: float, smoothing: float = 0.0) -> Tensor:
    r""":math:`(\log(1 + e^{-s}) + w\,\mathrm{mean}_n \log(1 + e^{s_n})) / (1 + w)`, the mean over triples.

    With smoothing e the labels are 1 - e and e.
    """
    wrong = _binary(negative, true=False, smoothing=smoothing).mean(1).mean() * weight
    return (_binary(positive, true=True, smoothing=smoothing).mean() + wrong) / (1 + weight)


def self_adversarial(positive: Tensor, negative: Tensor, *, temperature: float) -> Tensor:
    r""":math:`(\log(1 + e^{-s}) + \sum_n p_n \log(1 + e^{s_n})) / 2`.

    The weights p, which have no gradient, are the softmax of `temperature` times the scores.
    Sun et al., ICLR 2019, equations 5 and 6.
    """
    out = negative == -torch.inf
    hard = torch.softmax((temperature * negative.detach()).masked_fill(out, -1e9), 1).masked_fill(out, 0)
    return (F.softplus(-positive).mean() + (hard * F.softplus(negative)).sum(1).mean()) / 2


def cross_entropy(positive: Tensor, negative: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Negative log-probability of the true tail among itself and its negatives, by a softmax.

    With smoothing e the target gives e in equal parts to all of them.
    """
    scores = torch.cat([positive[:, None], negative], 1)
    log_all = torch.logsumexp(scores, 1)
    loss = (log_all - positive).mean()
    if smoothing:
        taking = scores != -torch.inf
        others = scores.masked_fill(~taking, 0).sum(1) / taking.sum(1)
        loss = (1 - smoothing) * loss + smoothing * (log_all - others).mean()
    return loss


def margin_ranking(positive: Tensor, negative: Tensor, *, margin: float) -> Tensor:
    """``max(0, margin - positive + negative)``, the mean over triples and negatives."""
    return F.relu(negative - positive[:, None] + margin).mean()


def multi_label(scores: Tensor, row: Tensor, column: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Logistic loss of every entity as the tail, scores (B, E): true at the pairs (row, column), false elsewhere.

    The mean over (B, E). With smoothing e the labels are 1 - e and e.
    """
    true = scores[row, column]
    total = F.softplus(scores).sum() - (1 - smoothing) * true.sum()
    if smoothing:
        total = total - smoothing * (scores.sum() - true.sum())
    return total / scores.numel()
