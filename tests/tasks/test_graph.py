"""The graph task: readers, splits by their definition, features, encoders against explicit formulas, and whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import roc_auc_score

import tasks
from lorentz import Lorentz, SparseMatrix, check_manifold
from lorentz import math as lm
from tasks.api import configure, recipes
from tasks.cli import main
from tasks.data.graphs import Graph
from tasks.data.load import load
from tasks.errors import UsageError
from tasks.graph.config import ENCODER_NAMES, GraphConfig, LossConfig, ModelConfig
from tasks.graph.features import node_features
from tasks.graph.layers import FeatureLinear, GraphAttention
from tasks.graph.models import ENCODERS
from tasks.graph.splits import published_nodes, split_links, split_nodes
from tasks.graph.task import GraphTask

GRAPH_RECIPES = [name for name in recipes() if name.startswith("graph/")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rings of 30 nodes with a bridge; features and classes tell the rings apart, with noise."""
    path = tmp_path / "rings"
    path.mkdir()
    pairs = [(r * 30 + i, r * 30 + (i + step) % 30) for r in range(2) for i in range(30) for step in (1, 2)]
    (path / "edges.csv").write_text("".join(f"{a},{b}\n" for a, b in [*pairs, (0, 30)]))
    labels = np.repeat([0, 1], 30)
    np.save(path / "labels.npy", labels)
    np.save(path / "features.npy", np.random.default_rng(0).normal(size=(60, 4)) + labels[:, None])
    return path


def start(folder: Path, out: Path, **overrides: Any) -> tasks.Result:
    train = {"epochs": 20, "lr": 0.02, "eval_every": 5, "optimizer": "riemannian_adam"}
    options: dict[str, Any] = {"normalise_features": False, "train": train, **overrides}
    return tasks.run("graph", data=str(folder), runs=out, quiet=True, **options)


# Data


def test_names_are_numbered_as_they_appear_and_pairs_are_undirected(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("b,a\na,c\n\na,b\nc,c\n")
    graph = load(str(tmp_path))
    assert graph.edges.tolist() == [[0, 1], [1, 2], [2, 2]] and graph.nodes == 3 and graph.features is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"edges.csv": b"0,1\n0;2\n"}, "line 2: expected two nodes"),
        ({"edges.csv": b"\n"}, "holds no edge"),
        ({"edges.csv": b"0,1\n\xae"}, r"not UTF-8 text \(byte 4\)"),
        ({"edges.csv": b"source,target\n0,1\n1,2\n"}, "'source,target' among numbered nodes looks like a header"),
        ({"edges.csv": b"0,1\n", "labels.npy": b"rubbish"}, "labels.npy is no NumPy file"),
    ],
)
def test_a_malformed_graph_is_named(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load(str(tmp_path))


def test_a_number_is_the_row_of_its_features_and_never_another(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("9,2\n2,7\n")  # most nodes are isolated
    np.save(tmp_path / "features.npy", np.eye(10))
    graph = load(str(tmp_path))
    assert graph.edges.tolist() == [[2, 7], [2, 9]] and graph.nodes == 10
    for edges in ("90,2\n2,7\n", "a,b\nb,c\n"):
        (tmp_path / "edges.csv").write_text(edges)
        with pytest.raises(UsageError, match="3 nodes have names or numbers beyond the 10 rows"):
            load(str(tmp_path))


def test_files_that_do_not_fit_are_refused(folder: Path) -> None:
    np.save(folder / "idx_train.npy", np.arange(3))
    with pytest.raises(UsageError, match=r"idx_train\.npy alone"):
        load(str(folder))
    np.save(folder / "labels.npy", np.zeros(59))
    with pytest.raises(UsageError, match="60 nodes, but labels of 59"):
        load(str(folder))


def test_real_graphs_have_the_published_sizes(data_dir: Path) -> None:
    sizes = {
        name: (g.nodes, len(g.edges), None if g.features is None else g.features.shape[1], g.classes)
        for name in ("Airport", "Cora", "Citeseer", "PubMed", "Disease-LP", "Disease-NC")
        for g in [load(name, data_dir)]
    }
    assert sizes == {
        "Airport": (3188, 18631, 5, 4),
        "Cora": (2708, 5278, 1433, 7),
        "Citeseer": (3327, 4676, 3703, 6),
        "PubMed": (19717, 44327, None, 3),
        "Disease-LP": (2665, 2664, 11, 2),
        "Disease-NC": (1044, 1043, None, 2),
    }
    assert any("identity" in w for w in load("PubMed", data_dir).warnings)
    assert not [w for name in sizes for w in load(name, data_dir).warnings if "SHA-256" in w]


def test_airport_labels_are_bins_of_the_column_that_classification_leaves_out(data_dir: Path) -> None:
    graph = load("Airport", data_dir)
    assert isinstance(graph.features, np.ndarray) and graph.labels is not None
    assert (np.digitize(graph.features[:, 4], [1, 8 / 7, 9 / 7]) == graph.labels).all()
    seen = {c: node_features(graph, graph.edges, classify=c, normalise=False) for c in (True, False)}
    assert seen[True].shape == (3188, 4 + 7) and seen[False].shape == (3188, 5 + 7)


# Splits


def by_matrix(edges: np.ndarray, nodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled edges and non-edges, by whole matrices and rows of pairs."""
    adjacency = np.zeros((nodes, nodes))
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = 1
    np.random.seed(seed)  # noqa: NPY002
    lists = []
    for matrix in (sp.csr_matrix(adjacency), sp.csr_matrix(1 - adjacency)):
        pairs = np.stack(sp.triu(matrix).nonzero(), 1)
        np.random.shuffle(pairs)  # noqa: NPY002
        lists.append(pairs)
    return lists[0], lists[1]


@pytest.mark.parametrize("seed", [1234, 5])
def test_links_are_split_as_published(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.unique(np.sort(rng.integers(0, 60, (250, 2)), 1), axis=0)  # loops among them
    split = split_links(edges, 60, seed=seed)
    positive, negative = by_matrix(edges, 60, seed)
    valid, test = int(len(edges) * 0.05), int(len(edges) * 0.1)
    assert (split.valid == positive[:valid]).all() and (split.test == positive[valid : valid + test]).all()
    assert (split.train == positive[valid + test :]).all()
    assert (split.valid_false == negative[:valid]).all() and (split.test_false == negative[valid : valid + test]).all()


def test_a_large_graph_draws_its_non_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.graph.splits.LISTED", 0)
    edges = np.unique(np.sort(np.random.default_rng(0).integers(0, 60, (250, 2)), 1), axis=0)
    split = split_links(edges, 60, seed=3)
    false = {tuple(p) for p in np.concatenate([split.valid_false, split.test_false]).tolist()}
    assert not false & {tuple(p) for p in edges.tolist()} and all(a <= b for a, b in false)
    assert len(false) == len(split.valid) + len(split.test)


def test_two_classes_are_split_apart_and_more_overlap_as_published() -> None:
    labels = np.array([0] * 40 + [1] * 60)
    parts = published_nodes(labels, 0.1, 0.6, seed=1234)
    assert {split: (np.bincount(labels[part])).tolist() for split, part in parts.items()} == {
        "valid": [4, 4], "test": [24, 24], "train": [12, 32],
    }  # fmt: skip
    assert sorted(np.concatenate([*parts.values()])) == list(range(100))
    graph = Graph("Airport", np.array([[0, 1]]), 90, None, np.arange(90) % 3, "")
    _, warnings = split_nodes(graph, seed=None)
    assert any("test nodes of the split of Airport are training nodes too" in w for w in warnings)
    fresh, none = split_nodes(graph, seed=7)
    assert not none and sorted(np.concatenate([*fresh.values()])) == list(range(90))
    assert {split: len(part) for split, part in fresh.items()} == {"train": 66, "valid": 12, "test": 12}


def test_planetoid_splits_fixed_and_fresh(data_dir: Path) -> None:
    graph = load("Citeseer", data_dir)
    fixed, _ = split_nodes(graph, seed=None)
    assert {split: len(part) for split, part in fixed.items()} == {"train": 120, "valid": 500, "test": 1000}
    fresh, _ = split_nodes(graph, seed=0)
    assert graph.labels is not None and np.bincount(graph.labels[fresh["train"]]).tolist() == [20] * 6
    assert len(np.unique(np.concatenate([*fresh.values()]))) == 120 + 500 + 1000
    assert all((graph.labels[part] >= 0).all() for part in fresh.values())


def test_without_labels_classification_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.npy").unlink()
    with pytest.raises(UsageError, match="rings has no labels"):
        start(folder, tmp_path / "runs", problem="nc")


# Batches


def test_messages_and_degrees_come_from_training_edges_alone_and_negatives_are_none_of_them(folder: Path) -> None:
    data = load(str(folder))
    task = GraphTask(GraphConfig(problem="lp"))
    made = task.prepare(data)
    split = split_links(data.edges, 60, seed=1234)
    assert len(split.train) + len(split.valid) + len(split.test) == len(data.edges)
    train = {tuple(p) for p in split.train.tolist()}
    seen = {tuple(sorted(p)) for p in made.graph.index.T.tolist() if p[0] != p[1]}
    assert seen == train
    batch = task.train_batch(data, 3, 0, 7)
    assert torch.equal(batch["pairs"], task.train_batch(data, 3, 0, 7)["pairs"])
    assert not torch.equal(batch["pairs"], task.train_batch(data, 4, 0, 7)["pairs"])
    positive, negative = batch["pairs"].T.chunk(2)
    assert {tuple(p) for p in positive.tolist()} == train and not {tuple(p) for p in negative.tolist()} & train


def test_features_are_normalised_and_degrees_appended() -> None:
    features = np.array([[1.0, 3.0], [0.0, 0.0], [2.0, -1.0]])
    graph = Graph("g", np.array([[0, 1], [0, 2]]), 3, features, None, "", degrees=True)
    made = node_features(graph, np.array([[0, 1]]), classify=False, normalise=True)
    want = [[0.25, 0.75, 0, 1, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0, 0, 1], [2, -1, 1, 0, 0, 0, 0, 0, 1]]
    torch.testing.assert_close(made, torch.tensor(want).float())


# Encoders


def encoder(name: str, folder: Path, *, problem: str = "lp", **model: Any):
    config = GraphConfig(problem=problem, model=ModelConfig(encoder=name, dim=5, **model), normalise_features=False)
    torch.manual_seed(0)
    task, data = GraphTask(config), load(str(folder))
    return task, data, task.build(config, data)


@pytest.mark.parametrize("variant", ["paper", "sigmoid_time", "unbounded"])
def test_sparse_features_give_what_dense_points_give(variant: str) -> None:
    dense = torch.randn(6, 9) * (torch.rand(6, 9) < 0.3)
    sparse = SparseMatrix(dense.nonzero().T.contiguous(), dense[dense != 0], (6, 9))
    layer = FeatureLinear(10, 4, manifold=Lorentz(0.7), variant=variant)
    torch.nn.init.normal_(layer.bias)
    outs = [layer(x) for x in (lm.lift(dense, k=0.7), sparse)]
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-5)
    slopes = [torch.autograd.grad(out.sin().sum(), list(layer.parameters())) for out in outs]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-5)


def test_lorentz_gcn_is_linear_maps_and_centroids(folder: Path) -> None:
    task, data, model = encoder("lorentz_gcn", folder, k=0.7, activation="tanh")
    graph = torch.zeros(60, 60).index_put(tuple(model.graph.index), model.graph.value.float())
    h = lm.lift(model.features, k=0.7)
    for i, layer in enumerate(model.layers):
        h = h if i == 0 else lm.lift(h[:, 1:].tanh(), k=0.7)
        z = h @ layer.linear.weight.T + layer.linear.bias
        time = 10 * torch.sigmoid(z[:, :1]) + 1.1 * 0.7**0.5
        h = torch.cat([time, z[:, 1:] * ((time**2 - 0.7) / (z[:, 1:] ** 2).sum(1, keepdim=True)).sqrt()], 1)
        h = lm.centroid(h, graph, k=0.7)
    torch.testing.assert_close(model(), h, rtol=1e-4, atol=1e-4)
    pairs = torch.tensor([[0, 1, 2], [3, 1, 40]])
    want = -lm.sqdist(h[pairs[0]].double(), h[pairs[1]].double(), k=0.7)
    torch.testing.assert_close(model.proximity(h, pairs), want.float(), rtol=1e-3, atol=1e-4)
    found = task.evaluate(model, data, "test")
    made = task.prepare(data).pairs["test"]
    truth = [1] * (made.shape[1] // 2) + [0] * (made.shape[1] // 2)
    exact = -lm.sqdist(h[made[0]].double(), h[made[1]].double(), k=0.7).detach()
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, exact), abs=0.01)


def test_hgcn_is_logarithms_and_exponentials_about_the_origin(folder: Path) -> None:
    _, _, model = encoder("hgcn", folder, activation="relu")
    for layer in model.layers:
        torch.nn.init.normal_(layer.bias, std=0.5)
    graph = torch.zeros(60, 60).index_put(tuple(model.graph.index), model.graph.value.float()).double()
    u = torch.nn.functional.pad(model.features.double(), (1, 0))
    x = lm.expmap0(u)
    for layer in model.layers:
        w, b = layer.weight.double(), torch.nn.functional.pad(layer.bias.double(), (1, 0))
        x = lm.expmap0(torch.nn.functional.pad(lm.logmap0(x)[:, 1:] @ w.T, (1, 0)))
        root = torch.eye(1, 5, dtype=torch.float64)
        moved = b + lm.minkowski(x, b)[:, None] / (1 - lm.minkowski(root, x))[:, None] * (root + x)  # transport from o
        x = lm.expmap(x, moved)
        x = lm.expmap0(torch.nn.functional.pad(graph @ lm.logmap0(x)[:, 1:], (1, 0)))
        x = lm.expmap0(lm.logmap0(x).relu())
    torch.testing.assert_close(model().double(), lm.logmap0(x)[:, 1:], rtol=1e-4, atol=1e-5)
    pairs = torch.tensor([[0, 1], [3, 40]])
    want = (2 - lm.dist(x[pairs[0]], x[pairs[1]]) ** 2).float()
    torch.testing.assert_close(model.edge_logits(model(), pairs), want, rtol=1e-3, atol=1e-4)


def test_gat_equals_torch_geometric() -> None:
    geometric = pytest.importorskip("torch_geometric.nn", reason="needs torch-geometric")
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 2, 3, 0, 4], [1, 0, 1, 2, 3, 4]])
    mine = GraphAttention(3, 4, 2, dropout=0.0)
    theirs = geometric.GATConv(3, 2, heads=2, add_self_loops=False)
    with torch.no_grad():
        theirs.lin.weight.copy_(mine.linear.weight)
        theirs.att_src.copy_(mine.source[None])
        theirs.att_dst.copy_(mine.target[None])
    x = torch.randn(5, 3)
    torch.testing.assert_close(mine(x, SparseMatrix(edges.flip(0), None, (5, 5))), theirs(x, edges))


def test_gcn_equals_the_dense_formula(folder: Path) -> None:
    _, _, model = encoder("gcn", folder, activation="relu", normalisation="symmetric")
    graph = torch.zeros(60, 60).index_put(tuple(model.graph.index), model.graph.value.float())
    first, second = model.layers
    h = graph @ second((graph @ first(model.features)).relu())
    torch.testing.assert_close(model(), h)


def test_at_large_k_the_lorentz_network_is_euclidean_where_time_has_no_weights(folder: Path) -> None:
    """The flat limit: the time column stays zero, and scores are those of space coordinates alone."""
    task, data, model = encoder("lorentz_gcn", folder, k=1e4, time_weights=False, variant="paper")
    pairs = task.train_batch(data, 0, 0, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        task.step(model, pairs)[0].backward()
        optimizer.step()
    assert not any(layer.linear.weight[:, 0].any() for layer in model.layers)
    h = model().detach()
    near = torch.stack([torch.arange(20), torch.arange(20, 40)])
    flat = -(h[near[0], 1:] - h[near[1], 1:]).square().sum(1)
    torch.testing.assert_close(model.proximity(h, near), flat, rtol=2e-2, atol=1e-3)


# Losses


def test_losses_are_the_published_ones(folder: Path) -> None:
    task, data, model = encoder("lorentz_gcn", folder)
    batch = task.train_batch(data, 0, 0, 0)
    scores = model.proximity(model(), batch["pairs"])
    positive, negative = scores.chunk(2)
    pair = torch.stack([positive, negative], 1)
    published = torch.relu(2.0 - pair[:, :1] + pair).mean()
    torch.testing.assert_close(task.step(model, batch)[0], published - 1.0)  # margin / 2 of the constant members
    logits = torch.tensor([3.0, -1.0])
    config = GraphConfig(loss=LossConfig(kind="fermi_dirac"))
    other = GraphTask(config)
    h = model()
    logits = model.edge_logits(h, batch["pairs"])
    truth = (torch.arange(len(logits)) < len(logits) // 2).float()
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(other.step(model, batch)[0], want)
    task, data, model = encoder("lorentz_gcn", folder, problem="nc")
    batch = task.train_batch(data, 0, 0, 0)
    scores = model.class_scores(model(), batch["nodes"])
    rows = [[2.0 - row[y] + row[c] for c in range(2)] for row, y in zip(scores, batch["labels"], strict=True)]
    want = torch.stack([torch.stack(row) for row in rows]).relu().mean()
    torch.testing.assert_close(task.step(model, batch)[0], want)


# Runs


@pytest.mark.parametrize("problem", ["lp", "nc"])
@pytest.mark.parametrize("name", ENCODER_NAMES)
def test_every_encoder_trains_on_both_problems(name: str, problem: str, folder: Path, tmp_path: Path) -> None:
    assert name in ENCODERS
    loss = {"kind": "margin"} if problem == "lp" else {"kind": "cross_entropy"}
    model = {"encoder": name, "dim": 9, "heads": 2, "dropout": 0.1}
    result = start(folder, tmp_path / "runs", problem=problem, model=model, loss=loss)
    losses = [json.loads(line)["train"]["loss"] for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert result.metrics["test"][{"lp": "roc_auc", "nc": "f1"}[problem]] > 0.5
    assert (result.values["manifold"] is not None) == name.startswith("lorentz")


@pytest.mark.parametrize("name", ["lorentz_gcn", "lorentz_attention"])
def test_every_lorentz_layer_is_given_points_and_returns_them(name: str, folder: Path) -> None:
    assert "first" in str(check_manifold(encoder(name, folder)[2])) or name == "lorentz_gcn"


def test_a_killed_run_goes_on_to_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    model = {"dropout": 0.3, "dim": 5}
    whole = start(folder, tmp_path / "a", model=model)

    class Stop(Exception):
        pass

    from tasks.runner import _Run

    def stop(self: Any) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(_Run, "result", stop)
        start(folder, tmp_path / "b", model=model)
    (unfinished,) = (tmp_path / "b").glob("*/seed0")
    assert tasks.resume(unfinished, quiet=True).metrics == whole.metrics


def test_the_command_line_takes_the_problem_by_both_names(folder: Path, tmp_path: Path, capsys: Any) -> None:
    for option in ("--task", "--problem"):
        words = ["run", "graph", "--data", str(folder), option, "nc", "--runs", str(tmp_path), "--quiet"]
        assert main([*words, "--train.epochs", "3", "--train.eval_every", "1"]) == 0
    assert capsys.readouterr().out.count("f1") == 2
    assert len(list(tmp_path.glob("graph-*"))) == 1
    assert main(["run", "graph", "--data", str(folder), "--task", "link"]) == 2
    assert main(["run", "graph", "--data", str(folder), "--loss", "cross_entropy"]) == 2
    assert main(["run", "graph", "--data", "taxonomy", "--quiet", "--runs", str(tmp_path)]) == 2
    assert "is no plain graph" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", GRAPH_RECIPES)
def test_recipes_train_a_few_steps(recipe: str, data_dir: Path, tmp_path: Path) -> None:
    config = configure("graph", recipe=recipe)
    result = tasks.run(
        "graph", recipe=recipe, runs=tmp_path, quiet=True, data_dir=data_dir, train={"epochs": 4, "eval_every": 2}
    )
    metric = {"lp": "roc_auc", "nc": "f1"}[config.problem]
    assert 0.1 < result.metrics["test"][metric] <= 1
    assert result.values["manifold"]["residual"] < 1e-5


@pytest.mark.parametrize(("name", "model"), [("lorentz_attention", {}), ("lorentz_gcn", {"variant": "unbounded"})])
def test_nearness_of_far_points_is_not_a_difference_of_squares(name: str, model: dict[str, Any], folder: Path) -> None:
    _, _, net = encoder(name, folder, **model)
    base = torch.tensor([[0.0, 8.0, 0, 0, 0]], dtype=torch.float64)
    points = net.manifold.expmap0(base + 0.1 * torch.nn.functional.pad(torch.randn(6, 4, dtype=torch.float64), (1, 0)))
    pairs = torch.tensor([[0, 1, 2], [3, 4, 5]])
    rounded = net.manifold.lift(lm.space_of(points).float())
    exact = -net.manifold.sqdist(*(net.manifold.lift(lm.space_of(rounded).double())[part] for part in pairs))
    torch.testing.assert_close(net.proximity(rounded, pairs).double(), exact, rtol=1e-5, atol=0)
