"""Batches of texts of like length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tasks
from tasks.text.rows import batch_at, epoch_batches, spread


def test_batches_of_like_length_cover_the_rows_once_with_less_padding() -> None:
    """An epoch is a function of its generator; within 16 batches of the random order, texts are sorted by length."""
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    plain, grouped = (epoch_batches(1000, 16, np.random.default_rng(1), found) for found in (None, lengths))
    assert np.concatenate(plain).tolist() == np.random.default_rng(1).permutation(1000).tolist()
    for batches in (plain, grouped):
        assert sorted(np.concatenate(batches)) == list(range(1000))
        assert sorted(map(len, batches)) == [8] + [16] * 62
    padded = [sum(len(b) * lengths[b].max() for b in batches) for batches in (plain, grouped)]
    assert padded[1] < 0.65 * padded[0] and padded[1] >= lengths.sum()
    again = epoch_batches(1000, 16, np.random.default_rng(1), lengths)
    assert all(np.array_equal(a, b) for a, b in zip(grouped, again, strict=True))
    order = [lengths[batch].max() for batch in grouped]
    assert abs(np.corrcoef(order, range(len(order)))[0, 1]) < 0.5  # long ones do not come first
    blocks = [set(block) for block in np.array_split(np.random.default_rng(1).permutation(1000), range(256, 1000, 256))]
    assert all(any(set(batch) <= block for block in blocks) for batch in grouped)


def test_a_head_alone_and_a_regression_take_batches_of_like_length_too(
    toy_pairs: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    options = {"data": str(toy_pairs), "model": {"name": backbones["bert"]}, "max_length": 16, "quiet": True}
    train = {"max_steps": 12, "eval_steps": 6, "batch_size": 16}
    grouped = tasks.run("text", runs=tmp_path, train=train, group_by_length=True, **options)
    plain = tasks.run("text", runs=tmp_path, train=train, **options)
    assert grouped.folder.parent != plain.folder.parent and grouped.metrics != plain.metrics
    heads = [
        tasks.run("text", runs=tmp_path / "heads", tuning="head", train=train, group_by_length=flag, **options)
        for flag in (True, False)
    ]
    assert heads[0].metrics == heads[1].metrics  # its states are computed once, and grouping would save nothing


def test_the_batches_of_consecutive_steps_are_epochs() -> None:
    lengths = np.arange(50) % 7
    for first in (0, 4, 8):  # 4 batches an epoch
        rows = np.concatenate([batch_at(first + place, 50, 16, 3, lengths) for place in range(4)])
        assert sorted(rows) == list(range(50))
    assert batch_at(2, 50, 16, 3, lengths).tolist() == batch_at(2, 50, 16, 3, lengths).tolist()
    assert batch_at(2, 50, 16, 3, lengths).tolist() != batch_at(6, 50, 16, 3, lengths).tolist()


def test_places_are_spread_over_all() -> None:
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(0, 5).tolist() == []
