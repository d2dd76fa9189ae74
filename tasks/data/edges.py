"""Any graph-like data as one list of edges with their relations."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.errors import UsageError

from .graphs import Graph
from .hierarchy import Hierarchy
from .kg import KnowledgeGraph
from .load import load
from .locate import read_text

__all__ = ["EdgeList", "load_edges", "parse_edge_file"]


_MARKS = "#%"
_COMMENT = re.compile(r"[#%]+\s")


@dataclass(frozen=True)
class EdgeList:
    """Directed edges.

    Attributes
    ----------
    edges : int64 array, shape (E, 2): from, to
    relation : int64 array, shape (E,), indexes `relations`
    nodes, relations : names by id
    what : what the edges are, in a few words
    """

    name: str
    edges: NDArray[np.int64]
    relation: NDArray[np.int64]
    nodes: list[str]
    relations: list[str]
    what: str


def load_edges(name: str, data_dir: str | Path | None = None) -> EdgeList:
    """Load a data set by name, a folder of a knowledge or plain graph, or a file of edges.

    Of a knowledge graph the training triples are taken, so that what is chosen by them has seen no other split; of a
    hierarchy the edges that no longer path implies; of a plain graph, which is undirected, every edge in both directions.

    Raises
    ------
    UsageError : unknown name, missing or malformed file, or data that is no graph.
    """
    path = Path(name)
    if path.is_file() and ("/" in name or name.startswith(".")):
        return parse_edge_file(read_text(path.parent, path.name)[0], name)
    data = load(name, data_dir)
    if isinstance(data, Hierarchy):
        edges = data.direct.numpy()
        return EdgeList(data.name, edges, np.zeros(len(edges), np.int64), data.nodes, ["is a"], "direct edges")
    if isinstance(data, KnowledgeGraph):
        head, relation, tail = data.train.numpy().T
        edges = np.stack([head, tail], 1)
        return EdgeList(data.name, edges, relation, data.entities, data.relations, "training triples")
    if isinstance(data, Graph):
        loops = data.edges[:, 0] == data.edges[:, 1]
        edges = np.concatenate([data.edges, data.edges[~loops, ::-1]])
        nodes = [str(node) for node in range(data.nodes)]
        what = f"directions of {len(data.edges):,} undirected edges"
        return EdgeList(data.name, edges, np.zeros(len(edges), np.int64), nodes, ["edge"], what)
    raise UsageError(
        f"{name} is no graph: `hyrel geometry` takes knowledge graphs, hierarchies, plain graphs (`hyrel ls data` names "
        "them), and files of edges"
    )


def parse_edge_file(text: str, where: str) -> EdgeList:
    """Read lines of two cells (from, to) or three (head, relation, tail), parted by tabs, commas or blanks.

    Lines at the beginning that start with # or % are comments; where names start so too, those with a blank after it are.
    The first line says which, and how many cells there are.

    Raises
    ------
    UsageError : no line, another number of cells (which line).
    """
    given = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    lines = list(dropwhile(lambda numbered: numbered[1][0] in _MARKS, given))
    if not lines or any(line[0] in _MARKS for _, line in lines):  # names begin like that too
        lines = list(dropwhile(lambda numbered: bool(_COMMENT.match(numbered[1])), given))
    if not lines:
        raise UsageError(f"{where} holds no edge")
    first = lines[0][1]
    separator = next((mark for mark in ("\t", ",") if mark in first), None)
    rows: list[list[str]] = []
    for number, line in lines:
        if separator is None:
            cells = line.split()
        else:
            try:
                cells = next(csv.reader([line], delimiter=separator)) if separator == "," else line.split(separator)
            except csv.Error as error:
                raise UsageError(f"{where}, line {number}: {error}: {line[:80]!r}") from None
        cells = [cell.strip() for cell in cells]
        if len(cells) not in (2, 3) or (rows and len(cells) != len(rows[0])) or not all(cells):
            expected = (
                "2 cells (from, to) or 3 (head, relation, tail)" if not rows else f"{len(rows[0])} cells as before"
            )
            raise UsageError(f"{where}, line {number}: expected {expected}, got {len(cells)}: {line[:80]!r}")
        rows.append(cells)
    pairs = [(row[0], row[-1]) for row in rows]
    kinds = [row[1] if len(row) == 3 else "edge" for row in rows]
    nodes = sorted({node for pair in pairs for node in pair})
    relations = sorted(set(kinds))
    node, kind = ({key: i for i, key in enumerate(names)} for names in (nodes, relations))
    edges = np.array([(node[a], node[b]) for a, b in pairs], dtype=np.int64)
    return EdgeList(
        Path(where).name, edges, np.array([kind[k] for k in kinds], dtype=np.int64), nodes, relations, "lines"
    )
