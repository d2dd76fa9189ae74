"""The comparison of delta methods, on a toy set and tiny backbones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from scipy.stats import t

import deltas
from tasks.cli import main
from tasks.compare_deltas.command import compare_deltas
from tasks.compare_deltas.methods import methods
from tasks.errors import UsageError
from tasks.text.backbone import load_backbone
from tasks.text.config import ModelConfig

SMALL: dict[str, Any] = {"steps": 30, "batch_size": 16, "max_length": 12, "costs": False, "max_train": 100}


def test_rows_are_the_runs(toy: Path, backbones: dict[str, str], tmp_path: Path) -> None:
    """Scores, means and intervals are those of the run folders, for both geometries; a second call trains nothing."""
    lines: list[str] = []
    options = {
        **SMALL,
        "model": f"{backbones['lorentz']},{backbones['twin']}",
        "data": str(toy),
        "deltas": "LoRA,BitFit",
        "steps": 6,
    }
    rows = compare_deltas(seeds=[0, 1], runs=tmp_path / "runs", say=lines.append, **options)
    assert [row.method.name for row in rows] == ["majority", "tfidf", "head", "full", "LoRA", "BitFit"] * 2
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("result.json")]
    assert len(found) == 2 * 2 + 8 * 2  # the baselines know no backbone and are run once
    for row in rows:
        assert mean(row.scores) == pytest.approx(row.mean)
        assert row.half == pytest.approx(t.ppf(0.975, 1) * stdev(row.scores) / 2**0.5)
        assert all(any(score == result["metrics"]["test"]["accuracy"] for result in found) for score in row.scores)
    assert next(row for row in rows if row.method.name == "majority").mean == 0.5
    (folder,) = (tmp_path / "runs").glob("compare-deltas-*")
    with (folder / "compare-deltas.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["score"]) for line in table] == [round(row.mean, 4) for row in rows]
    assert (folder / "compare-deltas.svg").read_text().count(">LoRA<") == 2
    assert "LoRA" in (folder / "compare-deltas.html").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    again = compare_deltas(seeds=[0, 1], runs=tmp_path / "runs", **options)
    assert [row.scores for row in again] == [row.scores for row in rows]
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}


def test_counts_and_budget(backbones: dict[str, str]) -> None:
    from tasks.compare_deltas.config import CompareConfig

    model = load_backbone(ModelConfig(name=backbones["bert"]))
    config = CompareConfig(deltas="LoRA,Adapter,BitFit", budget=1200)
    for method in methods(config, backbones["bert"])[4:]:
        count = deltas.plan(model, deltas.parse(method.name, method.options)).parameters
        assert method.parameters == count
        off = abs(count / 1200 - 1)
        assert (off <= 0.01) == (method.note == ""), method


def test_learning_rates_are_chosen_on_validation_of_another_seed(
    toy: Path, backbones: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.compare_deltas import command

    calls: list[tuple[int, float]] = []
    real = command.run

    def spy(task: str, **options: Any) -> Any:
        result = real(task, **options)
        if options.get("delta"):
            calls.append((options["seed"], options["train"]["lr"]))
        return result

    monkeypatch.setattr(command, "run", spy)
    options = {**SMALL, "model": backbones["bert"], "data": str(toy), "deltas": "LoRA", "lr_factors": "1e-6,10"}
    rows = compare_deltas(seeds=[3], runs=tmp_path, **options)
    assert rows[-1].lr == pytest.approx(1e-2)
    assert calls == [(1000, pytest.approx(1e-9)), (1000, pytest.approx(1e-2)), (3, pytest.approx(1e-2))]
    calls.clear()  # one factor leaves nothing to choose
    rows = compare_deltas(seeds=[4], runs=tmp_path, **{**options, "lr_factors": "10"})
    assert rows[-1].lr == pytest.approx(1e-2)
    assert calls == [(4, pytest.approx(1e-2))]


def test_costs(toy: Path, backbones: dict[str, str], tmp_path: Path) -> None:
    options = {**SMALL, "model": backbones["bert"], "data": str(toy), "deltas": "LoRA", "costs": True, "steps": 2}
    row = compare_deltas(runs=tmp_path, **options)[-1]
    assert row.cost is not None and row.cost.step is not None and row.cost.step > 0
    assert row.cost.size is not None and row.cost.size > 4 * (row.method.parameters or 0)
    assert row.cost.peak is not None and 0 < row.cost.peak < 4096


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--deltas", "LoRa"], "Did you mean 'LoRA'"),
        (["--deltas", "LoRA,,"], "names by commas"),
        (["--deltas", "LoRA,BitFit, LoRA"], "--deltas names LoRA twice"),
        (["--model", "minilm,minilm"], "--model names minilm twice"),
        (["--lr_factors", "1,x"], "numbers by commas"),
        (["--budget", "3"], "the budget is 3"),
        (["--model", "minilmm"], "minilm"),
        (["--model", "{bert},tfidf"], "stands in every comparison"),
        (["--data", "{toy},{toy}s"], "toys"),
        (["--data", "{toy},./x/toy"], "two sets are called toy"),
        (["--data", "{toy},taxonomy"], "taxonomy"),
        (["--stpes", "3"], "Did you mean 'steps'"),
        (["--out", "x"], "takes --runs"),
    ],
)
def test_mistakes(
    options: list[str],
    message: str,
    toy: Path,
    backbones: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"model": backbones["bert"], "data": str(toy), "runs": str(tmp_path / "runs")}
    words = [word for name, value in given.items() for word in (f"--{name}", value) if f"--{name}" not in options]
    options = [word.format(bert=backbones["bert"], toy=toy) for word in options]
    assert main(["run", "compare-deltas", *words, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()  # said before anything is trained


def test_tables_of_two_comparisons_stand_side_by_side(toy: Path, backbones: dict[str, str], tmp_path: Path) -> None:
    for method in ("LoRA", "BitFit"):
        compare_deltas(
            runs=tmp_path, **{**SMALL, "model": backbones["bert"], "data": str(toy), "deltas": method, "steps": 2}
        )
    tables = [path.read_text() for path in tmp_path.glob("compare-deltas-*/compare-deltas.csv")]
    assert len(tables) == 2 and ("LoRA" in tables[0]) != ("LoRA" in tables[1])


def test_a_method_that_one_of_two_backbones_cannot_take(backbones: dict[str, str]) -> None:
    from tasks.compare_deltas.config import CompareConfig

    both = CompareConfig(model=f"{backbones['lorentz']},{backbones['twin']}", deltas="HypLoRA,LoRA")
    left = {model: [m.name for m in methods(both, model) if m.note.startswith("left out")] for model in both.models}
    assert left == {backbones["lorentz"]: ["HypLoRA"], backbones["twin"]: []}
    with pytest.raises(UsageError, match="HypLoRA takes Euclidean features"):
        methods(CompareConfig(model=backbones["lorentz"], deltas="HypLoRA"), backbones["lorentz"])
    with pytest.raises(UsageError, match="Did you mean 'LoRA'"):
        methods(CompareConfig(model=both.model, deltas="LoRa"), backbones["lorentz"])


def test_all_methods(backbones: dict[str, str]) -> None:
    """``all`` leaves out what a backbone cannot take, and says why."""
    from tasks.compare_deltas.config import CompareConfig

    found = methods(CompareConfig(deltas="all"), backbones["lorentz"])
    assert {method.name for method in found} >= set(deltas.DELTAS) - {"FullFineTuning", "HeadOnly"}
    left = {method.name: method.note for method in found if method.note}
    assert "HypLoRA" in left and left["HypLoRA"].startswith("left out: ")
    with pytest.raises(UsageError, match="HypLoRA"):
        methods(CompareConfig(deltas="HypLoRA"), backbones["lorentz"])
