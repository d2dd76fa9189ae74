"""Sentences with two marked arguments and the relation between them, in the format of SemEval-2010 Task 8."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tasks.errors import UsageError

from .locate import read_text
from .sets import DataSet

__all__ = ["Marked", "RelationSentences", "marked", "parse_marked", "read_sentences", "sentences_from_text"]

SPLITS = ("train", "valid", "test")
_LINE = re.compile(r'^(\d+)\t"(.*)"\s*$')
_MARKED = re.compile(r"^(.*)<e1>(.*)</e1>(.*)<e2>(.*)</e2>(.*)$")


@dataclass(frozen=True)
class Marked:
    """One sentence cut at its marks: what stands before, the first argument, between, the second argument, after."""

    before: str
    first: str
    between: str
    second: str
    after: str


@dataclass
class RelationSentences:
    """Sentences of three splits with the class of each.

    Attributes
    ----------
    sentences : by split
    label : int64 Tensor (N,) by split, which indexes ``labels``
    labels : names of the classes, sorted
    sha256 : of the sentences and classes of all splits
    """

    name: str
    sentences: Mapping[str, list[Marked]]
    label: Mapping[str, Tensor]
    labels: list[str]
    sha256: str
    split: str = "published"
    warnings: list[str] = field(default_factory=list)


def marked(text: str) -> Marked | None:
    """A sentence cut at ``<e1>``, ``</e1>``, ``<e2>`` and ``</e2>``; None where they do not stand in this order."""
    found = _MARKED.match(text)
    return Marked(*found.groups()) if found else None


def parse_marked(text: str, where: str) -> list[tuple[Marked, str]]:
    """Read blocks of two lines, ``ID TAB "sentence"`` and its class; comments and empty lines between them are left out.

    Raises
    ------
    UsageError : a sentence without both marks in order, or without a class (which line).
    """
    rows: list[tuple[Marked, str]] = []
    waiting: Marked | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if found := _LINE.match(line):
            if waiting is not None:
                raise UsageError(f"{where}, line {number - 1}: a sentence has no class on the line after it")
            waiting = marked(found[2])
            if waiting is None:
                raise UsageError(
                    f"{where}, line {number}: expected <e1>...</e1> before <e2>...</e2>, got {found[2][:80]!r}"
                )
        elif waiting is not None and line.strip():
            rows.append((waiting, line.strip()))
            waiting = None
        elif line.strip() and not line.startswith("Comment"):
            raise UsageError(f'{where}, line {number}: expected ID TAB "sentence", got {line[:80]!r}')
    if waiting is not None:
        raise UsageError(f"{where}: the last sentence has no class on the line after it")
    return rows


def sentences_from_text(name: str, texts: Mapping[str, str], *, where: str = "") -> RelationSentences:
    """Build from the text of each split; without a ``valid`` one, a tenth of the training sentences serves, by hash.

    A training sentence goes to validation where ``int(sha256(sentence)[:8], 16) % 10 == 8``, so that equal sentences
    stay together and no seed is needed.

    Raises
    ------
    UsageError : a malformed line, a missing or empty split, or a class that no training sentence has.
    """
    rows = {split: parse_marked(text, f"{where}{split}") for split, text in texts.items()}
    own = "valid" in rows
    if not own:
        hashed = [int(hashlib.sha256(_plain(m).encode()).hexdigest()[:8], 16) % 10 == 8 for m, _ in rows["train"]]
        rows["valid"] = [row for row, chosen in zip(rows["train"], hashed, strict=True) if chosen]
        rows["train"] = [row for row, chosen in zip(rows["train"], hashed, strict=True) if not chosen]
    for split in SPLITS:
        if not rows.get(split):
            raise UsageError(f"the {split} split of {name} holds no sentence")
    labels = sorted({label for _, label in rows["train"]})
    place = {label: i for i, label in enumerate(labels)}
    for split in ("valid", "test"):
        if unknown := sorted({label for _, label in rows[split]} - place.keys()):
            raise UsageError(f"the {split} split of {name} has classes that no training sentence has: {unknown}")
    lines = ["\t".join((split, _plain(m), label)) for split in SPLITS for m, label in rows[split]]
    trained, warnings = {_plain(m) for m, _ in rows["train"]}, []
    for split in ("valid", "test"):
        if leaked := sum(_plain(m) in trained for m, _ in rows[split]):
            warnings.append(f"{leaked} of {len(rows[split])} {split} sentences of {name} are training sentences too")
    return RelationSentences(
        name,
        {split: [m for m, _ in rows[split]] for split in SPLITS},
        {split: torch.tensor([place[label] for _, label in rows[split]]) for split in SPLITS},
        labels,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "published" if own else "published; a tenth of train is valid",
        warnings,
    )


def _plain(m: Marked) -> str:
    return f"{m.before}<e1>{m.first}</e1>{m.between}<e2>{m.second}</e2>{m.after}"


def read_sentences(name: str, entry: DataSet, folder: Path) -> RelationSentences:
    """Read a data set of kind ``re``: its files are the splits in order, ``train, test`` or ``train, valid, test``."""
    names = SPLITS if len(entry.files) == len(SPLITS) else ("train", "test")
    texts, warnings = {}, []
    for split, (file, digest) in zip(names, entry.files.items(), strict=True):
        texts[split], warning = read_text(folder, file, digest)
        warnings += [warning] if warning else []
    data = sentences_from_text(name, texts, where=f"{folder}, ")
    data.warnings += warnings
    return data
