"""Visual prompt tuning: learned tokens after the class token, of the input or of every layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Delta, Site
from ..embeddings import EmbeddingsPart
from ..errors import DeltaError
from ..hosts import Host
from ..space import Space

__all__ = ["VPT"]


@dataclass(frozen=True, kw_only=True)
class VPT(Delta):
    r"""Visual prompt tuning: layer i reads :math:`[x_{cls}; P_i; E_i]`, with n learned tokens.

    Shallow: only the first layer's :math:`P_0` is learned, and what a layer makes of its tokens goes on to the next. Deep:
    every layer has tokens of its own, and what the layer before made of its tokens is dropped. The tokens are taken off
    before the heads. Backbones of text are served alike; there the tokens stand before all others. On a Lorentz backbone
    they are points with the learned space coordinates.

    Parameters
    ----------
    length : int, >= 1. n
    deep : bool
    init_std : float or None. Deviation of the initial values; None draws them from the uniform distribution of
        :math:`\pm\sqrt{6 / (p + d)}`, p the size of a flattened patch (d for text), as published.

    References
    ----------
    Jia et al., "Visual Prompt Tuning", ECCV 2022, equations 4 to 8.
    """

    exact = False
    size = "length"
    length: int = 10
    deep: bool = True
    init_std: float | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise DeltaError(f"VPT takes a length >= 1, got {self.length}")

    def sites(self, host: Host) -> list[Site]:
        """The input, which also knows the layers."""
        if self.layers is not None:
            raise DeltaError("VPT acts on the input (deep=False) or on every layer (deep=True) and takes no layers")
        site = self.at_input(host)
        widths = {"hidden_size", "embedding_size", "word_embed_proj_dim"}
        config: Any = getattr(site.module, "config", None)
        if (
            self.deep
            and len({getattr(config, name) for name in widths if isinstance(getattr(config, name, None), int)}) > 1
        ):
            raise DeltaError(
                f"the embeddings of this {type(host.model).__name__} have another size than its layers: VPT(deep=False) alone"
            )
        return [site]

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """Tokens."""
        layers, size = self._layers(site), site.out_features
        if self.init_std is not None:
            return _Tokens(torch.randn(layers, self.length, size) * self.init_std, self.deep)
        bound = sqrt(6 / (_patch(site) + size))
        return _Tokens((2 * torch.rand(layers, self.length, size) - 1) * bound, self.deep)

    def _layers(self, site: Site) -> int:
        layers = len(site.names) - 3
        if self.deep and not layers:
            raise DeltaError("VPT(deep=True) finds the layers by the role 'attention', which this host has not")
        return layers if self.deep else 1


def _patch(site: Site) -> int:
    """Coordinates of a patch of the image, or of a token."""
    for module in site.module.get_submodule(site.names[0]).modules():
        if isinstance(module, nn.Conv2d):
            return module.weight[0].numel()
    return site.out_features


class _Tokens(EmbeddingsPart):
    def __init__(self, start: Tensor, deep: bool) -> None:
        super().__init__()
        self.length, self.deep = start.shape[1], deep
        self.prompt = nn.Parameter(start)

    def tokens(self, x: Tensor | None, layer: int) -> Tensor:
        """Tokens of a layer."""
        return self.prompt[layer]
