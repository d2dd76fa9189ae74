"""LLaMA-Adapter: gated tokens in the upper layers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import AttentionPart, Tokens
from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host
from ..linear import linear_size
from ..space import Space, is_layer, space_before

__all__ = ["InputSite", "LLaMAAdapter", "attention_inputs"]


@dataclass
class InputSite(Site):
    """An attention layer that knows the layers which make its keys and values.

    Attributes
    ----------
    key, value : sites of those layers
    size : free coordinates of the attention layer's input
    """

    key: Any = None
    value: Any = None
    size: int = 0


def attention_inputs(method: Delta, host: Host, role: str = "attention") -> list[InputSite]:
    """Attention layers with the layers that make their keys and values.

    Raises
    ------
    DeltaError : one of them has not exactly one of each.
    """
    makers = {kind: method.at(host, f"{role}.{kind}") for kind in ("key", "value")}
    found = []
    for site in method.at(host, role, kind="attention"):
        inner: dict[str, Site] = {}
        for kind, sites in makers.items():
            mine = [other for other in sites if other.path.startswith(f"{site.path}.")]
            if len(mine) != 1:
                raise DeltaError(
                    f"{method.name} needs the layer that makes the {kind}s of {site.path}, found {len(mine)}"
                )
            inner[kind] = mine[0]
        size = linear_size(inner["key"].module, inner["key"].place)[0] - space_before(inner["key"].module).columns
        plain: dict[str, Any] = {f.name: getattr(site, f.name) for f in fields(Site)}
        found.append(InputSite(**plain, key=inner["key"], value=inner["value"], size=size))
    return found


@dataclass(frozen=True, kw_only=True)
class LLaMAAdapter(Delta):
    r"""LLaMA-Adapter: :math:`o + g\,\mathrm{softmax}(q (W_k P)^\top / \sqrt d)\, W_v P` in the upper layers, g = 0 at first.

    o is the result of a layer's attention, P its n learned tokens, which its frozen maps turn into keys and values without a
    position, and g a learned number. The model is unchanged at the start, and g is the first to be given a gradient. On a
    Lorentz backbone P are points with learned space coordinates, the second softmax's centroid is taken with them, and its
    space coordinates times g are added before the lift.

    Parameters
    ----------
    length : int, >= 1. n
    depth : int or None. Number of layers, from the top, of each stack; None takes all.
    init_std : float, > 0. Deviation of the initial tokens.

    References
    ----------
    Zhang et al., "LLaMA-Adapter", ICLR 2024, equations 2 to 5.
    """

    size = "length"
    length: int = 10
    depth: int | None = None
    init_std: float = 1.0

    def __post_init__(self) -> None:
        if self.length < 1 or (self.depth is not None and self.depth < 1):
            raise DeltaError(f"LLaMAAdapter takes a length and a depth >= 1, got {self.length} and {self.depth}")
        if self.depth is not None and self.layers is not None:
            raise DeltaError("LLaMAAdapter takes layers or a depth, not both")

    def sites(self, host: Host) -> list[Site]:
        """Attention layers, the upper ones with a depth."""
        found = attention_inputs(self, host)
        stacks: dict[str, list[Site]] = {}
        for site in found:
            stacks.setdefault(site.place.stack, []).append(site)
        chosen: list[Site] = []
        for stack, sites in stacks.items():
            if self.depth is not None and self.depth > len(sites):
                raise DeltaError(f"depth={self.depth}, but {stack or 'the model'} has {len(sites)} attention layers")
            chosen += sites if self.depth is None else sites[-self.depth :]
        return chosen

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """P and g."""
        assert isinstance(site, InputSite)
        return _Gated(site, self.length, self.init_std)


class _Gated(AttentionPart):
    gated = True

    def __init__(self, site: InputSite, length: int, std: float) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(length, site.size) * std)
        self.gate = nn.Parameter(torch.zeros(1))
        self.__dict__["makers"] = [
            (s.module, s.rows) for s in (site.key, site.value)
        ]  # no children: the backbone's own

    def tokens(self, x: Tensor | None) -> Tokens:
        """Keys and values that the layer makes of P."""
        key, value = (made_by(layer, rows, self.prompt) for layer, rows in self.__dict__["makers"])
        return Tokens(key, value, self.gate)


def made_by(layer: Any, rows: slice | None, u: Tensor) -> Tensor:
    """Free coordinates that a linear layer makes of the free coordinates `u`, in the dtype of its weight."""
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point():
        u = u.to(weight.dtype)
    if is_layer(layer):
        z: Tensor = layer.preactivation(layer.prepare(space_before(layer).lift(u)))
        return z
    z = layer(u)
    return z if rows is None else z[..., rows]
