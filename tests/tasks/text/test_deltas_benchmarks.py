"""Benchmarks of deltas: what each cell is made of, and what the result file says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import common, deltas_transfer

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
