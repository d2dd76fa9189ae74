"""Divergences inside one exponential family with a finite support: log-partition, mean, Bregman and centred KL."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SMALL_KL", "bregman_kl", "centred_kl", "moments"]

SMALL_KL = 1e-2
"""Below this many nats a KL is recomputed in the centred form."""

_CHUNK = 1 << 22  # logits held at a time: 16 MiB in float32, so that the passes over them stay in the last-level cache


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
    n, chunk = len(natural), max(1, _CHUNK // len(features))
    partition = torch.empty(n, dtype=torch.float64)
    means = [torch.empty(0, features.shape[1], dtype=torch.float64)]
    for start in range(0, n, chunk):
        logits = natural[start : start + chunk] @ features.T
        peak = logits.amax(1, keepdim=True)
        logits.sub_(peak).exp_()
        total = logits.sum(1).double()
        partition[start : start + chunk] = peak.squeeze(1).double() + total.log()
        if mean_of is None:
            means.append((logits @ features).double() / total[:, None])
            continue
        wanted = mean_of[start : start + chunk]
        if 2 * int(wanted.sum()) > len(wanted):  # the copy of most rows would cost more than the product of the rest
            means.append((logits @ features)[wanted].double() / total[wanted, None])
        elif bool(wanted.any()):
            means.append((logits[wanted] @ features).double() / total[wanted, None])
    return partition, torch.cat(means)


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


def _excess(u: Tensor) -> Tensor:
    """``exp(u) - 1 - u`` without cancellation, never negative."""
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
    chunk = max(1, _CHUNK // (4 * len(features)))
    for start in range(0, len(natural), chunk):
        x, delta = natural[start : start + chunk], (other - natural)[start : start + chunk]
        p = torch.softmax(x @ features.T, 1)
        shift = ((p @ features) * delta).sum(1, keepdim=True)
        result[start : start + chunk] = torch.log1p((p * _excess(delta @ features.T - shift)).sum(1))
    return result
