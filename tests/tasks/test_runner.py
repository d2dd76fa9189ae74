"""The runner: killed and resumed runs equal one that was never killed, to the bit; failures are one clear line."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tasks
from tasks.errors import RunError, UsageError
from tasks.folder import RunFolder

from .children import in_child, killed_after_checkpoint

TRAIN = {"epochs": 4, "batch_size": 16, "eval_every": 2, "lr": 0.02, "clip": 1.0}


def start(graph: Path, out: Path, **overrides: Any) -> tasks.Result:
    options: dict[str, Any] = {"checkpoint_seconds": 0.0, "quiet": True, "train": TRAIN, **overrides}
    options = {"data": str(graph), **options}
    return tasks.run("kg", out=out, model={"dim": 6}, negatives={"count": 8}, **options)


def content(folder: Path) -> tuple[bytes, bytes, Any]:
    result = json.loads((folder / "result.json").read_text())
    return (folder / "model.safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes(), result["metrics"]


@pytest.fixture
def reference(small_graph: Path, tmp_path: Path) -> tuple[bytes, bytes, Any]:
    start(small_graph, tmp_path / "reference")
    return content(tmp_path / "reference")


def test_killed_at_random_moments_and_resumed_equals_never_killed(
    small_graph: Path, tmp_path: Path, reference: tuple[bytes, bytes, Any]
) -> None:
    seed = int.from_bytes(os.urandom(4))
    rng = random.Random(seed)
    out = tmp_path / "killed"
    kills = 0
    for _ in range(60):
        pid = in_child(lambda: start(small_graph, out))
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    assert kills >= 1, f"seed {seed}"
    tasks.resume(out, quiet=True) if (out / "config.yaml").exists() else start(small_graph, out)
    assert content(out) == reference, f"seed {seed}"


@pytest.mark.parametrize("call", ["replace", "fsync", "mkdir"])
def test_killed_inside_every_system_call_of_a_checkpoint_write(
    call: str, small_graph: Path, tmp_path: Path, reference: tuple[bytes, bytes, Any]
) -> None:
    real: dict[str, Any] = {"replace": Path.replace, "fsync": os.fsync, "mkdir": Path.mkdir}

    def crash_at(n: int) -> Callable[..., Any]:
        count = 0

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return real[call](*args, **kwargs)

        return wrapper

    def work(n: int) -> None:
        if call == "fsync":
            os.fsync = crash_at(n)
        else:
            setattr(Path, call, crash_at(n))
        start(small_graph, out)

    out = tmp_path / "killed"
    for n in (1, 2, 3, 4, 5, 7, 9, 12, 15):
        pid = in_child(lambda n=n: work(n))
        os.waitpid(pid, 0)
    start(small_graph, out)
    assert content(out) == reference


def test_a_finished_run_is_not_run_twice_and_another_configuration_is_refused(
    small_graph: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = start(small_graph, out, checkpoint_seconds=60)
    stamp = (out / "result.json").stat().st_mtime_ns
    assert start(small_graph, out).values == first.values
    assert tasks.resume(out, quiet=True).metrics == first.metrics
    assert (out / "result.json").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match=r"differing fields: train.lr: 0.02 -> 0.5"):
        start(small_graph, out, train={**TRAIN, "lr": 0.5})


def test_result_holds_what_the_contract_says(small_graph: Path, tmp_path: Path) -> None:
    result = start(small_graph, tmp_path / "run", checkpoint_seconds=60).values
    assert result["schema"] == 1 and result["task"] == "kg" and result["seed"] == 0
    assert result["data"] == {"name": "numbers", "sha256": result["data"]["sha256"], "split": "own"}
    assert set(result["metrics"]) == {"valid", "test"} and 0 <= result["metrics"]["test"]["mrr"] <= 1
    assert result["params"]["total"] == result["params"]["trainable"] == 40 * 5 + 2 * 40 + 4 * 36 + 4 * 5
    assert result["manifold"]["residual"] < 1e-6 and result["manifold"]["radius_p99"] > 0
    assert (tmp_path / "run" / "config.yaml").exists() and (tmp_path / "run" / "env.json").exists()


def test_default_folder_is_named_by_the_hash_without_the_seed(small_graph: Path, tmp_path: Path) -> None:
    runs = [start(small_graph, None, runs=tmp_path, seed=seed, checkpoint_seconds=60).folder for seed in (0, 1)]  # type: ignore[arg-type]
    assert runs[0].parent == runs[1].parent and [r.name for r in runs] == ["seed0", "seed1"]
    assert runs[0].parent.name.startswith("kg-numbers-")
    table = tasks.compare([tmp_path / runs[0].parent.name])
    assert table.rows[0][3] == 2


def test_early_stopping_counts_evaluations_without_a_better_score(small_graph: Path, tmp_path: Path) -> None:
    start(
        small_graph,
        tmp_path / "run",
        train={**TRAIN, "epochs": 50, "eval_every": 1, "patience": 3},
        checkpoint_seconds=60,
    )
    rows = RunFolder(tmp_path / "run").rows()
    scores = [row["valid"]["mrr"] for row in rows]
    best = scores.index(max(scores))
    assert len(rows) == best + 4 < 50


def test_the_data_may_not_change_under_a_run(small_graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed_after_checkpoint(out, lambda: start(small_graph, out))
    (small_graph / "train.txt").write_text((small_graph / "train.txt").read_text() + "n1\tnext\tn7\n")
    with pytest.raises(UsageError, match="has changed since"):
        start(small_graph, out)


def test_a_finished_run_of_other_data_is_not_returned(small_graph: Path, tmp_path: Path) -> None:
    start(small_graph, tmp_path / "run", checkpoint_seconds=60)
    before = (tmp_path / "run" / "result.json").read_bytes()
    (small_graph / "train.txt").write_text((small_graph / "train.txt").read_text() + "n1\tnext\tn7\n")
    with pytest.raises(UsageError, match="the data of numbers has changed since"):
        start(small_graph, tmp_path / "run", checkpoint_seconds=60)
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    shutil.rmtree(small_graph)  # what is gone takes nothing from a finished run
    assert start(small_graph, tmp_path / "run", checkpoint_seconds=60).values == json.loads(before)


def test_a_finished_run_is_read_while_another_process_has_its_folder(small_graph: Path, tmp_path: Path) -> None:
    first = start(small_graph, tmp_path / "run")
    folder = RunFolder(first.folder)
    with folder.open(folder.config(), {}):
        assert start(small_graph, tmp_path / "run").values == first.values
        with pytest.raises(UsageError, match=r"another configuration.*train\.lr"):
            start(small_graph, tmp_path / "run", train={**TRAIN, "lr": 0.03})


def test_data_by_another_spelling_of_its_path_are_the_same(small_graph: Path, tmp_path: Path) -> None:
    first = start(small_graph, tmp_path / "run")
    for place in ("{}/", "{}/../" + small_graph.name):
        assert start(Path("x"), tmp_path / "run", data=place.format(small_graph)).values == first.values


def test_two_processes_do_not_share_a_folder(small_graph: Path, tmp_path: Path) -> None:
    again = RunFolder(tmp_path / "run").open({"a": 1}, {})
    with RunFolder(tmp_path / "run").open({"a": 1}, {}), pytest.raises(RunError, match="another process is running"):
        again.__enter__()


def test_a_non_finite_loss_names_step_module_and_last_checkpoint(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.kg.scorers import hybonet

    real, calls = hybonet._RelationTransform.forward, 0

    def poisoned(self: Any, x: torch.Tensor, relation: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += self.training
        out = real(self, x, relation)
        return out * float("nan") if calls > 25 and self.training else out

    monkeypatch.setattr(hybonet._RelationTransform, "forward", poisoned)
    with pytest.raises(
        RunError,
        match=r"at step 25 .*relation \(_RelationTransform\), from finite inputs; last good.*step-00000025",
    ):
        start(small_graph, tmp_path / "run")


def test_a_non_finite_gradient_is_found_before_it_reaches_the_parameters(
    small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.kg.task import KnowledgeGraphCompletion

    real = KnowledgeGraphCompletion.step

    def spoiled(self: Any, model: Any, batch: Any) -> Any:
        loss, scalars = real(self, model, batch)
        return loss + torch.sqrt(model.relation.bias.sum() * 0), scalars  # infinite slope at 0

    monkeypatch.setattr(KnowledgeGraphCompletion, "step", spoiled)
    with pytest.raises(RunError, match=r"at step 0 .*the gradient of parameter relation.bias; no checkpoint"):
        start(small_graph, tmp_path / "run")


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only")])
def test_a_disk_that_fails_in_a_checkpoint_is_one_line_and_the_run_goes_on_later(
    code: int, words: str, small_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Any
) -> None:
    from tasks import runner

    real, calls = runner.save_checkpoint, 0

    def full(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise OSError(code, os.strerror(code), str(tmp_path))
        real(*args)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(runner, "save_checkpoint", full)
        with pytest.raises(RunError, match=rf"{words}\. The run is safe up to step-00000006; .*hyrel resume"):
            start(small_graph, out)
    tasks.resume(out, quiet=True)
    assert content(out) == reference


def test_an_unwritable_place_is_one_line(small_graph: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"not a folder|in the way"):
        start(small_graph, tmp_path / "file" / "run")
    with pytest.raises(UsageError, match="no run folder"):
        tasks.resume(tmp_path, quiet=True)


def test_another_thread_count_on_resume_warns(small_graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed_after_checkpoint(out, lambda: start(small_graph, out))
    state = (out / "checkpoints" / "latest").parent / (out / "checkpoints" / "latest").read_text() / "state.json"
    state.write_text(state.read_text().replace('"threads": 1', '"threads": 2'))
    result = start(small_graph, out)
    assert any("resumed with threads 1, started with 2" in warning for warning in result.values["warnings"])
