"""How parts enter a linear layer: the one place that replaces a layer's ``forward`` while a delta is attached."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import DeltaError, required
from .hosts import Place
from .precision import in_dtype_of
from .replicas import Joint
from .space import is_layer

__all__ = ["LinearPart", "folded", "linear_size", "matrix", "plain_linear"]

THIRDS = {"query": 0, "key": 1, "value": 2}


class LinearPart(nn.Module):
    """A part in a linear layer ``z = W h + b``; subclasses give one or several of three things.

    Attributes
    ----------
    rows : slice of z that the part sees, of a fused layer
    first : class attribute; whether it acts before the parts of others, because it knows the layer's own weight
    """

    rows: slice | None = None
    first: bool = False

    def before(self, host: nn.Module, h: Tensor) -> Tensor:
        """What the matrix sees in place of h."""
        return h

    def addend(self, host: nn.Module, h: Tensor) -> Tensor | None:
        """What is added to z, (..., out_features), made of h alone."""
        return None

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """What takes the place of z; overridden only by parts that need z, because that costs a Lorentz layer more."""
        return z


def linear_size(module: nn.Module, place: Place) -> tuple[int, int]:
    """Columns of a layer's matrix, and free coordinates of its result (of its rows that play the role)."""
    columns, whole = _whole_size(module, place)
    rows = rows_of(module, place)
    return columns, whole if rows is None else rows.stop - rows.start


def _whole_size(module: nn.Module, place: Place) -> tuple[int, int]:
    weight = getattr(module, "weight", None)
    if is_layer(module):
        assert isinstance(weight, Tensor)
        bounded = getattr(module, "log_scale", None) is not None
        size = (weight.shape[1], weight.shape[0] - bounded)
    elif type(module).__name__ == "Conv1D" and isinstance(weight, Tensor):  # transformers' layer, stored transposed
        size = (weight.shape[0], weight.shape[1])
    elif isinstance(getattr(module, "in_features", None), int) and isinstance(
        getattr(module, "out_features", None), int
    ):
        features: Any = module
        size = (features.in_features, features.out_features)
    else:
        raise DeltaError(
            f"{place.path} is a {type(module).__name__}, which is no linear layer (it has no in_features and out_features); "
            f"the role {place.role!r} needs one"
        )
    return size


def rows_of(module: nn.Module, place: Place) -> slice | None:
    """Rows of a fused layer that play the role: a third, or those that are named.

    Raises
    ------
    DeltaError : the layer has no three equal parts, or not so many rows.
    """
    if place.rows is None:
        return None
    total = _whole_size(module, place)[1]
    if place.rows not in THIRDS:
        start, end = (int(number) for number in place.rows.split("-"))
        if not start < end <= total:
            raise DeltaError(f"{place.path} has the rows 0-{total}, got {place.path}:{place.rows}")
        return slice(start, end)
    n, rest = divmod(total, len(THIRDS))
    if rest:
        raise DeltaError(
            f"{place.path} has {total} rows, which are no three equal parts of queries, keys and values: name the rows, "
            f"{place.path}:0-{total // 2} for example"
        )
    return slice(THIRDS[place.rows] * n, (THIRDS[place.rows] + 1) * n)


def matrix(module: Any, rows: slice | None = None) -> Tensor:
    """The matrix (out_features, in_features) that makes the free coordinates of a layer's result, or rows of it."""
    weight: Tensor = module.weight
    if type(module).__name__ == "Conv1D":
        weight = weight.T
    elif is_layer(module) and getattr(module, "log_scale", None) is not None:
        weight = weight[1:]
    return weight if rows is None else weight[rows]


def folded(module: Any, rows: slice | None, new: Tensor) -> Tensor:
    """The layer's weight, as it is stored, with ``matrix(module, rows)`` replaced by `new`."""
    weight: Tensor = module.weight.detach().clone()
    stored = weight.T if type(module).__name__ == "Conv1D" else weight
    if is_layer(module) and getattr(module, "log_scale", None) is not None:
        stored = stored[1:]
    (stored if rows is None else stored[rows]).copy_(new)
    return weight


def plain_linear(module: nn.Module) -> bool:
    """Whether a module computes ``F.linear`` of its weight and bias, and nothing else."""
    return type(module) is nn.Linear


class Junction(Joint):
    """Child ``deltas`` of a linear layer, that holds the parts of all deltas there and runs the layer with them.

    The layer's ``forward`` becomes this object's :meth:`run`, a bound method: a deep copy of the model binds it to the copy.
    A ``forward`` that was put into the layer itself before, as accelerate does, is called for W h + b, and given back.
    """

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        self.__dict__["host"] = host  # not a child: the host owns this, not the other way round
        self.__dict__["own"] = host.__dict__.get("forward")
        self.active: list[LinearPart] = []

    def run(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's forward."""
        host: Any = self.host
        parts = self.active
        own = self.__dict__["own"]
        plain = plain_linear(host) and own is None and not torch.is_autocast_enabled(x.device.type)
        if len(parts) == 1 and plain:
            fused = getattr(parts[0], "fused", None)
            if fused is not None and parts[0].rows is None and in_dtype_of(parts[0], x) is x:
                return fused(x, host.weight, host.bias)
        if is_layer(host):
            return self._run_layer(host, x, **kwargs)
        h = self._before(host, x)
        z = type(host).forward(host, h, *args, **kwargs) if own is None else own(h, *args, **kwargs)
        return self._finish(host, h, z)

    def _before(self, host: nn.Module, h: Tensor) -> Tensor:
        """What the matrix sees."""
        for part in self.active:
            seen = in_dtype_of(part, h)
            found = part.before(host, seen)
            h = found.to(h.dtype)  # autocast may have computed it in another
        return h

    def _finish(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        for part in self.active:
            if (more := _padded(part, host, h, z.shape[-1])) is not None:
                z = z + more.to(z.dtype)
            if type(part).after is not LinearPart.after:
                if part.rows is None:
                    z = _after(part, host, h, z)
                else:
                    a, b = part.rows.start, part.rows.stop
                    z = torch.cat([z[..., :a], _after(part, host, h, z[..., a:b]), z[..., b:]], -1)
        return z

    def _run_layer(self, host: Any, x: Tensor, *, addend: Tensor | None = None, **kwargs: Any) -> Any:
        h = self._before(host, host.prepare(x))
        if all(type(part).after is LinearPart.after for part in self.active):
            for part in self.active:
                if (more := _addend(part, host, h)) is not None:
                    addend = more if addend is None else addend + more
            return host.map(h, addend=addend, **kwargs)
        z = host.preactivation(h)
        time = z.shape[-1] - linear_size(host, Place("", "", -1, ""))[1]
        u = self._finish(host, h, z[..., time:])
        u = u if addend is None else u + addend
        return host.finish(torch.cat([z[..., :time], u], -1) if time else u, **kwargs)


def _addend(part: LinearPart, host: nn.Module, h: Tensor) -> Tensor | None:
    """What a part adds, computed in its own dtype and given in that of h."""
    seen = in_dtype_of(part, h)
    more = part.addend(host, seen)
    return more if more is None or seen is h else more.to(h.dtype)


def _after(part: LinearPart, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
    """What a part makes of z, computed in its own dtype and given in that of z."""
    return part.after(host, in_dtype_of(part, h), in_dtype_of(part, z)).to(z.dtype)


def _padded(part: LinearPart, host: nn.Module, h: Tensor, size: int) -> Tensor | None:
    more = _addend(part, host, h)
    if more is None or part.rows is None:
        return more
    return F.pad(more, (part.rows.start, size - part.rows.stop))


def insert(host: nn.Module, key: str, part: nn.Module, place: Place) -> None:
    """Put a part into a linear layer under `key`."""
    part = required(part, LinearPart, "a linear layer")
    part.rows = rows_of(host, place)
    junction = host._modules.get("deltas")
    if not isinstance(junction, Junction):
        if is_layer(host) and "forward" in host.__dict__:
            raise DeltaError(
                f"{place.path} is a {type(host).__name__} whose forward was replaced in the object itself, as hooks of "
                "accelerate do: a delta there works in the layer's own steps. Remove the hooks first"
            )
        junction = Junction(host)
        host.add_module("deltas", junction)
        host.forward = junction.run
    junction.add_module(key, part)
    junction.active = _ordered([*junction.active, part])


def remove(host: nn.Module, key: str) -> None:
    """Take a part out; with the last one the layer is what it was."""
    junction = host._modules["deltas"]
    assert isinstance(junction, Junction)
    part = junction._modules.pop(key)
    junction.active = [other for other in junction.active if other is not part]
    if not any(True for _ in junction.children()):
        del host._modules["deltas"]
        del host.__dict__["forward"]
        if junction.__dict__["own"] is not None:
            host.__dict__["forward"] = junction.__dict__["own"]


def switch(host: nn.Module, key: str, on: bool) -> None:
    """Let a part act, or not."""
    junction = host._modules["deltas"]
    assert isinstance(junction, Junction)
    part = junction._modules[key]
    others = [other for other in junction.active if other is not part]
    wanted = {id(p) for p in others} | ({id(part)} if on else set())
    junction.active = _ordered(p for p in junction.children() if id(p) in wanted)


def _ordered(parts: Iterable[nn.Module]) -> list[LinearPart]:
    """Parts as they act one after the other."""
    return sorted((part for part in parts if isinstance(part, LinearPart)), key=lambda part: not part.first)
