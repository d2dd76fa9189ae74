"""One method's way into the intrinsic space and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeltaError
from .projectors import Projector, make_projector

__all__ = ["Codec"]


class Codec(nn.Module):
    r"""Encoder and projector of a method whose solutions are vectors of `size` parameters.

    .. math:: I = E_2 \tanh(E_1 \theta / s + c) + c', \qquad \hat\theta = s\, P I

    P is a projector and E_1 the transpose of another of its kind (Yi et al. 2022, section 3.2, where s is 1).

    Parameters
    ----------
    size : parameters of the delta
    dim : of the intrinsic space
    projector : kind of P, see :data:`deltas.subspace.PROJECTORS`
    scale : s, the length of a usual solution, above 0
    start : initial values of the delta, from which solutions are counted; None where they are not kept
    encoder : whether there is one; without it :meth:`encode` is the least squares solution of P I = theta / s
    generator : of the first values
    options : of the projector
    """

    scale: Tensor
    start: Tensor | None

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        projector: str,
        generator: torch.Generator,
        scale: float = 1.0,
        start: Tensor | None = None,
        encoder: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise DeltaError(f"the scale of a method is above 0, got {scale:g}: are all its solutions zero?")
        self.kind, self.size = projector, size
        self.register_buffer("scale", torch.tensor(float(scale)))
        if start is not None and start.shape != (size,):
            raise DeltaError(f"the start of a delta of {size} parameters has as many, got shape {tuple(start.shape)}")
        self.register_buffer("start", None if start is None else start.detach().float().cpu())
        self.projector = make_projector(projector, dim, size, generator=generator, **(options or {}))
        self.into: Projector | None = None
        if encoder:
            own = {key: value for key, value in self.projector.config().items() if key != "seed"}
            self.into = make_projector(projector, dim, size, generator=generator, **own)
            self.bias = nn.Parameter(torch.zeros(dim))
            self.mixing = nn.Linear(dim, dim)
            with torch.no_grad():
                self.mixing.weight.copy_(torch.randn(dim, dim, generator=generator) / sqrt(dim))
                self.mixing.bias.zero_()

    def encode(self, vector: Tensor) -> Tensor:
        """Intrinsic point (dim) of a solution (size)."""
        x = vector.to(self.scale) / self.scale
        if self.into is None:
            return self.projector.solve(x)
        # The transpose takes a vector of length one to one of length about sqrt(dim / size).
        out: Tensor = self.mixing(torch.tanh(self.into.transpose(x) * sqrt(self.size) + self.bias))
        return out

    def decode(self, point: Tensor) -> Tensor:
        """Parameters of the delta (size), as they differ from its start, at a point (dim)."""
        found: Tensor = self.scale * self.projector(point)
        return found

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameters with a rate at which one step of Adam moves points and solutions alike, whatever the size."""
        slow = [] if self.into is None else [getattr(self.into, name) for name in self.into.wide]
        rest = [p for p in self.parameters() if all(p is not other for other in slow)]
        return [{"params": rest, "lr": lr}, *([{"params": slow, "lr": lr / sqrt(self.size)}] if slow else [])]
