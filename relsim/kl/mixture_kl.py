"""Exact KL of back-off mixtures of an exponential family and sparse counts, which are no exponential family themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from relsim.maths.expfamily import SMALL_KL, excess, moments

__all__ = ["mixture_kl", "mixture_log_prob"]

_BLOCK = 1 << 22  # probabilities held at a time


def mixture_log_prob(natural: Tensor, features: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
    r"""``log(l_i c_i(t) + (1 - l_i) n_i(t))`` of every event, with ``n_i(t) = softmax_t(x_i . f_t)``.

    Parameters
    ----------
    natural
        ``x``, float64 ``(n, d)``.
    features
        ``f``, float64 ``(E, d)``.
    counts
        ``c``, float64 ``(n, E)``, sparse; rows sum to 1, or have nothing where the weight is 0.
    weight
        ``l``, float64 ``(n,)``, in [0, 1).

    Returns
    -------
    Tensor
        float64 ``(n, E)``, in nats.
    """
    _check(natural, features, counts, weight)
    logits = torch.log_softmax(natural @ features.T, 1)
    row, column = counts.indices()
    odds = _log_odds(counts.values(), weight[row], logits[row, column])
    result = logits + torch.log1p(-weight)[:, None]
    result[row, column] += torch.logaddexp(odds, torch.zeros_like(odds))  # softplus of torch is linear beyond 20
    return result


def mixture_kl(natural: Tensor, features: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
    r"""Exact KL between all pairs of mixtures ``P_i = l_i c_i + (1 - l_i) n_i``.

    Only the events that a count distribution has need a sum of their own,

    .. math:: \mathrm{E}_{P_i}\log P_j = x_j\cdot m_i - A_j + \log(1 - l_j)
              + \sum_{t\in\mathrm{supp}(c_j)} P_i(t)\,\log\Big(1 + \frac{l_j c_j(t)}{(1 - l_j) n_j(t)}\Big),
              \qquad m_i = l_i \sum_t c_i(t) f_t + (1 - l_i)\mu_i

    so that all pairs cost ``n E d + n nnz`` rather than ``n^2 E``. Pairs under 1e-2 nats are summed over all events as
    ``E_{P_i}[e^u - 1 - u]``, u the log-ratio, whose terms are never negative.

    Parameters
    ----------
    natural
        ``x``, float64 ``(n, d)``.
    features
        ``f``, float64 ``(E, d)``.
    counts
        ``c``, float64 ``(n, E)``, sparse; rows sum to 1, or have nothing where the weight is 0.
    weight
        ``l``, float64 ``(n,)``, in [0, 1).

    Returns
    -------
    Tensor
        float64 ``(n, n)``, in nats, at least 0, the diagonal exactly 0.

    Raises
    ------
    TypeError
        For tensors that are not float64.
    ValueError
        For shapes that do not fit, weights outside [0, 1), or count rows that do not sum to 1.
    """
    _check(natural, features, counts, weight)
    partition, mean = moments(natural, features)
    mean = (1.0 - weight)[:, None] * mean + weight[:, None] * torch.sparse.mm(counts, features)
    expected = mean @ natural.T - partition + torch.log1p(-weight)
    row, column = counts.indices()
    log_prob = (natural[row] * features[column]).sum(1) - partition[row]
    odds = _log_odds(counts.values(), weight[row], log_prob)
    gain = torch.logaddexp(odds, torch.zeros_like(odds))
    events, place = torch.unique(column, return_inverse=True)
    step = max(1, _BLOCK // len(natural))
    for start in range(0, len(events), step):
        stop = min(start + step, len(events))
        inside = (place >= start) & (place < stop)
        at, local = row[inside], place[inside] - start
        mixed = torch.exp(natural @ features[events[start:stop]].T - partition[:, None]) * (1.0 - weight)[:, None]
        mixed.index_put_((at, local), weight[at] * counts.values()[inside], accumulate=True)
        table = torch.sparse_coo_tensor(
            torch.stack([at, local]), gain[inside], (len(natural), stop - start), check_invariants=False
        )
        expected += torch.sparse.mm(table, mixed.T.contiguous()).T
    kl: Tensor = (expected.diagonal()[:, None] - expected).fill_diagonal_(0.0)
    small = (kl < SMALL_KL).fill_diagonal_(False)
    for i in small.any(1).nonzero().squeeze(1).tolist():
        others = small[i].nonzero().squeeze(1)
        # One row at a time: rows of one product may round differently, and equal rows must agree to the bit.
        one, *rest = (_row(natural, features, counts, weight, r) for r in [i, *others.tolist()])
        kl[i, others] = torch.stack([_by_excess(one, two) for two in rest])
    return kl


def _row(natural: Tensor, features: Tensor, counts: Tensor, weight: Tensor, r: int) -> Tensor:
    at = torch.tensor([r])
    return mixture_log_prob(natural[at], features, counts.index_select(0, at).coalesce(), weight[at]).squeeze(0)


def _by_excess(one: Tensor, two: Tensor) -> Tensor:
    return torch.dot(one.exp(), excess(two - one))


def _log_odds(count: Tensor, weight: Tensor, log_prob: Tensor) -> Tensor:
    """``log(l c / ((1 - l) n))``."""
    return weight.log() + count.log() - torch.log1p(-weight) - log_prob


def _check(natural: Tensor, features: Tensor, counts: Tensor, weight: Tensor) -> None:
    for name, value in (("natural", natural), ("features", features), ("counts", counts), ("weight", weight)):
        if value.dtype != torch.float64:
            raise TypeError(f"{name} is {value.dtype}, expected torch.float64: call .double()")
    n, entities = len(natural), len(features)
    if not counts.is_sparse or not counts.is_coalesced():
        raise ValueError("counts is not a coalesced sparse COO tensor: call .to_sparse().coalesce()")
    if counts.shape != (n, entities) or weight.shape != (n,) or natural.shape[1:] != features.shape[1:]:
        shapes = tuple(tuple(value.shape) for value in (natural, features, counts, weight))
        raise ValueError(
            f"natural, features, counts, weight have shapes {shapes}, expected (n, d), (E, d), (n, E), (n,)"
        )
    if not bool(((weight >= 0.0) & (weight < 1.0)).all()):
        raise ValueError(f"weight runs from {float(weight.min())} to {float(weight.max())}, expected 0 <= weight < 1")
    if not bool((counts.values() > 0.0).all()):
        raise ValueError("counts holds values that are not above 0: leave events without counts out")
    total = torch.sparse.sum(counts, 1).to_dense()
    wrong = ((total - 1.0).abs() > 1e-9) & (weight > 0.0)
    if bool(wrong.any()):
        r = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {r} of counts sums to {float(total[r]):.6g}, expected 1 where the weight is above 0 "
            f"(here {float(weight[r]):.3g}); a row without counts needs weight 0"
        )
