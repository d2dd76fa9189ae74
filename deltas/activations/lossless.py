"""Tensors that need fewer bits than they have, without loss: truth values, two-valued tensors, small integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .groups import pack_bits, unpack_bits

__all__ = ["Narrow", "TwoValued", "lossless", "mask_of"]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32)


@dataclass(frozen=True, eq=False)
class TwoValued:
    """A tensor of two values as one bit each.

    Attributes
    ----------
    bits : uint8 (1, ceil(count / 8))
    values : (2,) what 0 and 1 stand for
    """

    bits: Tensor
    values: Tensor
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes of bits and values."""
        return self.bits.nbytes + self.values.nbytes

    def chosen(self) -> Tensor:
        """Where the second value is, bool (count,)."""
        return unpack_bits(self.bits, 1).view(-1)[: self.count].bool()

    def restore(self) -> Tensor:
        """The values (count,)."""
        if self.values.dtype is torch.bool:
            return self.chosen()
        return torch.where(self.chosen(), self.values[1], self.values[0])


@dataclass(frozen=True, eq=False)
class Narrow:
    """Integers in a smaller type."""

    values: Tensor
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes

    def restore(self) -> Tensor:
        """The integers (count,)."""
        return self.values.to(self.dtype)


def mask_of(chosen: Tensor) -> TwoValued:
    """Truth values (n,) as bits."""
    missing = -len(chosen) % 8
    whole = torch.cat([chosen, chosen.new_zeros(missing)]) if missing else chosen
    values = torch.arange(2, device=chosen.device).bool()  # which waits for no copy to the device
    return TwoValued(pack_bits(whole.view(1, -1).to(torch.uint8), 1), values, len(chosen))


def _two_valued(flat: Tensor) -> TwoValued | None:
    """Values (n,) as bits, if they have no more than two values, as the noise of dropout and masks do.

    Values are compared by their bits, by which -0 and 0 differ and a NaN is like itself.
    """
    words = flat.view(torch.int32 if flat.dtype is torch.float32 else torch.int16)
    low, high = torch.aminmax(words)
    above = words == high
    if not bool((above | (words == low)).all()):
        return None
    bits = mask_of(above)
    return TwoValued(bits.bits, torch.stack([low, high]).view(flat.dtype), len(flat))


def _narrow(flat: Tensor) -> Narrow | None:
    """Integers (n,) in the smallest type that holds them all, if that is smaller."""
    low, high = (int(value) for value in torch.aminmax(flat))
    for dtype in _INTEGERS:
        info = torch.iinfo(dtype)
        if dtype.itemsize < flat.dtype.itemsize and info.min <= low and high <= info.max:
            return Narrow(flat.to(dtype), flat.dtype)
    return None


def lossless(flat: Tensor) -> TwoValued | Narrow | None:
    """A tensor (n,) in fewer bits that give it back to the bit, if there is such a form of it."""
    if flat.dtype is torch.bool:
        return mask_of(flat)
    return _two_valued(flat) if flat.is_floating_point() else _narrow(flat)
