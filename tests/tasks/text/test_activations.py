"""Runs whose activations are held at a few bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tasks
from tasks.errors import UsageError
from tasks.runner import _Run

TRAIN = {"epochs": 8, "batch_size": 32, "lr": 1e-2, "eval_every": 4}


def start(toy: Path, out: Path, backbone: str, **train: Any) -> tasks.Result:
    options: dict[str, Any] = {"train": {**TRAIN, **train}, "head_lr": 3e-2, "max_length": 16}
    return tasks.run(
        "text", data=str(toy), out=out, quiet=True, checkpoint_seconds=0.0, model={"name": backbone}, **options
    )


@pytest.mark.parametrize("kind", ["bert", "lorentz"])
def test_a_run_learns_and_says_what_it_held(kind: str, toy: Path, tmp_path: Path, backbones: dict[str, str]) -> None:
    points = 8 if kind == "lorentz" else None
    result = start(toy, tmp_path / "out", backbones[kind], activation_bits=8, activation_points=points)
    assert result.metrics["test"]["accuracy"] > 0.7  # chance is 0.5
    held = result.values["activations"]
    assert held["bits"] == 8 and held["held_bytes"] < held["plain_bytes"] and held["ratio"] > 1.3
    assert start(toy, tmp_path / "plain", backbones[kind], epochs=1, eval_every=1).values["activations"] is None


def test_a_stopped_run_goes_on_to_the_same_bits(
    toy: Path, tmp_path: Path, backbones: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"activation_bits": 2, "epochs": 2, "eval_every": 1}
    whole = start(toy, tmp_path / "whole", backbones["bert"], **short)
    update = _Run.update

    def stopped(run: _Run) -> None:
        if run.steps == run.total * 5 // 8:
            raise KeyboardInterrupt
        update(run)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            start(toy, tmp_path / "out", backbones["bert"], **short)
    again = tasks.resume(tmp_path / "out", quiet=True)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    (again.folder / "result.json").unlink()  # as its own message advises where it is damaged
    assert tasks.resume(again.folder, quiet=True).values["activations"] == whole.values["activations"]
    other = start(toy, tmp_path / "other", backbones["bert"], **{**short, "activation_bits": 4})
    assert (other.folder / "model.safetensors").read_bytes() != (whole.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_bits": 3}, "--train.activation_bits is 8, 4, 2, 1 or null; got 3"),
        ({"activation_bits": 4, "activation_points": 4}, "--train.activation_points is 8 or null; got 4"),
        ({"activation_points": 8}, "acts with --train.activation_bits alone"),
    ],
)
def test_mistakes_are_named(
    options: dict[str, Any], message: str, toy: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=message):
        start(toy, tmp_path / "out", backbones["bert"], **options)
    assert not (tmp_path / "out").exists()
