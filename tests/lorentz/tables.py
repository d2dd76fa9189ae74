"""Tables of points for the tests of the optimisers."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz import Lorentz, LorentzEmbedding

F64 = torch.float64


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def table(
    n: int = 12, dim: int = 5, *, k: float = 1.0, std: float = 0.7, dtype: torch.dtype = F64, sparse: bool = False
) -> LorentzEmbedding:
    layer = LorentzEmbedding(n, dim, manifold=Lorentz(k), sparse=sparse).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(std * normal(n, dim - 1))
    return layer
