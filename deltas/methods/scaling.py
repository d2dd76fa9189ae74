"""IA3: learned factors of keys, values and hidden features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host
from ..linear import LinearPart, folded, matrix
from ..space import Space, space_before

__all__ = ["IA3", "INPUT"]

INPUT = "input"  # purpose of a site

KEYS_AND_VALUES = ("attention.key", "attention.value", "cross.key", "cross.value")


@dataclass(frozen=True, kw_only=True)
class IA3(Delta):
    r"""(IA)^3: keys, values and what the second feed-forward map is given are multiplied by learned vectors.

    :math:`k \leftarrow l_k \odot k,\ v \leftarrow l_v \odot v,\ h \leftarrow l_f \odot h`, all 1 at the start. L layers take
    :math:`L(2d + f)` parameters, and 2d more each where they have cross-attention, of which keys and values are multiplied
    too. On a Lorentz backbone the space coordinates are multiplied and lifted again.

    Factors of results merge into weights and biases. Those of an input merge into the columns of a Euclidean layer; in a
    Lorentz layer the time is derived after the scaling, so no matrix does the same, and only ``IA3(inputs=())`` merges.

    Parameters
    ----------
    roles : roles of linear layers whose results are multiplied; None takes the keys and values of every attention
    inputs : roles of linear layers whose inputs (after the layer's activation) are multiplied

    References
    ----------
    Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", NeurIPS 2022,
    section 3.3.
    """

    roles: tuple[str, ...] | None = None
    inputs: tuple[str, ...] = ("ffn.down",)

    def __post_init__(self) -> None:
        if both := sorted(set(KEYS_AND_VALUES if self.roles is None else self.roles) & set(self.inputs)):
            raise DeltaError(f"IA3 multiplies a layer's result or its input, and {both[0]!r} is in roles and in inputs")

    def sites(self, host: Host) -> list[Site]:
        """Linear layers of the roles."""
        roles = self.roles
        if roles is None:  # a decoder alone has no cross-attention
            roles = tuple(role for role in KEYS_AND_VALUES if role.startswith("attention.") or host.has(role))
        before = [replace(site, purpose=INPUT) for site in self.at(host, *self.inputs)]
        there = {(site.path, site.place.rows) for site in before}
        after = [site for site in self.at(host, *roles) if (site.path, site.place.rows) not in there]
        return sorted([*after, *before], key=lambda site: (site.place.stack, site.place.layer))

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """One vector."""
        if site.purpose == INPUT:
            if site.rows is not None:
                raise DeltaError(f"{site.path} is fused: {site.place.role!r} has no input of its own to multiply")
            return _Before(site.in_features - space_before(site.module).columns)
        return _After(site.out_features)


class _Factor(LinearPart):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(size))


class _After(_Factor):
    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """``l z``."""
        return z * self.factor

    def merged(self, host: nn.Module) -> Tensor:
        """Rows times l."""
        old = matrix(host, self.rows)
        return folded(host, self.rows, (old.double() * self.factor.double()[:, None]).to(old.dtype))

    def merged_bias(self, host: nn.Module) -> Tensor | None:
        """Biases times l."""
        if not isinstance(old := getattr(host, "bias", None), Tensor):
            return None
        new = old.detach().clone()
        mine = new[-len(self.factor) :] if self.rows is None else new[self.rows]
        mine.copy_((mine.double() * self.factor.double()).to(mine.dtype))
        return new


class _Before(_Factor):
    def before(self, host: nn.Module, h: Tensor) -> Tensor:
        """What has the coordinates ``l h``."""
        space = space_before(host)
        return space.lift(space.coordinates(h) * self.factor)

    def merged(self, host: nn.Module) -> Tensor:
        """Columns times l."""
        if space_before(host).columns:
            raise DeltaError(
                "IA3 cannot be merged: the time of a Lorentz layer's input is derived after its space coordinates are "
                "scaled, which no matrix does; IA3(inputs=()) can be merged"
            )
        old = matrix(host)
        return folded(host, None, (old.double() * self.factor.double()).to(old.dtype))
