"""Sentences with a dependency tree each, from CoNLL-U files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from tasks.errors import UsageError

from .entry import DataSet
from .locate import exists, read_text

__all__ = ["Sentence", "Treebank", "own_treebank", "parse_conllu", "read_treebank", "treebank_from_sentences"]

SPLITS = ("train", "valid", "test")
_NAMES = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}  # of a folder's own files


@dataclass(frozen=True)
class Sentence:
    """Words and the tree over them.

    Attributes
    ----------
    words : n of them
    heads : int64 (n,), place of each word's head, from 0; -1 for the root
    punctuation : bool (n,)
    """

    words: tuple[str, ...]
    heads: np.ndarray
    punctuation: np.ndarray

    @cached_property
    def distances(self) -> np.ndarray:
        """Edges of the tree between two words, int16 (n, n); -1 where no path joins them, which no tree has."""
        n = len(self.words)
        below = np.flatnonzero(self.heads >= 0)
        edges = coo_array((np.ones(len(below)), (below, self.heads[below])), shape=(n, n))
        found = shortest_path(edges.tocsr(), directed=False, unweighted=True)
        return np.where(np.isfinite(found), found, -1).astype(np.int16)

    @property
    def depths(self) -> np.ndarray:
        """Edges between each word and the root, int16 (n,)."""
        return self.distances[int(np.flatnonzero(self.heads < 0)[0])]


@dataclass
class Treebank:
    """Sentences of three splits.

    Attributes
    ----------
    sentences : by split, in order
    sha256 : of the words, heads and marks of punctuation of all splits
    """

    name: str
    sentences: Mapping[str, Sequence[Sentence]]
    sha256: str
    split: str = "published"
    warnings: list[str] = field(default_factory=list)


def _sentence(tokens: Sequence[Mapping[str, object]], where: str) -> Sentence:
    # A multiword token has the id (1, "-", 2), a word that is not written (1, ".", 1): the tree is over the others.
    rows = [token for token in tokens if isinstance(token["id"], int)]
    words = tuple(str(row["form"]) for row in rows)
    numbers = [row["head"] for row in rows]
    known = all(isinstance(head, int) and 0 <= head <= len(rows) for head in numbers)
    if [row["id"] for row in rows] != list(range(1, len(rows) + 1)) or not known:
        raise UsageError(f"{where}: every word needs a number, from 1 on, and a head, 0 or the number of a word")
    heads = np.array(numbers, dtype=np.int64) - 1
    roots = int((heads < 0).sum())
    sentence = Sentence(words, heads, np.array([row["upos"] == "PUNCT" for row in rows], dtype=bool))
    if roots != 1:
        raise UsageError(f"{where}: {roots} words have the head 0, expected one, the root")
    if (sentence.distances < 0).any():  # as many edges as a tree has, and not all joined
        raise UsageError(f"{where}: the heads make a circle, expected a tree")
    return sentence


def parse_conllu(text: str, where: str) -> list[Sentence]:
    """Sentences of a CoNLL-U text, with the words' forms, heads and universal part of speech.

    Raises
    ------
    UsageError : a line that is none of CoNLL-U, or heads that are no tree; says which sentence.
    """
    try:
        import conllu
    except ImportError:
        raise UsageError("treebanks are read by conllu: pip install 'hyrel[parsing]'") from None
    found: list[Sentence] = []
    try:
        for tokens in conllu.parse_incr(StringIO(text)):
            if len(tokens):
                name = tokens.metadata.get("sent_id", f"sentence {len(found) + 1}")
                found.append(_sentence(tokens, f"{where}, {name}"))
    except conllu.exceptions.ParseException as error:
        raise UsageError(f"{where}, after {len(found)} sentences: no CoNLL-U: {' '.join(str(error).split())}") from None
    return found


def treebank_from_sentences(name: str, sentences: Mapping[str, Sequence[Sentence]]) -> Treebank:
    """Build from the sentences of each split.

    Raises
    ------
    UsageError : a split without a sentence.
    """
    digest = hashlib.sha256()
    for split in SPLITS:
        if not sentences[split]:
            raise UsageError(f"the {split} split of {name} holds no sentence; CoNLL-U is expected")
        for one in sentences[split]:
            marks = one.punctuation.astype(int).tolist()
            digest.update(f"{split}\t{one.words}\t{one.heads.tolist()}\t{marks}\n".encode())
    return Treebank(name, {split: sentences[split] for split in SPLITS}, digest.hexdigest())


def read_treebank(name: str, entry: DataSet, folder: Path) -> Treebank:
    """Read a data set of kind ``treebank``: its files are train, valid and test."""
    sentences, warnings = {}, []
    for split, (file, digest) in zip(SPLITS, entry.files.items(), strict=True):
        text, warning = read_text(folder, file, digest)
        sentences[split] = parse_conllu(text, f"{folder / file}")
        warnings += [warning] if warning else []
    bank = treebank_from_sentences(name, sentences)
    bank.warnings += warnings
    return bank


def own_treebank(path: Path) -> Treebank:
    """Read ``train.conllu``, ``valid.conllu`` (or ``dev.conllu``) and ``test.conllu`` (or ``.gz`` of them) of a folder.

    Raises
    ------
    UsageError : one of them is missing, empty or malformed.
    """
    sentences = {}
    for split, names in _NAMES.items():
        file = next((f"{name}.conllu" for name in names if exists(path, f"{name}.conllu")), None)
        if file is None:
            raise UsageError(
                f"{path} holds no {names[0]}.conllu (or .gz): a treebank needs train.conllu, valid.conllu and test.conllu"
            )
        sentences[split] = parse_conllu(read_text(path, file)[0], f"{path / file}")
    bank = treebank_from_sentences(path.resolve().name, sentences)
    bank.split = "own"
    return bank
