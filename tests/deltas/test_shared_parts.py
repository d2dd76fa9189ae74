"""What parts share has one name, so that others can store a model with a delta by names."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import deltas
from deltas import (
    Compacter,
    Delta,
    KAdaptation,
    LLaMAAdapter,
    LoRA,
    ParallelAdapter,
    PrefixTuning,
    SparseAdapter,
    UniPELT,
)

from .backbones import backbone, nudge, result

SPECS = [
    Compacter(bottleneck=4),
    KAdaptation(),
    PrefixTuning(length=2, hidden=8),
    ParallelAdapter(bottleneck=4),
    LLaMAAdapter(length=2),
    UniPELT(),
    SparseAdapter(score="magnitude"),
    SparseAdapter(inner=Compacter(bottleneck=4), score="magnitude"),
    SparseAdapter(inner=PrefixTuning(length=2, hidden=8), score="magnitude"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_save_pretrained_stores_a_model_with_a_delta(spec: Delta, tmp_path: Path) -> None:
    model = backbone("bert")
    handle = deltas.attach(model, spec)
    nudge(handle)
    names = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {id(p) for p in handle.parameters()} <= {id(t) for t in model.state_dict(keep_vars=True).values()}
    assert all(torch.equal(stored[name], t) for name, t in model.state_dict().items())
    twin = deepcopy(model)
    assert torch.equal(result(twin, "bert"), result(model, "bert"))
    nudge(deltas.handles(twin)["default"], std=0.5)
    twin.load_state_dict(stored)
    assert torch.equal(result(twin, "bert"), result(model, "bert"))


def test_files_name_what_is_shared_as_before(tmp_path: Path) -> None:
    names = {
        Compacter(bottleneck=4): "attention.output.dense:bottleneck.down.rule.A",
        KAdaptation(): "attention.self.query:product.rule.A",
        PrefixTuning(length=2, hidden=8): "attention.self:shared.table",
    }
    for spec, name in names.items():
        handle = deltas.attach(backbone("bert"), spec)
        assert [key for key in handle.parts() if key.endswith(name)] == [f"bert.encoder.layer.0.{name}"]
        assert sum(key.endswith(name.rpartition(".")[2]) for key in handle.parts()) == 1


def test_nothing_else_is_taken_for_shared() -> None:
    handle = deltas.attach(backbone("bert"), LoRA(rank=2))
    assert len(handle.parts()) == 2 * len(handle.sites)


def test_a_layer_under_several_paths_has_one_part() -> None:
    layer = torch.nn.Linear(4, 4)
    model = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.ModuleDict({"q": layer}) for _ in range(3)])})
    handle = deltas.attach(model, LoRA(rank=2, roles=("q",)), host={"q": "blocks.*.q"})
    nudge(handle, 0.5)
    part = handle.sites[0].part
    assert len(handle.sites) == 1 and part is not None
    x = torch.randn(2, 4)
    plain = torch.nn.functional.linear(x, layer.weight + 2 * part.B @ part.A, layer.bias)
    torch.testing.assert_close(layer(x), plain)
