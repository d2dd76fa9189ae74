"""Negative log-likelihood of many softmax rows that share one feature table, by full or sampled normaliser."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["softmax_nll"]


def softmax_nll(
    natural: Tensor,
    row: Tensor,
    target: Tensor,
    weight: Tensor,
    features: Tensor,
    *,
    negatives: Tensor | None = None,
    correction: Tensor | None = None,
) -> Tensor:
    r"""Sum of ``-weight log softmax(natural[row] . features)[target]`` over observations.

    .. math:: \sum_n w_n \Big(\log Z_{row_n} - x_{row_n}\cdot f_{target_n}\Big)

    With ``negatives`` the normaliser is estimated: the targets observed in a row enter exactly, all others through
    the negatives with importance weight ``exp(correction)``, so that ``Z`` is unbiased (sampled softmax with logQ
    correction, an observed target never counted twice).

    Parameters
    ----------
    natural
        ``(U, d)``, one natural parameter a row.
    row, target, weight
        ``(N,)`` each; no pair (row, target) may occur twice.
    features
        ``(E, d)``.
    negatives
        int64 ``(K,)``, distinct entity ids; None for the exact normaliser.
    correction
        ``(K,)``, log of expected copies per draw, inverted: ``log(copies_k / (draws q_k))``. Required with negatives.

    Returns
    -------
    Tensor
        A scalar, in nats times weight.

    References
    ----------
    Bengio and Senecal, Adaptive importance sampling to accelerate training of a neural probabilistic language model,
    2008.
    """
    observed = (natural[row] * features[target]).sum(1)
    if negatives is None:
        row_weight = natural.new_zeros(len(natural)).index_add_(0, row, weight)
        return row_weight @ torch.logsumexp(natural @ features.T, 1) - weight @ observed
    if correction is None or correction.shape != negatives.shape:
        shape = None if correction is None else tuple(correction.shape)
        raise ValueError(f"negatives {tuple(negatives.shape)} need a correction of the same shape, got {shape}")
    logits = torch.addmm(correction.to(natural.dtype), natural, features[negatives].T)
    column = negatives.new_full((len(features),), -1)
    column[negatives] = torch.arange(len(negatives), device=negatives.device)
    hit = column[target]
    logits[row[hit >= 0], hit[hit >= 0]] = -torch.inf
    # A row whose every negative was also observed has no sampled mass left: logsumexp of -inf alone has NaN gradients,
    # so the shift is taken from the observed targets too and the exponentials are summed by hand.
    shift = logits.detach().amax(1).scatter_reduce(0, row, observed.detach(), "amax")
    total = (logits - shift[:, None]).exp().sum(1).index_add(0, row, (observed - shift[row]).exp())
    row_weight = natural.new_zeros(len(natural)).index_add_(0, row, weight)
    return row_weight @ (shift + total.log()) - weight @ observed
