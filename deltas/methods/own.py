"""Methods that train parameters which the backbone has: biases, norms, all, or none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host, Place
from ..space import Space, space_of

__all__ = ["BitFit", "FullFineTuning", "HeadOnly", "LNTuning"]


class _Own(Delta):
    """Parameters of the backbone itself: nothing is added, and the step costs nothing more than the gradient."""

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """Never called: these sites have no part."""
        raise AssertionError

    def count(self, site: Site) -> int:
        """Number of parameters."""
        return sum(site.module.get_parameter(name).numel() for name in site.names)


def _site(host: Host, path: str, names: tuple[str, ...]) -> Site:
    module = host.model.get_submodule(path)
    return Site(Place("parameters", path, -1, ""), module, "parameters", space_of(module), names=names)


def _backbone(host: Host) -> list[tuple[str, nn.Module]]:
    """Modules that belong to no head and to no delta."""
    heads = tuple(f"{head}." for head in host.heads())
    return [
        (p, m) for p, m in host.model.named_modules() if not f"{p}.".startswith(heads) and ".deltas." not in f".{p}."
    ]


@dataclass(frozen=True, kw_only=True)
class BitFit(_Own):
    """Train the biases, of linear layers and norms alike. On a Lorentz backbone they join the space coordinates.

    Parameters
    ----------
    roles : roles whose biases are trained; None takes every bias of the backbone

    References
    ----------
    Ben Zaken et al., "BitFit", ACL 2022.
    """

    roles: tuple[str, ...] | None = None

    def sites(self, host: Host) -> list[Site]:
        """Modules with a bias."""
        if self.roles is not None or self.layers is not None:
            roles = host.roles if self.roles is None else self.roles
            paths = dict.fromkeys(p.path for p in host.places(*roles, layers=self.layers))
            chosen = [(path, m) for path, m in _backbone(host) if path in paths]
        else:
            chosen = _backbone(host)
        found = [
            _site(host, path, ("bias",)) for path, m in chosen if isinstance(getattr(m, "bias", None), nn.Parameter)
        ]
        if not found:
            raise DeltaError(f"BitFit finds no bias in this {type(host.model).__name__} (host {host.family!r})")
        return found


@dataclass(frozen=True, kw_only=True)
class LNTuning(_Own):
    """Train gain and shift of the norms; on a Lorentz backbone those of the space coordinates, and on request its scalars.

    Parameters
    ----------
    roles : roles of norms
    scalars : bool. Also train what has a Lorentz geometry one number each: temperatures of attention (``log_scale``), and the
        curvature where it is learnable.

    References
    ----------
    Qi et al., "Parameter-Efficient Tuning on Layer Normalization for Pre-trained Language Models", 2022.
    """

    roles: tuple[str, ...] = ("norm",)
    scalars: bool = False

    def sites(self, host: Host) -> list[Site]:
        """Norms."""
        found = []
        for place in host.places(*self.roles, layers=self.layers):
            module = host.model.get_submodule(place.path)
            own = tuple(name for name, _ in module.named_parameters(recurse=False))  # none, of an Identity
            if own:
                found.append(_site(host, place.path, own))
        if not found:
            raise DeltaError(
                f"the norms of this {type(host.model).__name__} (host {host.family!r}) have no gain and no shift to train"
            )
        if self.scalars:
            seen: set[int] = set()
            for path, module in _backbone(host):
                names = []
                for name in ("log_scale", "rho"):
                    parameter = module._parameters.get(name)
                    if parameter is not None and id(parameter) not in seen:
                        seen.add(id(parameter))
                        names.append(name)
                if names:
                    found.append(_site(host, path, tuple(names)))
        return found


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(_Own):
    """Train every parameter of the backbone: the control that the other methods are measured against."""

    def sites(self, host: Host) -> list[Site]:
        """Every module that has parameters of its own; a parameter that two share is taken once."""
        seen: set[int] = set()
        found = []
        modules = _backbone(host)
        if self.layers is not None:  # modules that play a role in these layers, and what they hold
            inside = tuple(f"{place.path}." for place in host.places(*host.roles, layers=self.layers))
            modules = [(path, module) for path, module in modules if f"{path}.".startswith(inside)]
        for path, module in modules:
            names = []
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    names.append(name)
            if names:
                found.append(_site(host, path, tuple(names)))
        return found


@dataclass(frozen=True, kw_only=True)
class HeadOnly(_Own):
    """Train nothing but the heads: the control that says what the backbone knows already."""

    optional = True

    def __post_init__(self) -> None:
        if self.layers is not None:
            raise DeltaError("HeadOnly trains no layer: leave layers out")

    def sites(self, host: Host) -> list[Site]:
        """None."""
        return []
