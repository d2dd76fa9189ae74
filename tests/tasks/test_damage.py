"""Damaged, edited and misplaced files: one clear line each, and never a wrong result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tasks
from tasks.data.load import load
from tasks.errors import RunError, UsageError

from .children import killed_after_checkpoint

TRAIN = {"epochs": 4, "batch_size": 16, "eval_every": 2, "lr": 0.02}


def start(graph: Path, out: Path, **overrides: Any) -> tasks.Result:
    options: dict[str, Any] = {"quiet": True, "train": TRAIN, **overrides}
    return tasks.run("kg", data=str(graph), out=out, model={"dim": 6}, negatives={"count": 8}, **options)


@pytest.fixture
def halted(small_graph: Path, tmp_path: Path) -> Path:
    """A run folder whose run was killed after its first checkpoint."""
    out = tmp_path / "halted"
    killed_after_checkpoint(out, lambda: start(small_graph, out, checkpoint_seconds=0.0))
    return out


def newest(out: Path) -> Path:
    return out / "checkpoints" / (out / "checkpoints" / "latest").read_text()


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone", "noise"])
def test_a_damaged_checkpoint_says_so_and_how_to_go_on(name: str, damage: str, halted: Path) -> None:
    file = newest(halted) / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else bytes(range(256)))
    with pytest.raises(RunError, match=r"checkpoint .* is damaged .* delete .*checkpoints"):
        tasks.resume(halted, quiet=True)


@pytest.mark.parametrize("text", ["", "../../elsewhere", "step-99999999", "\xff"])
def test_a_pointer_to_no_checkpoint_is_refused(text: str, halted: Path) -> None:
    (halted / "checkpoints" / "latest").write_text(text)
    with pytest.raises(RunError, match="latest names no checkpoint"):
        tasks.resume(halted, quiet=True)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "task: [1]", "task: !!python/object:os.system {}", "\x00"])
def test_a_damaged_configuration_is_one_line(text: str, halted: Path) -> None:
    (halted / "config.yaml").write_text(text)
    for call in (lambda: tasks.resume(halted, quiet=True), lambda: tasks.compare([halted])):
        with pytest.raises(UsageError, match=r"config.yaml is damaged|no text"):
            call()


def test_an_edited_configuration_is_noticed(halted: Path) -> None:
    path = halted / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.02", "lr: 0.5"))
    with pytest.raises(UsageError, match=r"was changed since the run was started: train.lr: 0.02 -> 0.5"):
        tasks.resume(halted, quiet=True)


@pytest.mark.parametrize("text", ['{"a":', "{}", "[]"])
def test_a_damaged_result_is_one_line_and_can_be_written_again(text: str, small_graph: Path, tmp_path: Path) -> None:
    first = start(small_graph, tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text(text)
    for call in (lambda: tasks.resume(tmp_path / "run", quiet=True), lambda: tasks.compare([tmp_path / "run"])):
        with pytest.raises(RunError, match=r"result.json is damaged; delete it and resume"):
            call()
    (tmp_path / "run" / "result.json").unlink()
    assert tasks.resume(tmp_path / "run", quiet=True).metrics == first.metrics


def test_scores_that_are_not_finite_never_become_a_metric(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.kg.scorers import HyboNet

    real = HyboNet.score_columns
    monkeypatch.setattr(HyboNet, "score_columns", lambda *a: torch.full_like(real(*a), float("nan")))
    with pytest.raises(RunError, match="scores that are not finite"):
        start(small_graph, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_moving_triples_between_splits_changes_the_datas_hash(small_graph: Path) -> None:
    before = load(f"{small_graph}/").sha256
    train = (small_graph / "train.txt").read_text().splitlines(keepends=True)
    (small_graph / "train.txt").write_text("".join(train[:-1]))
    valid = (small_graph / "valid.txt").read_text()
    (small_graph / "valid.txt").write_text(train[-1] + valid)
    assert load(f"{small_graph}/").sha256 != before


def test_what_a_reader_must_know_of_the_data_is_said(
    small_graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = (small_graph / "train.txt").read_text().splitlines(keepends=True)
    (small_graph / "test.txt").write_text("new\tnext\tn1\nn1\tunseen\tn2\n" + train[0])
    result = start(small_graph, tmp_path / "run", quiet=False)
    said = capsys.readouterr().err
    for warning in (
        "1 of 41 entities of numbers occur in no training triple",
        "1 of 3 relations of numbers occur in no training triple",
        "1 of 3 test triples of numbers are training",
    ):
        assert warning in said and any(warning in w for w in result.values["warnings"])


def test_a_byte_order_mark_is_no_part_of_a_name(small_graph: Path) -> None:
    path = small_graph / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load(f"{small_graph}/").entities) == 40


def test_compare_finds_runs_below_and_refuses_two_of_one_seed(small_graph: Path, tmp_path: Path) -> None:
    start(small_graph, tmp_path / "runs" / "x" / "seed0")
    table = tasks.compare(tmp_path / "runs")
    assert len(table.rows) == 1 and table.rows == tasks.compare([tmp_path / "runs", tmp_path / "runs" / "x"]).rows
    start(small_graph, tmp_path / "runs" / "y" / "seed0")
    with pytest.raises(UsageError, match="are runs of one configuration and seed"):
        tasks.compare(tmp_path / "runs")
    with pytest.raises(UsageError, match=r"no run has the option 'modle'.*Did you mean 'model'"):
        tasks.compare(tmp_path / "runs" / "x", by=("modle",))


def test_runs_without_a_common_metric_have_one_each(small_graph: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = start(small_graph, runs / "x" / "seed0").metrics["test"]["mrr"]
    both = start(small_graph, runs / "y" / "seed0", evaluate="relation,link").metrics["test"]
    only = start(small_graph, runs / "z" / "seed0", evaluate="relation", monitor="relation_mrr").metrics["test"]
    table = tasks.compare(runs)
    assert table.columns[3:6] == ["metric", "n", "score"]
    wanted = {("mrr", first), ("mrr", both["mrr"]), ("relation_mrr", only["relation_mrr"])}
    assert {(row[3], row[5]) for row in table.rows} == wanted
    best = {("mrr", max(first, both["mrr"]))}  # of the other metric there is one row
    assert {(table.rows[place][3], table.rows[place][5]) for place in table.best} == best
    table = tasks.compare(runs, metric="relation_mrr")
    assert table.columns[4] == "relation_mrr" and len(table.rows) == 2
    assert table.warnings == ["1 configurations do not have the metric relation_mrr and are left out"]
    with pytest.raises(UsageError, match=r"no run has the metric 'relation_mr'.*Did you mean 'relation_mrr'"):
        tasks.compare(runs, metric="relation_mr")


def test_runs_inside_a_study_are_its_own(small_graph: Path, tmp_path: Path) -> None:
    study = tmp_path / "runs" / "subspace-0123abcd"
    start(small_graph, study / "seed0" / "solutions")
    with pytest.raises(
        UsageError, match="1 runs of subspace-0123abcd are parts of a study and left out; name its folder"
    ):
        tasks.compare(tmp_path / "runs")
    assert len(tasks.compare(study).rows) == 1
    start(small_graph, tmp_path / "runs" / "x" / "seed1", seed=1)
    table = tasks.compare(tmp_path / "runs")
    assert len(table.rows) == 1 and table.rows[0][3] == 1 and len(table.warnings) == 1


def test_another_number_of_threads_goes_on_with_a_warning(halted: Path, small_graph: Path) -> None:
    result = start(small_graph, halted, train={**TRAIN, "threads": 2})
    assert any("resumed with threads 2, started with 1" in warning for warning in result.values["warnings"])
    state = json.loads((newest(halted) / "state.json").read_text())
    assert state["warnings"] == result.values["warnings"]
