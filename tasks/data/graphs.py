"""Graphs with node features and classes, for node classification and link prediction."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tasks.errors import UsageError

from .locate import read_bytes
from .sets import DataSet

__all__ = ["Graph", "own_graph", "read_graph"]

Array = np.ndarray

_NO_FEATURES = {
    "PubMed": "the public features of PubMed are incomplete here, so each node has an identity feature",
    "Disease-NC": "the features of Disease-NC are not here, so each node has an identity feature",
}
# Node classification on Airport: the labels are bins of this column, so a model that sees it sees the answer.
_LABEL_COLUMN = {"Airport": 4}


@dataclass
class Graph:
    """An undirected graph.

    Attributes
    ----------
    edges : int64 array (M, 2), source <= target, each pair once, in order of source and target; loops may be among them
    nodes : number of nodes
    features : array (N, d), sparse matrix (N, d), or None: an identity feature a node
    labels : int64 array (N,), -1 where there is none, or None
    names : of the nodes in the file of edges, or None where it numbers them
    parts : nodes of the published ``train``, ``valid`` and ``test`` split, or None if it is drawn
    label_column : column of the features from which the labels were made, which node classification leaves out
    degrees : whether the published preparation appends the degree of a node in the training graph, one-hot from 0 to 5
        and above, and a constant
    sha256 : of edges, features and labels
    """

    name: str
    edges: Array
    nodes: int
    features: Array | sp.csr_matrix | None
    labels: Array | None
    sha256: str
    names: list[str] | None = None
    parts: dict[str, Array] | None = None
    label_column: int | None = None
    degrees: bool = False
    split: str = "published"
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 0 if self.labels is None else int(self.labels.max()) + 1


def _pairs(content: bytes, where: str, rows_given: int | None) -> tuple[Array, list[str] | None]:
    """Undirected pairs of a file with two nodes a line, and the names of the nodes, which count as they appear; numbers stay.

    `rows_given`, of features or labels, decides where numbers have gaps: they stay if they number its rows.
    """
    rows = []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text (byte {error.start})") from None
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.replace("\t", ",").split(",")]
        if not line.strip():
            continue
        if len(cells) != 2 or not all(cells):
            raise UsageError(f"{where}, line {number}: expected two nodes with a comma between, got {line[:80]!r}")
        rows.append((cells[0], cells[1]))
    if not rows:
        raise UsageError(f"{where} holds no edge")
    names = list(dict.fromkeys(name for row in rows for name in row))
    digits = [name.isascii() and name.isdigit() for name in names]
    if not all(digits) and all(digits[2:]) and len(names) > 2 and not any(digits[:2]):
        raise UsageError(f"{where}, line 1: {','.join(rows[0])!r} among numbered nodes looks like a header; delete it")
    largest = max(map(int, names)) if all(digits) else None
    numbered = largest is not None and largest < max(2 * len(names), rows_given or 0)
    if rows_given is not None and not numbered and len(names) != rows_given:
        raise UsageError(
            f"{where}: {len(names)} nodes have names or numbers beyond the {rows_given} rows of features or labels, so none "
            "can be told which row is its own; number the nodes from 0 by their rows"
        )
    place = {name: int(name) if numbered else i for i, name in enumerate(names)}
    pairs = np.array([[place[a], place[b]] for a, b in rows], dtype=np.int64)
    return np.unique(np.sort(pairs, 1), axis=0), None if numbered else names


def _matrix(content: bytes, name: str) -> Array | sp.csr_matrix:
    if name.endswith(".npz"):
        return sp.load_npz(io.BytesIO(content)).tocsr()
    array: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _whole(values: Array, what: str, where: str) -> Array:
    """Whole numbers, (n,), of a file.

    Raises
    ------
    UsageError : other numbers or another shape.
    """
    if values.ndim != 1:
        raise UsageError(f"{where}: {what} have the shape {values.shape}, expected one number a node, (n,)")
    if values.dtype.kind not in "biuf" or not np.all(np.isfinite(values)) or np.any(values != np.trunc(values)):
        raise UsageError(f"{where}: {what} are no whole numbers (dtype {values.dtype}); number the classes from 0")
    return values.astype(np.int64)


def _labels(values: Any, where: str) -> Array:
    return _whole(np.asarray(values), "labels", where)


def _features(values: Any, where: str) -> Any:
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise UsageError(
            f"{where}: features have the shape {values.shape} and dtype {values.dtype}, expected real numbers "
            "(nodes, columns)"
        )
    if not np.all(np.isfinite(values.data if sp.issparse(values) else values)):
        raise UsageError(f"{where}: some features are not finite; fill in or leave out what is missing")
    return values


def _nodes(values: Any, nodes: int, where: str) -> Array:
    """Numbers of nodes, given as such or as a mask over all."""
    array = np.asarray(values)
    if array.dtype == bool:
        if array.shape != (nodes,):
            raise UsageError(f"{where} is a mask of the shape {array.shape}, expected one entry a node, ({nodes},)")
        return np.flatnonzero(array)
    found = _whole(array, "numbers of nodes", where)
    if len(found) and not 0 <= found.min() <= found.max() < nodes:
        raise UsageError(
            f"{where} names node {found.min() if found.min() < 0 else found.max()}; there are 0 to {nodes - 1}"
        )
    return found


def _make(name: str, files: dict[str, bytes], where: str, warnings: list[str]) -> Graph:
    """Build from the content of the files, by the kind that their names end in."""

    def one(*ends: str) -> tuple[str, bytes] | None:
        return next(((file, content) for file, content in files.items() if file.endswith(ends)), None)

    edges_file = one("edges.csv")
    assert edges_file is not None
    loaded: dict[str, Array | sp.csr_matrix | None] = {}
    for kind, ends in (
        ("features", ("features.npz", "features.npy", "feats.npz", "feats.npy", "feats_and_gdp.npy")),
        ("labels", ("labels.npy",)),
        ("train", ("idx_train.npy",)),
        ("valid", ("idx_val.npy", "idx_valid.npy")),
        ("test", ("idx_test.npy",)),
    ):
        found = one(*ends)
        try:
            loaded[kind] = None if found is None else _matrix(found[1], found[0])
        except (ValueError, OSError) as error:
            raise UsageError(f"{where}/{found and found[0]} is no NumPy file: {error}") from None
    labels = None if loaded["labels"] is None else _labels(loaded["labels"], where)
    if loaded["features"] is not None:
        loaded["features"] = _features(loaded["features"], where)
    rows = [x.shape[0] for x in (loaded["features"], labels) if x is not None and x.ndim]
    edges, names = _pairs(edges_file[1], f"{where}/{edges_file[0]}", max(rows, default=None))
    nodes = max(int(edges.max()) + 1, *(x.shape[0] for x in (loaded["features"], labels) if x is not None), 0)
    for kind, x in (("features", loaded["features"]), ("labels", labels)):
        if x is not None and x.shape[0] != nodes:
            raise UsageError(f"{where}: {nodes} nodes, but {kind} of {x.shape[0]}; each node has one row")
    parts = {split: loaded[split] for split in ("train", "valid", "test")}
    given = {split: part for split, part in parts.items() if part is not None}
    if given and len(given) < 3:
        raise UsageError(
            f"{where} holds idx_{next(iter(given))}.npy alone; a split needs idx_train, idx_val and idx_test"
        )
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(files[file])
    return Graph(
        name,
        edges,
        nodes,
        loaded["features"],
        labels,
        digest.hexdigest(),
        names=names,
        parts={split: _nodes(part, nodes, f"{where}: idx_{split}") for split, part in given.items()} or None,
        warnings=warnings,
    )


def read_graph(name: str, entry: DataSet, folder: Path) -> Graph:
    """Read a data set of kind ``graph``."""
    files, warnings = {}, [_NO_FEATURES[name]] if name in _NO_FEATURES else []
    for file, digest in entry.files.items():
        files[file], warning = read_bytes(folder, file, digest)
        warnings += [warning] if warning else []
    graph = _make(name, files, str(folder), warnings)
    graph.label_column = _LABEL_COLUMN.get(name)
    graph.degrees = name == "Airport"
    return graph


def own_graph(path: Path) -> Graph:
    """Read a folder of the user's own: ``edges.csv`` and, where there are, features, labels and ``idx_*`` as ``.npy``.

    Raises
    ------
    UsageError : a malformed line, or files that do not fit together.
    """
    names = [
        "edges.csv", "features.npy", "features.npz", "labels.npy", "idx_train.npy", "idx_val.npy", "idx_test.npy",
    ]  # fmt: skip
    files = {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    graph = _make(path.resolve().name, files, str(path), [])
    graph.split = "own"
    return graph
