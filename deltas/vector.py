"""The parameters of a delta as one vector, counted from its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .errors import DeltaError

if TYPE_CHECKING:
    from .handle import Handle

__all__ = ["applied", "begin", "drawn", "flatten", "start_of", "trained_names", "unflatten"]


def _path_and_name(key: str) -> tuple[str, ...]:
    return tuple(key.split(":", 1)) if ":" in key else key.rpartition(".")[::2]


def trained_names(handle: Handle) -> list[str]:
    """Names of what is trained without the heads, by path and name: buffers of parts have no place in the vector."""
    parts = [key for key, t in handle.parts().items() if isinstance(t, nn.Parameter)]
    return sorted([*parts, *handle.owned()], key=_path_and_name)


def drawn(handle: Handle) -> bool:
    """Whether a delta brought parameters of its own, whose start is not that of the backbone."""
    return any(isinstance(t, nn.Parameter) for t in handle.parts().values())


def _require_start(handle: Handle) -> None:
    """Refuse to count from a start that is not the one the delta was trained from."""
    if not handle.counted and drawn(handle):
        raise DeltaError(
            f"the delta {handle.name!r} was read from files that hold no start, from which its vector is counted: store it "
            "by handle.save(folder, start=True); or call handle.restart() to count from what it is now"
        )


def flatten(handle: Handle) -> Tensor:
    """What every parameter differs from its initial value, in float32."""
    _require_start(handle)
    values, names = handle.values(), trained_names(handle)
    rows = [(values[k].detach().float() - handle.initial[k].to(values[k].device).float()) for k in names]
    return torch.cat([row.reshape(-1) for row in rows]) if rows else torch.empty(0)


def _pieces(handle: Handle, vector: Tensor) -> Iterator[tuple[nn.Parameter, Tensor, Tensor]]:
    """Every parameter of a delta, its piece of a vector, and its initial value."""
    if not handle.active or handle.merged:
        raise DeltaError(f"the delta {handle.name!r} is off or merged: attach(), enable() or unmerge() it first")
    current = {**handle.parts(), **handle.owned()}
    names = trained_names(handle)
    total = sum(current[key].numel() for key in names)
    if vector.shape != (total,):
        raise DeltaError(f"this delta has {total} parameters, got a tensor of shape {tuple(vector.shape)}")
    place = 0
    for key in names:
        tensor = current[key]
        assert isinstance(tensor, nn.Parameter)
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        piece = vector[place : place + tensor.numel()].view_as(tensor).to(device=tensor.device, dtype=dtype)
        yield tensor, piece, handle.initial[key].to(device=tensor.device, dtype=dtype)
        place += tensor.numel()


@torch.no_grad()
def unflatten(handle: Handle, vector: Tensor) -> None:
    """Set a delta to its initial state plus a vector."""
    _require_start(handle)
    for parameter, piece, initial in _pieces(handle, vector):
        parameter.copy_(initial + piece)


def start_of(handle: Handle) -> Tensor:
    """Initial values of the parameters that :func:`flatten` counts from, as one vector."""
    _require_start(handle)
    rows = [handle.initial[key].detach().float().reshape(-1) for key in trained_names(handle)]
    return torch.cat(rows) if rows else torch.empty(0)


@torch.no_grad()
def begin(handle: Handle, start: Tensor) -> None:
    """Set a delta to other initial values than were drawn for it, and count from these.

    Raises
    ------
    DeltaError : another number of entries, a delta that is off or merged; one that trains parameters of the backbone alone,
        or a start that is another one than the backbone's for those that it trains; or a delta that chose its parameters when
        it was made (SparseAdapter), whose vectors mean something else in every model.
    """
    if not drawn(handle):
        raise DeltaError(f"the delta {handle.name!r} trains parameters of the backbone, and begins where these are")
    if chosen := [key for key, t in handle.parts().items() if not isinstance(t, nn.Parameter)]:
        raise DeltaError(
            f"the delta {handle.name!r} chose its parameters when it was made ({chosen[0]}): a vector of another means others"
        )
    owned = {id(parameter) for parameter in handle.owned().values()}
    pieces = list(_pieces(handle, start))
    if any(id(p) in owned and not torch.equal(piece.float(), initial.float()) for p, piece, initial in pieces):
        raise DeltaError(
            f"the delta {handle.name!r} trains parameters of the backbone, and this start is of another backbone"
        )
    for parameter, piece, initial in pieces:
        parameter.copy_(initial if id(parameter) in owned else piece)
    handle.restart()


@contextmanager
def applied(handle: Handle, vector: Tensor) -> Iterator[None]:
    """Let a delta be its initial state plus a vector inside a ``with`` block, so that gradients reach the vector.

    The parameters themselves stay as they are. Inside the block the model computes with ordinary tensors in their place.
    """
    _require_start(handle)
    new = {id(p): (initial + piece).to(p.dtype) for p, piece, initial in _pieces(handle, vector)}
    places = [
        (module._parameters, name, parameter)
        for module in handle.model.modules()
        for name, parameter in module._parameters.items()
        if id(parameter) in new
    ]
    try:
        for table, name, parameter in places:
            table[name] = new[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for table, name, parameter in places:
            table[name] = parameter
