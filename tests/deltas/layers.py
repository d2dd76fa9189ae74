"""One linear layer of every kind in float64, and what it computes written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import deltas
from lorentz import Lorentz, LorentzLinear

__all__ = ["KINDS", "One", "above", "with_time"]

K = 2.0
KINDS = ("flat", "lorentz", "lorentz-uncentred")


def above(u: Tensor, k: float = K) -> Tensor:
    """Time of the point with the space coordinates u, above that of the origin."""
    return (k + (u * u).sum(-1, keepdim=True)).sqrt() - k**0.5


def with_time(kind: str, u: Tensor) -> Tensor:
    """What a matrix of a delta sees of free coordinates."""
    return u if kind == "flat" else torch.cat([above(u), u], -1)


class One(nn.Module):
    """A layer with 8 free coordinates to 12, a delta in it, and inputs."""

    def __init__(self, kind: str, spec: Any, n: int = 8, m: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        manifold = Lorentz(k=K)
        if kind == "flat":
            self.q: nn.Module = nn.Linear(n, m)
        else:
            self.q = LorentzLinear(n + 1, m + 1, manifold=manifold, variant="unbounded", centred=kind == "lorentz")
        self.double()
        self.weight, self.bias = (p.detach().clone() for p in (self.q.weight, self.q.bias))  # type: ignore[union-attr]
        self.bias.normal_()
        with torch.no_grad():
            self.q.weight.normal_()
            self.q.bias.copy_(self.bias)
            self.weight.copy_(self.q.weight)
        self.u = torch.randn(5, 3, n, dtype=torch.float64)
        self.x = self.u if kind == "flat" else manifold.lift(self.u)
        self.handle = deltas.attach(self, spec, host={"q": "q"})
        with torch.no_grad():
            for parameter in self.handle.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)

    def forward(self) -> Tensor:
        """Free coordinates of the layer's result, checked to be of a point."""
        y: Tensor = self.q(self.x)
        if self.kind == "flat":
            return y
        torch.testing.assert_close(y[..., :1], above(y[..., 1:]) + K**0.5)
        return y[..., 1:]

    @property
    def columns(self) -> Tensor:
        """What the layer's matrix multiplies."""
        if self.kind == "lorentz-uncentred":
            return self.x
        return with_time(self.kind, self.u)

    def plain(self, weight: Tensor | None = None) -> Tensor:
        """``W h + b``, with another W on request."""
        return self.columns @ (self.weight if weight is None else weight).T + self.bias

    def numbers(self) -> dict[str, Tensor]:
        """Parameters of the delta by their last name."""
        return {key.rpartition(":")[2]: t.detach() for key, t in self.handle.parts().items()}
