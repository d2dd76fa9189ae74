"""Sentences and their translations, line by line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import UsageError

from .entry import DataSet
from .locate import exists, read_text

__all__ = ["SPLITS", "Parallel", "own_parallel", "parallel_from_lines", "read_parallel"]

SPLITS = ("train", "valid", "test")


@dataclass
class Parallel:
    """Lines of several splits in two or more languages.

    Attributes
    ----------
    lines : by split, then by language; line i of one language is the translation of line i of another. Beside train, valid
        and test there may be further test sets, by their names.
    sha256 : of all of it
    """

    name: str
    lines: Mapping[str, Mapping[str, list[str]]]
    sha256: str
    split: str = "published"
    warnings: list[str] = field(default_factory=list)

    @property
    def languages(self) -> tuple[str, ...]:
        """Names of the languages."""
        return tuple(self.lines["train"])

    @property
    def more_tests(self) -> tuple[str, ...]:
        """Names of the test sets beside ``"test"``."""
        return tuple(split for split in self.lines if split not in SPLITS)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def parallel_from_lines(name: str, lines: Mapping[str, Mapping[str, list[str]]]) -> Parallel:
    """Build from the lines of each split and language; pairs with an empty line are left out, with a warning.

    Raises
    ------
    UsageError : languages with unequally many lines, or a split without a pair.
    """
    kept: dict[str, dict[str, list[str]]] = {}
    warnings = []
    for split, texts in lines.items():
        counts = {language: len(rows) for language, rows in texts.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} of {language}" for language, count in counts.items())
            raise UsageError(f"the {split} split of {name} has {told}: as many lines are expected of each language")
        rows = [row for row in zip(*texts.values(), strict=True) if all(row)]
        if not rows:
            raise UsageError(f"the {split} split of {name} holds no pair of lines")
        if left := next(iter(counts.values())) - len(rows):
            warnings.append(f"{left} pairs of the {split} split have an empty line and are left out")
        kept[split] = {language: [row[i] for row in rows] for i, language in enumerate(texts)}
    digest = hashlib.sha256()
    for split, texts in kept.items():
        for language, column in texts.items():
            digest.update("\n".join([f"{split}.{language}", *column, ""]).encode())
    return Parallel(name, kept, digest.hexdigest(), warnings=warnings)


def read_parallel(name: str, entry: DataSet, folder: Path) -> Parallel:
    """Read a data set of kind ``parallel``.

    Its files are ``PART.LANGUAGE``; of the parts, in order, the first three are train, valid and test, and further test sets
    keep their names.
    """
    parts = list(dict.fromkeys(file.rsplit(".", 1)[0] for file in entry.files))
    splits = dict(zip(parts, [*SPLITS, *parts[len(SPLITS) :]], strict=True))
    lines: dict[str, dict[str, list[str]]] = {split: {} for split in splits.values()}
    warnings = []
    for file, digest in entry.files.items():
        part, language = file.rsplit(".", 1)
        text, warning = read_text(folder, file, digest)
        lines[splits[part]][language] = _lines(text)
        warnings += [warning] if warning else []
    found = parallel_from_lines(name, lines)
    found.warnings += warnings
    return found


def own_parallel(path: Path) -> Parallel:
    """Read ``train.LANGUAGE``, ``valid.LANGUAGE`` and ``test.LANGUAGE`` (or ``.gz`` of them), two languages or more.

    Raises
    ------
    UsageError : fewer languages than two, a missing file, or files of unequal length.
    """
    names = (file.name.removesuffix(".gz") for file in sorted(path.iterdir()) if file.is_file())
    languages = sorted({name.removeprefix("train.") for name in names if name.startswith("train.")} - {""})
    if len(languages) < 2:
        there = f"train.{languages[0]} alone" if languages else "no train.LANGUAGE"
        raise UsageError(
            f"{path} holds {there}: parallel text needs train, valid and test of two languages, such as train.en and "
            "train.de, one sentence a line"
        )
    lines: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        for language in languages:
            if not exists(path, f"{split}.{language}"):
                raise UsageError(f"{path} holds no {split}.{language} (or .gz), beside train.{language}")
            lines.setdefault(split, {})[language] = _lines(read_text(path, f"{split}.{language}")[0])
    found = parallel_from_lines(path.resolve().name, lines)
    found.split = "own"
    return found
