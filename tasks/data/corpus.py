"""Plain text to train language models on: a paragraph a line, an empty line between documents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import UsageError

from .locate import exists, read_text
from .sets import DataSet

__all__ = ["Corpus", "corpus_from_text", "own_corpus", "read_corpus"]

SPLITS = ("train", "valid", "test")


@dataclass
class Corpus:
    """Paragraphs of three splits.

    Attributes
    ----------
    paragraphs : by split, in order; no empty ones
    sha256 : of the paragraphs of all splits
    """

    name: str
    paragraphs: Mapping[str, list[str]]
    sha256: str
    split: str = "published"
    warnings: list[str] = field(default_factory=list)


def corpus_from_text(name: str, texts: Mapping[str, str]) -> Corpus:
    """Build from the text of each split.

    Raises
    ------
    UsageError : a split without a paragraph.
    """
    paragraphs = {split: [line.strip() for line in texts[split].split("\n") if line.strip()] for split in SPLITS}
    for split, lines in paragraphs.items():
        if not lines:
            raise UsageError(f"the {split} split of {name} holds no text: one paragraph a line is expected")
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update("\n".join([split, *paragraphs[split], ""]).encode())
    return Corpus(name, paragraphs, digest.hexdigest())


def read_corpus(name: str, entry: DataSet, folder: Path) -> Corpus:
    """Read a data set of kind ``corpus``: its files are train, valid and test."""
    texts, warnings = {}, []
    for split, (file, digest) in zip(SPLITS, entry.files.items(), strict=True):
        texts[split], warning = read_text(folder, file, digest)
        warnings += [warning] if warning else []
    corpus = corpus_from_text(name, texts)
    corpus.warnings += warnings
    return corpus


def own_corpus(path: Path) -> Corpus:
    """Read ``train.txt``, ``valid.txt`` and ``test.txt`` (or ``.gz`` of them) of a folder.

    Raises
    ------
    UsageError : one of them is missing or empty.
    """
    for split in SPLITS:
        if not exists(path, f"{split}.txt"):
            raise UsageError(
                f"{path} holds no {split}.txt (or .gz): a corpus needs train.txt, valid.txt and test.txt, one "
                "paragraph a line"
            )
    corpus = corpus_from_text(path.resolve().name, {split: read_text(path, f"{split}.txt")[0] for split in SPLITS})
    corpus.split = "own"
    return corpus
