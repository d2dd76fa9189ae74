"""UniPELT: adapter, prefix and LoRA at once, each behind a gate that the input opens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import AttentionPart, Tokens
from ..base import Delta, Site
from ..errors import DeltaError
from ..functions import function
from ..hosts import Host
from ..linear import LinearPart
from ..precision import in_dtype_of
from ..space import Space, space_before
from .adapter import Bottleneck
from .llama import InputSite, attention_inputs
from .lora import QUERY_AND_VALUE, LoRA, LowRank, linear_roles
from .parallel import End, Reader, beside

__all__ = ["UniPELT"]

LOW_RANK = "low rank"  # purpose of a site


@dataclass(frozen=True, kw_only=True)
class UniPELT(Delta):
    r"""UniPELT: :math:`\Delta W x` of LoRA, a prefix's keys and values, and an adapter's change, each times a gate.

    A gate is one number for each example, :math:`G = \mathrm{mean}_t\,\sigma(w \cdot x_t)`, w learned, x the input of the
    layer that LoRA changes, of the attention layer, and of the feed-forward layer that the adapter follows. w is 0 at the
    start, so every gate is 1/2 there. The mean is over all positions that the layer is given, padding included, as
    published; a decoder that generates with a cache is given one. On a Lorentz backbone w sees points, the time included,
    and keys and values are lifted from the gated space coordinates.

    Parameters
    ----------
    bottleneck : int or None, of the adapter after the feed-forward layer; None leaves it out
    length : int or None, of the prefix; None leaves it out
    rank : int or None, of LoRA; None leaves it out
    alpha : float or None; 2 * rank if None
    activation : str, of the adapter
    roles : of the linear layers that LoRA changes; by default as of :class:`LoRA`
    init_std : float, > 0. Deviation of the prefix's initial keys and values.

    References
    ----------
    Mao et al., "UniPELT: A Unified Framework for Parameter-Efficient Language Model Tuning", ACL 2022, section 3.2.
    """

    exact = False
    bottleneck: int | None = 16
    length: int | None = 10
    rank: int | None = 8
    alpha: float | None = None
    activation: str = "relu"
    roles: tuple[str, ...] = QUERY_AND_VALUE
    init_std: float = 0.02

    def __post_init__(self) -> None:
        sizes = {"bottleneck": self.bottleneck, "length": self.length, "rank": self.rank}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise DeltaError(f"UniPELT takes a {name} >= 1, or None to leave that part out, got {size}")
        if all(size is None for size in sizes.values()):
            raise DeltaError("UniPELT with neither bottleneck nor length nor rank is nothing")
        if self.bottleneck is not None and "ffn.up" in self.roles:
            raise DeltaError("UniPELT's adapter reads its gate's input at 'ffn.up', so LoRA cannot change that layer")
        function(self.activation)

    def sites(self, host: Host) -> list[Site]:
        """Layers that LoRA changes, attention layers, and beginning and end of the feed-forward layers."""
        low = [] if self.rank is None else self.at(host, *linear_roles(host, self.roles))
        found: list[Site] = [replace(site, purpose=LOW_RANK) for site in low]
        found += [] if self.length is None else attention_inputs(self, host)
        found += [] if self.bottleneck is None else beside(self, host, ("ffn.down",), ("ffn.up",))
        return found

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """A gate and what is behind it."""
        if isinstance(site, InputSite):
            assert self.length is not None
            return _Prefix(site, space, self.length, self.init_std)
        if isinstance(site, End):
            assert self.bottleneck is not None
            return _Adapter(site, space, self.bottleneck, self.activation)
        if site.purpose == LOW_RANK:
            assert self.rank is not None
            return _LoRA(site, space, LoRA(rank=self.rank, alpha=self.alpha))
        return Reader()


class _Gate(nn.Module):
    """``mean_t sigma(w x_t)`` of scores (batch, S, 1), a number (batch, 1, 1) for each example."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, columns))

    def forward(self, scores: Tensor) -> Tensor:
        if scores.ndim < 3:
            raise DeltaError(
                f"UniPELT's gate is a mean over the tokens of each example, and this layer gets rows of shape "
                f"{tuple(scores.shape)} with all examples in one, as OPT's feed-forward layers do: leave that part out "
                "(bottleneck=None)"
            )
        return torch.sigmoid(scores).mean(-2, keepdim=True)


class _LoRA(LowRank):
    fused: Any = None
    merged: Any = None

    def __init__(self, site: Site, space: Space, method: LoRA) -> None:
        super().__init__(site, space, method)
        self.gate = _Gate(site.in_features)

    def addend(self, host: nn.Module, h: Tensor) -> Tensor | None:
        """``G s B A h``."""
        change = super().addend(host, h)
        assert change is not None
        gate: Tensor = self.gate(self.space.project(host, h, self.gate.weight))
        return gate * change


class _Prefix(AttentionPart):
    reads_input = True

    def __init__(self, site: InputSite, space: Space, length: int, std: float) -> None:
        super().__init__()
        self.space = space
        self.key = nn.Parameter(torch.randn(length, site.out_features) * std)
        self.value = nn.Parameter(torch.randn(length, site.out_features) * std)
        self.gate = _Gate(site.size + space.columns)

    def tokens(self, x: Tensor | None) -> Tokens:
        """Gated keys and values."""
        assert x is not None
        gate: Tensor = self.gate(self.space.linear(self.space.coordinates(x), self.gate.weight))
        return Tokens(gate * self.key, gate * self.value)


class _Adapter(LinearPart):
    def __init__(self, site: End, space: Space, size: int, activation: str) -> None:
        super().__init__()
        self.before_block = space_before(site.source.module)
        self.bottleneck = Bottleneck(site.out_features, site.out_features, size, space, activation)
        self.gate = _Gate(site.source.in_features)
        self.path = site.source.path
        self.__dict__["reader"] = site.source.part  # no child: it belongs to the other layer

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """``z + G (U phi(D z + c) + c')``."""
        slot = self.__dict__["reader"].slot
        u, slot.u = slot.u, None
        if u is None:
            raise DeltaError(f"{self.path} was not called before the end of its block, so its input is not known")
        gate: Tensor = self.gate(self.before_block.linear(in_dtype_of(self.gate, u), self.gate.weight))
        change: Tensor = self.bottleneck(z)
        return z + gate * change
