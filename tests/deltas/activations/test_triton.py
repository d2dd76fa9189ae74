"""The Triton kernels give what the plain rules give; without a GPU they are interpreted, where triton is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch

from deltas.activations.groups import BITS, Groups, Noise, quantise

HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = [
    pytest.mark.compiled,  # triton reads the source of kernels, which the shape checks decorate
    pytest.mark.skipif(
        find_spec("triton") is None or (HERE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"),
        reason="there is neither a GPU nor triton with TRITON_INTERPRET=1",
    ),
]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [8, 64, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 1000, 70_000])
def test_kernels_give_what_the_rules_give(bits: int, group: int, dtype: torch.dtype, count: int) -> None:
    from deltas.activations import kernels

    generator = torch.Generator().manual_seed(count)
    x = (torch.randn(count, generator=generator) * 3 - 1).to(dtype)
    x[: count // 3] *= 1e-3
    x[count // 2 :: 7] = 0
    offset = 2**32 - count
    want = quantise(x, bits, group=group, noise=Noise(0, device=torch.device("cpu")), offset=offset)
    assert want is not None
    table = Noise(0, device=HERE).table
    codes, low, step = kernels.quantised(x.to(HERE), bits, group, table, offset, max(1, 65536 // group))
    assert torch.equal(low.cpu(), want.low) and torch.equal(step.cpu(), want.step)
    exact = (codes.cpu() == want.codes).float().mean()
    if count > 1:  # a product and a sum are rounded once or twice: few codes differ
        assert exact > 0.999
    found = kernels.restored(want.codes.to(HERE), low, step, count, dtype, bits, group).cpu()
    assert found.dtype is dtype
    assert torch.allclose(
        found.float(), want.restore().float(), rtol=1e-2 if dtype is torch.bfloat16 else 2e-3, atol=1e-6
    )
    own = Groups(codes.cpu(), low.cpu(), step.cpu(), count, dtype, bits, group).restore()
    spacing = want.step.float().max()
    assert (own.float() - want.restore().float()).abs().max() <= 1.01 * spacing  # where a code differs, by one


@pytest.mark.filterwarnings("ignore:invalid value")  # of the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_told(value: float) -> None:
    from deltas.activations import kernels

    x = torch.ones(300)
    x[100] = value
    _, low, step = kernels.quantised(x.to(HERE), 4, 64, Noise(0, device=HERE).table, 0, 1024)
    whole = (torch.isfinite(low) & torch.isfinite(step)).tolist()
    assert whole == [True, False, True, True, True]
