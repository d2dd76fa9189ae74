"""Values at a few bits each: groups with a range of their own, rounded up or down at random, several to a byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["BITS", "Groups", "Noise", "mixed", "pack_bits", "quantise", "unpack_bits"]

BITS = (8, 4, 2, 1)
# Values of one pass over a group of kernels: what it works on stays in the cache of a CPU, and its temporaries stay small.
_CHUNK = 1 << 16
_PASSES = 256  # at once elsewhere, where the start of a kernel is what takes time
_HIGH = ~0xFFFF  # the bits of a float32 that a bfloat16 has


class Noise:
    """Uniform values in (0, 1) for stochastic rounding, read from a table at an offset.

    The table is a permutation of ``(i + 1/2) / n``, so that over all offsets every place sees every number once: rounding
    is unbiased. It is made from the seed alone; no global generator is touched. Each pass begins at a place of its own: at
    regular ones a column of a matrix would meet the same noise in all rows.
    """

    def __init__(self, seed: int, *, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        once = (torch.randperm(_CHUNK, generator=generator) + 0.5) / _CHUNK
        self.table = torch.cat([once, once]).to(device)

    def at(self, offset: int, first: int, count: int, size: int) -> Tensor:
        """`count` values of passes of `size` values, at most as many as the table has; `first` is the number of the first."""
        starts = [mixed(offset + (first + place) * 0x9E3779B9) >> 16 for place in range(-(-count // size))]
        if len(starts) == 1:
            return self.table[starts[0] : starts[0] + count]
        device = self.table.device
        places = torch.tensor(starts, device=device)[:, None] + torch.arange(size, device=device)
        return self.table[places].view(-1)[:count]


def mixed(x: int) -> int:
    """A one-to-one map of 32-bit numbers that takes neighbours far apart."""
    x &= 0xFFFFFFFF
    x = (x ^ (x >> 16)) * 0x21F0AAAD & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x735A2D97 & 0xFFFFFFFF
    return x ^ (x >> 15)


@cache
def _triton() -> ModuleType | None:
    if find_spec("triton") is None:
        return None
    from . import kernels

    return kernels


def _kernels(x: Tensor, group: int) -> ModuleType | None:
    """Kernels for values on the device of a tensor, if there are any."""
    return _triton() if x.is_cuda and group & (group - 1) == 0 else None


@dataclass(frozen=True, eq=False)
class Groups:
    """Quantised values.

    Attributes
    ----------
    codes : uint8 (groups, group * bits / 8)
    low, step : bfloat16 (groups,): a number is ``low + code * step``
    count : of values; the last group is filled up
    dtype : of the values
    """

    codes: Tensor
    low: Tensor
    step: Tensor
    count: int
    dtype: torch.dtype
    bits: int
    group: int

    @property
    def nbytes(self) -> int:
        """Bytes of codes and ranges."""
        return self.codes.nbytes + self.low.nbytes + self.step.nbytes

    def restore(self) -> Tensor:
        """The values (count,)."""
        if (kernels := _kernels(self.codes, self.group)) is not None:
            own = (self.count, self.dtype, self.bits, self.group)
            return kernels.restored(self.codes, self.low, self.step, *own)  # type: ignore[no-any-return]
        found = torch.empty(len(self.low) * self.group, dtype=torch.float32, device=self.codes.device)
        rows, low, step = found.view(-1, self.group), self.low.float(), self.step.float()
        many = _rows_at_once(self.codes, self.group)
        for start in range(0, len(rows), many):
            part = slice(start, start + many)
            torch.mul(unpack_bits(self.codes[part], self.bits), step[part, None], out=rows[part])
            rows[part].add_(low[part, None])
        if self.dtype is torch.float16:  # a range rounded outwards may leave it
            found.clamp_(torch.finfo(self.dtype).min, torch.finfo(self.dtype).max)
        return found[: self.count].to(self.dtype)


def _rows(group: int) -> int:
    return max(1, _CHUNK // group)


def _rows_at_once(x: Tensor, group: int) -> int:
    return _rows(group) * (1 if x.device.type == "cpu" else _PASSES)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes below ``2 ** bits``, uint8 (rows, n), as uint8 (rows, n * bits / 8): rows are cut in parts that share bytes."""
    if bits == 8:
        return codes
    parts = codes.chunk(8 // bits, dim=-1)
    found = parts[0].clone()
    for place, part in enumerate(parts[1:], 1):
        found |= part << (place * bits)
    return found


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """What ``pack_bits`` was given."""
    if bits == 8:
        return packed
    mask = (1 << bits) - 1
    return torch.cat([(packed >> (place * bits)) & mask for place in range(8 // bits)], dim=-1)


def _bfloat16(x: Tensor, *, up: bool) -> Tensor:
    """float32 as bfloat16, towards plus or minus infinity: a range that is rounded to nearest would clip its ends."""
    bits = x.view(torch.int32)
    outwards = (bits < 0) ^ up  # where a greater magnitude is the way to go
    bits = torch.where(outwards & (x != 0), bits + 0xFFFF, bits) & _HIGH
    return (bits >> 16).to(torch.int16).view(torch.bfloat16)


def _grouped(flat: Tensor, group: int) -> Tensor:
    """Rows of `group` values, the last filled up with its last value, which does not widen its range."""
    missing = -len(flat) % group
    return (torch.cat([flat, flat[-1:].expand(missing)]) if missing else flat).view(-1, group)


def quantise(flat: Tensor, bits: int, *, group: int, noise: Noise, offset: int) -> Groups | None:
    """Values (n,) as codes of `bits` bits in groups of `group` of one range; None if one of them is not finite.

    ``code = floor((x - low) / step + u)`` with ``step = (max - low) / (2^bits - 1)`` and u uniform, so that the mean over u
    is x itself; `low` and `step` are rounded outwards to bfloat16.
    After the quantiser of GACT (Liu et al., ICML 2022), with smaller groups:
    one outlier costs the precision of 64 values instead of 256.
    """
    if (kernels := _kernels(flat, group)) is not None:
        codes, low, step = kernels.quantised(flat, bits, group, noise.table, offset, _rows(group))
        whole = _finite(low, step)
        return Groups(codes, low, step, len(flat), flat.dtype, bits, group) if whole else None
    rows, levels = _grouped(flat, group), (1 << bits) - 1
    low = _bfloat16(rows.amin(1).float(), up=False)  # two passes are faster on a CPU than one of aminmax along rows
    floor = low.float()
    step = _bfloat16((rows.amax(1).float() - floor) / levels, up=True)
    if not _finite(low, step):
        return None
    scale = step.float()
    inverse = torch.where(scale >= torch.finfo(torch.float32).tiny, 1 / scale, 0.0)
    codes = torch.empty(len(rows), group * bits // 8, dtype=torch.uint8, device=flat.device)
    many = _rows_at_once(flat, group)
    work = torch.empty(min(len(rows), many), group, device=flat.device)
    for start in range(0, len(rows), many):
        part = slice(start, start + many)
        size = _rows(group) * group
        u = noise.at(offset, start * group // size, rows[part].numel(), size).view(-1, group)
        places = torch.sub(rows[part], floor[part, None], out=work[: len(u)]).mul_(inverse[part, None]).add_(u)
        codes[part] = _packed(places, bits)
    return Groups(codes, low, step, len(flat), flat.dtype, bits, group)


def _finite(low: Tensor, step: Tensor) -> bool:
    return bool((torch.isfinite(low) & torch.isfinite(step)).all())


def _packed(places: Tensor, bits: int) -> Tensor:
    """``pack_bits`` of the whole parts of values below ``2 ** bits``, which are overwritten: sums are faster than shifts."""
    if bits == 8:  # the rounding of 255 steps may reach the next one
        return places.clamp_(max=255.5).to(torch.uint8)
    parts = places.floor_().chunk(8 // bits, dim=-1)
    found = parts[0]
    for place, part in enumerate(parts[1:], 1):
        found = found.add_(part, alpha=1 << (place * bits))
    return found.to(torch.uint8)
