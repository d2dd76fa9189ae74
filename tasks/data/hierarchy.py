"""Taxonomies: edges from a node to each of its ancestors, as id tensors with a compressed index."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from tasks.errors import UsageError

from .entry import DataSet
from .locate import read_text

__all__ = ["Hierarchy", "ancestors_of", "hierarchy_from_edges", "own_hierarchy", "parse_edges", "read_hierarchy"]


@dataclass
class Hierarchy:
    """A taxonomy by its transitive closure. There is no held-out part: the closure is fitted and reconstructed.

    Attributes
    ----------
    edges : int64 Tensor, shape (E, 2): descendant, ancestor; sorted, each pair once
    nodes : names by id, sorted
    sha256 : of the closure
    """

    name: str
    edges: Tensor
    nodes: list[str]
    sha256: str
    split: str = "closure"
    warnings: list[str] = field(default_factory=list)

    @property
    def num_nodes(self) -> int:
        """Count the nodes."""
        return len(self.nodes)

    @cached_property
    def starts(self) -> Tensor:
        """Where the edges of each node begin, shape (num_nodes + 1,): those of u are ``edges[starts[u]:starts[u + 1]]``."""
        counts = torch.bincount(self.edges[:, 0], minlength=self.num_nodes)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @cached_property
    def heads(self) -> Tensor:
        """Nodes that have an ancestor, in order."""
        return torch.nonzero(self.starts.diff() > 0).squeeze(1)

    @cached_property
    def parent(self) -> Tensor:
        """One parent of each node, shape (num_nodes,): the ancestor that has most ancestors itself; -1 for a root."""
        ancestor = self.edges[:, 1]
        order = torch.argsort(self.starts.diff()[ancestor], stable=True)
        parent = np.full(self.num_nodes, -1)
        parent[self.edges[order, 0].numpy()] = ancestor[order].numpy()  # the last of equal indices stays
        return torch.from_numpy(parent)

    @cached_property
    def direct(self) -> Tensor:
        """Edges that no longer path implies (the transitive reduction), shape (D, 2)."""
        closure = _matrix(self.edges.numpy(), self.num_nodes)
        implied = (closure @ closure).tocsr()
        keep = closure - closure.multiply(implied > 0)
        keep.eliminate_zeros()
        child, parent = keep.nonzero()
        return torch.from_numpy(np.stack([child, parent], 1).astype(np.int64))


def ancestors_of(data: Hierarchy, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Find the ancestors of nodes (B,): row numbers and ancestors, two int64 tensors of equal length."""
    start = data.starts[nodes]
    count = data.starts[nodes + 1] - start
    row = torch.repeat_interleave(torch.arange(len(nodes)), count)
    offset = torch.arange(len(row)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return row, data.edges[start[row] + offset, 1]


def _matrix(edges: NDArray[np.int64], size: int) -> sparse.csr_matrix:
    ones = np.ones(len(edges), dtype=np.int32)
    return sparse.csr_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(size, size))


def _closure(edges: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Transitive closure by squaring: each round doubles the length of the paths that are counted."""
    reach = _matrix(edges, size)
    reach.data[:] = 1
    while True:
        more = reach + reach @ reach
        more.data[:] = 1
        if more.nnz == reach.nnz:
            return np.stack(more.nonzero(), 1).astype(np.int64)
        reach = more


def hierarchy_from_edges(name: str, pairs: Sequence[tuple[str, str]]) -> Hierarchy:
    """Number the nodes of (descendant, ancestor) pairs in sorted order and close the relation transitively.

    Raises
    ------
    UsageError : no edge, or a cycle (two nodes would be ancestors of each other; one of them is named).
    """
    if not pairs:
        raise UsageError(f"{name} holds no edge")
    nodes = sorted({node for pair in pairs for node in pair})
    number = {node: i for i, node in enumerate(nodes)}
    given = np.array([(number[child], number[parent]) for child, parent in pairs], dtype=np.int64)
    unique = np.unique(given, axis=0)
    # Before the closure, which of a cycle has every pair of nodes.
    _, component = csgraph.connected_components(_matrix(unique, len(nodes)), connection="strong")
    looped = np.bincount(component)[component] > 1
    looped[unique[unique[:, 0] == unique[:, 1], 0]] = True
    if looped.any():
        raise UsageError(
            f"{name} is no hierarchy: {looped.sum()} nodes are their own ancestors, the first is "
            f"{nodes[int(looped.argmax())]!r}"
        )
    edges = _closure(unique, len(nodes))
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    lines = "\n".join(f"{nodes[u]}\t{nodes[v]}" for u, v in edges.tolist())
    digest = hashlib.sha256(lines.encode()).hexdigest()
    warnings = []
    if len(edges) > len(unique):
        warnings.append(
            f"{len(edges) - len(unique)} implied edges of {name} were added to the {len(unique)} given ones"
        )
    return Hierarchy(name, torch.from_numpy(edges), nodes, digest, warnings=warnings)


def parse_edges(text: str, where: str) -> list[tuple[str, str]]:
    """Read lines ``descendant TAB ancestor``.

    Raises
    ------
    UsageError : a line of another form (which).
    """
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != 2 or not all(cell.strip() for cell in cells):
            raise UsageError(
                f"{where}, line {number}: expected descendant TAB ancestor, got {len(cells)} columns: {line[:80]!r}"
            )
        pairs.append((cells[0].strip(), cells[1].strip()))
    return pairs


def read_hierarchy(name: str, entry: DataSet, folder: Path) -> Hierarchy:
    """Read a data set of kind ``hierarchy``, which is one file."""
    (file, digest), *_ = entry.files.items()
    text, warning = read_text(folder, file, digest)
    found = hierarchy_from_edges(name, parse_edges(text, f"{folder / file}"))
    found.warnings += [warning] if warning else []
    return found


def own_hierarchy(path: Path) -> Hierarchy:
    """Read a file of edges of the user's own (may be .gz); direct edges suffice."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.replace(b"\r\n", b"\n").decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError):
        raise UsageError(f"{path} is no UTF-8 text, or no complete gzip file") from None
    data = hierarchy_from_edges(path.name.removesuffix(".gz").rsplit(".", 1)[0], parse_edges(text, str(path)))
    data.split = "own"
    return data
