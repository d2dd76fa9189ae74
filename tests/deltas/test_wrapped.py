"""Layers that others have wrapped, moved away or copied."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deltas
from deltas import Adapter, DeltaError, LoRA, PrefixTuning, PromptTuning

from .backbones import backbone, inputs, nudge, result

HOST = {"attention.query": "q"}


def test_a_forward_of_the_object_is_called_and_given_back() -> None:
    model = nn.ModuleDict({"q": nn.Linear(8, 8)})
    layer, calls = model["q"], []
    plain = layer.forward

    def wrapped(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return plain(x) + 100

    layer.forward = wrapped  # type: ignore[method-assign]
    x = torch.randn(2, 8)
    want = layer(x)
    handle = deltas.attach(model, LoRA(rank=2, roles=("attention.query",)), host=HOST)
    assert torch.equal(layer(x), want)
    nudge(handle, 0.5)
    part = handle.sites[0].part
    torch.testing.assert_close(layer(x), want + part.addend(layer, x))  # type: ignore[operator, union-attr]
    assert len(calls) == 3
    handle.detach()
    assert layer.forward is wrapped and torch.equal(layer(x), want)


def test_hooks_of_accelerate_stay() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = backbone("bert")
    want = result(model, "bert")
    accelerate.hooks.attach_align_device_hook(model, execution_device="cpu")
    query = model.bert.encoder.layer[0].attention.self.query
    handle = deltas.attach(model, LoRA(rank=2))
    torch.testing.assert_close(result(model, "bert"), want)
    handle.detach()
    assert hasattr(query, "_hf_hook") and query.forward.__name__ != "run" and torch.equal(result(model, "bert"), want)


def test_a_lorentz_layer_with_a_forward_of_its_own_is_refused() -> None:
    model = backbone("lorentz")
    host = deltas.host_of(model)
    layer = model.get_submodule(host.places("attention.query")[0].path)
    layer.forward = layer.forward
    with pytest.raises(DeltaError, match="whose forward was replaced"):
        deltas.attach(model, LoRA(rank=2))
    assert not deltas.handles(model)


def test_weights_that_are_elsewhere_are_refused() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"q": nn.Linear(8, 8)})
    spec = LoRA(rank=2, roles=("attention.query",))
    assert deltas.plan(model, spec, host=HOST).parameters == 32  # a plan needs no numbers
    with pytest.raises(DeltaError, match="on the meta device"):
        deltas.attach(model, spec, host=HOST)


@pytest.mark.parametrize("spec", [LoRA(rank=2), Adapter(bottleneck=2), PrefixTuning(length=2), PromptTuning(length=2)])
def test_copies_of_data_parallel_are_refused(spec: deltas.Delta) -> None:
    """They are made without the parts' bonds, and would use the weights of the first device."""
    model = backbone("bert")
    handle = deltas.attach(model, spec)
    with pytest.raises(DeltaError, match="DistributedDataParallel"):
        for module in model.modules():
            module._replicate_for_data_parallel()
    handle.detach()
    for module in model.modules():
        module._replicate_for_data_parallel()
    assert torch.isfinite(model(**inputs("bert")).logits).all()
