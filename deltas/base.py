"""What a delta method is: a small dataclass that says where it goes and builds a part for every such place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .attention import attention_size
from .embeddings import flow_of
from .errors import DeltaError
from .hosts import Host, Place
from .linear import THIRDS, linear_size, rows_of
from .options import coerce
from .precision import dtype_of_part
from .space import Space, space_of

__all__ = ["Combination", "Delta", "Site", "methods_of", "reads_past"]

KINDS = ("linear", "attention", "embeddings", "activation", "parameters")


@dataclass
class Site:
    """A place in a model where a delta acts.

    Attributes
    ----------
    place : role, path, layer
    module : the module there; of a function that is an attribute, the module that has it
    kind : ``"linear"`` (a part changes the map), ``"attention"`` (gives tokens), ``"embeddings"`` (gives tokens of the
        input), ``"activation"`` (takes the place of a function), ``"parameters"`` (trains some that exist)
    space : geometry of the module
    in_features, out_features : columns of a linear layer's matrix, the time included, and free coordinates of its result (of
        the rows in question, in a fused layer); of an attention the free coordinates of keys and values, of the embeddings
        those of a token; else 0
    names : of ``"parameters"``, names of the parameters in the module; of ``"embeddings"``, paths below the module on the way
        of its input, see :class:`deltas.embeddings.Flow`
    purpose : what the method does here, of one that does several things
    method : the method that acts here
    part : what it built
    """

    place: Place
    module: nn.Module
    kind: str
    space: Space
    in_features: int = 0
    out_features: int = 0
    names: tuple[str, ...] = ()
    purpose: str = ""
    method: Delta | None = field(default=None, repr=False)
    part: nn.Module | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        """Path of the module."""
        return self.place.path

    @property
    def rows(self) -> slice | None:
        """Rows of a fused linear layer that the site means."""
        return rows_of(self.module, self.place)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device that new parameters take."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        for tensor in tensors:
            if tensor.is_floating_point():
                return tensor
        # Quantised layers hold whole numbers alone.
        return torch.empty((), device=tensors[0].device if tensors else None)

    def fit(self, dtype: torch.dtype | None) -> None:
        """Bring the part to the device of its module and to `dtype`, or to the one that suits the module's."""
        if self.part is not None:
            like = self.like
            self.part.to(device=like.device, dtype=dtype_of_part(like, dtype))


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A method of delta tuning; its fields are its options.

    A method says its ``sites`` and ``build``s a part for each. Everything else (freezing, saving, merging, plans, checks)
    is done for all methods alike. A method that is registered with ``register_delta`` is known by its name to files and to
    the command line, whoever wrote it.

    Attributes
    ----------
    exact : class attribute; whether the model is unchanged, to the bit, when the delta is attached
    optional : class attribute; whether the method may find no site
    size : class attribute; name of the option that sets the number of parameters, by which budgets are met
    layers : indices of the layers to take; None takes all
    """

    exact: ClassVar[bool] = True
    optional: ClassVar[bool] = False
    size: ClassVar[str | None] = None
    layers: tuple[int, ...] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Bring options to their types before a method's own ``__post_init__`` compares them."""
        super().__init_subclass__(**options)
        if (check := cls.__dict__.get("__post_init__")) is not None:

            @wraps(check)
            def both(self: Delta) -> None:
                coerce(self)
                check(self)

            cls.__post_init__ = both  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        coerce(self)

    @property
    def name(self) -> str:
        """Name of the method."""
        return type(self).__name__

    @property
    def size_step(self) -> int:
        """What the size must be a multiple of."""
        return 1

    def config(self) -> dict[str, Any]:
        """Options, as they are stored."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def sites(self, host: Host) -> list[Site]:
        """Where the method acts on a host."""
        raise NotImplementedError

    def shared(self, host: Host, sites: list[Site]) -> nn.Module | None:
        """A module that all parts share, or None; it is handed to :meth:`build`."""
        return None

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """The part of a site."""
        raise NotImplementedError

    def merged_weight(self, site: Site) -> Tensor | None:
        """The weight of the site's linear layer with the part folded in; None where it cannot be."""
        part = site.part
        merge = getattr(part, "merged", None)
        if merge is None:
            return None
        merged: Tensor | None = merge(site.module)
        return merged

    def merged_bias(self, site: Site) -> Tensor | None:
        """The bias of the site's linear layer with the part folded in; None where it stays."""
        merge = getattr(site.part, "merged_bias", None)
        return None if merge is None else merge(site.module)

    def count(self, site: Site) -> int:
        """Number of parameters that a site's part has, without what parts share."""
        with torch.device("meta"):
            part = self.build(site, site.space, None)
        return sum(p.numel() for p in part.parameters())

    def __add__(self, other: Delta | Combination) -> Combination:
        """Both at once."""
        return Combination((self, *methods_of(other)))

    # for the methods

    def at(self, host: Host, *roles: str, kind: str = "linear") -> list[Site]:
        """Sites of these roles."""
        found: list[Site] = []
        if not roles:
            return found
        for place in host.places(*roles, layers=self.layers):
            module = host.model
            path = place.path
            if kind == "activation":
                path = path.rpartition(".")[0]
            module = host.model.get_submodule(path)
            size = (0, 0)
            if kind == "linear":
                _refuse_bypassed(host, place)
                _refuse_unequal(host, place)
                size = linear_size(module, place)
            elif kind == "attention":
                size = attention_size(module, self._keys_of(host, place), place)
            found.append(Site(place, module, kind, space_of(module), *size))
        return _once(found)

    def at_input(self, host: Host) -> Site:
        """The site where tokens join the input."""
        flow = flow_of(host)
        module = host.model.get_submodule(flow.owner)
        return Site(flow.place, module, "embeddings", flow.space, flow.size, flow.size, flow.names)

    def _keys_of(self, host: Host, place: Place) -> int | None:
        """Size of the keys of an attention, by the layer that makes them; None where none makes them alone."""
        role = f"{place.role}.key"
        near = [p for p in host.places(role) if p.path.startswith(f"{place.path}.")] if host.has(role) else []
        return linear_size(host.model.get_submodule(near[0].path), near[0])[1] if near else None


def _once(sites: list[Site]) -> list[Site]:
    """Sites of different modules, or functions or rows of them: one that several layers share has one part."""
    found: dict[tuple[int, str | None, str], Site] = {}
    for site in sites:
        leaf = site.place.path.rpartition(".")[2] if site.kind == "activation" else ""
        found.setdefault((id(site.module), site.place.rows, leaf), site)
    return list(found.values())


def _refuse_bypassed(host: Host, place: Place) -> None:
    """A linear layer whose weight is read past its ``forward`` would have a delta without effect."""
    parent = host.model.get_submodule(place.path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        raise DeltaError(
            f"{place.path} belongs to torch's nn.MultiheadAttention, which reads the weight and never calls the layer: a "
            "delta there would do nothing. Use an attention with linear layers of its own, or other roles"
        )
    if reads_past(parent, place.path.rpartition(".")[2]):
        raise DeltaError(
            f"{place.path} belongs to a {type(parent).__name__}, which reads the weight and never calls the layer: a delta "
            "there would do nothing. Name other roles"
        )
    fast = torch.backends.mha.get_fastpath_enabled()
    if isinstance(parent, nn.TransformerEncoderLayer) and fast:
        raise DeltaError(
            f"{place.path} belongs to torch's nn.TransformerEncoderLayer, which in evaluation reads the weights past their "
            "layers: call torch.backends.mha.set_fastpath_enabled(False) first"
        )


def reads_past(parent: nn.Module, leaf: str) -> bool:
    """Whether a module multiplies by the weight of its linear layer `leaf` itself: the step sizes of Mamba."""
    return leaf == "dt_proj" and "Mamba" in type(parent).__name__


def _refuse_unequal(host: Host, place: Place) -> None:
    """Thirds of a fused layer are no queries, keys and values where keys have fewer heads."""
    if place.rows not in THIRDS:
        return
    names = place.path.split(".")
    above = [host.model, *(host.model.get_submodule(".".join(names[:end])) for end in range(1, len(names)))]
    for config in (getattr(module, "config", None) for module in above):
        heads, groups = (getattr(config, f"num_{kind}_heads", None) for kind in ("attention", "key_value"))
        if isinstance(groups, int) and groups != heads:
            raise DeltaError(
                f"{place.path}:{place.rows} means a third of the rows, and this model has {heads} heads of queries and "
                f"{groups} of keys: name the rows, '{place.path.replace(str(place.layer), '*', 1)}:0-32' for example"
            )


@dataclass(frozen=True)
class Combination:
    """Several methods at once, ``Adapter() + BitFit()``."""

    methods: tuple[Delta, ...]

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DeltaError(f"{' and '.join(twice)} twice in one combination; attach the second under another name")

    @property
    def name(self) -> str:
        """Names of the methods, joined by ``+``."""
        return "+".join(method.name for method in self.methods)

    def __add__(self, other: Delta | Combination) -> Combination:
        """These and others."""
        return Combination((*self.methods, *methods_of(other)))

    def __iter__(self) -> Iterator[Delta]:
        return iter(self.methods)


def methods_of(spec: Delta | Combination) -> tuple[Delta, ...]:
    """The methods of a delta or a combination.

    Raises
    ------
    TypeError : something else, a class instead of an object for example.
    """
    if isinstance(spec, Combination):
        return spec.methods
    if isinstance(spec, Delta):
        return (spec,)
    hint = f"; did you forget the brackets of {spec.__name__}()?" if isinstance(spec, type) else ""
    raise TypeError(f"a delta is an object such as deltas.LoRA(rank=8), or several joined by +; got {spec!r}{hint}")
