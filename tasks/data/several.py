"""Several sets of texts at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import UsageError

from .text import Texts

__all__ = ["SeveralTexts", "read_several"]


@dataclass
class SeveralTexts:
    """Sets of texts by name.

    Attributes
    ----------
    name : the names, joined by +
    sha256 : of those of the sets
    """

    name: str
    sets: Mapping[str, Texts]
    sha256: str
    split: str = "of each set"
    warnings: list[str] = field(default_factory=list)


def read_several(names: str, data_dir: str | Path | None = None) -> SeveralTexts:
    """Read sets of texts, given by commas.

    Raises
    ------
    UsageError : a name twice, or one that is no set of texts.
    """
    from .load import load

    words = [word.strip() for word in names.split(",")]
    if twice := sorted({word for word in words if words.count(word) > 1}):
        raise UsageError(f"--data {names}: {twice[0]} stands there twice")
    sets = {}
    for word in words:
        found = load(word, data_dir, kind="text")
        if not isinstance(found, Texts):
            raise UsageError(f"--data {word}: no set of texts")
        sets[found.name] = found
    digest = hashlib.sha256("\n".join(f"{name} {texts.sha256}" for name, texts in sets.items()).encode()).hexdigest()
    return SeveralTexts(
        "+".join(sets), sets, digest, warnings=[warning for texts in sets.values() for warning in texts.warnings]
    )
