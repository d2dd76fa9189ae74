"""AdapterBias: a shift whose amount depends on the token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base import Delta, Site
from ..hosts import Host
from ..linear import LinearPart
from ..space import Space

__all__ = ["AdapterBias"]


@dataclass(frozen=True, kw_only=True)
class AdapterBias(Delta):
    r"""AdapterBias: :math:`z \leftarrow z + \alpha(z)\, v` with a linear map alpha to one number.

    v is 0 at the start, so the model is unchanged. L layers of d coordinates take :math:`L(2d + 1)` parameters. On a Lorentz
    backbone z are the space coordinates before the lift and alpha sees the time too, one number more a layer.

    Parameters
    ----------
    roles : roles of linear layers, whose results are shifted

    References
    ----------
    Fu et al., "AdapterBias: Parameter-efficient Token-dependent Representation Shift for Adapters in NLP Tasks", Findings of
    NAACL 2022, equations 1 and 2.
    """

    roles: tuple[str, ...] = ("ffn.down",)

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles."""
        return self.at(host, *self.roles)

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """Alpha and v."""
        return _Shift(site.out_features, space)


class _Shift(LinearPart):
    def __init__(self, n: int, space: Space) -> None:
        super().__init__()
        self.space = space
        self.weight = nn.Parameter(torch.empty(1, n + space.columns))
        self.bias = nn.Parameter(torch.zeros(1))
        self.shift = nn.Parameter(torch.zeros(n))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """``z + alpha(z) v``."""
        return torch.addcmul(z, self.space.linear(z, self.weight, self.bias), self.shift)
