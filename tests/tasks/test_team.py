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
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

import tasks
from tasks.api import configure
from tasks.cli import main
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.hierarchy.task import HierarchyEmbedding
from tasks.kg.task import KnowledgeGraphCompletion
from tasks.process import accelerator
from tasks.subspace.command import study_subspace
from tasks.team import Team

from .conftest import make_backbone
from .graphs import graph
from .text.conftest import write_toy

KG: list[dict[str, Any]] = [
    {"negatives": {"sharing": sharing, "filter": filter, **({} if sharing == "all" else {"count": 6})}}
    for sharing in ("batch", "triple", "all")
    for filter in ("none", "all")
]
KG += [
    {"loss": {"kind": "cross_entropy"}, "negatives": {"sharing": "all", "filter": "train"}},
    {"loss": {"multi_label": True}, "negatives": {"sharing": "all", "filter": "train"}},
    {"regularization": {"n3": 0.1}, "negatives": {"count": 6}},
]
PLAIN = {"optimizer": "sgd", "lr": 0.1, "batch_size": 16, "epochs": 3, "eval_every": 1}


def launch(*words: str, processes: int = 2, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``hyrel``, or a script, by torchrun, as a user starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    hyrel = [sys.executable, "-c", "import sys; from tasks.cli import main; sys.exit(main())", *words]
    command += ["--no-python", *(hyrel if script is None else [sys.executable, str(script)])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def words(task: str, out: Path, options: dict[str, Any]) -> list[str]:
    flat = [(f"--{a}.{b}", v) for a, part in options.items() if isinstance(part, dict) for b, v in part.items()]
    flat += [(f"--{a}", v) for a, v in options.items() if not isinstance(v, dict)]
    return ["run", task, "--out", str(out), "--quiet", *(str(word) for pair in flat for word in pair)]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """Without dropout, by gradient descent, in batches of like length that two cannot halve, the last a short one."""
    toy = write_toy(tmp_path / "toy")
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    backbone = make_backbone(tmp_path / "backbone", "lorentz", **calm)
    options: dict[str, Any] = {
        "data": str(toy),
        "model": {"name": str(backbone), "dropout": 0.0},
        "train": {**PLAIN, "batch_size": 47, "clip": 0.5},
        "group_by_length": True,
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


class Rows:
    name = "rows"


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_every_row_of_a_batch_is_taken_once(ranks: int) -> None:
    def cut(task: Any, batch: dict[str, Tensor]) -> list[tuple[dict[str, Tensor], float] | None]:
        found = []
        for rank in range(ranks):
            team = object.__new__(Team)
            team.count, team.rank = ranks, rank
            found.append(team.part(task, batch))
        return found

    plain = {"x": torch.arange(10).view(5, 2), "label": torch.arange(5), "k": torch.tensor(3.0)}
    parts = cut(Rows(), plain)
    assert sum(part is None for part in parts) == max(0, ranks - 5)
    kept = [part for part in parts if part is not None]
    assert torch.cat([part["label"] for part, _ in kept]).tolist() == [0, 1, 2, 3, 4]
    assert [weight for _, weight in kept] == [len(part["x"]) for part, _ in kept]
    assert all(part["k"] == 3 for part, _ in kept)
    with pytest.raises(UsageError, match="have no common rows to cut"):
        cut(Rows(), {"x": torch.ones(3), "y": torch.ones(4)})


@pytest.mark.parametrize("options", KG)
@pytest.mark.parametrize("ranks", [2, 3])
def test_losses_of_the_parts_of_triples_make_that_of_the_batch(options: dict[str, Any], ranks: int) -> None:
    data = graph(20, 3)
    config = configure(
        "kg", overrides={"model": {"scorer": "distmult", "dim": 4}, "train": {"batch_size": 11}, **options}
    )
    task: Any = KnowledgeGraphCompletion(config)
    check(task, data, ranks)


@pytest.mark.parametrize("ranks", [2, 3])
def test_losses_of_the_parts_of_edges_make_that_of_the_batch(ranks: int, tmp_path: Path) -> None:
    (tmp_path / "tree.tsv").write_text("".join(f"n{i}\tn{(i - 1) // 2}\n" for i in range(1, 60)))
    config = configure("hierarchy", overrides={"data": str(tmp_path / "tree.tsv"), "train": {"batch_size": 13}})
    check(HierarchyEmbedding(config), load(str(tmp_path / "tree.tsv"), kind="hierarchy"), ranks)


def check(task: Any, data: Any, ranks: int) -> None:
    """Weighted means of losses and gradients of the parts, and the whole."""
    torch.manual_seed(0)
    model = task.build(task.config, data).double()
    for index in range(task.n_batches(data)):
        batch = task.train_batch(data, 0, index, 0)
        whole = task.step(model, batch)[0]
        weighted, total = torch.zeros((), dtype=torch.float64), 0.0
        for rank in range(ranks):
            team = object.__new__(Team)
            team.count, team.rank = ranks, rank
            if (found := team.part(task, batch)) is not None:
                part, weight = found
                weighted, total = weighted + weight * task.step(model, part)[0], total + weight
        torch.testing.assert_close(weighted / total, whole.double(), rtol=1e-6, atol=1e-7)
        parameters = [p for p in model.parameters() if p.requires_grad]
        pair = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for loss in (weighted / total, whole)
        ]
        for mine, other in zip(*pair, strict=True):
            if other is not None:
                assert mine is not None
                torch.testing.assert_close(mine.to_dense(), other.to_dense(), rtol=1e-5, atol=1e-7)


def test_averaged_gradients_are_those_of_all_rows(tmp_path: Path) -> None:
    """Dense and sparse, with a process that has no batch, and a parameter that no one uses."""
    script = tmp_path / "step.py"
    script.write_text(
        """
import sys
import torch
from tasks.team import Team

team = Team()
torch.manual_seed(0)
model = torch.nn.ModuleDict({"table": torch.nn.Embedding(9, 2, sparse=True), "map": torch.nn.Linear(2, 3)})
model["rest"] = torch.nn.Linear(2, 2)
rows = [torch.tensor([1, 4, 4, 8]), torch.tensor([0, 4]), torch.tensor([], dtype=torch.int64)][team.rank]
loss = model["map"](model["table"](rows)).square().mean() if len(rows) else None
if loss is not None:
    loss.backward()
mean, wished = team.exchange(model, 0.0 if loss is None else float(loss), float(len(rows)), wish=team.leads)
both = model["map"](model["table"](torch.tensor([1, 4, 4, 8, 0, 4]))).square().mean()
wanted = torch.autograd.grad(both, [model["table"].weight, model["map"].weight, model["map"].bias])
got = [model["table"].weight.grad, model["map"].weight.grad, model["map"].bias.grad]
assert got[0].is_sparse and wished and abs(mean - float(both)) < 1e-6, (mean, both)
for mine, other in zip(got, wanted):
    torch.testing.assert_close(mine.to_dense(), other.to_dense())
assert model["rest"].weight.grad is None
assert team.gather(team.rank) == [0, 1, 2] and team.share(lambda: team.rank) == 0
sys.stdout.write(f"equal {team.rank} \\n")  # in one piece, as three write
"""
    )
    done = launch(script=script, processes=3)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "2", "equal", "equal", "equal"]


def test_a_study_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a subspace study works in one process and WORLD_SIZE is 2"):
        study_subspace(runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_one_of_several_processes_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")  # some schedulers set it for a process alone
    assert main(["ls", "tasks"]) == 0 and "kg" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["ls", "tasks"]) == 0 and capsys.readouterr().out == ""
    assert main(["predict", "nowhere"]) == 2
    assert "hyrel predict works in one process" in capsys.readouterr().err


def test_an_accelerator_without_float64_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    found = accelerator()
    assert found is not None and found.type == "cuda"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert accelerator() is None
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(PartialState, "default_device", property(lambda _: torch.device("mps")))
    assert accelerator() is None
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        assert Accelerator().device.type == "mps"  # what accelerate would take
        with pytest.raises(UsageError, match="started otherwise in this process"):
            Team()
        AcceleratorState._reset_state(reset_partial_state=True)
        assert Team().device.type == "cpu"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
