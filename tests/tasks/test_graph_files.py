"""Graphs of the user's own: splits as numbers or masks, and files that are refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks
from tasks.data.graphs import own_graph
from tasks.errors import UsageError
from tasks.graph.splits import split_links

NODES = 30
MODEL: dict[str, Any] = {"model": {"encoder": "gcn", "dim": 5, "layers": 1}, "train": {"epochs": 2, "eval_every": 1}}


def write(folder: Path, **files: Any) -> Path:
    """A ring with chords, two classes and a split, with some files in place of others."""
    folder.mkdir(exist_ok=True)
    edges = {(i, (i + step) % NODES) for i in range(NODES) for step in (1, 3)}
    (folder / "edges.csv").write_text("".join(f"{a},{b}\n" for a, b in sorted(edges)))
    made: dict[str, Any] = {
        "features": np.eye(NODES, dtype=np.float32),
        "labels": np.arange(NODES) % 2,
        "idx_train": np.arange(0, 10),
        "idx_val": np.arange(10, 20),
        "idx_test": np.arange(20, 30),
        **files,
    }
    for name, value in made.items():
        if value is not None:
            np.save(folder / f"{name}.npy", value)
    return folder


def test_masks_are_the_nodes_they_mark(tmp_path: Path) -> None:
    marks = {name: np.zeros(NODES, dtype=bool) for name in ("idx_train", "idx_val", "idx_test")}
    for mark, first in zip(marks.values(), (0, 10, 20), strict=True):
        mark[first : first + 10] = True
    by_number, by_mask = own_graph(write(tmp_path / "a")), own_graph(write(tmp_path / "b", **marks))
    assert by_number.parts is not None and by_mask.parts is not None
    for split, part in by_number.parts.items():
        assert by_mask.parts[split].tolist() == part.tolist()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"idx_test": np.array([3, 30])}, "idx_test names node 30; there are 0 to 29"),
        ({"idx_val": np.array([-1, 3])}, "idx_valid names node -1"),
        ({"idx_train": np.ones(4, dtype=bool)}, r"idx_train is a mask of the shape \(4,\)"),
        ({"idx_train": np.array([0.5, 1.0])}, "no whole numbers"),
        ({"labels": np.eye(NODES, dtype=int)[:, :2]}, r"labels have the shape \(30, 2\)"),
        ({"labels": np.array(["a", "b"] * 15)}, "labels are no whole numbers"),
        ({"labels": np.arange(NODES) / 2}, "labels are no whole numbers"),
        ({"features": np.ones(NODES)}, r"features have the shape \(30,\)"),
        ({"features": np.ones((NODES, 2, 2))}, r"features have the shape \(30, 2, 2\)"),
        ({"features": np.full((NODES, 2), np.nan)}, "some features are not finite"),
        ({"features": np.ones((NODES, 2)) * 1j}, "expected real numbers"),
    ],
)
def test_files_of_another_kind_are_named(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        own_graph(write(tmp_path / "g", **files))


def test_a_dense_graph_has_too_few_pairs_that_are_no_edge() -> None:
    edges = np.array([(i, j) for i in range(40) for j in range(i + 1, 40)])
    with pytest.raises(UsageError, match=r"117 edges are held back and only 40 pairs .* too dense"):
        split_links(edges, 40, seed=0)


def test_the_split_is_named_for_what_it_is(tmp_path: Path) -> None:
    none = dict.fromkeys(("idx_train", "idx_val", "idx_test"))
    for place, (files, split) in enumerate((({}, "own"), (none, "fresh, seed 0"))):
        folder = write(tmp_path / f"g{place}", **files)
        found = tasks.run("graph", data=str(folder), problem="nc", **MODEL, runs=tmp_path / "runs", quiet=True)
        assert found.values["data"]["split"] == split


def test_nodes_that_select_and_test_are_warned_of(tmp_path: Path) -> None:
    folder = write(tmp_path / "g", idx_test=np.arange(15, 25))
    found = tasks.run("graph", data=str(folder), problem="nc", **MODEL, runs=tmp_path / "runs", quiet=True)
    assert any(
        w.startswith("5 of 10 test nodes of the split of g are validation nodes") for w in found.values["warnings"]
    )
