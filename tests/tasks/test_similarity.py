"""The task of relation similarity: through the runner, resumed, and judged against counts by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
from lorentz import math as lmath
from relsim.evaluation.suites import Suite, disjoint
from relsim.facts import Facts
from relsim.fit import held_out_nll
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.similarity.config import DistributionConfig, SimilarityConfig
from tasks.similarity.judge import judge
from tasks.similarity.model import make_distribution
from tasks.similarity.task import RelationSimilarityTask

TRAIN = {"epochs": 3, "batch_size": 64, "lr": 0.01, "eval_every": 1}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three relations of 420 facts, each between its own two groups of 40 entities, and one of 30."""
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, str]] = []
    for r, (left, right, size) in enumerate([("a", "b", 420), ("b", "c", 420), ("c", "a", 420), ("a", "c", 30)]):
        own: set[tuple[str, str, str]] = set()
        while len(own) < size:
            own.add((f"{left}{rng.integers(40)}", f"r{r}", f"{right}{rng.integers(40)}"))
        rows += sorted(own)
    folder = tmp_path_factory.mktemp("blocks")
    for name, part in {"train": rows, "valid": rows[:2], "test": rows[2:4]}.items():
        (folder / f"{name}.txt").write_text("".join("\t".join(row) + "\n" for row in part))
    return folder


def run(folder: Path, out: Path, **overrides: object) -> tasks.Result:
    options: dict[str, object] = {
        "model": {"dim": 12, "hidden": 32}, "train": TRAIN, "held_out": 0.1, "heads": 60, **overrides,
    }  # fmt: skip
    return tasks.run("similarity", data=str(folder), out=out, quiet=True, **options)  # type: ignore[arg-type]


def test_siblings_are_found_and_the_result_holds_the_baselines(blocks: Path, tmp_path: Path) -> None:
    result = run(blocks, tmp_path / "run")
    test = result.metrics["test"]
    assert test["ap"] > 0.95 and test["r@1"] == 1.0
    assert test["count_kl_ap"] > 0.95 and 0 < test["nll_head"] < np.log(120)
    assert set(result.metrics["valid"]) == {"nll", "nll_head", "nll_tail"}
    assert test["nll"] == pytest.approx(test["nll_head"] + test["nll_tail"])


def test_stopped_and_resumed_equals_never_stopped(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(blocks, tmp_path / "whole", model={"dim": 12, "hidden": 32, "dropout": 0.2})
    calls = 0
    step = RelationSimilarityTask.step

    def dies(self, model, batch):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return step(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(RelationSimilarityTask, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(blocks, tmp_path / "cut", model={"dim": 12, "hidden": 32, "dropout": 0.2}, checkpoint_seconds=0.0)
    tasks.resume(tmp_path / "cut", quiet=True)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    one, two = (json.loads((tmp_path / n / "result.json").read_text())["metrics"] for n in ("whole", "cut"))
    assert one == two


def test_without_a_suite_the_likelihood_is_all_there_is(blocks: Path, tmp_path: Path) -> None:
    result = run(blocks, tmp_path / "none", suite="none", train=TRAIN | {"epochs": 1})
    assert set(result.metrics["test"]) == {"nll", "nll_head", "nll_tail"}


def test_without_a_suite_the_similarities_are_exported(blocks: Path, tmp_path: Path) -> None:
    run(blocks, tmp_path / "none", suite="none")
    with (tmp_path / "none/similarity/pairs.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert list(rows[0]) == ["relation_a", "relation_b", "kl_ab", "kl_ba", "similarity", "stderr", "ci_low", "ci_high"]
    assert len(rows) == 4 * 3 // 2
    worst = [max(float(row["kl_ab"]), float(row["kl_ba"])) for row in rows]
    assert worst == sorted(worst)
    np.testing.assert_allclose([float(row["similarity"]) for row in rows], np.exp(-np.array(worst)), rtol=1e-4)
    assert all(float(row["ci_low"]) <= kl <= float(row["ci_high"]) for row, kl in zip(rows, worst, strict=True))
    run(blocks, tmp_path / "suite", train=TRAIN | {"epochs": 1})
    assert not (tmp_path / "suite/similarity").exists()


def test_the_default_share_held_out_grows_where_it_leaves_nothing(tmp_path: Path) -> None:
    rows = [(f"a{n % 7}", f"r{r}", f"b{n}") for r in range(3) for n in range(20)]
    for name, part in {"train": rows, "valid": rows[:2], "test": rows[2:4]}.items():
        (tmp_path / f"{name}.txt").write_text("".join("\t".join(row) + "\n" for row in part))
    task = RelationSimilarityTask(SimilarityConfig(suite="none"))
    facts = task.prepare(load(str(tmp_path)))[1]
    assert {name: len(part) for name, part in facts.items()} == {"train": 51, "valid": 6, "test": 3}
    assert task.remarks(torch.nn.Module()) == ["--held_out 0.04 leaves no fact to evaluate on: 0.16 was held out"]


def test_lorentz_logits_are_lorentzian_inner_products(blocks: Path) -> None:
    facts = RelationSimilarityTask(SimilarityConfig(suite="none")).prepare(load(str(blocks)))[1]["train"]
    for k in (0.5, 2.0):
        model = make_distribution(DistributionConfig(geometry="lorentz", dim=6, hidden=8, k=k), facts, seed=0).eval()
        h, r = torch.tensor([0, 5, 9]), torch.tensor([1, 0, 3])
        points = model.entity.points()
        assert model.dim == 6 and points.shape == (facts.num_entities, 6)
        natural = model.tail_natural(h, r)
        on = lmath.minkowski(natural, natural)
        torch.testing.assert_close(on, torch.full((3,), -k), rtol=1e-4, atol=1e-4)
        expected = torch.log_softmax(lmath.minkowski(natural[:, None], points[None]), 1)
        torch.testing.assert_close(model.log_prob_tail(h, r), expected, rtol=1e-4, atol=1e-4)


def test_a_flat_space_leaves_a_gaussian_in_the_distance(blocks: Path) -> None:
    facts = RelationSimilarityTask(SimilarityConfig(data=str(blocks))).prepare(load(str(blocks)))[1]["train"]
    config = DistributionConfig(geometry="lorentz", dim=6, hidden=8, k=1e10)
    model = make_distribution(config, facts, seed=0).eval()
    r = torch.tensor([0, 1])
    space = model.head_network(model.relation[r])[:, 1:].double()
    points = model.entity.points.weight.double()
    expected = torch.log_softmax(-0.5 * torch.cdist(space, points) ** 2, 1)
    torch.testing.assert_close(model.log_prob_head(r).double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("geometry", ["euclidean", "lorentz"])
def test_each_geometry_trains_through_the_runner_from_a_warm_start(blocks: Path, tmp_path: Path, geometry: str) -> None:
    nll = {}
    for warm in (True, False):
        model = {"dim": 12, "hidden": 32, "geometry": geometry, "warm_start": warm}
        nll[warm] = run(blocks, tmp_path / str(warm), model=model, suite="none").metrics["test"]["nll"]
    assert nll[True] < nll[False] < 2 * np.log(120) + 0.5


def test_held_out_facts_are_not_trained_on(blocks: Path) -> None:
    task = RelationSimilarityTask(SimilarityConfig(suite="disjoint", held_out=0.2))
    suite, facts, batches = task.prepare(load(str(blocks)))
    assert suite is not None
    rows = {name: {tuple(row) for row in _triples(part)} for name, part in facts.items()}
    assert not rows["train"] & rows["valid"] and not rows["train"] & rows["test"] and not rows["valid"] & rows["test"]
    assert set.union(*rows.values()) == {tuple(row) for row in _triples(suite.facts)}
    seen = {
        row
        for i in range(len(batches))
        for b in [batches.batch(0, i, 0)]
        for row in zip(b["head"].tolist(), b["relation"].tolist(), b["tail"].tolist(), strict=True)
    }
    assert seen == rows["train"]
    model = task.build(task.config, load(str(blocks)))
    assert task.evaluate(model, load(str(blocks)), "valid")["nll"] == pytest.approx(
        sum(held_out_nll(model, facts["valid"]))
    )


def _triples(facts: Facts) -> list[list[int]]:
    return torch.stack([facts.head, facts.relation, facts.tail], 1).tolist()


def test_judging_by_hand() -> None:
    rows = [(f"e{n}", r, f"f{n}") for r in "ab" for n in range(4)]
    suite: Suite = disjoint(Facts.from_triples(rows), seed=0, least=4, parts=2)
    assert suite.facts.relations == ["a #1", "a #2", "b #1", "b #2"]
    score = np.array([[9, 3, 5, 0], [3, 9, 1, 2], [5, 1, 9, 4], [0, 2, 4, 9]], dtype=np.float64)
    # Pairs from the top: a1b1 wrong, b1b2 right, a1a2 right: AP = (1/2 + 2/3) / 2; of 2 x 4 comparisons 6 are won.
    # Nearest: a1 -> b1 wrong, a2 -> a1 right, b1 -> a1 wrong, b2 -> b1 right.
    assert judge(suite, score) == pytest.approx({"ap": 7 / 12, "auc": 6 / 8, "r@1": 0.5, "p@3": 1 / 3})
    with pytest.raises(ValueError, match="symmetric"):
        judge(suite, score + np.arange(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "disjont"}, "unknown suite 'disjont'.*disjoint"),
        ({"model": {"geometry": "lorenz"}}, "unknown geometry 'lorenz'.*lorentz"),
        ({"suite": "capped-200"}, "800 facts \\(the largest has 420\\), expected one to split; capped-10 is content"),
        ({"held_out": 0.0}, "held_out"),
        ({"heads": 0}, "heads"),
        ({"suite": "none", "held_out": 1e-6}, "leaves no fact to evaluate on"),
    ],
)
def test_bad_options_are_one_clear_line(blocks: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(blocks, tmp_path / "bad", **options)


def test_recipe_is_a_configuration() -> None:
    config = tasks.api.configure("similarity", recipe="fb15k237-disjoint")
    assert config.suite == "disjoint" and config.train.weight_decay > 0 and config.data == "FB15k-237"
