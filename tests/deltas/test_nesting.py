"""Deltas attached to a part of a model: what the whole knows of them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch

import deltas
from deltas import BitFit, DeltaError, FullFineTuning, HeadOnly, LoRA
from deltas.storage import fingerprint

from .backbones import backbone, inputs, nudge, result, state


@pytest.mark.parametrize("inner", [LoRA(rank=1), BitFit(), FullFineTuning()])
@pytest.mark.parametrize("outer", [LoRA(rank=1), HeadOnly()])
def test_a_model_and_its_part_have_no_deltas_at_once(inner: deltas.Delta, outer: deltas.Delta) -> None:
    """Refused in both orders, whatever the names are, and the model is as it was."""
    model = backbone("bert")
    before, flags = state(model), {path: p.requires_grad for path, p in model.named_parameters()}
    handle = deltas.attach(model.bert, inner, name="inner")
    with pytest.raises(DeltaError, match=r"bert, a part of this Bert\w+, has a delta: detach it first"):
        deltas.attach(model, outer, name="outer")
    handle.detach()
    handle = deltas.attach(model, outer, name="outer")
    trained = {path for path, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(DeltaError, match="a part of a model that has the delta 'outer'"):
        deltas.attach(model.bert, inner, name="inner")
    assert trained == {path for path, p in model.named_parameters() if p.requires_grad}
    handle.detach()
    deltas.attach(model.bert, inner, name="inner").detach()
    assert flags == {path: p.requires_grad for path, p in model.named_parameters()}
    assert all(torch.equal(before[path], value) for path, value in state(model).items())


def test_a_detached_delta_does_not_come_back_into_a_nest() -> None:
    model = backbone("bert")
    inner = deltas.attach(model.bert, LoRA(rank=1))
    inner.detach()
    outer = deltas.attach(model, LoRA(rank=1), name="outer")
    with pytest.raises(DeltaError, match="'outer'"):
        inner.attach()
    copied = deepcopy(model)
    with pytest.raises(DeltaError, match="'outer'"):
        deltas.attach(copied.bert, LoRA(rank=1))
    deltas.handles(copied)["outer"].detach()
    deltas.attach(copied.bert, LoRA(rank=1))
    outer.merge(forget=True)
    inner.attach()


def test_parts_beside_each_other() -> None:
    model = backbone("bert")
    first = deltas.attach(model.bert.encoder.layer[0], LoRA(rank=1, roles=("q",)), host={"q": "attention.self.query"})
    second = deltas.attach(model.bert.encoder.layer[1], LoRA(rank=1, roles=("q",)), host={"q": "attention.self.query"})
    assert all(p.requires_grad for handle in (first, second) for p in handle.parameters())


@pytest.mark.parametrize("spec", [LoRA(rank=2), LoRA(rank=2) + BitFit()])
def test_the_fingerprint_of_the_whole_is_of_the_backbone(spec: deltas.Delta, tmp_path: Path) -> None:
    """Whatever the delta of a part has done: acting, merged, off."""
    model = backbone("bert")
    want = fingerprint(model)
    handle = deltas.attach(model.bert, spec)
    nudge(handle)
    assert fingerprint(model) == want
    handle.merge()
    assert fingerprint(model) == want
    handle.unmerge()
    with handle.disable():
        assert fingerprint(model) == want
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[0, 0] += 1
    assert fingerprint(model) != want


def test_checks_want_a_plain_model() -> None:
    model = backbone("bert")
    handle = deltas.attach(model.bert, LoRA(rank=1), name="inner")
    with pytest.raises(DeltaError, match=r"\(inner\).*detach"):
        deltas.check(model, LoRA(rank=1), inputs("bert"))
    want = result(model, "bert")
    handle.detach()
    assert deltas.check(model, LoRA(rank=1), inputs("bert"))
    handle.attach()
    torch.testing.assert_close(result(model, "bert"), want)


def test_two_models_that_share_a_part_have_no_deltas_at_once() -> None:
    one, other = backbone("bert"), backbone("bert")
    other.bert = one.bert
    handle = deltas.attach(one, LoRA(rank=1), name="one")
    trained = [p.requires_grad for p in one.parameters()]
    with pytest.raises(DeltaError, match=r"bert.*is a part of another model too, which has the delta 'one'"):
        deltas.attach(other, LoRA(rank=1), name="two")
    assert [p.requires_grad for p in one.parameters()] == trained and all(p.requires_grad for p in handle.parameters())
    deltas.attach(one, BitFit(), name="two", heads=())  # its own second delta
    for known in list(deltas.handles(one).values()):
        known.detach()
    deltas.attach(other, LoRA(rank=1), name="two")
