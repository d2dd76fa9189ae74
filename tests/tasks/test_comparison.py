"""Finished runs side by side: which way a metric is better, edited configurations, folders of other programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks
from tasks.comparison import _sign
from tasks.errors import UsageError
from tasks.folder import RunFolder

TRAIN = {"epochs": 2, "batch_size": 16, "eval_every": 1, "lr": 0.02}


def start(graph: Path, out: Path, **overrides: Any) -> tasks.Result:
    options: dict[str, Any] = {"quiet": True, "train": TRAIN, **overrides}
    return tasks.run("kg", data=str(graph), out=out, **{"model": {"dim": 6}, "negatives": {"count": 8}, **options})


@pytest.mark.parametrize(
    ("metric", "sign"),
    [
        *(
            (name, -1)
            for name in ("cross_entropy", "perplexity", "nll", "nll_head", "mean_rank", "error", "last_error")
        ),
        *((name, -1) for name in ("distortion", "kl_stderr_median", "loss")),
        *(
            (name, 1)
            for name in ("mrr", "hits@10", "accuracy", "f1", "mcc", "uuas", "bleu", "cosine", "roc_auc", "map")
        ),
    ],
)
def test_every_metric_has_a_direction(metric: str, sign: int) -> None:
    assert _sign(metric) == sign


def test_an_edited_configuration_does_not_lend_its_name_to_a_result(small_graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    start(small_graph, out)
    start(small_graph, tmp_path / "runs" / "b", seed=1)
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.02", "lr: 0.5"))
    with pytest.raises(UsageError, match="was changed since the run finished"):
        tasks.resume(out, quiet=True)
    with pytest.raises(UsageError, match="was changed since the run finished"):
        tasks.run("kg", recipe=config, out=out, quiet=True)
    table = tasks.compare(tmp_path / "runs")
    assert len(table.rows) == 1 and table.rows[0][3] == 1
    assert any("was changed after the run" in warning for warning in table.warnings)


def test_configurations_of_other_programs_are_passed_by(small_graph: Path, tmp_path: Path) -> None:
    start(small_graph, tmp_path / "runs" / "a")
    other = tmp_path / "runs" / "other"
    other.mkdir()
    (other / "config.yaml").write_text("[1, 2")
    table = tasks.compare(tmp_path / "runs", by=("data", " model"))
    assert len(table.rows) == 1
    numbers = table.render("csv").splitlines()[1].split(",")
    assert float(numbers[4]) == table.rows[0][4] and numbers[-1] == ""  # the best of one is none
    assert f"{table.rows[0][4]:.4f} " in table.render("text")


def test_seeds_are_missing_of_their_own_data_and_a_star_needs_rows_to_compare(
    small_graph: Path, tmp_path: Path
) -> None:
    other = tmp_path / "others"
    shutil.copytree(small_graph, other)
    runs, short = tmp_path / "runs", {"train": {**TRAIN, "epochs": 2}}
    for seed in (0, 1):
        tasks.run("kg", data=str(small_graph), seed=seed, runs=runs, quiet=True, **short)
    tasks.run("kg", data=str(small_graph), seed=0, runs=runs, quiet=True, model={"dim": 5}, **short)
    tasks.run("kg", data=str(other), seed=3, runs=runs, quiet=True, **short)
    table = tasks.compare(runs, by=("data", "model.dim"))
    missing = {(row[0], row[1]): row[-1] for row in table.rows}
    assert [missing[key] for key in sorted(missing)] == ["", "1", ""] and len(table.best) == 1
    assert {table.rows[place][0] for place in table.best} == {small_graph.name}
    with (other / "train.txt").open("a") as stream:
        stream.write("n1\tnext\tn3\n")
    tasks.run("kg", data=str(other), seed=3, runs=runs, quiet=True, model={"dim": 5}, **short)
    table = tasks.compare(runs, by=("data", "model.dim"))
    assert any(f"runs on {other.name} used 2 different contents" in warning for warning in table.warnings)
    assert {table.rows[place][0] for place in table.best} == {small_graph.name}


def test_a_damaged_newest_checkpoint_leaves_the_one_before_it(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "prune", lambda *_: None)  # as between writing a checkpoint and deleting the last
    options = {"train": {**TRAIN, "epochs": 4}}
    whole = start(small_graph, tmp_path / "whole", **options)
    out = tmp_path / "run"
    start(small_graph, out, **options)
    (out / "result.json").unlink()
    newest, *others = RunFolder(out).checkpoints()
    assert others
    (newest / "model.safetensors").write_bytes(b"")
    assert start(small_graph, out, **options).metrics == whole.metrics


def test_what_accelerate_reads_from_the_environment_changes_nothing(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = start(small_graph, tmp_path / "a").metrics
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert start(small_graph, tmp_path / "b").metrics == before


def test_python_takes_what_the_command_line_takes(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(small_graph, tmp_path / "a", model={"scorer": "distmult", "dim": np.int64(6)}, seed=np.int64(1))
    again = start(small_graph, tmp_path / "a", model={"scorer": "distmult", "dim": 6}, seed=1)
    assert first.values == again.values
    monkeypatch.chdir(small_graph.parent)
    found = tasks.run("kg", data=Path(small_graph.name), model="distmult", train=TRAIN, runs=tmp_path / "r", quiet=True)
    assert found.values["data"]["name"] == small_graph.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: {model: {dim: 8}}\ntrain: {epochs: 1}\n", "train stands beside `config`"),
        ("config: {model: {dim: 8, dim: 9}}\n", "dim stands there twice"),
        ("config: {}\npublished: 3\n", "`published` is a int, expected a list"),
    ],
)
def test_recipes_drop_nothing_silently(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        tasks.run("kg", recipe=tmp_path / "r.yaml", runs=tmp_path)
