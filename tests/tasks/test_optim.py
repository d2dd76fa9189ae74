"""Schedules, parameter groups with their own optimiser, and norm caps."""

from __future__ import annotations

from math import cos, pi
from pathlib import Path

import pytest
import torch

import tasks
from tasks.config import TrainConfig
from tasks.errors import UsageError
from tasks.optim import OPTIMIZERS, build_optimizers, cap_norms, clip_sparse, schedule_factor


def test_schedules_by_their_formulas() -> None:
    for step in (0, 25, 50, 75, 99):
        p = step / 100
        expected = {
            "constant": 1.0,
            "linear": max(1 - p, 0.01),
            "cosine": 0.01 + 0.99 * (1 + cos(pi * p)) / 2,
            "hold": 1.0 if step < 50 else max(2 * (1 - p), 0.01),
        }
        for name, value in expected.items():
            assert schedule_factor(TrainConfig(schedule=name), step, 100) == pytest.approx(value)
    warm = TrainConfig(schedule="constant", warmup=10)
    assert [schedule_factor(warm, s, 100) for s in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1, 1])
    noam = TrainConfig(schedule="noam", warmup=4)
    assert [schedule_factor(noam, s, 100) for s in (0, 3, 15)] == pytest.approx([0.25, 1, 0.5])
    with pytest.raises(UsageError, match=r"unknown schedule 'cosin'\. Did you mean 'cosine'"):
        schedule_factor(TrainConfig(schedule="cosin"), 0, 1)
    with pytest.raises(UsageError, match=r"unknown schedule 'naom'\. Did you mean 'noam'\? Known: .*hold, noam\."):
        schedule_factor(TrainConfig(schedule="naom"), 0, 1)


def test_each_group_gets_its_own_optimiser_rate_and_cap() -> None:
    points, rest = torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [points], "optimizer": "sgd", "lr": 0.5, "max_norm": 1.0}, {"params": [rest]}]
    sgd, adam = build_optimizers(groups, TrainConfig(lr=0.1, optimizer="adam"))
    assert isinstance(sgd, torch.optim.SGD) and isinstance(adam, torch.optim.Adam)
    assert (sgd.param_groups[0]["peak_lr"], adam.param_groups[0]["peak_lr"]) == (0.5, 0.1)
    with torch.no_grad():
        points[1] *= 0.1
    cap_norms([sgd, adam])
    assert torch.allclose(points.norm(dim=1), torch.tensor([1.0, 0.2, 1.0]))
    assert torch.equal(rest, torch.ones(2))
    with pytest.raises(UsageError, match=r"unknown optimizer 'adan'\. Did you mean 'adam'"):
        build_optimizers([{"params": [rest]}], TrainConfig(optimizer="adan"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_trains_and_resumes(name: str, small_graph: Path, tmp_path: Path) -> None:
    train = {"epochs": 2, "batch_size": 32, "eval_every": 1, "lr": 0.01, "optimizer": name}
    common = {"data": str(small_graph), "model": {"dim": 5}, "quiet": True}
    whole = tasks.run("kg", out=tmp_path / "whole", train=train, **common)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.runner._Run.result", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tasks.run("kg", out=tmp_path / "halted", train=train, checkpoint_seconds=0.0, **common)  # type: ignore[arg-type]
    assert tasks.resume(tmp_path / "halted", quiet=True).metrics == whole.metrics


def test_two_precisions_in_one_process(small_graph: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16", "fp32"):
        train = {"epochs": 1, "batch_size": 32, "precision": precision}
        result = tasks.run("kg", data=str(small_graph), model={"dim": 5}, train=train, runs=tmp_path, quiet=True)
        assert 0 < result.metrics["test"]["mrr"] <= 1


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_of_sparse_gradients_is_that_of_dense_ones(limit: float) -> None:
    norms, grads = [], []
    for sparse in (True, False):
        torch.manual_seed(0)
        table, weight = torch.nn.Parameter(torch.randn(9, 3)), torch.nn.Parameter(torch.randn(3))
        rows = torch.nn.functional.embedding(torch.tensor([1, 4, 4]), table, sparse=sparse)
        ((rows * weight) ** 2).sum().backward()
        clip = clip_sparse if sparse else torch.nn.utils.clip_grad_norm_
        norms.append(clip([table, weight], limit))
        grads.append([table.grad.to_dense(), weight.grad])
    torch.testing.assert_close(*norms)
    torch.testing.assert_close(*grads)
