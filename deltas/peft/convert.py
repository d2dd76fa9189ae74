"""What the converters of peft's methods have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..base import Delta, Site
from ..handle import Handle
from ..hosts import Host
from .config import Known

__all__ = ["Converter", "Entry", "Values", "by_path", "into", "part_of"]

Values = dict[str, Tensor]


class Entry(NamedTuple):
    """A tensor of a checkpoint, and the parameters that take it.

    Attributes
    ----------
    shape : of the tensor
    put : stores it
    """

    shape: tuple[int, ...]
    put: Callable[[Tensor], None]


class Converter(NamedTuple):
    """How one method goes from and to peft.

    Attributes
    ----------
    kind : peft's name of it
    methods : classes that are written as it
    known : keys of its configuration
    spec : delta of a configuration; given the host, the targets' paths and the tensors
    entries : key (without ``base_model.model.``) -> what takes it
    write : configuration and tensors of a handle; keys as in `entries`
    prompt : whether its tokens are stored as one tensor
    """

    kind: str
    methods: tuple[type[Delta], ...]
    known: Known
    spec: Callable[[Mapping[str, Any], Host, list[str], Values], Delta]
    entries: Callable[[Handle], dict[str, Entry]]
    write: Callable[[Handle, Any], tuple[dict[str, Any], Values]]
    prompt: bool = False


def into(parameter: Tensor, shape: tuple[int, ...] | None = None) -> Entry:
    """The entry of one parameter, stored in its own shape or another of as many elements."""

    def put(tensor: Tensor) -> None:
        parameter.copy_(tensor.view(parameter.shape))

    return Entry(tuple(parameter.shape) if shape is None else shape, put)


def by_path(handle: Handle) -> dict[str, list[Site]]:
    """Sites by the path of their module."""
    found: dict[str, list[Site]] = {}
    for site in handle.sites:
        found.setdefault(site.path, []).append(site)
    return found


def part_of(site: Site) -> Any:
    """The part of a site."""
    return site.part
