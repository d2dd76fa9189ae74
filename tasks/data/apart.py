"""Sets of texts that share no text with others, nor between their own splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from tasks.errors import UsageError

from .text import SPLITS, Texts

__all__ = ["apart"]

_NOISE = re.compile(r"\W+")


def _plain(text: str) -> str:
    """A text without case, spaces and punctuation, in which copies of a sentence differ; itself where it has nothing else."""
    return _NOISE.sub("", text.lower()) or text.strip()


def _texts(data: Texts) -> set[str]:
    columns = [data.first] if data.second is None else [data.first, data.second]
    return {_plain(text) for column in columns for split in SPLITS for text in column[split]} - {""}


def apart(data: Texts, others: Sequence[Texts]) -> Texts:
    """Leave out rows with a text that another set has, and validation and test rows that a split before them has.

    Case, spaces and punctuation do not count. A warning says how many rows went.

    Raises
    ------
    UsageError : a split would be empty.
    """
    foreign = set().union(*(_texts(other) for other in others)) if others else set()
    seen: set[tuple[str, str]] = set()
    kept: dict[str, list[int]] = {}
    lost: dict[str, int] = {}
    for split in SPLITS:
        second = data.second[split] if data.second is not None else [""] * len(data.first[split])
        rows = [(_plain(a), _plain(b)) for a, b in zip(data.first[split], second, strict=True)]
        kept[split] = [i for i, row in enumerate(rows) if row not in seen and not foreign.intersection(row)]
        lost[split] = len(rows) - len(kept[split])
        seen |= set(rows)
        if not kept[split]:
            names = ", ".join(other.name for other in others)
            raise UsageError(f"all {split} texts of {data.name} are in {names} too: nothing is left apart from them")
    if not any(lost.values()):
        return data
    names = ", ".join(other.name for other in others)
    where = ", ".join(f"{count} {split}" for split, count in lost.items() if count)
    digest = hashlib.sha256(f"{data.sha256} {sorted(kept.items())}".encode()).hexdigest()
    return replace(
        data,
        first={split: [data.first[split][i] for i in kept[split]] for split in SPLITS},
        second=None if data.second is None else {s: [data.second[s][i] for i in kept[s]] for s in SPLITS},
        label={split: data.label[split][torch.tensor(kept[split])] for split in SPLITS},
        sha256=digest,
        split=f"{data.split}; apart from {names or 'its own copies'}",
        warnings=[
            *(w for w in data.warnings if "training texts too" not in w),
            f"{where} rows of {data.name} left out: texts that {names or 'an earlier split'} has too",
        ],
    )
