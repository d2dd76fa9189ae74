"""Deltas in files: what is written, and every file that must be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import deltas
from deltas import Adapter, BitFit, DeltaError, LNTuning, LoRA, PrefixTuning
from deltas.storage import fingerprint
from lorentz.hf import LorentzConfig, LorentzForSequenceClassification

from .backbones import backbone, nudge, result, state
from .models import batch, build


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA(rank=2) + BitFit(), name="mine")
    nudge(handle)
    handle.save(tmp_path / "delta")
    return tmp_path / "delta"


def refuse(folder: Path, match: str, name: str = "bert", **options: Any) -> None:
    model = backbone(name)
    before = state(model)
    with pytest.raises(DeltaError, match=match):
        deltas.load(model, folder, **options)
    assert not deltas.handles(model)
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


def test_document(stored: Path) -> None:
    document = json.loads((stored / "delta.json").read_text())
    assert document["schema"] == 1 and document["geometry"] == "euclidean" and document["k"] is None
    assert [entry["method"] for entry in document["methods"]] == ["LoRA", "BitFit"]
    assert document["methods"][0]["config"]["rank"] == 2
    assert document["heads"] == ["classifier"] and document["dtype"] == "float32"
    assert document["backbone_sha256"] == fingerprint(backbone("bert"), heads=("classifier",), derived=False)
    assert sorted(p.name for p in stored.iterdir()) == ["delta.json", "delta.safetensors"]


def test_round_trip_and_name(stored: Path) -> None:
    model = backbone("bert")
    handle = deltas.load(model, stored)
    assert handle.name == "mine"
    handle.save(stored.parent / "again")
    first, second = load_file(stored / "delta.safetensors"), load_file(stored.parent / "again" / "delta.safetensors")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    assert deltas.load(backbone("bert"), stored, name="other").name == "other"


def test_a_disabled_delta_is_stored_as_it_was(tmp_path: Path) -> None:
    model = backbone("bert")
    handle = deltas.attach(model, BitFit())
    nudge(handle)
    want = result(model, "bert")
    handle.disable()
    handle.save(tmp_path / "d")
    handle.detach()
    deltas.load(model, tmp_path / "d")
    torch.testing.assert_close(result(model, "bert"), want)


def test_the_fingerprint_is_of_the_backbone_alone() -> None:
    model = backbone("bert")
    want = fingerprint(model, heads=("classifier",))
    handle = deltas.attach(model, LoRA(rank=2) + BitFit())
    nudge(handle)
    assert fingerprint(model, heads=("classifier",)) == want
    handle.merge()
    assert fingerprint(model, heads=("classifier",)) == want
    handle.unmerge()
    handle.disable()
    assert fingerprint(model, heads=("classifier",)) == want
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert fingerprint(model, heads=("classifier",)) != want


def test_another_backbone(stored: Path) -> None:
    model = backbone("bert")
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    with pytest.raises(DeltaError, match=r"another backbone .* force=True"):
        deltas.load(model, stored)
    assert not deltas.handles(model)
    deltas.load(model, stored, force=True)


def test_another_architecture(stored: Path) -> None:
    refuse(stored, "fit this model|has the shape|geometry|backbone, this one", name="lorentz", force=True)
    refuse(stored, "unknown head", name="gpt2", force=True)


def test_broken_files(stored: Path) -> None:
    data = (stored / "delta.safetensors").read_bytes()
    (stored / "delta.safetensors").write_bytes(data[: len(data) // 2])
    refuse(stored, "broken or cut off")
    (stored / "delta.safetensors").write_bytes(b"")
    refuse(stored, "broken or cut off")
    (stored / "delta.safetensors").write_bytes(data)
    text = (stored / "delta.json").read_text()
    (stored / "delta.json").write_text(text[:40])
    refuse(stored, "delta.json is broken")
    (stored / "delta.json").write_text("[1]")
    refuse(stored, "not written by hyrel")
    (stored / "delta.json").write_text(text.replace('"schema": 1', '"schema": 99'))
    refuse(stored, "update hyrel")
    (stored / "delta.json").write_text(text.replace('"LoRA"', '"LoRa"'))
    refuse(stored, "Did you mean 'LoRA'")
    (stored / "delta.json").write_text(text.replace('"rank"', '"rnk"'))
    refuse(stored, "no option 'rnk'")


def test_missing_files(stored: Path) -> None:
    refuse(stored / "nowhere", "no delta.json")
    (stored / "delta.safetensors").unlink()
    refuse(stored, "no delta.safetensors")
    (stored / "delta.json").unlink()
    (stored / "adapter_config.json").write_text("{}")
    refuse(stored, "from_peft")


def test_tensors_that_do_not_fit(stored: Path) -> None:
    tensors = load_file(stored / "delta.safetensors")
    key = next(k for k in tensors if k.endswith(":A"))
    save_file({k: v for k, v in tensors.items() if k != key}, stored / "delta.safetensors")
    refuse(stored, "lacks bert.encoder")
    save_file({**tensors, "foreign": torch.zeros(1)}, stored / "delta.safetensors")
    refuse(stored, "beyond it foreign")
    save_file({**tensors, key: torch.zeros(1, 1)}, stored / "delta.safetensors")
    refuse(stored, "has the shape")


@pytest.mark.parametrize("name", ["bert", "lorentz"])
def test_size(name: str, tmp_path: Path) -> None:
    """No more than the numbers: shared parameters are stored once."""
    handle = deltas.attach(backbone(name), Adapter(bottleneck=16) + PrefixTuning(length=8, hidden=16), heads=[])
    handle.save(tmp_path)
    header = int.from_bytes((tmp_path / "delta.safetensors").read_bytes()[:8], "little")
    assert (tmp_path / "delta.safetensors").stat().st_size == 8 + header + 4 * handle.count()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    handle = deltas.attach(backbone("bert"), LoRA(rank=1))
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        for write in (handle.save, lambda to: deltas.to_peft(handle, to)):
            with pytest.raises(DeltaError, match="is a file or below one"):
                write(folder)
    assert (tmp_path / "file").read_text() == "kept"


def test_another_geometry_is_refused_whatever_is_forced(stored: Path) -> None:
    refuse(stored, "is of a euclidean backbone, this one is lorentz", name="lorentz", force=True)


def curved(k: float, **more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 9,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 17,
        "vocab_size": 20,
    }
    return LorentzForSequenceClassification(LorentzConfig(k=k, **sizes, **more)).eval()


def test_another_k_is_refused_unless_forced(tmp_path: Path) -> None:
    deltas.attach(curved(1.0), LoRA(rank=2)).save(tmp_path)
    model = curved(4.0)
    with pytest.raises(DeltaError, match=r"k = 1, this one has k = 4.*force=True"):
        deltas.load(model, tmp_path)
    assert not deltas.handles(model)
    deltas.load(model, tmp_path, force=True)
    deltas.load(curved(1.0), tmp_path)
    document = json.loads((tmp_path / "delta.json").read_text())
    del document["k"]  # a file that says nothing
    (tmp_path / "delta.json").write_text(json.dumps(document))
    deltas.load(curved(4.0), tmp_path)


@pytest.mark.parametrize("off", [False, True])
def test_a_k_that_the_delta_trains_is_none_of_another_backbone(off: bool, tmp_path: Path) -> None:
    def learnable() -> Any:
        return curved(2.0, learnable_k=True)

    handle = deltas.attach(learnable(), LNTuning(scalars=True))
    nudge(handle, 0.5)
    if off:
        handle.disable()
    handle.save(tmp_path)
    deltas.load(learnable(), tmp_path)


def test_buffers_that_no_checkpoint_stores_do_not_make_another_backbone(tmp_path: Path) -> None:
    """As the frequencies of rotary positions, which a long input changes."""
    model = backbone("bert")
    model.register_buffer("derived", torch.zeros(3), persistent=False)
    handle = deltas.attach(model, LoRA(rank=2))
    handle.save(tmp_path)
    handle.detach()
    old = fingerprint(model, heads=("classifier",))
    assert old != fingerprint(model, heads=("classifier",), derived=False)
    with torch.no_grad():
        model.derived.add_(1)
    deltas.load(model, tmp_path).detach()
    document = json.loads((tmp_path / "delta.json").read_text())
    (tmp_path / "delta.json").write_text(json.dumps({**document, "backbone_sha256": old}))  # of an earlier version
    with torch.no_grad():
        model.derived.sub_(1)
    deltas.load(model, tmp_path)


def test_a_backbone_that_was_cast_is_said_to_be(stored: Path) -> None:
    model = backbone("bert").to(torch.bfloat16)
    with pytest.raises(DeltaError, match=r"in float32 and this one is in bfloat16.*Load .* in float32"):
        deltas.load(model, stored)
    deltas.load(model, stored, force=True)


def test_a_vector_is_counted_from_the_stored_start_or_not_at_all(tmp_path: Path) -> None:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA(rank=2))
    nudge(handle)
    vector = handle.flatten()
    handle.save(tmp_path / "with", start=True)
    handle.save(tmp_path / "without")
    fresh = deltas.load(backbone("bert"), tmp_path / "with")
    torch.testing.assert_close(fresh.flatten(), vector, rtol=0, atol=0)
    fresh = deltas.load(backbone("bert"), tmp_path / "without")
    for use in (fresh.flatten, fresh.start, lambda: fresh.unflatten(vector), lambda: fresh.applied(vector).__enter__()):
        with pytest.raises(DeltaError, match=r"no start.*save\(folder, start=True\)"):
            use()
    with pytest.raises(DeltaError, match="not known"):
        fresh.save(tmp_path / "again", start=True)
    fresh.restart()
    assert not fresh.flatten().any()
    handle.save(tmp_path / "with")  # an earlier start does not stay beside another delta
    assert not (tmp_path / "with" / "start.safetensors").exists()


def test_a_start_of_another_delta_is_refused(tmp_path: Path) -> None:
    for rank in (1, 2):
        handle = deltas.attach(backbone("bert"), LoRA(rank=rank))
        handle.save(tmp_path / str(rank), start=True)
    (tmp_path / "1" / "start.safetensors").replace(tmp_path / "2" / "start.safetensors")
    model = backbone("bert")
    with pytest.raises(DeltaError, match="start of another delta"):
        deltas.load(model, tmp_path / "2")
    assert not deltas.handles(model)


def test_a_trained_head_that_is_tied_to_the_backbone_comes_back(tmp_path: Path) -> None:
    model = build("llama", tie_word_embeddings=True)
    handle = deltas.attach(model, LoRA(rank=1), heads=("lm_head",))
    nudge(handle)
    expected = model(**batch("llama")).logits
    handle.save(tmp_path)
    fresh = build("llama", tie_word_embeddings=True)
    deltas.load(fresh, tmp_path)
    assert torch.equal(fresh(**batch("llama")).logits, expected)
    with pytest.raises(DeltaError, match="another backbone"):
        deltas.load(build("llama", tie_word_embeddings=True, seed=1), tmp_path)
