"""Attach a delta to a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from . import attention, joining, linear
from .base import Combination, Delta, Site, methods_of
from .errors import DeltaError, lookup
from .handle import Handle, handles
from .hosts import Host, host_of
from .nesting import refuse_mixed
from .precision import check_dtype

__all__ = ["attach", "built_sites", "head_paths"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# Parts are children of junctions under the delta's name.
_TAKEN = {*dir(linear.Junction(nn.Identity())), *dir(attention.Junction()), *dir(joining.Junction)}


def attach(
    model: nn.Module,
    spec: Delta | Combination,
    *,
    name: str = "default",
    host: Host | str | Mapping[str, str] | None = None,
    heads: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Handle:
    """Put a delta into a model, in place: names of modules and parameters stay, and the backbone is frozen.

    Deltas that the model has already stay trained; to train the new one above them alone, call ``requires_grad_(False)`` on
    theirs.

    Parameters
    ----------
    model : any module
    spec : a delta, or several joined by ``+``
    name : of the delta; one model may have several
    host : family of the backbone or a role map of your own; see :func:`deltas.host_of`
    heads : paths of modules that are trained and stored beside the delta; None takes those of a task, ``classifier`` etc.
    dtype : of the parts' parameters. None takes that of each layer, and float32 beside bfloat16 and float16, in which small
        steps of training would be lost: a part then computes in float32, and its layer returns what it did. Parameters of the
        backbone that a delta trains (BitFit, heads) keep theirs.

    Returns
    -------
    The handle, by which the delta is trained, stored, merged and taken out again.

    Raises
    ------
    DeltaError : no such site, a name that is taken, a parameter that an active delta trains already, a dtype that is none of
        real numbers, or weights on the meta device. The model is unchanged then.

    Examples
    --------
    >>> import deltas
    >>> model = nn.ModuleDict({"q": nn.Linear(4, 4)})
    >>> handle = deltas.attach(model, deltas.LoRA(rank=2, roles=("q",)), host={"q": "q"})
    >>> sum(p.numel() for p in handle.parameters())
    16
    """
    if not _NAME.fullmatch(name):
        raise DeltaError(f"a name is made of letters, digits, - and _, got {name!r}")
    if name in _TAKEN:
        raise DeltaError(f"the name {name!r} is an attribute of modules: give the delta another name")
    known = handles(model)
    if name in known:
        raise DeltaError(f"this model has a delta {name!r}: detach it first, or give this one another name")
    chosen = host_of(model, host)
    sites: list[Site] = []
    for method in methods_of(spec):
        sites += built_sites(method, chosen, dtype)
    refuse_mixed(sites)
    _refuse_meta(sites)
    handle = Handle(model, spec, name, sites, head_paths(model, chosen, heads), dtype)
    handle.attach()
    return handle


def _refuse_meta(sites: list[Site]) -> None:
    for site in sites:
        if any(tensor.is_meta for tensor in site.module.parameters(recurse=False)):
            raise DeltaError(
                f"the weights of {site.path or 'this model'} are on the meta device: they are not loaded yet, or were moved "
                "away by accelerate (cpu_offload, device_map). Load them, or remove the hooks, before a delta is attached"
            )


def head_paths(model: nn.Module, host: Host, heads: Sequence[str] | None) -> list[str]:
    """Paths of the heads; those that are named must exist."""
    if heads is None:
        return host.heads()
    heads = [heads] if isinstance(heads, str) else list(dict.fromkeys(heads))
    modules = dict(model.named_modules())
    for path in heads:
        if path not in modules:
            lookup(dict(model.named_children()), path, kind="head")
    return list(heads)


def built_sites(method: Delta, host: Host, dtype: torch.dtype | None = None) -> list[Site]:
    """Sites of a method, each with its part, on the device and in the mode (training or not) of its module.

    `dtype` is that of the parts as for :func:`attach`.

    Raises
    ------
    DeltaError : there is none.
    """
    check_dtype(dtype)
    sites = method.sites(host)
    if not sites and not method.optional:
        layers = " in layers ()" if method.layers == () else ""
        raise DeltaError(f"{method.name} has no site in this {type(host.model).__name__}{layers}")
    shared = method.shared(host, sites)
    for site in sites:
        site.method = method
        if site.kind != "parameters":
            site.part = method.build(site, site.space, shared)
            site.fit(dtype)
            site.part.train(site.module.training)
    if shared is not None:
        _register_once(shared, [site.part for site in sites if site.part is not None])
    return sites


def _register_once(shared: nn.Module, parts: list[nn.Module]) -> None:
    """Leave what parts share a child of the first that has it, and an attribute of the others.

    Whoever stores the model's tensors by name (``save_pretrained``, checkpoints of a Trainer) refuses one under two names.
    """
    owned = False
    for module in (module for part in parts for module in part.modules()):
        for name, child in list(module._modules.items()):
            if child is shared and owned:
                del module._modules[name]
                module.__dict__[name] = shared
            owned = owned or child is shared
