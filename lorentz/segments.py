"""Edge lists: their checks and weights, and sums and softmax over the edges that lead to each node."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_edges", "propagation", "segment_softmax", "segment_sum", "with_self_loops"]


def check_edges(edge_index: Tensor, edge_weight: Tensor | None, nodes: int) -> None:
    """Refuse an edge list that is none.

    Raises
    ------
    ValueError : shapes that do not fit; on the CPU also a node that is not there.
    """
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        hint = "; transpose it" if edge_index.ndim == 2 and edge_index.shape[1] == 2 else ""
        raise ValueError(
            f"edge_index is int64 of shape (2, M), sources and targets; got {edge_index.dtype} of shape "
            f"{tuple(edge_index.shape)}{hint}"
        )
    if edge_weight is not None and edge_weight.shape != edge_index.shape[1:]:
        raise ValueError(
            f"{edge_index.shape[1]} edges take as many weights, shape (M,); got {tuple(edge_weight.shape)}"
        )
    # Reading values would break a graph that is traced, and wait for a device.
    readable = edge_index.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and edge_index.numel() and not torch._C._functorch.is_batchedtensor(edge_index):
        low, high = map(int, edge_index.aminmax())
        if low < 0 or high >= nodes:
            raise ValueError(
                f"edge_index names nodes from {low} to {high}, and the points given are nodes 0 to {nodes - 1}"
            )


def with_self_loops(
    edge_index: Tensor, edge_weight: Tensor | None, nodes: int, *, loops: bool, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, targets and weights of the edges and, where wanted, of a loop of weight 1 a node; below 0 is NaN."""
    count = edge_index.shape[1]
    weight = like.new_ones(count) if edge_weight is None else edge_weight.to(like.dtype)
    if edge_weight is not None:
        weight = torch.where(weight < 0, torch.full_like(weight, torch.nan), weight)
    source, target = edge_index.unbind()
    if loops:
        every = torch.arange(nodes, device=edge_index.device)
        source, target = torch.cat([source, every]), torch.cat([target, every])
        weight = torch.cat([weight, weight.new_ones(nodes)])
    return source, target, weight


def segment_sum(values: Tensor, target: Tensor, nodes: int, *, dim: int) -> Tensor:
    """Sum of the values of the edges (..., M, ...) that lead to each node, (..., nodes, ...), along the negative `dim`."""
    shape = list(values.shape)
    shape[dim] = nodes
    return values.new_zeros(shape).index_add(dim, target, values)


def propagation(source: Tensor, target: Tensor, weight: Tensor, nodes: int, normalisation: str) -> Tensor:
    r"""Weights of a centroid over the edges.

    For ``"symmetric"``, :math:`w_{ij} / \sqrt{d_j}` with :math:`d_j` the sum of the weights that lead to the source j, 0
    where that is 0. The factor :math:`1/\sqrt{d_i}` of the target scales all weights of one centroid and does not change
    it; for the same reason ``"row"``, :math:`w_{ij} / d_i`, is :math:`w_{ij}`.
    """
    if normalisation == "row":
        return weight
    degree = segment_sum(weight, target, nodes, dim=-1)
    none = degree == 0
    scale = torch.where(none, torch.zeros_like(degree), torch.where(none, torch.ones_like(degree), degree).rsqrt())
    return weight * scale.index_select(0, source)


def segment_softmax(logits: Tensor, weight: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Numerators (..., M, h) of the softmax of logits (..., M, h) over the edges to each node, each times its weight (M,).

    The largest of a node is 1; those of edges with weight 0 are 0.
    """
    there = weight != 0
    logits = logits + torch.where(there, weight, torch.ones_like(weight)).log()[:, None]
    logits = logits.masked_fill(~there[:, None], -torch.inf)
    with torch.no_grad():
        highest = logits.new_full((*logits.shape[:-2], nodes, logits.shape[-1]), -torch.inf)
        place = target[:, None].expand(logits.shape)
        highest = highest.scatter_reduce(-2, place, logits.detach(), "amax")
        highest = torch.where(highest == -torch.inf, torch.zeros_like(highest), highest)
    return (logits - highest.index_select(-2, target)).exp()
