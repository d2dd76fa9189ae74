"""What relations do to many heads at once, each head by its own relation."""

from __future__ import annotations

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import givens, rotation_matrix

__all__ = ["RelationRotation", "apply_relations", "start_matrices"]


def apply_relations(weight: Tensor, x: Tensor, relation: Tensor, *, transpose: bool = False) -> Tensor:
    """``weight[relation] @ x`` for weights (R, d, d), vectors (B, d) and relations (B,), to (B, d); or of the transposes.

    Rows are sorted by relation into blocks that share one matrix: far fewer matrices are read, and summed over in the
    gradient, than by gathering one a row.
    """
    order = torch.argsort(relation)
    present, group, count = torch.unique_consecutive(relation[order], return_inverse=True, return_counts=True)
    size = 8 if len(x) < 4 * len(present) else 16
    blocks = (count + size - 1) // size
    first_slot, first_row = (blocks.cumsum(0) - blocks) * size, count.cumsum(0) - count
    slot = torch.empty_like(order)
    slot[order] = torch.arange(len(x), device=x.device) + (first_slot - first_row)[group]
    # F.embedding, not index_select: its gradient on a CPU is several times faster.
    matrices = F.embedding(torch.repeat_interleave(present, blocks), weight.flatten(1)).unflatten(1, weight.shape[1:])
    padded = x.new_zeros(len(matrices) * size, x.shape[1]).index_copy(0, slot, x)
    product = torch.bmm(padded.view(len(matrices), size, x.shape[1]), matrices if transpose else matrices.mT)
    return F.embedding(slot, product.flatten(0, 1))


def start_matrices(count: int, size: int, start: str, *, time_axis: bool = False) -> Tensor:
    """Initial matrices (count, size, size): uniform in +-1/size, for ``"identity"`` around the identity on space."""
    weight = torch.empty(count, size, size).uniform_(-1 / size, 1 / size)
    if start == "identity":
        weight += torch.diag(torch.tensor([0.0 if time_axis and i == 0 else 1.0 for i in range(size)]))
    return weight


class RelationRotation(nn.Module):
    """A rotation of space coordinates for each relation.

    Parameters
    ----------
    count : relations, with inverses
    size : space coordinates, at least 2
    kind : ``"givens"``, an angle for each pair of coordinates (:func:`lorentz.givens`), or ``"full"``, every rotation but
        those that turn a plane by exactly half a turn (Cayley's form)
    start : ``"uniform"`` angles (for full: a normal skew matrix), or near the ``"identity"``
    """

    def __init__(self, count: int, size: int, *, kind: str, start: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "givens":
            raw = torch.empty(count, size // 2).uniform_(-pi, pi)
            self.raw = nn.Parameter(raw * (1e-2 if start == "identity" else 1.0))
        else:
            std = 1e-2 if start == "identity" else size**-0.5
            self.raw = nn.Parameter(torch.randn(count, size * (size - 1) // 2) * std)

    def forward(self, space: Tensor, relation: Tensor) -> Tensor:
        """Rotate vectors (B, n) by their relations (B,)."""
        if self.kind == "givens":
            return givens(space, self.raw[relation])
        present, place = torch.unique(relation, return_inverse=True)
        return apply_relations(rotation_matrix(self.raw[present], parametrisation="cayley"), space, place)
