"""The softmax over a node's ancestors and negatives that a whole batch shares."""

from __future__ import annotations

from math import inf, log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .models import Table

__all__ = ["TINY", "log_mass", "softmax_loss"]

TINY = 1e-9  # of squared distances: below it two points count as one, and pull or push each other no more
_ROWS = 1 << 16  # entries of a block for each thread: it stays in the cache


class _LogMass(torch.autograd.Function):
    """Products in float64, as squared distances cancel and so do their gradients; all else in float32, block by block."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, row: Tensor, column: Tensor, table: Table) -> tuple[Tensor, Tensor]:
        total = query.new_empty(len(query), dtype=torch.float32)
        slope = query.new_empty(len(query), len(key), dtype=torch.float32)
        rows = max(1, _ROWS * torch.get_num_threads() // len(key)) if query.device.type == "cpu" else len(query)
        cuts = torch.searchsorted(row, torch.arange(0, len(query) + rows, rows, device=row.device)).tolist()
        for block, start in enumerate(range(0, len(query), rows)):
            part, masked = slice(start, start + rows), slice(cuts[block], cuts[block + 1])
            q = (query[part] @ key.T).float()
            near = q <= TINY
            q.clamp_(min=TINY)[row[masked] - start, column[masked]] = inf
            total[part], own = table.log_mass(q)
            slope[part] = own.masked_fill_(near, 0)
        return total, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        query, key, *_ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(query, key, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        query, key, slope = ctx.saved_tensors
        slope, grad = slope.double(), grad.double()[:, None]
        return (slope @ key) * grad, slope.T @ (query * grad), None, None, None


def log_mass(query: Tensor, key: Tensor, row: Tensor, column: Tensor, table: Table) -> Tensor:
    r"""Return :math:`\log\sum_{v'} e^{-scale\,d(u, v')}` over shared negatives, for every head u.

    Parameters
    ----------
    query : Tensor, shape (H, m), features of heads
    key : Tensor, shape (M, m), features of negatives
    row, column : int64 Tensors: entries that are left out, sorted by row

    Returns
    -------
    Tensor, shape (H,), float32, very small where nothing is left. Differentiable once.
    """
    total, _ = _LogMass.apply(query, key, row, column, table)
    return total


def softmax_loss(table: Table, batch: dict[str, Tensor], weight: float) -> Tensor:
    r"""Mean over edges (u, v) of :math:`-\log\frac{e^{-d(u,v)}}{e^{-d(u,v)} + c\sum_{v'} e^{-d(u,v')}}`.

    The sum goes over the batch's M shared negatives without u and its ancestors; ``c = weight / M``.

    Parameters
    ----------
    batch : ``nodes`` (U,), all that the batch touches, each once; and indices into it: ``head`` (H,), ``negative`` (M,),
        ``tail`` (E,) with ``edge`` (E,), the head's number; ``row`` and ``column`` as in :func:`log_mass`.
    weight : how many negatives the sum stands for

    References
    ----------
    Nickel and Kiela, "Poincare Embeddings for Learning Hierarchical Representations", NeurIPS 2017, equation 6.
    """
    query, key = table.features(table.points(batch["nodes"]))
    heads = query[batch["head"]]
    rest = log_mass(heads, key[batch["negative"]], batch["row"], batch["column"], table)
    rest = rest.double() + log(weight / len(batch["negative"]))
    q = (heads[batch["edge"]] * key[batch["tail"]]).sum(-1).clamp(min=TINY)
    score = -table.scale * table.distance(q)
    return torch.nn.functional.softplus(rest[batch["edge"]] - score).mean()
