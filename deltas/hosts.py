"""Hosts: a backbone with the parts that its modules play, by which a delta finds its sites."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from .errors import DeltaError, nearest
from .families import FAMILIES, HEADS

__all__ = ["HOSTS", "Host", "Place", "host_of", "register_host"]

# Family -> role -> path; ``register_host`` adds others.
HOSTS: dict[str, Mapping[str, str]] = dict(FAMILIES)


_ROWS = re.compile(r"query|key|value|\d+-\d+")


@dataclass(frozen=True)
class Place:
    """A module that plays a role.

    Attributes
    ----------
    role : ``"attention.query"``, ``"ffn.up"``, ...
    path : of the module, or of the attribute that holds a function
    layer : number of its layer; -1 outside of layers
    stack : what comes before the layers in `path`, ``"encoder"``: equal for modules of one stack
    rows : ``"query"``, ``"key"`` or ``"value"`` if that third of a fused layer's rows plays the role, ``"0-32"`` if those
        rows do
    """

    role: str
    path: str
    layer: int
    stack: str
    rows: str | None = None


def register_host(family: str, roles: Mapping[str, str], *, replace: bool = False) -> None:
    """Make a family of backbones known: transformers' ``model_type``, or any name to be given to ``host_of``.

    Parameters
    ----------
    family : name
    roles : role -> path, as in ``deltas.families``: ``{"attention.query": "blocks.*.attn.q_proj"}``
    replace : whether an existing family may be replaced

    Raises
    ------
    DeltaError : the family exists, or a path is no text, or names rows that cannot be.
    """
    _require_paths(roles)
    if family in HOSTS and not replace:
        raise DeltaError(f"the host {family!r} exists; pass replace=True to put another map in its place")
    HOSTS[family] = dict(roles)


def _require_paths(roles: Mapping[str, str]) -> None:
    for role, path in roles.items():
        if not isinstance(path, str):
            raise DeltaError(
                f"the path of the role {role!r} is text, other places behind a |: 'a.*.q|b.*.q'; got {path!r}"
            )
        for rows in (one.partition(":")[2] for one in path.split("|")):
            if rows and not _ROWS.fullmatch(rows):
                raise DeltaError(
                    f"rows of a fused layer are 'path:query', 'path:key', 'path:value', or indices, 'path:0-32'; got {path!r}"
                )


@lru_cache(maxsize=1024)
def _pattern(path: str) -> re.Pattern[str]:
    first, *rest = [re.escape(part) for part in path.split("*")]
    body = first + "".join((r"(?P<layer>\d+)" if i == 0 else r"\d+") + part for i, part in enumerate(rest))
    return re.compile(rf"(?:(?P<stack>.+)\.)?{body}")


class Host:
    """A backbone and its role map.

    Parameters
    ----------
    model : the backbone, changed by nothing here
    roles : role -> path
    family : name of the map

    Attributes
    ----------
    paths : the map, of which :attr:`roles` are those that some module plays
    guessed : whether the map was chosen by the modules, and not by a name

    Examples
    --------
    >>> model = nn.ModuleDict({"q": nn.Linear(3, 4)})
    >>> Host(model, {"attention.query": "q"}, family="mine").places("attention.query")[0].path
    'q'
    """

    def __init__(self, model: nn.Module, roles: Mapping[str, str], *, family: str) -> None:
        _require_paths(roles)
        self.model, self.paths, self.family, self.guessed = model, dict(roles), family, False
        self._found = self._search(roles)
        if roles and not self._found:
            raise DeltaError(
                f"no module of this {type(model).__name__} plays a role of the host {family!r}, whose paths are "
                f"{', '.join(list(roles.values())[:4])}, ... Its modules: {', '.join(self._names()[:12])}, ..."
            )

    def _names(self) -> list[str]:
        # With the second name of a module that two layers share: an activation function, for example.
        return [name for name, _ in self.model.named_modules(remove_duplicate=False) if name]

    def _search(self, roles: Mapping[str, str]) -> dict[str, list[Place]]:
        names = [name for name in self._names() if ".deltas." not in f".{name}."]
        ending: dict[str, list[str]] = {}  # names by their last part, of which most paths know one
        for name in names:
            ending.setdefault(name.rpartition(".")[2], []).append(name)
        found: dict[str, list[Place]] = {}
        for role, value in roles.items():
            for alternative in value.split("|"):
                path, _, rows = alternative.partition(":")
                pattern, (parent, _, leaf) = _pattern(path), path.rpartition(".")
                known = names if "*" in leaf else ending.get(leaf, [])
                matches = [match for name in known if (match := pattern.fullmatch(name))]
                if not matches and parent:  # an attribute that is no module: a function
                    holder = _pattern(parent)
                    functions = [f"{n}.{leaf}" for n in names if holder.fullmatch(n) and self._has(n, leaf)]
                    matches = [match for name in functions if (match := pattern.fullmatch(name))]
                for match in matches:
                    groups = match.groupdict()
                    layer = int(groups["layer"]) if groups.get("layer") is not None else -1
                    place = Place(role, match.string, layer, groups["stack"] or "", rows or None)
                    found.setdefault(role, []).append(place)
        for places in found.values():  # the shortest stack is the backbone's own: "embeddings", not "x.y.embeddings"
            if all(place.layer < 0 for place in places) and not places[0].role.startswith("norm"):
                depth = min(place.path.count(".") for place in places)
                places[:] = [place for place in places if place.path.count(".") == depth]
        return found

    def _has(self, module: str, attribute: str) -> bool:
        value = getattr(self.model.get_submodule(module), attribute, None)
        return callable(value)

    @property
    def roles(self) -> list[str]:
        """Roles that some module plays."""
        return list(self._found)

    def places(self, *roles: str, layers: tuple[int, ...] | None = None) -> list[Place]:
        """Places of these roles in the order of layers.

        Parameters
        ----------
        roles : names; ``"norm"`` also means ``"norm.final"``, ..., and the path of a module means that module
        layers : indices of the layers to take; None takes all

        Raises
        ------
        DeltaError : no module plays the role; names those that are played, and the nearest.
        """
        chosen: list[Place] = []
        for role in roles:
            fitting = [r for r in self._found if r == role] or [r for r in self._found if r.startswith(f"{role}.")]
            if not fitting and role in self._names():
                number = next((int(name) for name in role.split(".") if name.isdigit()), -1)
                chosen.append(Place(role, role, number, ""))
                continue
            if not fitting and not self.paths:
                raise DeltaError(self._unmapped(role))
            if not fitting:
                raise DeltaError(
                    f"no module of this {type(self.model).__name__} (host {self.family!r}) plays the role {role!r}. "
                    f"{nearest(role, self._found)} For your own modules pass host={{'{role}': 'path.*.module'}}."
                )
            for name in fitting:
                chosen += [p for p in self._found[name] if p not in chosen]
        if layers is not None:
            have = sorted({p.layer for p in chosen if p.layer >= 0})
            if missing := sorted(set(layers) - set(have)):
                raise DeltaError(f"layers {missing} do not exist; this host has layers {have}")
            chosen = [p for p in chosen if p.layer in layers]
        return sorted(chosen, key=lambda p: (p.stack, p.layer))

    def _unmapped(self, role: str) -> str:
        kind, names = _family(self.model), self._names()
        example = f"host={{'{role}': 'blocks.*.q', ...}}"
        return (
            f"no role map for this {type(self.model).__name__}{f' (model_type {kind!r})' if kind else ''}, so no module "
            f"plays the role {role!r}. Known hosts: {', '.join(HOSTS)}. Pass a map of yours, {example}, "
            f"or paths as roles; its modules: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        )

    def has(self, role: str) -> bool:
        """Whether some module plays `role`."""
        return role in self._found or any(r.startswith(f"{role}.") for r in self._found)

    def heads(self) -> list[str]:
        """Paths of the modules that belong to a task, ``"classifier"``; on top of the backbone alone."""
        return [name for name, _ in self.model.named_children() if name in HEADS]


def host_of(model: nn.Module, host: Host | str | Mapping[str, str] | None = None) -> Host:
    """The host of a model.

    Parameters
    ----------
    model : any module
    host : name of a family, a map of your own, role -> path, or a host, of whose map this model's is made; None takes the
        family by ``model.config.model_type``, and else the one with most roles

    Raises
    ------
    DeltaError : an unknown name, or a map of which nothing fits. A model that fits no family has a host without roles, on
        which methods act that need none, or are given paths.
    """
    if isinstance(host, Host):
        return host if host.model is model else Host(model, host.paths, family=host.family)
    if isinstance(host, Mapping):
        return Host(model, host, family="explicit")
    if host is not None and host not in HOSTS:
        raise DeltaError(f"unknown host {host!r}. {nearest(host, HOSTS)}")
    family = _family(model) if host is None else host
    if family in HOSTS:
        return Host(model, HOSTS[family], family=family)
    return _guess(model) or Host(model, {}, family="none")


def _family(model: nn.Module) -> str | None:
    """``model_type`` of a model, or of the first part of it that has one."""
    for module in (model, *model.children()):
        if config := getattr(module, "config", None):
            kind: str | None = getattr(config, "model_type", None)
            return kind
    return None


def _guess(model: nn.Module) -> Host | None:
    fitting = []
    for family, roles in HOSTS.items():
        try:
            fitting.append(Host(model, roles, family=family))
        except DeltaError:
            continue
    best = max(fitting, key=lambda h: len(h.roles), default=None)
    if best is None or not (best.has("attention.query") and best.has("ffn")):
        return None
    best.guessed = True
    return best
