"""Benchmarks of deltas: what each cell is made of, and what the result file says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks import common, deltas_compare, deltas_grid, deltas_sizes, deltas_transfer
from tasks.compare_deltas.command import Row, _overrides
from tasks.compare_deltas.config import CompareConfig
from tasks.compare_deltas.methods import Method
from tasks.text.backbone import load_backbone, load_tokenizer
from tasks.text.config import ModelConfig

from .conftest import toy_rows, write_toy


def written(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, module: Any, *words: str) -> dict[str, Any]:
    """Run a benchmark with its results in a folder; what it wrote."""
    monkeypatch.setattr(common, "RESULTS", folder)
    monkeypatch.setattr(sys, "argv", [name, *words])
    module.main()
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def value(document: dict[str, Any], *parts: str) -> Any:
    (row,) = [row for row in document["rows"] if all(part in row["what"] for part in parts)]
    return row


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Two sets of the same labels and one of others."""
    found = [write_toy(tmp_path / "one"), write_toy(tmp_path / "two"), tmp_path / "three"]
    found[2].mkdir()
    for split, count in (("train", 160), ("valid", 40), ("test", 60)):
        rows = [row.replace("\tpos", "\tup").replace("\tneg", "\tdown") for row in toy_rows(count, count)]
        (found[2] / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return found


def test_transfer(sets: list[Path], tmp_path: Path, backbones: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell starts from A's delta of the same seed, zero-shot needs equal labels, and ratios are those of the runs."""
    options = {"model": backbones["twin"], "data": ",".join(map(str, sets)), "seeds": "3", "steps": "8"}
    words = [part for key, word in options.items() for part in (f"--{key}", word)]
    words += ["--runs", str(tmp_path / "runs"), "--max-train", "100", "--max-length", "32"]
    found = written(monkeypatch, tmp_path, "deltas_transfer_LoRA", deltas_transfer, *words)
    runs = [path.parent for path in (tmp_path / "runs").rglob("result.json")]
    assert len(runs) == 3 + 3 + 3 + 6 + 6 and found["machine"]["threads"] == 1
    configs = {path: yaml.safe_load((path / "config.yaml").read_text()) for path in runs}
    started = {path: config for path, config in configs.items() if config["delta"].get("start")}
    assert len(started) == 6 + 6
    for path, config in started.items():
        source = configs[Path(config["delta"]["start"])]
        assert source["delta"]["name"] == "LoRA" and source["data"] != config["data"]
        assert source["seed"] == config["seed"] and source["train"] == config["train"] | {"lr": 1e-3}
        assert config["tuning"] in ("head", "delta") and config["model"] == source["model"], path
    twin = Path(backbones["twin"]).name
    shots = [row["what"] for row in found["rows"] if "delta and head as they are: test" in row["what"]]
    assert shots == [
        f"{twin}, LoRA, {pair}, delta and head as they are: test accuracy" for pair in ("two to one", "one to two")
    ]
    frozen = value(found, "one to two, delta as it is, new head: test")
    scores = [
        json.loads((path / "result.json").read_text())["metrics"]["test"]["accuracy"]
        for path, config in started.items()
        if config["tuning"] == "head"
        and (Path(configs[Path(config["delta"]["start"])]["data"]).name, Path(config["data"]).name) == ("one", "two")
    ]
    assert len(scores) == 1 and frozen["value"] == pytest.approx(scores[0], abs=1e-4)
    assert "no delta" in (tmp_path / "runs" / "deltas_transfer_LoRA.svg").read_text()


def test_ratios_and_what_is_left_out() -> None:
    """By hand: a task at chance is named and left out of the means."""
    scores: deltas_transfer.Scores = {}
    for b, own in (("x", 0.9), ("y", 0.8), ("z", 0.51)):
        scores["m", "own delta", None, b], scores["m", "majority", None, b] = [own, own], [0.5, 0.5]
        scores["m", "head alone", None, b] = [0.6, 0.6]
        for a in "xyz":
            if a != b:
                scores["m", "frozen", a, b], scores["m", "warm", a, b] = [0.7, 0.7], [own, own + 0.02]
    about = {name: ("accuracy", 1000) for name in "xyz"}
    assert deltas_transfer.counted(scores, about, "m") == ["x", "y"]
    rows = deltas_transfer.entries(scores, about, "LoRA")
    table = {row["what"]: row for row in rows}
    assert table["m, LoRA: sets left out, own delta not above chance by two errors"]["value"] == "z"
    means = {key.split(", ", 3)[-1]: row["value"] for key, row in table.items() if "mean over" in key}
    assert means["delta as it is, new head: (s - chance) / (own - chance)"] == pytest.approx(
        (0.2 / 0.4 + 0.2 / 0.3) / 2, abs=1e-4
    )
    assert means["head alone: s / own"] == pytest.approx((0.6 / 0.9 + 0.6 / 0.8) / 2, abs=1e-4)
    cell = table["m, LoRA, x to y, delta as it is, new head: test accuracy"]
    assert (cell["relative"], cell["corrected"]) == (0.875, pytest.approx(0.6667))
    assert "corrected" not in table["m, LoRA, x to z, delta as it is, new head: test accuracy"]
    paired = [row for row in rows if "less fresh start" in row["what"]]
    assert len(paired) == 6 and all(
        row["value"] == pytest.approx(0.01) and "no difference" in row["what"] for row in paired
    )
    svg = deltas_transfer.figure(scores, about)
    assert svg.count(">0.50<") == 2 and svg.count(">0.67<") == 2 and "<image" not in svg


def test_first_layers_are_those_of_the_whole(backbones: dict[str, str], tmp_path: Path) -> None:
    """The states are the whole model's after its first layer, under the same tokenizer; a finished folder stays."""
    folder = deltas_sizes.first_layers(backbones["bert"], 1, tmp_path / "one")
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert deltas_sizes.first_layers(backbones["bert"], 1, folder) == folder
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    batch = load_tokenizer(str(folder))(["the film is good", "bad"], padding=True, return_tensors="pt")
    assert torch.equal(
        batch["input_ids"],
        load_tokenizer(backbones["bert"])(["the film is good", "bad"], padding=True, return_tensors="pt")["input_ids"],
    )
    cut, whole = (load_backbone(ModelConfig(name=name)).eval() for name in (str(folder), backbones["bert"]))
    with torch.no_grad():
        states = whole(**batch, output_hidden_states=True).hidden_states
        torch.testing.assert_close(cut(**batch).last_hidden_state, states[1], rtol=0, atol=0)
    assert len(states) == 3 and cut.config.num_hidden_layers == 1


def test_methods_less_full_are_paired_by_backbone() -> None:
    def made(model: str, method: str, *scores: float) -> Row:
        return Row(model, "S", Method(method, 1), "accuracy", scores, 1e-3, None)

    rows = [made("a", "full", 0.7, 0.8, 0.9), made("b/c", "full", 0.9, 0.9, 0.9)]
    rows += [
        made("a", "LoRA", 0.6, 0.72, 0.78),
        made("b/c", "LoRA", 0.9, 0.91, 0.92),
        made("a", "BitFit", 0.71, 0.79, 0.9),
    ]
    found = {row["what"]: row for row in deltas_sizes.less_full(rows)}
    assert [what.split(":")[0] for what in found] == [
        "a, S, LoRA less full",
        "c, S, LoRA less full",
        "a, S, BitFit less full",
    ]
    first, second, _ = found.values()
    assert first["value"] == pytest.approx(-0.1) and first["relative"] == 0.875
    assert (
        second["value"] == pytest.approx(0.01) and second["holm_p"] == second["p"] and "no difference" in second["what"]
    )


def test_the_grid_has_options_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol's: other defaults of the comparison do not touch them."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(deltas_grid, "compare_deltas", lambda **options: asked.update(options) or [])
    monkeypatch.setattr(deltas_grid, "save", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["deltas_grid", "--part", "rest"])
    deltas_grid.main()
    config = CompareConfig(
        **{key: value for key, value in asked.items() if key not in ("seeds", "runs", "say", "rates")}
    )
    assert _overrides(config, Method("LoRA", 1), "m", "S") == {
        "data": "S",
        "max_train": 2000,
        "max_eval": None,
        "max_length": 64,
        "head_lr": 1e-2,
        "group_by_length": True,
        "model": {"name": "m"},
        "delta": {"name": "LoRA", "options": {}},
        "train": {"max_steps": 300, "eval_steps": 100, "batch_size": 32, "lr": 1e-3, "threads": 1},
    }


def test_the_time_of_a_comparison(
    toy: Path,
    backbones: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ["--model", backbones["bert"], "--data", str(toy), "--runs", str(tmp_path / "runs")]
    words += ["--", "--deltas", "LoRA", "--steps", "2", "--max-length", "16", "--costs", "false"]
    found = written(monkeypatch, tmp_path, "deltas_compare", deltas_compare, *words)
    times = [row["value"] for row in found["rows"]]
    assert [row["met"] for row in found["rows"]] == [True, True, None, None]
    assert 0 < times[2] + times[3] < times[0] and times[1] > 0 and "5 rows" in found["rows"][0]["what"]
    with pytest.raises(SystemExit, match="empty folder"):
        written(monkeypatch, tmp_path, "deltas_compare", deltas_compare, *words)
