"""One run trained by two processes: the gradients of one with the whole batch, the same files, and what cannot be shared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tasks
from tasks.api import configure
from tasks.errors import UsageError
from tasks.kg.task import KnowledgeGraphCompletion
from tasks.subspace.command import study_subspace
from tasks.team import Team

from .conftest import make_backbone
from .text.conftest import write_toy

PLAIN = {"optimizer": "sgd", "lr": 0.1, "batch_size": 16, "epochs": 3, "eval_every": 1}


def launch(*words: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """``hyrel`` by torchrun, as a user starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--no-python", sys.executable, "-c", "import sys; from tasks.cli import main; sys.exit(main())", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def words(task: str, out: Path, options: dict[str, Any]) -> list[str]:
    flat = [(f"--{a}.{b}", v) for a, part in options.items() if isinstance(part, dict) for b, v in part.items()]
    flat += [(f"--{a}", v) for a, v in options.items() if not isinstance(v, dict)]
    return ["run", task, "--out", str(out), "--quiet", *(str(word) for pair in flat for word in pair)]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """Without dropout and by plain gradient descent; 160 rows in batches of 48: in the last the second has 8 of 16 rows."""
    toy = write_toy(tmp_path / "toy")
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    backbone = make_backbone(tmp_path / "backbone", "lorentz", **calm)
    options: dict[str, Any] = {
        "data": str(toy),
        "model": {"name": str(backbone), "dropout": 0.0},
        "train": {**PLAIN, "batch_size": 48, "clip": 0.5},
        "max_length": 16,
    }
    alone = tasks.run("text", out=tmp_path / "alone", quiet=True, **options)
    done = launch(*words("text", tmp_path / "both", options))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 1  # one of them speaks
    both = json.loads((tmp_path / "both" / "result.json").read_text())
    assert both["processes"] == 2 and "processes" not in alone.values
    assert both["config_hash"] == alone.values["config_hash"] and both["best_step"] == alone.values["best_step"]
    assert both["metrics"]["test"] == pytest.approx(alone.metrics["test"])
    weights = load_file(tmp_path / "both" / "model.safetensors")
    for name, tensor in load_file(alone.folder / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("alone", "both")]
    rows = [list(map(json.loads, part)) for part in lines]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]] == [4, 8, 12]
    for mine, other in zip(*rows, strict=True):
        assert mine["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-4)
    # A finished run is returned in one process, and answers.
    assert tasks.run("text", out=tmp_path / "both", quiet=True, **options).values == both
    assert len(tasks.load(tmp_path / "both").predict(["a good film"])) == 1


def test_a_stopped_run_of_two_goes_on_to_the_same_bits(small_graph: Path, tmp_path: Path) -> None:
    """With dropout, whose numbers each process draws for itself."""
    options: dict[str, Any] = {
        "data": str(small_graph),
        "model": {"dim": 6},
        "negatives": {"count": 8},
        "regularization": {"dropout": 0.2},
        "train": {"epochs": 4, "batch_size": 16, "eval_every": 2, "lr": 0.02},
    }
    whole = launch(*words("kg", tmp_path / "whole", options))
    assert whole.returncode == 0, whole.stderr
    run = Path(
        shutil.copytree(tmp_path / "whole", tmp_path / "again", symlinks=True)
    )  # and back to the first evaluation
    (run / "result.json").unlink()
    (run / "model.safetensors").unlink()
    first = min(path.name for path in (run / "checkpoints").glob("step-*"))
    latest = run / "checkpoints" / "latest"
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    if latest.is_symlink():
        latest.unlink()
        latest.symlink_to(first)
    else:
        latest.write_text(first)
    assert len(kept) == 2, kept
    resumed = launch("resume", str(run), "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    state = json.loads((run / "checkpoints" / kept[-1] / "state.json").read_text())
    assert state["processes"] == 2 and state["others_rng"][0]["torch"] != state["rng"]["torch"]
    (run / "result.json").unlink()
    alone = tasks.resume(run, quiet=True)
    assert any("resumed with processes 1, started with 2" in warning for warning in alone.values["warnings"])


def test_what_cannot_be_shared_is_said() -> None:
    team = object.__new__(Team)  # as a process of two sees it
    team.count, team.rank = 2, 1
    task = KnowledgeGraphCompletion(configure("kg", overrides={"train": {"batch_size": 15}}))
    with pytest.raises(UsageError, match=r"--train.batch_size 15 cannot be cut into 2 equal parts.*; take 16"):
        team.part(task)
    part = team.part(KnowledgeGraphCompletion(configure("kg", overrides={"train": {"batch_size": 16}})))
    assert part.config.train.batch_size == 8
    assert team.steps(7) == 4 and [team.place(index) for index in range(3)] == [1, 3, 5]
    with pytest.raises(UsageError, match="an epoch has 1 batches, which 2 processes cannot share"):
        team.steps(1)
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="turn --sparse off"):
        team.exchange(table, 1.0, wish=False)


def test_a_study_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a subspace study works in one process and WORLD_SIZE is 2"):
        study_subspace(runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
