"""Embedding of taxonomies against formulas in float64, loops over candidates, scikit-learn and networkx."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

import tasks
from lorentz import Lorentz
from lorentz import math as lm
from tasks.api import recipes
from tasks.cli import main
from tasks.data.hierarchy import Hierarchy, ancestors_of, hierarchy_from_edges
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.hierarchy.config import HierarchyConfig, ModelConfig, NegativesConfig
from tasks.hierarchy.loss import log_mass, softmax_loss
from tasks.hierarchy.models import GEOMETRIES, Table
from tasks.hierarchy.reconstruction import rank_ancestors, reconstruction
from tasks.hierarchy.task import HierarchyEmbedding
from tasks.optim import build_optimizers
from tasks.plot import distortion

GEOMETRY = [("lorentz", 1.0), ("lorentz", 2.5), ("lorentz", 1e6), ("euclidean", 1.0)]


def pairs(size: int = 25, seed: int = 0) -> list[tuple[str, str]]:
    """Direct edges of a random hierarchy in which some nodes have two parents."""
    rng = random.Random(seed)
    edges = [(f"n{i:02}", f"n{rng.randrange(max(0, i - 9), i):02}") for i in range(1, size)]
    return edges + [(f"n{i:02}", f"n{rng.randrange(i):02}") for i in range(5, size, 6)]


def made(**model: object) -> tuple[HierarchyEmbedding, Table, Hierarchy]:
    data = hierarchy_from_edges("small", pairs())
    config = HierarchyConfig(
        model=ModelConfig(dim=4, init_std=0.4, **model), negatives=NegativesConfig(count=12, weight=7.0)
    )
    task = HierarchyEmbedding(replace(config, train=replace(config.train, batch_size=9)))
    torch.manual_seed(0)
    return task, task.build(task.config, data), data


def distances(table: Table, data: Hierarchy, weight: torch.Tensor, k: float) -> torch.Tensor:
    """All distances by the functions of `lorentz.math`, or by cdist."""
    if not hasattr(table, "k"):
        plain = torch.stack([(weight[i] - weight).norm(dim=1) for i in range(data.num_nodes)])
        return plain.square() if table.squared else plain
    x = lm.lift(weight, k=k)
    function = lm.sqdist if table.squared else lm.dist
    return torch.stack([function(x[i].expand_as(x), x, k=k) for i in range(data.num_nodes)])


@pytest.mark.parametrize("distance", ["geodesic", "squared"])
@pytest.mark.parametrize(("geometry", "k"), GEOMETRY)
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_loss_and_gradient_are_those_of_the_formula(geometry: str, k: float, distance: str, scale: float) -> None:
    task, table, data = made(geometry=geometry, k=k, distance=distance, scale=scale)
    batch = task.train_batch(data, 0, 1, seed=3)
    loss, _ = task.step(table, batch)
    loss.backward()
    given = table.points.weight.grad.to_dense()  # type: ignore[union-attr]

    weight = table.space().double().requires_grad_()
    d = scale * distances(table, data, weight, k)
    nodes, terms = batch["nodes"], []
    negatives = nodes[batch["negative"]].tolist()
    for head in nodes[batch["head"]].tolist():
        above = {v for u, v in data.edges.tolist() if u == head}
        mass = sum(torch.exp(-d[head, v]) for v in negatives if v != head and v not in above) * 7 / len(negatives)
        terms += [-torch.log(torch.exp(-d[head, v]) / (torch.exp(-d[head, v]) + mass)) for v in sorted(above)]
    expected = torch.stack(terms).mean()
    assert len(terms) == len(batch["tail"])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(expected, weight)
    assert torch.allclose(given.double(), gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))


def test_far_points_neither_underflow_nor_overflow() -> None:
    for geometry in GEOMETRIES:
        task, table, data = made(geometry=geometry, distance="squared")
        table.space().normal_(0, 300)
        loss, _ = task.step(table, task.train_batch(data, 0, 0, seed=0))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(table.points.weight.grad.to_dense()).all()  # type: ignore[union-attr]


def test_a_batch_without_any_negative_left_has_no_loss() -> None:
    data = hierarchy_from_edges("chain", [("c", "b"), ("b", "a")])
    task = HierarchyEmbedding(HierarchyConfig(model=ModelConfig(dim=3), negatives=NegativesConfig(count=3)))
    table = task.build(task.config, data)
    batch = task.train_batch(data, 0, 0, seed=0)
    query, key = table.features(table.points(batch["nodes"]))
    only = {**batch, "row": torch.tensor([0, 0, 0, 1, 1, 1]), "column": torch.tensor([0, 1, 2, 0, 1, 2])}
    loss = softmax_loss(table, only, 3.0)
    loss.backward()
    assert 0 <= loss.item() < 1e-20 and query.shape[1] == key.shape[1]


@pytest.mark.parametrize(("geometry", "k"), GEOMETRY)
def test_only_the_rows_of_the_batch_move(geometry: str, k: float) -> None:
    task, table, data = made(geometry=geometry, k=k)
    (optimizer,) = build_optimizers(task.param_groups(table), task.config.train)
    before = table.space().clone()
    batch = task.train_batch(data, 0, 0, seed=1)
    task.step(table, batch)[0].backward()
    optimizer.step()
    moved = (table.space() != before).any(1).nonzero().squeeze(1).tolist()
    assert set(moved) <= set(batch["nodes"].tolist()) and len(moved) > 5 and len(moved) < data.num_nodes


def test_batches_cover_every_node_once_and_hide_what_is_true() -> None:
    task, _, data = made()
    seen: list[int] = []
    for index in range(task.n_batches(data)):
        batch = task.train_batch(data, 4, index, seed=2)
        again = HierarchyEmbedding(task.config).train_batch(data, 4, index, seed=2)
        assert all(torch.equal(batch[key], again[key]) for key in batch)
        heads, negatives = (batch["nodes"][batch[key]].tolist() for key in ("head", "negative"))
        seen += heads
        true = {
            (i, j)
            for i, u in enumerate(heads)
            for j, v in enumerate(negatives)
            if u == v or [u, v] in data.edges.tolist()
        }
        assert set(zip(batch["row"].tolist(), batch["column"].tolist(), strict=True)) == true
        edges = zip(batch["edge"].tolist(), batch["nodes"][batch["tail"]].tolist(), strict=True)
        assert sorted([heads[e], v] for e, v in edges) == sorted(e for e in data.edges.tolist() if e[0] in heads)
    assert sorted(seen) == data.heads.tolist() and len(set(negatives)) == 12


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_ranks_and_precision_are_those_of_a_loop_and_of_scikit_learn(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 5, 14).astype(float) if ties else rng.random(14)
    node, *ancestors = rng.permutation(14)[: rng.integers(2, 7)].tolist()
    ranks, precision = rank_ancestors(distances, node, np.array(ancestors))
    others = [v for v in range(14) if v != node and v not in ancestors]
    expected = [
        1 + sum(distances[o] < distances[a] for o in others) + sum(distances[o] == distances[a] for o in others) / 2
        for a in sorted(ancestors, key=lambda a: distances[a])
    ]
    assert ranks.tolist() == expected
    candidates = [v for v in range(14) if v != node]
    reference = average_precision_score([v in ancestors for v in candidates], [-distances[v] for v in candidates])
    assert precision == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize(("geometry", "k"), GEOMETRY)
def test_reconstruction_ranks_by_the_true_distance(geometry: str, k: float, monkeypatch: pytest.MonkeyPatch) -> None:
    _, table, data = made(geometry=geometry, k=k)
    d = distances(table, data, table.space().double(), k).numpy()
    found = [rank_ancestors(d[u], u, data.edges[data.edges[:, 0] == u, 1].numpy()) for u in data.heads.tolist()]
    metrics = reconstruction(table, data, data.heads)
    assert metrics["map"] == pytest.approx(np.mean([p for _, p in found]), abs=1e-12)
    assert metrics["mean_rank"] == pytest.approx(float(torch.cat([r for r, _ in found]).mean()), abs=1e-12)
    monkeypatch.setattr("tasks.hierarchy.reconstruction.BLOCK", 30)  # a node a block
    assert reconstruction(table, data, data.heads) == pytest.approx(metrics)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_closure_reduction_and_parents_equal_networkx(seed: int) -> None:
    given_pairs = pairs(seed=seed)
    data = hierarchy_from_edges("h", given_pairs)
    graph = nx.DiGraph(given_pairs)
    name = data.nodes.__getitem__
    assert {(name(u), name(v)) for u, v in data.edges.tolist()} == set(nx.transitive_closure_dag(graph).edges)
    direct = {(name(u), name(v)) for u, v in data.direct.tolist()}
    assert direct == set(nx.transitive_reduction(graph).edges)
    assert {(name(u), name(int(data.parent[u]))) for u in data.heads.tolist()} <= direct
    row, above = ancestors_of(data, torch.tensor([7, 3]))
    assert [above[row == i].tolist() for i in (0, 1)] == [data.edges[data.edges[:, 0] == u, 1].tolist() for u in (7, 3)]


@pytest.mark.parametrize(("geometry", "k"), GEOMETRY)
def test_the_walk_steps_from_parent_to_child(geometry: str, k: float) -> None:
    data = hierarchy_from_edges("h", pairs(600))
    table: Table = GEOMETRIES[geometry](data.num_nodes, ModelConfig(dim=5, k=k, max_radius=9 * k**0.5))
    torch.manual_seed(0)
    table.walk(data.parent, data.starts.diff(), 0.1)
    weight = table.space().double()
    d = distances(table, data, weight, k) if geometry == "euclidean" else None
    child = data.heads
    x = lm.lift(weight, k=k)
    step = d[child, data.parent[child]] if d is not None else lm.dist(x[child], x[data.parent[child]], k=k)
    assert float(step.square().mean()) == pytest.approx(4 * 0.1**2, rel=0.1)  # 4 coordinates of deviation 0.1
    roots = data.starts.diff() == 0
    assert not weight[roots].any()


def test_a_start_beyond_the_largest_radius_is_brought_in() -> None:
    task, table, data = made(init="walk")
    table.walk(data.parent, data.starts.diff(), 30.0)
    (optimizer,) = build_optimizers(task.param_groups(table), task.config.train)
    task.step(table, task.train_batch(data, 0, 0, seed=1))[0].backward()
    optimizer.step()
    assert torch.isfinite(table.space()).all()


def test_training_reconstructs_a_tree_almost_perfectly(tmp_path: Path) -> None:
    file = tmp_path / "tree.tsv"
    file.write_text("".join(f"n{i}\tn{(i - 1) // 3}\n" for i in range(1, 121)))
    result = tasks.run(
        "hierarchy", data=str(file), runs=tmp_path, quiet=True, model={"dim": 5}, negatives={"count": 60, "weight": 40.0},
        train={"epochs": 60, "batch_size": 30, "lr": 0.1, "eval_every": 60},
    )  # fmt: skip
    assert result.metrics["test"]["map"] > 0.9 and result.metrics["test"]["mean_rank"] < 2
    assert result.metrics["valid"] == result.metrics["test"]  # fewer nodes than the sample would take
    assert result.values["manifold"]["residual"] < 1e-5


def test_a_rate_that_throws_the_points_to_the_largest_radius_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "h.tsv"
    file.write_text("".join("\t".join(pair) + "\n" for pair in pairs(60)))
    common = {"data": str(file), "quiet": True, "model": {"dim": 4, "max_radius": 6.0}}
    found = {}
    for lr in (0.05, 1e30):
        result = tasks.run("hierarchy", out=tmp_path / f"{lr}", train={"epochs": 3, "lr": lr}, **common)  # type: ignore[arg-type]
        found[lr] = [warning for warning in result.values["warnings"] if "radius" in warning]
        points = load_file(result.folder / "model.safetensors")["points.weight"].double()
        share = float((torch.asinh(points.norm(dim=1)) > 5.999).double().mean())
        assert (share >= 0.5) == bool(found[lr])
    assert not found[0.05]
    (warning,) = found[1e30]
    assert f"{share:.0%} of the points lie at the largest radius, 6, where they are stopped" in warning


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "h.tsv"
    file.write_text("".join("\t".join(pair) + "\n" for pair in pairs(60)))
    settings_ = {"model": {"dim": 4}, "train": {"epochs": 6, "batch_size": 10, "eval_every": 2}, "data": str(file)}
    whole = tasks.run("hierarchy", out=tmp_path / "whole", quiet=True, **settings_)
    original, calls = HierarchyEmbedding.train_batch, []

    def stop(self: HierarchyEmbedding, *args: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(HierarchyEmbedding, "train_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        tasks.run("hierarchy", out=tmp_path / "cut", quiet=True, checkpoint_seconds=0.0, **settings_)
    monkeypatch.setattr(HierarchyEmbedding, "train_batch", original)
    again = tasks.resume(tmp_path / "cut", quiet=True)
    assert again.metrics == whole.metrics
    assert (again.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", [name for name in recipes() if name.startswith("hierarchy/")])
def test_every_recipe_runs(name: str, tmp_path: Path) -> None:
    file = tmp_path / "h.tsv"
    file.write_text("".join("\t".join(pair) + "\n" for pair in pairs(40)))
    result = tasks.run("hierarchy", recipe=name, data=str(file), runs=tmp_path, quiet=True, train={"epochs": 2})
    assert 0 < result.metrics["test"]["map"] <= 1


def test_files_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.tsv.gz"
    file.write_bytes(gzip.compress(b"dog\tcanine\r\ncanine\tmammal\n\n"))
    data = load(str(file))
    assert (data.name, data.split) == ("own", "own")
    assert {(data.nodes[u], data.nodes[v]) for u, v in data.edges.tolist()} == {
        ("dog", "canine"), ("dog", "mammal"), ("canine", "mammal"),
    }  # fmt: skip
    assert data.warnings == ["1 implied edges of own were added to the 2 given ones"]
    plain = tmp_path / "own.tsv"
    for text, message in [
        ("a\tb\nb\tc\nc\ta\n", "3 nodes are their own ancestors, the first is 'a'"),
        ("a\tb\nb\n", "line 2: expected descendant TAB ancestor, got 1 columns"),
        ("\n", "holds no edge"),
    ]:
        plain.write_text(text)
        with pytest.raises(UsageError, match=message):
            load(str(plain))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.geometry", "lorenz"], "Did you mean 'lorentz'?"),
        (["--model.distance", "cosine"], "--model.distance is geodesic or squared"),
        (["--model.init", "tree"], "--model.init is walk or normal"),
        (["--train.clip", "1"], "--train.clip must be null"),
        (["--train.optimizer", "adam"], "take riemannian_adam, riemannian_sgd or adagrad"),
        (["--train.optimizer", "adamw"], "adamw takes no sparse gradients"),
        (["--train.optimizer", "sgd"], "sgd takes no sparse gradients"),
        (["--train.optimizer", "adagrad", "--train.weight_decay", "0.1"], "takes no --train.weight-decay"),
        (["--model.max_radius", "1e9"], "--model.max_radius must be at most 40 times the root of k, 40,"),
        (["--data", "taxonomy"], "taxonomy is no hierarchy"),
        (["--negatives.weight", "0"], "--negatives.weight must be a finite number above 0"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h.tsv").write_text("a\tb\n")
    assert main(["run", "hierarchy", "--data", "./h.tsv", "--quiet", *words]) == 2
    assert expected in capsys.readouterr().err


def test_the_picture_and_its_distortion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "h.tsv"
    file.write_text("".join("\t".join(pair) + "\n" for pair in pairs(40)))
    common = {"data": str(file), "quiet": True, "train": {"epochs": 3, "batch_size": 16, "eval_every": 3}}
    run = tasks.run("hierarchy", out=tmp_path / "run", model={"dim": 3}, **common)
    assert main(["plot", str(run.folder), "--nodes", "20"]) == 0
    assert "the embedding is two-dimensional" in capsys.readouterr().out
    svg = (run.folder / "disk.svg").read_text()
    assert svg.startswith("<?xml") and "20 of 40 nodes" in svg and "n00" in svg
    assert "Poincaré disk" in (run.folder / "plot.html").read_text()
    twin = tasks.run("hierarchy", out=tmp_path / "twin", model={"dim": 3, "geometry": "euclidean"}, **common)
    assert main(["plot", str(twin.folder)]) == 2
    assert "has no disk" in capsys.readouterr().err


@pytest.fixture
def plotted(tmp_path: Path) -> Path:
    (tmp_path / "h.tsv").write_text("b\ta\nc\ta\nd\tb\n")
    common = {"data": str(tmp_path / "h.tsv"), "quiet": True, "train": {"epochs": 1, "eval_every": 1}}
    return tasks.run("hierarchy", out=tmp_path / "run", model={"dim": 3}, **common).folder


@pytest.mark.parametrize(
    ("name", "old", "new", "code", "message"),
    [
        ("model.safetensors", b"", None, 1, "is missing or damaged"),
        ("model.safetensors", b"{", b"[", 1, "is missing or damaged"),
        ("config.yaml", b"model:", b"modell:", 2, "Did you mean 'model"),
        ("config.yaml", b"k: 1.0", b"k: -1.0", 2, "--model.k must be a finite number above 0"),
        ("config.yaml", b"dim: 3", b"dim: 7", 1, "expected finite ones (4, 6)"),
    ],
)
def test_a_damaged_run_is_not_drawn(
    name: str,
    old: bytes,
    new: bytes | None,
    code: int,
    message: str,
    plotted: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = plotted / name
    if new is None:
        file.unlink()
    else:
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new, 1))
    assert main(["plot", str(plotted)]) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (plotted / "disk.svg").exists()


def test_one_out_is_not_for_two_pictures(plotted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(plotted), str(plotted), "--out", str(tmp_path / "p")]) == 2
    assert "in separate calls" in capsys.readouterr().err and not (tmp_path / "p").exists()
    assert main(["plot", str(plotted), "--out", str(tmp_path / "h.tsv")]) == 1
    assert "a file of that name is in the way" in capsys.readouterr().err


def test_distortion_is_zero_for_a_star_and_the_least_mean_else() -> None:
    star = hierarchy_from_edges("star", [("a", "r"), ("b", "r"), ("c", "r"), ("d", "r")])
    far = 2000.0  # in the limit, leaves of a star in orthogonal directions are two radii apart
    space = np.zeros((5, 4))
    space[:4] = np.eye(4) * np.sinh(far / 100)
    assert distortion(star, space, k=1.0)[0] < 0.02
    rng = np.random.default_rng(0)
    data = hierarchy_from_edges("h", pairs())
    space = rng.normal(size=(25, 3))
    error, count = distortion(data, space, k=2.0)
    graph = nx.Graph([(u, v) for u, v in data.direct.tolist()])
    steps = dict(nx.all_pairs_shortest_path_length(graph))
    x = lm.lift(torch.from_numpy(space), k=2.0)
    ratio = np.array([float(lm.dist(x[u], x[v], k=2.0)) / steps[u][v] for u in graph for v in graph if u != v])
    best = min(np.abs(ratio * c - 1).mean() for c in 1 / ratio)
    assert count == 25 * 24 and error == pytest.approx(best, rel=1e-9)


def test_wordnet_mammals_as_published(data_dir: Path) -> None:
    data = load("WordNet-mammals", data_dir)
    assert (len(data.edges), data.num_nodes, data.warnings) == (6542, 1182, [])


@pytest.mark.slow
def test_wordnet_nouns_as_published_and_mammals_reconstructed(data_dir: Path, tmp_path: Path) -> None:
    data = load("WordNet-nouns", data_dir)
    assert (len(data.edges), data.num_nodes, data.warnings) == (743_241, 82_115, [])
    for recipe in ("mammals-6", "mammals-6-normal"):
        result = tasks.run("hierarchy", recipe=recipe, data_dir=data_dir, runs=tmp_path, quiet=True)
        assert result.metrics["test"]["map"] >= 0.9


@pytest.mark.parametrize("radius", [4.0, 8.0, 9.5])
@pytest.mark.parametrize("spread", [0.1, 1.0, 2.0])
def test_the_gradient_of_far_negatives_is_not_rounding(radius: float, spread: float) -> None:
    """Against geodesic distances in float64, by the Riemannian norm: the products under it cancel far from the origin."""
    torch.manual_seed(0)
    manifold = Lorentz(1.0)
    base = manifold.expmap0(torch.tensor([[0.0, radius, 0, 0, 0]], dtype=torch.float64))
    points = manifold.random_normal(60, 5, mean=base, std=spread / 2, dtype=torch.float64)
    table = GEOMETRIES["lorentz"](60, ModelConfig(dim=5))
    start, none = lm.space_of(points).float(), torch.zeros(0, dtype=torch.long)
    near, far = start.clone().requires_grad_(), start.double().requires_grad_()
    query, key = table.features(manifold.lift(near))
    log_mass(query[:1], key[1:], none, none, table).sum().backward()
    x = manifold.lift(far)
    torch.logsumexp(-manifold.dist(x[:1], x[1:]), 0).backward()
    assert near.grad is not None and far.grad is not None

    def length(covector: torch.Tensor) -> torch.Tensor:
        along = (covector * start.double()).sum(1)
        return (covector.square().sum(1) + along.square()).sqrt()

    error = length(near.grad.double() - far.grad)
    assert error[0] < 1e-5 * length(far.grad)[0] and (error[1:] < 1e-4 * length(far.grad)[1:] + 1e-9).all()


def test_two_points_in_one_place_do_not_push_each_other() -> None:
    table = GEOMETRIES["lorentz"](4, ModelConfig(dim=3))
    space = torch.tensor([[40.0, 3.0]]).repeat(4, 1).requires_grad_()
    query, key = table.features(Lorentz(1.0).lift(space))
    none = torch.zeros(0, dtype=torch.long)
    log_mass(query[:1], key[1:], none, none, table).sum().backward()
    assert space.grad is not None and not space.grad.any()
