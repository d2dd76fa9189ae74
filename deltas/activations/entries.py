"""What the graph holds in place of a saved tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .groups import Groups
from .lossless import TwoValued

__all__ = ["Content", "Exact", "Kept", "Life", "Point", "Rectified", "Source", "Window", "window"]


@runtime_checkable
class Content(Protocol):
    """The values of a tensor, packed."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def restore(self) -> Tensor:
        """The values (count,)."""
        ...


@dataclass(frozen=True, eq=False)
class Rectified:
    """What ReLU or one of its kind saves: rounding may take no number over zero, where its derivative jumps.

    Absolute values are rounded, so that the mean over roundings is the value, on either side of zero.
    """

    sizes: Content
    above: TwoValued

    @property
    def nbytes(self) -> int:
        """Bytes of the values and of one bit each for the sign."""
        return self.sizes.nbytes + self.above.nbytes

    def restore(self) -> Tensor:
        """The values, those above zero above zero, the others not."""
        found = self.sizes.restore()
        return torch.where(self.above.chosen(), found.clamp(min=torch.finfo(found.dtype).tiny), 0.0 - found)


@dataclass(frozen=True, eq=False)
class Point:
    """Points: their times, exact, and quantised space coordinates."""

    time: Tensor
    space: Groups

    @property
    def nbytes(self) -> int:
        """Bytes of times and spaces."""
        return self.time.nbytes + self.space.nbytes

    def restore(self) -> Tensor:
        """The coordinates, time first."""
        return torch.cat([self.time, self.space.restore().view(len(self.time), -1)], dim=-1).view(-1)


@dataclass(frozen=True)
class Window:
    """How a tensor lies in its values, which are written in the order in which they lie in memory.

    Attributes
    ----------
    order : of its dimensions, by stride
    shape : of the values, in that order; 1 where the tensor repeats them
    size : of the tensor
    strides : with gaps where the tensor, a slice, has them, if small ones; None where it has none
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    size: torch.Size
    strides: tuple[int, ...] | None = None

    def of(self, flat: Tensor) -> Tensor:
        """The tensor, dense where it was: by that functions choose how they compute, and a checkpoint what it saves anew."""
        back = [0] * len(self.order)
        for place, dim in enumerate(self.order):
            back[dim] = place
        x = flat.view(self.shape).permute(back)
        if self.strides is not None:
            x = torch.empty_strided(x.shape, self.strides, dtype=x.dtype, device=x.device).copy_(x)
        return x.expand(self.size)


def window(x: Tensor) -> tuple[Tensor, Window]:
    """The values of a tensor as a tensor without repetitions, its dimensions ordered by stride; and the way back."""
    once = x
    for dim, stride in enumerate(x.stride()):
        if stride == 0 and x.shape[dim] > 1:
            once = once.narrow(dim, 0, 1)
    strides = once.stride()
    order = tuple(sorted(range(x.dim()), key=lambda dim: (-strides[dim], dim)))
    spaced, dense, gap, own = [0] * x.dim(), 1, False, 1
    for dim in reversed(order):
        if once.shape[dim] > 1:
            gap = gap or strides[dim] != own
            dense = dense if strides[dim] == own else dense + (_GAP if dense > 1 else 1)
            own = strides[dim] * once.shape[dim]
        spaced[dim], dense = dense, dense * once.shape[dim]
    once = once.permute(order)
    return once, Window(order, tuple(once.shape), x.shape, tuple(spaced) if gap else None)


_GAP = 8  # values; kernels want rows that begin at a multiple of 16 bytes


class Life:
    """A weak reference to a storage: while it lives, nothing else has its address."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self._reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    @property
    def gone(self) -> bool:
        """Whether the storage is gone, so that another may have its address."""
        return bool(self._reference.expired())  # type: ignore[no-untyped-call]


class Source:
    """Packed values, and the storage that they were made of.

    Attributes
    ----------
    constant : whether they are restored alike every time
    views : saved tensors that show them
    """

    def __init__(self, content: Content, storage: torch.UntypedStorage, *, constant: bool) -> None:
        self.content, self.life, self.constant = content, Life(storage), constant
        self.views = 0


@dataclass(frozen=True, eq=False)
class Kept:
    """A packed tensor; its source is shared by all saved tensors that show the same values, and dies with the last."""

    source: Source
    window: Window

    def restore(self) -> Tensor:
        """The tensor, or one near it."""
        return self.window.of(self.source.content.restore())


class Exact:
    """A tensor as it is, with the check for later changes that torch leaves out under hooks."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.detach()  # a graph that held the tensor itself would hold itself
        self.version = x._version

    def restore(self) -> Tensor:
        """The tensor.

        Raises
        ------
        RuntimeError : it was changed in place since.
        """
        if self.x._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor "
                f"{tuple(self.x.shape)} of {self.x.dtype} was saved at version {self.version} and is at version "
                f"{self.x._version}. Change a copy of it, or change it after backward()"
            )
        return self.x
