"""Bottleneck adapters in sequence: after the attention, after the feed-forward layer, or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..functions import function
from ..hosts import Host
from ..linear import LinearPart
from ..space import Space

__all__ = ["Adapter", "Bottleneck", "Pfeiffer", "Sequential"]


@dataclass(frozen=True, kw_only=True)
class Adapter(Delta):
    r"""Houlsby's adapter: :math:`z \leftarrow z + U\,\phi(D z + c) + c'` on the results of attention and feed-forward layer.

    It acts before the residual is added. U and c' are 0 at the start, so the model is unchanged. On a Lorentz backbone z are
    the space coordinates before the lift, D sees the time too, and U that of the hidden point.

    Parameters
    ----------
    bottleneck : int, >= 1. Size of the hidden layer.
    activation : str, name of a function of ``torch.nn.functional``
    roles : roles of linear layers, whose results it takes

    References
    ----------
    Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, section 2.1.
    """

    size = "bottleneck"
    bottleneck: int = 24
    activation: str = "gelu"
    roles: tuple[str, ...] = ("attention.out", "ffn.down")

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise DeltaError(f"{self.name} takes a bottleneck >= 1, got {self.bottleneck}")
        function(self.activation)

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles."""
        return self.at(host, *self.roles)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """D and U."""
        return Sequential(Bottleneck(site.out_features, site.out_features, self.bottleneck, space, self.activation))


@dataclass(frozen=True, kw_only=True)
class Pfeiffer(Adapter):
    r"""Pfeiffer's adapter: one a layer, after the feed-forward layer, in the form of :class:`Adapter`.

    With z the result of the feed-forward layer, r the residual and f the bottleneck, BERT's layer returns
    :math:`\mathrm{LN}(z + f(z) + r)`. AdapterHub's ``seq_bn``, which is trained under the same name, reads the normalised
    sum instead, :math:`\mathrm{LN}(f(\mathrm{LN}(z + r)) + z + r)`: its checkpoints are no deltas of this method.

    Parameters
    ----------
    bottleneck, activation, roles : as in :class:`Adapter`

    References
    ----------
    Pfeiffer et al., "AdapterFusion", EACL 2021, section 4.
    """

    bottleneck: int = 48
    roles: tuple[str, ...] = ("ffn.down",)


class Bottleneck(nn.Module):
    """``U phi(D u + c) + c'`` of free coordinates u (..., n), a vector (..., m); 0 at the start."""

    def __init__(self, n: int, m: int, size: int, space: Space, activation: str) -> None:
        super().__init__()
        self.space, self.activation = space, function(activation)
        self.down = nn.Parameter(torch.empty(size, n + space.columns))
        self.down_bias = nn.Parameter(torch.zeros(size))
        self.up = nn.Parameter(torch.zeros(m, size + space.columns))
        self.up_bias = nn.Parameter(torch.zeros(m))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, u: Tensor) -> Tensor:
        """The change (..., m)."""
        hidden = self.activation(self.space.linear(u, self.down, self.down_bias))
        return self.space.linear(hidden, self.up, self.up_bias)


class Sequential(LinearPart):
    """Adds to a layer's result what a bottleneck makes of it."""

    def __init__(self, bottleneck: nn.Module) -> None:
        super().__init__()
        self.bottleneck = bottleneck

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """Z and the change made of it."""
        change: Tensor = self.bottleneck(z)
        return z + change
