"""LoRA: a low-rank change of a weight, with the rank-stabilised scale and the split into length and direction as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Delta, Site, reads_past
from ..errors import DeltaError
from ..hosts import Host
from ..kernels import low_rank_linear
from ..linear import LinearPart, folded, matrix
from ..space import Space

__all__ = ["FUSED", "LINEAR_ROLES", "QUERY_AND_VALUE", "LoRA", "LowRank", "linear_roles"]

QUERY_AND_VALUE = ("attention.query", "attention.value")  # where no roles are said
FUSED = "attention.qkv"  # in their place, where a layer makes all three

CROSS_ROLES = ("cross.query", "cross.key", "cross.value", "cross.keys_and_values", "cross.out")
LINEAR_ROLES = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.out",
    "ffn.gate",
    "ffn.up",
    "ffn.down",
)


@dataclass(frozen=True, kw_only=True)
class LoRA(Delta):
    r"""Low-rank adaptation: :math:`z = (W + s B A) h + b`, B = 0 at the start, s = alpha / rank.

    On a Lorentz layer h is the whole point, time included (from the origin if the layer is centred), and the change joins the
    pre-activation before the lift; in the layer's bounded variants it joins the space rows.

    Parameters
    ----------
    rank : int, >= 1
    alpha : float or None; 2 * rank if None
    roles : roles of linear layers, or ``("all",)`` for every linear layer of the blocks. By default queries and values; for
        this pair, also if it is named, the layer of queries, keys and values where they have no layer and no third of one
        to themselves (GPT-NeoX, BLOOM, Falcon, Phi-3, the first DeBERTa).
    dropout : float in [0, 1), on what A sees
    stabilised : bool. rsLoRA: s = alpha / sqrt(rank).
    directed : bool. DoRA: :math:`z = m \odot \frac{(W + s B A) h}{|W + s B A|} + b`, a learned length m for each row,
        at the start that of W's row. The length in the denominator takes no gradient, as published. It acts before what
        other deltas do to the layer's result.

    References
    ----------
    Hu et al., "LoRA", ICLR 2022, equation 3; Kalajdzievski, 2023 (rsLoRA); Liu et al., "DoRA", ICML 2024, equations 5 and 11.
    """

    size = "rank"
    rank: int = 8
    alpha: float | None = None
    roles: tuple[str, ...] = QUERY_AND_VALUE
    dropout: float = 0.0
    stabilised: bool = False
    directed: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise DeltaError(f"LoRA takes a rank >= 1 and a dropout in [0, 1), got {self.rank} and {self.dropout}")

    @property
    def scale(self) -> float:
        """What multiplies B A."""
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.stabilised else self.rank)

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles."""
        return self.at(host, *linear_roles(host, self.roles))

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """A, B, and a length if directed."""
        part = LowRank if not self.directed else _Directed
        return part(site, space, self)


def linear_roles(host: Host, roles: tuple[str, ...]) -> tuple[str, ...]:
    """Roles of linear layers: all of the blocks for ``("all",)``, or a fused layer for the default where only that is."""
    if roles == QUERY_AND_VALUE and not any(host.has(role) for role in roles) and host.has(FUSED):
        return (FUSED,)
    if roles != ("all",):
        return roles
    cross = [role for role in CROSS_ROLES if host.has(role)]
    own = [role for role in LINEAR_ROLES if host.has(role)]
    if FUSED in host.roles:
        own = [FUSED, *(r for r in own if r not in ("attention.query", "attention.key", "attention.value"))]
    return (*own, *cross) or _linear_paths(host)


def _linear_paths(host: Host) -> tuple[str, ...]:
    """Paths of all linear layers of a model of no known family, without its heads and its output layer."""
    output = getattr(host.model, "get_output_embeddings", lambda: None)()
    heads = tuple(f"{head}." for head in host.heads())
    found = [
        path
        for path, module in host.model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and module is not output
        and not f"{path}.".startswith(heads)
        and ".deltas." not in f".{path}."
        and not reads_past(host.model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2])
    ]
    return tuple(found)


class LowRank(LinearPart):
    """A and B of one layer."""

    def __init__(self, site: Site, space: Space, method: LoRA) -> None:
        super().__init__()
        self.space, self.scale, self.dropout = space, method.scale, method.dropout
        self.A = nn.Parameter(torch.empty(method.rank, site.in_features))
        self.B = nn.Parameter(torch.zeros(site.out_features, method.rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def addend(self, host: nn.Module, h: Tensor) -> Tensor | None:
        """``s B A h``."""
        h = F.dropout(h, self.dropout, self.training) if self.dropout else h
        return F.linear(self.space.project(host, h, self.A), self.B * self.scale)

    def fused(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The whole layer in one step that stores x once."""
        if self.dropout and self.training:
            z = F.linear(x, weight, bias)
            return z + F.linear(F.linear(F.dropout(x, self.dropout), self.A), self.B * self.scale)
        return low_rank_linear(x, weight, bias, self.A, self.B, self.scale)

    def change(self) -> Tensor:
        """``s B A``."""
        return self.scale * (self.B @ self.A)

    def merged(self, host: nn.Module) -> Tensor:
        """The weight with the change."""
        old = matrix(host, self.rows)
        return folded(host, self.rows, (old.double() + self.change().double()).to(old.dtype))


class _Directed(LowRank):
    fused: Any = None
    first = True

    def __init__(self, site: Site, space: Space, method: LoRA) -> None:
        super().__init__(site, space, method)
        weight = matrix(site.module, site.rows).detach()
        weight = weight.to(
            torch.promote_types(weight.dtype, torch.float32)
        )  # as in _ratio, so that it is 1 at the start
        self.magnitude = nn.Parameter(weight.norm(dim=1).to(self.A.device))

    def addend(self, host: nn.Module, h: Tensor) -> None:
        """Nothing: the change is scaled together with z."""
        return None

    def _ratio(self, host: nn.Module) -> Tensor:
        new = matrix(host, self.rows).detach() + self.change().detach()
        ratio: Tensor = self.magnitude / new.norm(dim=1)
        return ratio

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """``ratio (W h + s B A h) + b``, z to the bit where the ratio is 1 and B is 0."""
        change = super().addend(host, h)
        assert change is not None
        ratio = self._ratio(host)
        constant: Any = getattr(host, "bias", None)
        if constant is not None:
            constant = constant[-self.magnitude.numel() :] if self.rows is None else constant[self.rows]
        bare = z if constant is None else z - constant
        return z + (ratio - 1) * bare + ratio * change

    def merged(self, host: nn.Module) -> Tensor:
        """The weight of that length and direction."""
        old = matrix(host, self.rows).double()
        new = old + self.change().double()
        new = new * (self.magnitude.double() / new.norm(dim=1))[:, None]
        return folded(host, self.rows, new.to(host.weight.dtype))
