"""``quantise`` and ``Groups.restore`` as one Triton kernel each, for GPUs, by the same rules as ``groups``."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["quantised", "restored"]

_VALUES = 2048  # of one program


@triton.jit
def _outwards(x, up: tl.constexpr):
    """float32 rounded to what a bfloat16 holds, towards plus or minus infinity."""
    bits = x.to(tl.int32, bitcast=True)
    away = (bits >= 0) if up else (bits < 0)
    bits = tl.where(away & (x != 0), bits + 0xFFFF, bits) & -0x10000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _mixed(x):
    """``groups.mixed`` of uint32."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)


@triton.jit(do_not_specialize=["count", "offset", "rows"])
def _quantise(
    x, table, codes, low, step, count, offset, rows,
    GROUP: tl.constexpr, BITS: tl.constexpr, PASS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    place = tl.minimum(row[:, None] * GROUP + tl.arange(0, GROUP)[None, :], count - 1)
    whole = tl.load(x + place).to(tl.float32)
    finite = tl.min((tl.abs(whole) < float("inf")).to(tl.int32), 1) > 0  # not of a NaN
    levels: tl.constexpr = (1 << BITS) - 1
    floor = _outwards(tl.min(whole, 1), False)
    size = _outwards(tl.div_rn(tl.max(whole, 1) - floor, levels + tl.zeros_like(floor)), True)
    normal = size >= 1.1754943508222875e-38
    inverse = tl.where(normal, tl.div_rn(1.0 + tl.zeros_like(size), tl.where(normal, size, 1.0)), 0.0)
    tl.store(low + row, tl.where(finite, floor, float("nan")).to(tl.bfloat16), there)
    tl.store(step + row, size.to(tl.bfloat16), there)
    # Where in the table of noise each pass over `PASS` groups begins.
    start = _mixed(offset.to(tl.uint32) + (row // PASS).to(tl.uint32) * 0x9E3779B9) >> 16
    parts: tl.constexpr = 8 // BITS
    width: tl.constexpr = GROUP // parts
    packed = tl.zeros([ROWS, width], tl.int32)
    for part in tl.static_range(parts):
        column = part * width + tl.arange(0, width)[None, :]
        value = tl.load(x + tl.minimum(row[:, None] * GROUP + column, count - 1)).to(tl.float32)
        u = tl.load(table + start.to(tl.int64)[:, None] + (row % PASS)[:, None] * GROUP + column)
        code = tl.floor((value - floor[:, None]) * inverse[:, None] + u)
        packed += tl.minimum(code, levels).to(tl.int32) << (part * BITS)
    at = row[:, None] * width + tl.arange(0, width)[None, :]
    tl.store(codes + at, packed.to(tl.uint8), there[:, None])


@triton.jit(do_not_specialize=["count", "rows", "most"])
def _restore(
    codes, low, step, out, count, rows, most,
    GROUP: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    floor = tl.load(low + row, there).to(tl.float32)
    size = tl.load(step + row, there).to(tl.float32)
    parts: tl.constexpr = 8 // BITS
    width: tl.constexpr = GROUP // parts
    at = row[:, None] * width + tl.arange(0, width)[None, :]
    packed = tl.load(codes + at, there[:, None]).to(tl.int32)
    for part in tl.static_range(parts):
        code = (packed >> (part * BITS)) & ((1 << BITS) - 1)
        value = code.to(tl.float32) * size[:, None] + floor[:, None]
        value = tl.minimum(tl.maximum(value, -most), most)
        place = row[:, None] * GROUP + part * width + tl.arange(0, width)[None, :]
        tl.store(out + place, value.to(out.dtype.element_ty), place < count)


def quantised(flat: Tensor, bits: int, group: int, table: Tensor, offset: int, rows_of_pass: int) -> tuple[Tensor, ...]:
    """Codes, lower ends and steps of values (n,); the lower end of a group with a value that is not finite is NaN."""
    rows = -(-len(flat) // group)
    codes = torch.empty(rows, group * bits // 8, dtype=torch.uint8, device=flat.device)
    low, step = torch.empty(2, rows, dtype=torch.bfloat16, device=flat.device)
    each = max(1, _VALUES // group)
    signed = offset - (1 << 32) if offset >> 31 else offset
    with torch.cuda.device_of(flat):
        _quantise[(triton.cdiv(rows, each),)](
            flat, table, codes, low, step, len(flat), signed, rows,
            GROUP=group, BITS=bits, PASS=rows_of_pass, ROWS=each,
        )  # fmt: skip
    return codes, low, step


def restored(codes: Tensor, low: Tensor, step: Tensor, count: int, dtype: torch.dtype, bits: int, group: int) -> Tensor:
    """Values (count,) of codes in groups."""
    out = torch.empty(count, dtype=dtype, device=codes.device)
    most = torch.finfo(torch.float16 if dtype is torch.float16 else torch.float32).max
    each = max(1, _VALUES // group)
    with torch.cuda.device_of(codes):
        _restore[(triton.cdiv(len(low), each),)](
            codes, low, step, out, count, len(low), most, GROUP=group, BITS=bits, ROWS=each
        )
    return out
