"""Prefix tuning: tokens before the keys of every attention layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import AttentionPart, Tokens
from ..base import Delta, Site
from ..embeddings import EmbeddingsPart
from ..errors import DeltaError
from ..hosts import Host
from ..space import Space

__all__ = ["POSITIONS", "PrefixTuning"]

POSITIONS = ("kept", "shifted")


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(Delta):
    r"""Prefix tuning: every query also sees n learned keys and values, :math:`\mathrm{Attn}(Q, [P_k; K], [P_v; V])`.

    The tokens of the input keep their positions, so an encoder still takes inputs of its full length; the prefix's keys have
    none. On a Lorentz backbone keys and values are points with the learned space coordinates, and join the centroid.

    Parameters
    ----------
    length : int, >= 1. n
    hidden : int or None. Size of the two-layer map that makes keys and values of one table of embeddings for all layers
        (the paper's reparametrisation), ``W_2 tanh(W_1 E)``; None trains keys and values themselves.
    init_std : float, > 0. Deviation of the initial keys (values), or of the table.
    roles : roles of attention layers; None takes every attention, cross-attention too where there is one
    positions : str. ``"kept"``, or ``"shifted"``: the input's tokens are counted from position n on, as if the prefix were a
        text before them. That is what peft's checkpoints are trained for; it costs n positions of a model that has learned
        them.

    References
    ----------
    Li and Liang, "Prefix-Tuning", ACL 2021, equations 3 to 5.
    """

    exact = False
    size = "length"
    length: int = 20
    hidden: int | None = None
    init_std: float = 0.02
    roles: tuple[str, ...] | None = None
    positions: str = "kept"

    def __post_init__(self) -> None:
        if self.length < 1 or (self.hidden is not None and self.hidden < 1):
            raise DeltaError(f"PrefixTuning takes a length and a hidden size >= 1, got {self.length} and {self.hidden}")
        if self.positions not in POSITIONS:
            raise DeltaError(f'positions is "kept" or "shifted", got {self.positions!r}')

    def sites(self, host: Host) -> list[Site]:
        """Attention layers, and the input if its positions move."""
        roles = self.roles
        if roles is None:
            roles = ("attention", "cross") if "cross" in host.roles else ("attention",)
        found = self.at(host, *roles, kind="attention")
        return [*found, self.at_input(host)] if self.positions == "shifted" else found

    def shared(self, host: Host, sites: list[Site]) -> nn.Module | None:
        """The table and its first layer, with a hidden size."""
        return None if self.hidden is None else _Table(self.length, sites[0].out_features, self.hidden, self.init_std)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """Keys and values of one layer."""
        if site.kind == "embeddings":
            return _Shift(self.length)
        if self.hidden is None:
            return _Free(self.length, site.out_features, self.init_std)
        return _Mapped(site.out_features, self.hidden, shared)


class _Shift(EmbeddingsPart):
    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift


class _Free(AttentionPart):
    def __init__(self, length: int, size: int, std: float) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.randn(length, size) * std)
        self.value = nn.Parameter(torch.randn(length, size) * std)

    def tokens(self, x: Tensor | None) -> Tokens:
        """Keys and values."""
        return Tokens(self.key, self.value)


class _Table(nn.Module):
    def __init__(self, length: int, size: int, hidden: int, std: float) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, size) * std)
        self.weight = nn.Parameter(torch.empty(hidden, size))
        self.bias = nn.Parameter(torch.zeros(hidden))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self) -> Tensor:
        return torch.tanh(F.linear(self.table, self.weight, self.bias))


class _Mapped(AttentionPart):
    def __init__(self, size: int, hidden: int, shared: nn.Module | None) -> None:
        super().__init__()
        self.shared = shared
        self.weight = nn.Parameter(torch.empty(2 * size, hidden))
        self.bias = nn.Parameter(torch.zeros(2 * size))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def tokens(self, x: Tensor | None) -> Tokens:
        """Keys and values that the map makes of the table."""
        assert self.shared is not None
        return Tokens(*F.linear(self.shared(), self.weight, self.bias).chunk(2, -1))
