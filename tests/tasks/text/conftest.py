"""A separable toy set, and a pair set with numbers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ..conftest import BAD, FILLERS, GOOD


def toy_rows(count: int, seed: int, *, pairs: bool = False) -> list[str]:
    """Lines ``text TAB label``: good and bad words among fillers; of pairs, the number is how many words they share."""
    draw, rows = random.Random(seed), []
    for i in range(count):
        words = draw.choices(FILLERS, k=draw.randint(2, 7))
        if pairs:
            shared = i % 4
            first = draw.sample(FILLERS, 5)
            second = first[:shared] + draw.sample(GOOD, 4 - shared)
            rows.append("\t".join((" ".join(first), " ".join(second), f"{float(shared)}")))
        else:
            label = i % 2
            words.insert(draw.randint(0, len(words)), draw.choice(GOOD if label else BAD))
            rows.append("\t".join((" ".join(words), ("neg", "pos")[label])))
    return rows


def write_toy(folder: Path, *, pairs: bool = False) -> Path:
    folder.mkdir()
    for split, count, seed in (("train", 160, 0), ("valid", 40, 1), ("test", 60, 2)):
        lines = toy_rows(count, seed, pairs=pairs)
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Folder of a two-class set that a word decides."""
    return write_toy(tmp_path / "toy")


@pytest.fixture
def toy_pairs(tmp_path: Path) -> Path:
    """Folder of pairs with a number each."""
    return write_toy(tmp_path / "pairs", pairs=True)
