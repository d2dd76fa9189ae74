"""Several deltas in one model, in every order that would leave something behind: refused, or as if each were alone."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deltas
from deltas import IA3, BitFit, DeltaError, FullFineTuning, LoRA, PrefixTuning, RationalActivation, parse
from deltas.vector import trained_names

from .backbones import backbone, nudge, result, state


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_one_head_is_trained_by_one_delta() -> None:
    model = backbone("bert")
    before = state(model)
    one = deltas.attach(model, LoRA(rank=1), name="one")
    with pytest.raises(DeltaError, match=r"classifier.*heads=\(\)"):
        deltas.attach(model, LoRA(rank=1), name="two")
    nudge(one)
    one.disable()
    two = deltas.attach(model, LoRA(rank=1), name="two")
    nudge(two)
    alone = result(model, "bert")
    one.detach()
    torch.testing.assert_close(result(model, "bert"), alone)
    two.detach()
    same(model, before)


def test_frozen_until_the_last_is_out() -> None:
    model = backbone("bert")
    next(model.parameters()).requires_grad_(False)
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    one = deltas.attach(model, LoRA(rank=1), name="one", heads=())
    two = deltas.attach(model, LoRA(rank=2), name="two", heads=())
    one.detach()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in two.parameters()}
    two.detach()
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags


@pytest.mark.parametrize("other", [LoRA(rank=2), FullFineTuning()])
def test_no_merge_beside_another_delta(other: Any) -> None:
    model = backbone("bert")
    before = state(model)
    one = deltas.attach(model, LoRA(rank=1), name="one", heads=())
    two = deltas.attach(model, other, name="two", heads=())
    with pytest.raises(DeltaError, match=r"'two' acts at .* too"):
        one.merge()
    two.detach()
    nudge(one)
    one.merge()
    with pytest.raises(DeltaError, match="merged into"):
        deltas.attach(model, other, name="two", heads=())
    one.detach()
    same(model, before)


@pytest.mark.parametrize("spec", [IA3() + LoRA(rank=2, roles=("ffn.down",)), LoRA(rank=2, roles=("ffn.down",)) + IA3()])
def test_merging_keeps_the_order_of_what_acts(spec: Any) -> None:
    model = backbone("bert")
    handle = deltas.attach(model, spec)
    nudge(handle, 0.3)
    acting = result(model, "bert")
    handle.merge()
    torch.testing.assert_close(result(model, "bert"), acting, atol=2e-6, rtol=1e-5)


def test_stored_and_flattened_while_merged_or_off(tmp_path: Path) -> None:
    model = backbone("bert")
    handle = deltas.attach(model, IA3() + BitFit())
    nudge(handle, 0.3)
    acting, vector = result(model, "bert"), handle.flatten()
    handle.merge()
    torch.testing.assert_close(handle.flatten(), vector, rtol=0, atol=0)
    handle.save(tmp_path / "merged")
    handle.unmerge()
    handle.disable()
    torch.testing.assert_close(handle.flatten(), vector, rtol=0, atol=0)
    with pytest.raises(DeltaError, match="off or merged"):
        handle.unflatten(vector)
    handle.save(tmp_path / "off")
    for folder in ("merged", "off"):
        fresh = backbone("bert")
        deltas.load(fresh, tmp_path / folder)
        torch.testing.assert_close(result(fresh, "bert"), acting)


def test_a_vector_goes_by_path_then_name() -> None:
    handle = deltas.attach(backbone("bert"), LoRA(rank=1) + PrefixTuning(length=1) + BitFit(), heads=())
    keys = [tuple(key.split(":", 1)) if ":" in key else key.rpartition(".")[::2] for key in trained_names(handle)]
    assert keys == sorted(keys)
    assert len(keys) == len(list(handle.named_parameters()))


def test_attached_again_after_the_backbone_has_changed() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA(rank=1))
    handle.detach()
    with torch.no_grad():
        model.classifier.weight += 1
    before = state(model)
    handle.attach()
    handle.detach()
    same(model, before)


def test_tied_weights_are_not_merged_into() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    handle = deltas.attach(model, LoRA(rank=1, roles=("q",)), host={"q": "a"})
    with pytest.raises(DeltaError, match="weight of b too"):
        handle.merge()


def test_merged_for_good() -> None:
    model = backbone("bert")
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    handle = deltas.attach(model, LoRA(rank=1), heads=())
    handle.merge(forget=True)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    with pytest.raises(DeltaError, match="merged for good"):
        handle.attach()


def test_a_fast_path_past_the_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False
    )
    roles = {"ffn.up": "layers.*.linear1"}
    with pytest.raises(DeltaError, match="set_fastpath_enabled"):
        deltas.attach(encoder, LoRA(roles=("ffn.up",)), host=roles)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        deltas.attach(encoder, LoRA(roles=("ffn.up",)), host=roles)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_a_prefix_that_would_not_act_says_so() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, PrefixTuning(length=2))
    model.set_attn_implementation("eager")
    with pytest.raises(DeltaError, match="did not see the tokens"):
        result(model, "bert")
    handle.detach()
    result(model, "bert")


@pytest.mark.parametrize("name", ["active", "training", "host", "tokens", "train"])
def test_names_of_attributes(name: str) -> None:
    model = backbone("bert")
    with pytest.raises(DeltaError, match="attribute of modules"):
        deltas.attach(model, LoRA(rank=1), name=name)
    assert not any("deltas" in n for n, _ in model.named_modules())


def test_names_that_would_meet() -> None:
    model = backbone("bert")
    first = deltas.attach(model, LoRA(rank=1) + IA3(), heads=())
    second = deltas.attach(model, LoRA(rank=1), name="default-1", heads=())
    second.detach()
    first.detach()
    inner = model.bert.encoder.layer[0].attention.self.query
    outer = nn.ModuleDict({"q": inner})  # another model with a layer of this one
    deltas.attach(model, LoRA(rank=1))
    with pytest.raises(DeltaError, match="a part of another model too"):
        deltas.attach(outer, LoRA(rank=1, roles=("q",)), host={"q": "q"})


def test_one_activation_at_a_place() -> None:
    model = backbone("bert")
    before = result(model, "bert")
    one = deltas.attach(model, RationalActivation(), name="one", heads=())
    with pytest.raises(DeltaError, match="taken the place"):
        deltas.attach(model, RationalActivation(), name="two", heads=())
    one.detach()
    torch.testing.assert_close(result(model, "bert"), before)


def test_a_merged_copy_is_detached() -> None:
    model = backbone("bert")
    before = state(model)
    handle = deltas.attach(model, LoRA(rank=1))
    nudge(handle)
    handle.merge()
    copied = deepcopy(model)
    deltas.handles(copied)["default"].detach()
    same(copied, before)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("LoRA", {"rank": 2.5}, "a whole number as rank"),
        ("LoRA", {"rank": "abc"}, "a whole number as rank"),
        ("LoRA", {"rank": True}, "a whole number as rank"),
        ("LoRA", {"alpha": float("nan")}, "a finite number as alpha"),
        ("LoRA", {"directed": "maybe"}, "true or false as directed"),
        ("LoRA", {"layers": ["a"]}, "whole numbers as layers"),
        ("Adapter", {"activation": 3}, "a word as activation"),
    ],
)
def test_values_of_another_type(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        parse(name, options)


def test_one_value_for_several() -> None:
    assert parse("LoRA", {"layers": 0, "roles": "attention.key"}) == LoRA(layers=(0,), roles=("attention.key",))
    assert parse("LoRA", {"alpha": 4}) == LoRA(alpha=4.0)
