"""HypLoRA: a low-rank change of a Euclidean layer that is made on a hyperboloid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host
from ..linear import LinearPart
from ..space import Space, expansion, logarithm, space_before
from .lora import QUERY_AND_VALUE, linear_roles

__all__ = ["HypLoRA"]


@dataclass(frozen=True, kw_only=True)
class HypLoRA(Delta):
    r"""HypLoRA on a Euclidean layer: :math:`z = W x + b + s \log_o(\mathrm{lift}(B A \exp_o(x)_s))`, B = 0 at the start.

    x is a tangent vector at the origin o of a hyperboloid of curvature -1/k, whose exponential has the space part
    :math:`\exp_o(x)_s = \sqrt k \sinh(|x| / \sqrt k)\, x / |x|`; A and B act on that and the lift restores the time. The
    change depends on the length of x, so it is no change of a weight and does not merge; for k to infinity it is LoRA.

    sinh and logarithm are taken in float64, so results are finite for features of length up to 350 sqrt(k). The gradient of B
    at the start is as long as exp(x), which float32 holds up to a length of 85 sqrt(k): for longer features take a larger k.

    A Lorentz backbone is refused: its layers see points already, and there ``LoRA`` is this method without the two maps.

    Parameters
    ----------
    rank : int, >= 1
    k : float, > 0. The curvature is -1/k.
    alpha : float or None; s = alpha / rank, 1 where None
    roles : roles of linear layers, or ``("all",)`` for every linear layer of the blocks; by default as of :class:`LoRA`

    References
    ----------
    Yang et al., "Hyperbolic Fine-tuning for Large Language Models", 2024, section 4.2.
    """

    size = "rank"
    rank: int = 8
    k: float = 1.0
    alpha: float | None = None
    roles: tuple[str, ...] = QUERY_AND_VALUE

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.k > 0:
            raise DeltaError(f"HypLoRA takes a rank >= 1 and k > 0, got {self.rank} and {self.k}")

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles.

        Raises
        ------
        DeltaError : one of them is a Lorentz layer.
        """
        found = self.at(host, *linear_roles(host, self.roles))
        if curved := [site for site in found if site.space.columns or space_before(site.module).columns]:
            raise DeltaError(
                f"HypLoRA takes Euclidean features to a hyperboloid and back, and {curved[0].path} is a Lorentz layer, which "
                f"sees points already: use LoRA(rank={self.rank}), which is the same there without the two maps"
            )
        return found

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """A and B."""
        return _Curved(site, self)


class _Curved(LinearPart):
    def __init__(self, site: Site, method: HypLoRA) -> None:
        super().__init__()
        self.k = method.k
        self.scale = 1.0 if method.alpha is None else method.alpha / method.rank
        self.A = nn.Parameter(torch.empty(method.rank, site.in_features))
        self.B = nn.Parameter(torch.zeros(site.out_features, method.rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def addend(self, host: nn.Module, h: Tensor) -> Tensor:
        """The change; B A is applied to x itself, and what exp lengthens it by comes after, in float64."""
        image = F.linear(F.linear(h, self.A), self.B)
        change = logarithm(expansion(h, k=self.k) * image, k=self.k)
        return (self.scale * change).to(image.dtype)
