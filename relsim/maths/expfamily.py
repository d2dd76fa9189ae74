"""Divergences inside one exponential family with a finite support: log-partition, mean, Bregman and centred KL."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SMALL_KL", "bregman_kl", "centred_kl", "excess", "moments"]

SMALL_KL = 1e-2
"""Below this many nats a KL is recomputed in the centred form."""

_ROWS, _TAILS = 512, 512  # logits held at a time: 1 MiB in float32, which stays in a core's cache between the passes
_PAIRED = 1 << 20  # the same for pairs of rows in float64


def moments(natural: Tensor, features: Tensor, *, mean_of: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Log-partition of every row and mean feature of the chosen rows.

    .. math:: A_i = \log\sum_t \exp(x_i\cdot f_t), \qquad \mu_i = \sum_t \exp(x_i\cdot f_t - A_i)\, f_t

    Parameters
    ----------
    natural
        ``(n, d)``; its dtype is that of the logits.
    features
        ``(E, d)``, of the same dtype.
    mean_of
        bool ``(n,)``: rows whose mean is wanted; all by default.

    Returns
    -------
    tuple
        ``A (n,)`` and ``mu (k, d)`` for the k chosen rows in order, both float64.
    """
    partition = torch.empty(len(natural), dtype=torch.float64)
    wanted = torch.ones(len(natural), dtype=torch.bool) if mean_of is None else mean_of
    chosen, others = wanted.nonzero().squeeze(1), (~wanted).nonzero().squeeze(1)
    means = [torch.empty(0, features.shape[1], dtype=torch.float64)]
    for rows in torch.split(chosen, _ROWS):
        partition[rows], mean = _sums(natural[rows], features, mean=True)
        means.append(mean)
    for rows in torch.split(others, _ROWS):
        partition[rows], _ = _sums(natural[rows], features, mean=False)
    return partition, torch.cat(means)


def _sums(natural: Tensor, features: Tensor, *, mean: bool) -> tuple[Tensor, Tensor]:
    """Log-partition and mean in one pass over blocks of the features, rescaled whenever a larger logit appears."""
    peak = natural.new_full((len(natural), 1), -torch.inf)
    total, moment = torch.zeros_like(peak, dtype=torch.float64), torch.zeros_like(natural)
    for block in torch.split(features, _TAILS):
        logits = natural @ block.T
        higher = torch.maximum(peak, logits.amax(1, keepdim=True))
        scale, peak = (peak - higher).exp_(), higher
        logits.sub_(peak).exp_()
        total.mul_(scale).add_(logits.sum(1, keepdim=True))  # in float64
        if mean:
            moment.mul_(scale).addmm_(logits, block)
    return (peak.double() + total.log()).squeeze(1), moment.double() / total


def bregman_kl(natural: Tensor, partition: Tensor, mean: Tensor, rows: Tensor) -> Tensor:
    r"""KL from the chosen rows to all rows: ``KL(i || j) = A_j - A_i - (x_j - x_i) . mu_i``.

    Parameters
    ----------
    natural, partition
        ``(n, d)`` and ``(n,)``, float64.
    mean, rows
        ``(k, d)`` float64 and int64 ``(k,)``: the means of rows i and which they are.

    Returns
    -------
    Tensor
        ``(k, n)`` float64, in nats; 0 up to rounding of the moments where i equals j.
    """
    own = partition[rows] - (natural[rows] * mean).sum(1)
    return torch.addmm(partition[None] - own[:, None], mean, natural.T, alpha=-1.0)


def excess(u: Tensor) -> Tensor:
    """``exp(u) - 1 - u`` of each entry without cancellation, never negative."""
    series = u * u / 2 * (1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6 * (1 + u / 7)))))
    return torch.where(u.abs() < 0.02, series, torch.expm1(u) - u)


def centred_kl(natural: Tensor, other: Tensor, features: Tensor) -> Tensor:
    r"""KL between paired rows in the form that keeps all digits of small values and is never negative.

    .. math:: \mathrm{KL}(i||j) = \log \mathrm{E}_{P_i}\exp\big((x_j - x_i)\cdot(f_t - \mu_i)\big)
              = \log\big(1 + \mathrm{E}_{P_i}[e^u - 1 - u]\big), \qquad \mathrm{E}_{P_i}[u] = 0

    Parameters
    ----------
    natural, other
        ``x_i`` and ``x_j``, ``(n, d)`` float64 each.
    features
        ``(E, d)`` float64.

    Returns
    -------
    Tensor
        ``(n,)`` float64, in nats, at least 0, and exactly 0 where ``other`` equals ``natural``.
    """
    result = torch.empty(len(natural), dtype=torch.float64)
    chunk = max(1, _PAIRED // len(features))
    for start in range(0, len(natural), chunk):
        x, delta = natural[start : start + chunk], (other - natural)[start : start + chunk]
        p = torch.softmax(x @ features.T, 1)
        shift = ((p @ features) * delta).sum(1, keepdim=True)
        result[start : start + chunk] = torch.log1p((p * excess(delta @ features.T - shift)).sum(1))
    return result
