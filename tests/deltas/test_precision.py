"""Parts beside layers of 16 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import deltas
from deltas import DeltaError, LoRA, PrefixTuning

from .backbones import backbone, nudge, result


def trained(dtype: torch.dtype, asked: torch.dtype | None) -> tuple[float, float]:
    """Share of the entries of A that 40 small steps move, and the loss after them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)).to(dtype)
    handle = deltas.attach(model, LoRA(rank=4, roles=("0", "2")), host={"x": "0"}, dtype=asked)
    start = handle.flatten().clone()
    optimiser = torch.optim.AdamW(handle.parameters(), lr=3e-5, weight_decay=0.0)
    x, y = torch.randn(32, 16).to(dtype), torch.randn(32, 16).to(dtype)
    for _ in range(40):
        loss = (model(x) - y).float().square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return float((handle.flatten() != start).float().mean()), float(loss.detach())


def test_small_steps_are_kept() -> None:
    assert trained(torch.float32, None)[0] > 0.99
    assert trained(torch.bfloat16, None)[0] > 0.99
    assert trained(torch.bfloat16, torch.bfloat16)[0] < 0.8  # what they would be otherwise


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_dtype(dtype: torch.dtype) -> None:
    model = backbone("bert").to(dtype)
    handle = deltas.attach(model, LoRA(rank=2))
    finer = torch.promote_types(dtype, torch.float32)
    assert {p.dtype for p in handle.parts().values()} == {finer}
    assert {p.dtype for p in handle.head_parameters().values()} == {dtype}
    assert result(model, "bert").dtype == dtype
    handle.detach()
    handle = deltas.attach(model, LoRA(rank=2), dtype=torch.float64)
    assert {p.dtype for p in handle.parts().values()} == {torch.float64}
    assert result(model, "bert").dtype == dtype


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    model = backbone("bert")
    with pytest.raises(DeltaError, match=r"give torch\.float32"):
        deltas.attach(model, LoRA(rank=2), dtype=dtype)
    assert not deltas.handles(model)


def test_directed_lora_begins_where_the_model_is() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        model = backbone("bert").to(dtype)
        want = result(model, "bert")
        deltas.attach(model, LoRA(rank=2, directed=True))
        assert torch.equal(result(model, "bert"), want)


@pytest.mark.parametrize("spec", [LoRA(rank=2), PrefixTuning(length=2), LoRA(rank=2, directed=True)])
def test_a_delta_follows_a_model_that_was_cast_while_it_was_out(spec: deltas.Delta) -> None:
    model = backbone("bert")
    handle = deltas.attach(model, spec)
    nudge(handle)
    want = result(model, "bert")
    values = handle.flatten()
    handle.detach()
    model.double()
    handle.attach()
    torch.testing.assert_close(result(model, "bert"), want.double(), rtol=1e-4, atol=1e-5)
    handle.detach()
    model.to(torch.bfloat16)
    handle.attach()
    assert result(model, "bert").dtype == torch.bfloat16
    assert torch.equal(handle.flatten(), values)  # float32 beside bfloat16: nothing is lost


def test_merging_into_sixteen_bits_is_undone_to_the_bit() -> None:
    model = backbone("bert").to(torch.bfloat16)
    handle = deltas.attach(model, LoRA(rank=2, directed=True))
    nudge(handle)
    want = result(model, "bert")
    handle.merge()
    assert {p.dtype for n, p in model.named_parameters() if "deltas" not in n} == {torch.bfloat16}
    torch.testing.assert_close(result(model, "bert"), want, rtol=0.1, atol=0.1)
    handle.unmerge()
    assert torch.equal(result(model, "bert"), want)


@pytest.mark.parametrize("name", [name for name in deltas.DELTAS if name not in ("SparseAdapter", "FullFineTuning")])
@pytest.mark.parametrize("on", ["bert", "gpt2"])
def test_under_autocast_layers_return_what_they_did(name: str, on: str) -> None:
    def dtypes(model: Any) -> dict[str, torch.dtype]:
        found: dict[str, torch.dtype] = {}

        def note(path: str, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                found[path] = output.dtype

        hooks = [
            module.register_forward_hook(lambda _module, _args, output, path=path: note(path, output))
            for path, module in model.named_modules()
            if ".deltas" not in path
        ]
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            result(model, on)
        for hook in hooks:
            hook.remove()
        return found

    model = backbone(on)
    want = dtypes(model)
    handle = deltas.attach(model, deltas.DELTAS[name]())
    nudge(handle)
    assert dtypes(model) == want
