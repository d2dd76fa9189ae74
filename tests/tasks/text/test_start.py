"""Runs of the text task that start from a stored delta: trained on, or kept as it is below a new head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import deltas
import tasks
from tasks.api import configure
from tasks.argv import regular
from tasks.config import config_hash, make_config, to_dict
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.runner import _Run
from tasks.text.backbone import load_backbone
from tasks.text.config import ModelConfig, TextConfig
from tasks.text.task import DELTA, TextTask

from .conftest import write_toy

TRAIN = {"max_steps": 12, "batch_size": 16, "lr": 1e-2, "eval_steps": 6}


def begin(toy: Path, runs: Path, backbone: str, **options: Any) -> tasks.Result:
    options = {"train": TRAIN, "head_lr": 3e-2, "max_length": 16, **options}
    return tasks.run("text", data=str(toy), runs=runs, quiet=True, model={"name": backbone}, **options)


def built(toy: Path, backbone: str, **options: Any) -> Any:
    options = {"data": str(toy), "max_length": 16, "model": {"name": backbone}, **options}
    task = TextTask(configure("text", overrides=options))
    return task.build(task.config, load(str(toy), kind="text"))


@pytest.fixture
def source(request: pytest.FixtureRequest, toy: Path, tmp_path: Path, backbones: dict[str, str]) -> tasks.Result:
    """A finished run with a delta on the toy set."""
    kind = getattr(request, "param", "bert")
    return begin(toy, tmp_path / "source", backbones[kind], delta={"name": "LoRA+BitFit", "rank": 2})


@pytest.mark.parametrize(("source", "kind"), [("bert", "bert"), ("lorentz", "lorentz")], indirect=["source"])
def test_the_head_alone_above_a_stored_delta(
    source: tasks.Result, kind: str, tmp_path: Path, backbones: dict[str, str]
) -> None:
    """The delta stays to the bit and decides the outputs; the folder of the run has all that is needed."""
    other = write_toy(tmp_path / "pairs", pairs=True)  # another kind of data: the head is another
    options = {"tuning": "head", "delta": {"start": str(source.folder)}}
    result = begin(other, tmp_path / "runs", backbones[kind], **options)
    stored, saved = (
        load_file(source.folder / "delta" / "delta.safetensors"),
        load_file(result.folder / "model.safetensors"),
    )
    backbone = load_backbone(ModelConfig(name=backbones[kind]))
    handle = deltas.load(backbone, source.folder / "delta")
    assert {key: torch.equal(value, stored[key]) for key, value in handle.values().items()} == dict.fromkeys(
        stored, True
    )
    kept = {name for name in saved if name.startswith("backbone.") and not name.endswith("_extra_state")}
    assert sum(saved[name].numel() for name in kept) == handle.count()
    for name, value in backbone.state_dict().items():
        if f"backbone.{name}" in kept:
            torch.testing.assert_close(saved[f"backbone.{name}"], value, rtol=0, atol=0)
    model = built(other, backbones[kind], **options)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith("head.")
    }
    assert result.values["params"]["trainable"] == sum(p.numel() for p in model.head.parameters())
    plain = begin(other, tmp_path / "runs", backbones[kind], tuning="head")
    assert plain.folder.parent != result.folder.parent and plain.metrics["test"] != result.metrics["test"]
    assert not any(m.training for m in model.train().backbone.modules())


def test_training_goes_on_from_a_stored_delta(
    source: tasks.Result, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    folder = str(source.folder / "delta")
    model = built(toy, backbones["bert"], delta={"start": folder})
    handle = deltas.handles(model.backbone)[DELTA]
    stored = load_file(Path(folder) / "delta.safetensors")
    assert all(torch.equal(value, stored[key]) for key, value in handle.values().items())
    assert {id(p) for p in model.backbone.parameters() if p.requires_grad} == {id(p) for p in handle.parameters()}
    result = begin(toy, tmp_path / "runs", backbones["bert"], delta={"name": "LoRA+BitFit", "start": folder})
    after = load_file(result.folder / "delta" / "delta.safetensors")
    assert after.keys() == stored.keys() and not any(torch.equal(after[key], stored[key]) for key in after)


def test_masks_are_those_of_the_stored_delta(toy: Path, tmp_path: Path, backbones: dict[str, str]) -> None:
    """They are not chosen anew by the gradients of another task."""
    first = begin(toy, tmp_path, backbones["bert"], delta="SparseAdapter", seed=1)
    model = built(toy, backbones["bert"], delta={"start": str(first.folder)})
    stored = load_file(first.folder / "delta" / "delta.safetensors")
    values = deltas.handles(model.backbone)[DELTA].values()
    assert all(torch.equal(values[key], value) for key, value in stored.items())


@pytest.mark.parametrize("tuning", ["head", None])
def test_a_stopped_run_goes_on_to_the_same_weights(
    tuning: str | None, source: tasks.Result, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    options: dict[str, Any] = {"tuning": tuning, "delta": {"start": str(source.folder)}}
    whole = begin(toy, tmp_path / "a", backbones["bert"], **options)
    update = _Run.update

    def stop(self: _Run) -> None:
        if self.steps == 7:
            self.checkpoint()
            raise KeyboardInterrupt
        update(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Run, "update", stop)
        begin(toy, tmp_path / "b", backbones["bert"], **options)
    (unfinished,) = (tmp_path / "b").glob("*/seed0")
    resumed = tasks.resume(unfinished, quiet=True)
    assert resumed.metrics == whole.metrics
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_what_does_not_fit_is_refused(
    source: tasks.Result, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    def refused(message: str, kind: str = "bert", **options: Any) -> None:
        with pytest.raises(UsageError, match=message):
            begin(toy, tmp_path / "runs", backbones[kind], **options)
        assert not (tmp_path / "runs").exists()

    folder = str(source.folder)
    other = r"--delta.start .* belongs to another backbone .*\. Load the model that it was trained on$"
    refused(other, kind="twin", delta={"start": folder})
    refused("--delta.start nowhere: no delta.json in nowhere", delta={"start": "nowhere"})
    refused(r"the stored delta is LoRA\+BitFit", delta={"name": "LoRA", "start": folder})
    refused("--delta.rank beside --delta.start", delta={"rank": 4, "start": folder})
    refused(r"--tuning full with --delta.start", tuning="full", delta={"start": folder})
    refused(r"--tuning head with --delta LoRA;", tuning="head", delta="LoRA")
    stored = source.folder / "delta" / "delta.safetensors"
    tensors = load_file(stored)
    save_file({key: value for key, value in list(tensors.items())[1:]}, stored)
    refused("does not fit this model", delta={"start": folder})
    document = json.loads((source.folder / "delta" / "delta.json").read_text())
    (source.folder / "delta" / "delta.json").write_text(json.dumps({**document, "schema": 99}))
    refused("update hyrel", delta={"start": folder})


def test_options() -> None:
    """On the command line and in files; runs without a start keep their hashes."""
    config = make_config(TextConfig, args=regular(["--delta.start", "runs/a", "--tuning", "head"]))
    assert (config.tuning, config.delta.start, config.delta.name) == ("head", "runs/a", None)
    assert make_config(TextConfig, overrides=to_dict(config)) == config
    assert make_config(TextConfig, args=["--delta.start", "runs/a"]).tuning == "delta"
    plain = to_dict(make_config(TextConfig, args=["--delta", "LoRA"]))
    assert plain["delta"] == {"name": "LoRA", "options": {}}
    assert "subspace" not in plain and "head" not in plain["model"]
    with pytest.raises(UsageError, match=r"--subspace and --delta\.start"):
        make_config(
            TextConfig,
            args=["--delta.start", "a", "--subspace.folder", "b", "--delta", "LoRA", "--model.head", "words"],
        )
    assert config_hash("text", to_dict(config)) != config_hash(
        "text", {**to_dict(config), "delta": {"start": "runs/b"}}
    )
