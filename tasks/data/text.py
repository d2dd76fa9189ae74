"""Sentences and pairs of sentences with a class or a number each."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf, isfinite, nan
from pathlib import Path

import torch
from torch import Tensor

from tasks.errors import UsageError

from .entry import DataSet
from .locate import exists, read_text
from .text_formats import FORMATS, Format, Row, comma_rows, tab_rows

__all__ = ["SPLITS", "Texts", "bucket", "own_texts", "read_texts", "texts_from_rows"]

SPLITS = ("train", "valid", "test")
_WHOLE = re.compile(r"-?\d+")
_HELD_OUT = 8
HEADERS = ("label", "score")  # what the last column of a first line is called where that names the columns


@dataclass
class Texts:
    """Texts of three splits with the label of each.

    Attributes
    ----------
    first : texts by split
    second : the second text of each pair, by split; None where the examples are single texts
    label : by split, int64 (N,), which indexes ``labels``, or float32 (N,) for a regression
    labels : names of the classes; empty for a regression. The second of two is the positive one.
    kind : ``"classification"`` or ``"regression"``
    monitor : validation metric that selects a model
    sha256 : of the texts and labels of all splits
    """

    name: str
    first: Mapping[str, list[str]]
    second: Mapping[str, list[str]] | None
    label: Mapping[str, Tensor]
    labels: list[str]
    kind: str
    monitor: str
    sha256: str
    split: str = "published"
    warnings: list[str] = field(default_factory=list)


def bucket(text: str) -> int:
    """Tenth that a text belongs to, 0 to 9, by its SHA-256: equal texts share it, and no seed is needed."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 10


def _split(files: Mapping[str, list[Row]], rule: str) -> dict[str, list[tuple[str, Row]]]:
    """Rows of each split, with the name of the file that each is from."""
    parts = [[(name, row) for row in rows] for name, rows in files.items()]
    if rule == "published":
        return dict(zip(SPLITS, parts, strict=True))
    pool = parts[0] if rule == "held out" else [item for part in parts for item in part]
    valid = [item for item in pool if bucket(item[1].first) == _HELD_OUT]
    if rule == "held out":
        train = [item for item in pool if bucket(item[1].first) != _HELD_OUT]
        return {"train": train, "valid": valid, "test": [item for part in parts[1:] for item in part]}
    train = [item for item in pool if bucket(item[1].first) < _HELD_OUT]
    return {"train": train, "valid": valid, "test": [item for item in pool if bucket(item[1].first) > _HELD_OUT]}


_RULES = {
    "published": "published",
    "hash": "tenths by hash: 8 train, 1 valid, 1 test",
    "held out": "published test; a tenth of train is valid, by hash",
}


def _number(text: str, span: tuple[float, float], where: str) -> float:
    value = float(text) if _is_number(text) else nan
    low, high = span
    if not isfinite(value) or not low <= value <= high:
        between = f" from {low:g} to {high:g}" if isfinite(high) else ""
        raise UsageError(f"{where}: expected a number{between}, got {text!r}")
    return value


def texts_from_rows(name: str, files: Mapping[str, list[Row]], form: Format, *, where: str = "") -> Texts:
    """Split the rows of the files, in order, and turn their labels into numbers.

    Raises
    ------
    UsageError : an unknown label (file and line), or a split without rows.
    """
    parts = _split(files, form.split)
    for split in SPLITS:
        if not parts[split]:
            raise UsageError(f"the {split} split of {name} holds no text")
    classes = form.classes
    if form.span is None and classes is None:
        classes = {label: label for label in _in_order({row.label for row in next(iter(files.values()))})}
    label: dict[str, Tensor] = {}
    for split, rows in parts.items():
        if form.span is not None:
            values = [_number(row.label, form.span, f"{where}{file}, line {row.line}") for file, row in rows]
            label[split] = torch.tensor(values, dtype=torch.float32)
        else:
            place = {code: i for i, code in enumerate(classes or ())}
            for file, row in rows:
                if row.label not in place:
                    known = ", ".join(list(place)[:20])
                    raise UsageError(f"{where}{file}, line {row.line}: label {row.label!r} is not one of {known}")
            label[split] = torch.tensor([place[row.label] for _, row in rows])
    pairs = parts["train"][0][1].second is not None
    text = {split: [(row.first, row.second or "") for _, row in rows] for split, rows in parts.items()}
    lines = ["\t".join((split, row.first, row.second or "", row.label)) for split in SPLITS for _, row in parts[split]]
    trained_on, warnings = set(text["train"]), []
    for split in ("valid", "test"):
        if leaked := sum(both in trained_on for both in text[split]):
            warnings.append(f"{leaked} of {len(text[split])} {split} texts of {name} are training texts too")
    chosen_on = set(text["valid"])
    if leaked := sum(both in chosen_on for both in text["test"]):
        warnings.append(f"{leaked} of {len(text['test'])} test texts of {name} are validation texts too")
    return Texts(
        name,
        {split: [first for first, _ in rows] for split, rows in text.items()},
        {split: [second for _, second in rows] for split, rows in text.items()} if pairs else None,
        label,
        list((classes or {}).values()),
        "classification" if form.span is None else "regression",
        form.monitor,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        _RULES[form.split],
        warnings,
    )


def _in_order(labels: set[str]) -> list[str]:
    """Whole numbers by value, other labels by name."""
    return sorted(labels, key=int if all(_WHOLE.fullmatch(label) for label in labels) else str)


def read_texts(name: str, entry: DataSet, folder: Path) -> Texts:
    """Read a data set of kind ``text``."""
    form, files, warnings = FORMATS[name], {}, []
    for file, digest in entry.files.items():
        text, warning = read_text(folder, file, digest, encoding=form.encoding)
        files[file] = form.read(text, f"{folder / file}")
        warnings += [warning] if warning else []
    data = texts_from_rows(name, files, form, where=f"{folder}/")
    data.warnings += warnings
    return data


def _own_file(path: Path, split: str) -> str | None:
    names = ("valid", "dev") if split == "valid" else (split,)
    found = [f"{n}{end}" for n in names for end in (".tsv", ".csv", ".txt") if exists(path, f"{n}{end}")]
    if len(found) > 1:
        raise UsageError(f"{path} holds {' and '.join(found)}; leave one {split} file")
    return found[0] if found else None


def _own_rows(text: str, where: str, *, comma: bool) -> list[Row]:
    """Rows ``text, label`` or ``text_a, text_b, label``; a first row that ends in one of ``HEADERS`` is a header."""
    if comma:  # a quoted cell may hold a line end
        width = len(next((cells for cells in csv.reader(io.StringIO(text, newline="")) if any(cells)), []))
    else:
        width = next((line for line in text.split("\n") if line.strip()), "").count("\t") + 1
    places: tuple[int, int | None, int] = (0, 1, 2) if width == 3 else (0, None, 1)
    rows = (comma_rows if comma else tab_rows)(text, where, places=places, columns=(3,) if width == 3 else (2,))
    return rows[1:] if rows and rows[0].label.lower() in HEADERS else rows


def own_texts(path: Path) -> Texts:
    """Read a folder of the user's own: ``train``, ``valid`` (or ``dev``) and ``test`` as ``.tsv``, ``.txt`` or ``.csv``.

    A line is a text and its label, or two texts and their label, with tabs between them (``.csv``: quoted, with commas). The
    labels are classes, unless all are numbers and one of them has a decimal point: then it is a regression. Without a
    validation file a tenth of the training texts, by hash, is held out.

    Raises
    ------
    UsageError : a missing file, or a malformed line (which).
    """
    files: dict[str, list[Row]] = {}
    for split in SPLITS:
        file = _own_file(path, split)
        if file is not None:
            files[file] = _own_rows(read_text(path, file)[0], f"{path / file}", comma=file.endswith(".csv"))
        elif split != "valid":
            raise UsageError(
                f"{path} holds no {split}.tsv, {split}.csv or {split}.txt (or .gz); a line is text TAB label, or text_a TAB "
                "text_b TAB label"
            )
    rows = [row for part in files.values() for row in part]
    widths = {name: part[0].second is not None for name, part in files.items() if part}
    if len(set(widths.values())) > 1:
        single, pairs = (next(n for n, wide in widths.items() if wide == kind) for kind in (False, True))
        raise UsageError(f"{path}: {single} holds single texts and {pairs} pairs of texts")
    numbers = _are_numbers([row.label for row in rows], path)
    form = Format(
        partial(tab_rows, places=(0, None, 1), columns=(2,)),
        span=(-inf, inf) if numbers else None,
        monitor="spearman" if numbers else "accuracy",
        split="published" if len(files) == len(SPLITS) else "held out",
    )
    data = texts_from_rows(path.resolve().name, files, form, where=f"{path}/")
    data.warnings += [] if numbers else _single_headers(files)
    data.split = "own" if form.split == "published" else "own; a tenth of train is valid, by hash"
    return data


def _are_numbers(labels: list[str], path: Path) -> bool:
    """Whether the set is a regression.

    Raises
    ------
    UsageError : all but a few labels are numbers with a decimal point.
    """
    others = [label for label in labels if not _is_number(label)]
    broken = [label for label in labels if _is_number(label) and "." in label]
    if others and len(others) < 0.1 * len(labels) and len(broken) > len(labels) / 2:
        raise UsageError(
            f"{path}: labels are numbers, but for {len(others)} such as {others[0]!r}: mend or leave them out"
        )
    return bool(broken) and not others


def _single_headers(files: Mapping[str, list[Row]]) -> list[str]:
    """Warnings of first lines whose label stands there alone, as a header's does."""
    found = []
    everywhere = Counter(row.label for rows in files.values() for row in rows)
    tops = Counter(rows[0].label for rows in files.values() if rows)
    for name, rows in files.items():
        if len(rows) > 3 and everywhere[rows[0].label] == tops[rows[0].label]:
            found.append(
                f"{name}, line {rows[0].line}: the label {rows[0].label!r} stands on first lines alone; is it a header? The "
                f"last column of one is called {' or '.join(HEADERS)}"
            )
    return found


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False
