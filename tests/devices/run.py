"""``python -m tests.devices.run PART [DEVICE]``: a line ``name: why`` for every check of a part that fails on a device.

The device is the simulated one, or a real one, such as ``cuda``; the parts in ``checks.REAL`` need a real one.
"""

from __future__ import annotations

import math
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from .checks import PARTS, REAL

ROOT = Path(__file__).resolve().parents[2]


def near(a: Any, b: Any) -> bool:
    """Whether two values that are no tensors are the same."""
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) if isinstance(a, float) and isinstance(b, float) else a == b


def difference(there: Any, here: Any, device: torch.device) -> str | None:
    """How what was computed on the device differs from what the CPU says."""
    (mine, shape), (theirs, wanted) = tree_flatten(there), tree_flatten(here)
    if shape != wanted:
        return f"gives {shape.num_leaves} values, the CPU {wanted.num_leaves}"
    for a, b in zip(mine, theirs, strict=True):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        if both and a.device.type != device.type:
            return "returns a tensor of the CPU"
        alike = both and a.shape == b.shape and torch.allclose(a.cpu(), b, rtol=1e-4, atol=1e-5, equal_nan=True)
        if not (alike if both else near(a, b)):
            return f"gives other numbers than the CPU: {str(a)[:60]} and {str(b)[:60]}"
    return None


def main(part: str, place: str = "sim") -> int:
    torch.set_num_threads(1)
    inside: Any = nullcontext
    if place == "sim":
        if part in REAL:
            sys.exit(f"{part} needs a real device: python -m tests.devices.run {part} cuda")
        from .simulated import readable_weights, simulated  # which change torch for the whole process

        readable_weights()
        inside = simulated
    torch.backends.cudnn.allow_tf32 = False
    device, count = torch.device(place, 0), 0
    for name, check in PARTS[part]():
        count += 1
        here = check(torch.device("cpu"))
        try:
            with inside():
                there = check(device)
                seen = any(isinstance(t, Tensor) for t in tree_flatten(there)[0])
                failure = difference(there, here, device) if seen else "returns nothing of the device"
        except Exception as error:
            where = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))][-1]
            failure = f"{type(error).__name__}: {error} ({Path(where.filename).relative_to(ROOT)}:{where.lineno})"
        if failure:
            sys.stdout.write(f"{name}: {failure}\n")
    return count


if __name__ == "__main__":
    sys.stderr.write(f"{main(*sys.argv[1:])} checks\n")
