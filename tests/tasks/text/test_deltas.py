"""Deltas on the backbone of the text task: what is trained, kept and handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import deltas
import tasks
from tasks.api import configure
from tasks.argv import collect, regular
from tasks.config import make_config, to_dict
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.runner import _Run
from tasks.text.backbone import load_backbone
from tasks.text.config import ModelConfig, TextConfig
from tasks.text.task import DELTA, TextTask

TRAIN = {"epochs": 8, "batch_size": 16, "lr": 1e-2, "eval_every": 4}


def start(toy: Path, runs: Path, backbone: str, **options: Any) -> tasks.Result:
    options = {"train": TRAIN, "head_lr": 3e-2, "max_length": 16, **options}
    return tasks.run("text", data=str(toy), runs=runs, quiet=True, model={"name": backbone}, **options)


@pytest.mark.parametrize("kind", ["bert", "lorentz"])
@pytest.mark.parametrize("delta", ["LoRA", "LoRA+BitFit"])
def test_a_run_with_a_delta_learns_and_keeps_the_delta_and_the_head_only(
    kind: str, delta: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    result = start(toy, tmp_path / "runs", backbones[kind], delta={"name": delta, "rank": 4})
    assert result.metrics["test"]["accuracy"] > 0.7  # of a random backbone; chance is 0.5
    backbone = load_backbone(ModelConfig(name=backbones[kind]))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    handle = deltas.load(backbone, result.folder / "delta")
    trained = sum(p.numel() for p in handle.parameters())
    saved = load_file(result.folder / "model.safetensors")
    head = {name: value for name, value in saved.items() if name.startswith("head.")}
    kept = {
        name: value
        for name, value in saved.items()
        if name.startswith("backbone.") and not name.endswith("_extra_state")
    }
    assert sum(value.numel() for value in kept.values()) == trained
    assert sum(value.numel() for value in head.values()) < 200 and "backbone_sha256" in saved
    biases = [name for name in kept if name.removeprefix("backbone.") in before]
    assert all(name.endswith("bias") for name in biases) and bool(biases) == ("BitFit" in delta)
    heads = result.values["params"]["trainable"] - trained
    assert heads == sum(v.numel() for n, v in head.items() if n.split(".")[-1] not in ("mean", "scale", "_extra_state"))
    # the stored delta on a fresh backbone gives the test score of the run
    config = configure("text", overrides={k: v for k, v in result_config(result).items() if k != "task"})
    task, data = TextTask(config), load(str(toy), kind="text")
    model: Any = task.build(config, data)
    deltas.handles(model.backbone)[DELTA].detach()
    model.backbone = backbone
    model.head.load_state_dict({name.removeprefix("head."): value for name, value in head.items()})
    with torch.no_grad():
        assert task.evaluate(model.eval(), data, "test") == pytest.approx(result.metrics["test"])


def result_config(result: tasks.Result) -> dict[str, Any]:
    import yaml

    tree: dict[str, Any] = yaml.safe_load((result.folder / "config.yaml").read_text())
    return tree


def test_the_backbone_itself_is_not_moved(toy: Path, backbones: dict[str, str]) -> None:
    config = configure(
        "text", overrides={"data": str(toy), "model": {"name": backbones["bert"]}, "delta": "LoRA", "max_length": 16}
    )
    task, data = TextTask(config), load(str(toy), kind="text")
    model: Any = task.build(config, data).train()
    assert any(m.training for m in model.backbone.modules())  # its dropout acts, as in full fine-tuning
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for group in task.param_groups(model) for p in group["params"]], lr=0.1)
    for _ in range(2):
        task.step(model, task.train_batch(data, 0, 0, 0))[0].backward()
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.removeprefix("backbone.") in model.pretrained for name in moved)
    assert task.frozen(model) == {f"backbone.{name}" for name in model.pretrained}


@pytest.mark.parametrize("delta", deltas.DELTAS)
def test_every_method_trains_and_is_read_back(delta: str, toy: Path, tmp_path: Path, backbones: dict[str, str]) -> None:
    train = {"batch_size": 16, "lr": 1e-2, "max_steps": 2, "eval_steps": 1}
    result = start(toy, tmp_path / "runs", backbones["bert"], delta=delta, train=train)
    backbone = load_backbone(ModelConfig(name=backbones["bert"]))
    handle = deltas.load(backbone, result.folder / "delta")
    saved = load_file(result.folder / "model.safetensors")
    for name, value in backbone.state_dict().items():
        if f"backbone.{name}" in saved:
            torch.testing.assert_close(saved[f"backbone.{name}"], value, rtol=0, atol=0, msg=name)
    assert handle.spec.name == delta


@pytest.mark.parametrize("kind", ["bert", "lorentz"])
def test_a_stopped_run_with_a_delta_goes_on_to_the_same_weights(
    kind: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    options: dict[str, Any] = {"delta": "LoRA+BitFit", "train": {**TRAIN, "epochs": 2, "eval_every": 1}}
    whole = start(toy, tmp_path / "a", backbones[kind], **options)
    update = _Run.update

    def stop(self: _Run) -> None:
        if self.steps == 13:
            self.checkpoint()
            raise KeyboardInterrupt
        update(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Run, "update", stop)
        start(toy, tmp_path / "b", backbones[kind], **options)
    (unfinished,) = (tmp_path / "b").glob("*/seed0")
    resumed = tasks.resume(unfinished, quiet=True)
    assert resumed.metrics == whole.metrics
    for name in ("model.safetensors", "metrics.jsonl", "delta/delta.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        ("Lora", r"--delta Lora: unknown delta 'Lora'. Did you mean 'LoRA'"),
        ({"name": "LoRA", "rnak": 4}, r"--delta LoRA: LoRA has no option 'rnak'. Did you mean 'rank'"),
        ({"name": "LoRA", "rank": 0}, r"--delta LoRA: "),
    ],
)
def test_a_misspelt_delta_is_named(
    delta: Any, message: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=message):
        start(toy, tmp_path / "runs", backbones["bert"], delta=delta)


# Options


def test_options_of_a_delta_are_collected_wherever_they_come_from() -> None:
    words = regular(
        ["--delta", "LoRA+BitFit", "--delta.rank", "8", "--delta.roles=[q, v]", "--delta.LoRA.alpha", "1e-3"]
    )
    config = make_config(TextConfig, args=words)
    assert config.delta.name == "LoRA+BitFit" and config.tuning == "delta"
    assert config.delta.options == {"rank": 8, "roles": ["q", "v"], "LoRA.alpha": 1e-3}
    assert make_config(TextConfig, overrides=to_dict(config)) == config
    nested = {"delta": {"name": "LoRA+BitFit", "rank": 8, "roles": ["q", "v"], "LoRA.alpha": 1e-3}}
    assert make_config(TextConfig, overrides=nested) == config
    assert make_config(TextConfig, overrides={"delta": "LoRA"}, args=["--delta.rank", "2"]).delta.options == {"rank": 2}
    over = make_config(TextConfig, overrides={"delta": {"name": "LoRA", "rank": 4}}, args=["--delta.rank", "2"])
    assert over.delta.options == {"rank": 2}
    assert make_config(TextConfig, overrides={"delta": None}).tuning == "full"
    with pytest.raises(UsageError, match=r"--delta\.rank has no value"):
        make_config(TextConfig, args=["--delta", "LoRA", "--delta.rank", "--quiet"])
    with pytest.raises(UsageError, match=r"unknown option --dleta\.rank"):
        make_config(TextConfig, args=["--dleta.rank", "3"])


def test_words_of_other_sections_stay() -> None:
    words = ["--data", "a", "--delta.rank", "-3", "--delta.name", "LoRA", "--delta.x=", "--train.lr", "1"]
    rest, taken = collect(words, "delta", ["name"])
    assert rest == ["--data", "a", "--delta.name", "LoRA", "--train.lr", "1"] and taken == {"rank": "-3", "x": ""}
