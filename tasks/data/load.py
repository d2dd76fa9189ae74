"""Data sets by name, or the user's own files by path."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tasks.errors import UsageError

from .kg import graph_from_triples
from .locate import exists, find, read_text
from .sets import EMBEDDED

__all__ = ["load"]

NEGATIVES = "_negatives"


def _triples(text: str, where: str, separator: str = "\t") -> list[tuple[str, str, str]]:
    rows, between = [], " TAB " if separator == "\t" else separator
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        cells = line.split(separator)
        if len(cells) != 3 or not all(cell.strip() for cell in cells):
            expected = between.join(("head", "relation", "tail"))
            raise UsageError(f"{where}, line {number}: expected {expected}, got {len(cells)} columns: {line[:80]!r}")
        rows.append((cells[0], cells[1], cells[2]))
    return rows


def _own_triples(text: str, where: str) -> list[tuple[str, str, str]]:
    """Triples whose names have no blanks around them, which no one sees in a file."""
    return [(head.strip(), relation.strip(), tail.strip()) for head, relation, tail in _triples(text, where)]


# kind -> what reads a set of the table, and a folder of the user's own
_READERS = {
    "corpus": "corpus:read_corpus",
    "graph": "graphs:read_graph",
    "hierarchy": "hierarchy:read_hierarchy",
    "parallel": "parallel:read_parallel",
    "re": "sentences:read_sentences",
    "text": "text:read_texts",
    "treebank": "treebank:read_treebank",
}
_OWN = {
    "corpus": "corpus:own_corpus",
    "parallel": "parallel:own_parallel",
    "text": "text:own_texts",
    "treebank": "treebank:own_treebank",
}


def _reader(place: str) -> Callable[..., Any]:
    module, name = place.split(":")
    found: Callable[..., Any] = getattr(import_module(f".{module}", __package__), name)
    return found


def _own_folder(path: Path) -> Any:
    if (path / "edges.csv").is_file():
        from .graphs import own_graph

        return own_graph(path)
    splits = {}
    for split in ("train", "valid", "test"):
        names = [f"{split}.txt", f"{split}.tsv"]
        found = [n for n in names if exists(path, n)]
        if len(found) > 1:
            raise UsageError(f"{path} holds {' and '.join(found)}; leave one {split} file")
        if not found:
            raise UsageError(
                f"{path} holds no {split}.txt or {split}.tsv (or .gz): a knowledge graph needs train, valid and test, "
                f"a plain graph edges.csv"
            )
        splits[split] = _own_triples(read_text(path, found[0])[0], f"{path / found[0]}")
    negatives = {
        split: _own_triples(read_text(path, f"{split}_negatives.txt")[0], f"{path}/{split}_negatives.txt")
        for split in ("valid", "test")
        if exists(path, f"{split}_negatives.txt")
    }
    graph = graph_from_triples(path.resolve().name, splits, negatives=negatives)
    graph.split = "own"
    return graph


def load(
    name: str, data_dir: str | Path | None = None, *, kind: str | None = None, apart_from: str | None = None
) -> Any:
    """Load a data set by name, ``"taxonomy"`` from the package itself, or a folder of the user's own files by path.

    `kind` is what a task takes, where the names of the files do not say it: a folder of texts (``"text"``) looks like one
    of a knowledge graph, ``"corpus"`` reads plain text, ``"treebank"`` CoNLL-U, ``"parallel"`` lines in several languages,
    ``"texts"`` several sets of texts by commas.
    Of a set of texts, rows with a text that one of `apart_from` has, sets by commas, are left out.

    Raises
    ------
    UsageError : unknown name (nearest suggested), missing files (where to put them), a malformed line (which).
    """
    if kind == "texts":
        from .several import read_several

        return read_several(name, data_dir)
    if apart_from is not None:
        from .apart import apart
        from .several import read_several
        from .text import Texts

        data = load(name, data_dir, kind="text")
        if not isinstance(data, Texts):
            return data  # which the task refuses
        return apart(data, list(read_several(apart_from, data_dir).sets.values()))
    if Path(name).is_dir() and ("/" in name or "\\" in name or name.startswith(".")):
        return (_reader(_OWN[kind]) if kind in _OWN else _own_folder)(Path(name))
    if "/" in name:
        if Path(name).is_file() and kind in _OWN:
            raise UsageError(f"{name} is a file, expected a folder with train, valid and test files of a {kind}")
        if Path(name).is_file():
            from .hierarchy import own_hierarchy

            return own_hierarchy(Path(name))
        raise UsageError(
            f"no folder {name}; --data takes the name of a data set or an existing folder (or file of edges)"
        )
    if name in EMBEDDED:
        from .embedded.taxonomy import taxonomy

        return graph_from_triples(name, taxonomy())
    entry, folder = find(name, data_dir)
    if entry.kind in _READERS:
        return _reader(_READERS[entry.kind])(name, entry, folder)
    separator = "," if entry.kind == "kg, commas" else "\t"
    parts, warnings = {}, []
    extra = {file: digest for file, digest in entry.extra.items() if exists(folder, file)}
    for file, expected in {**entry.files, **extra}.items():
        text, warning = read_text(folder, file, expected)
        parts[Path(file).stem] = _triples(text, f"{folder / file}", separator)
        warnings += [warning] if warning else []
    negatives = {stem.removesuffix(NEGATIVES): rows for stem, rows in parts.items() if stem.endswith(NEGATIVES)}
    graph = graph_from_triples(name, parts, negatives=negatives)
    graph.warnings += warnings
    return graph
