"""Which rows are trained on and evaluated: all, a cap with the classes in proportion, or a few of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.data.text import Texts

from .config import TextConfig

__all__ = [
    "batch_at",
    "epoch_batch",
    "epoch_batches",
    "evaluation_rows",
    "few",
    "spread",
    "stratified",
    "training_rows",
]

FIFTHS = 5
_GROUP = (
    16  # batches that are sorted by length together: fewer batches pad more, more make batches less alike in content
)
_EVALUATION = 20_240_229  # a fixed draw: scores of several seeds are of the same rows


def _groups(data: Texts, split: str) -> list[np.ndarray]:
    """Rows of each class; of a regression, of each fifth of the labels in order."""
    label = data.label[split].numpy()
    if data.kind == "classification":
        return [np.flatnonzero(label == c) for c in range(len(data.labels))]
    return np.array_split(np.argsort(label, kind="stable"), FIFTHS)


def stratified(groups: Sequence[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` rows with the groups in proportion, by largest remainder, sorted."""
    sizes = np.array([len(group) for group in groups])
    if count >= sizes.sum():
        return np.sort(np.concatenate(groups))
    exact = sizes * count / sizes.sum()
    taken = np.floor(exact).astype(int)
    for place in np.argsort(taken - exact, kind="stable")[: count - taken.sum()]:
        taken[place] += 1
    drawn = [generator.permutation(group)[:n] for group, n in zip(groups, taken, strict=True)]
    return np.sort(np.concatenate(drawn))


def few(groups: Sequence[np.ndarray], count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` rows of each group, all of a smaller one, sorted."""
    return np.sort(np.concatenate([generator.permutation(group)[:count] for group in groups]))


def training_rows(data: Texts, config: TextConfig) -> tuple[np.ndarray, list[str]]:
    """Training rows that a configuration takes, a function of its seed, and what to warn of."""
    groups, generator = _groups(data, "train"), np.random.default_rng([config.seed, 7])
    if config.shots is not None:
        names = data.labels or [f"fifth {i + 1} of the labels" for i in range(FIFTHS)]
        short = [f"{name} ({len(g)})" for name, g in zip(names, groups, strict=True) if len(g) < config.shots]
        warnings = [f"fewer than {config.shots} training rows have the label {', '.join(short)}"] if short else []
        return few(groups, config.shots, generator), warnings
    total = len(data.label["train"])
    return stratified(groups, config.max_train or total, generator), []


def evaluation_rows(data: Texts, split: str, config: TextConfig) -> np.ndarray:
    """Rows of a split that are evaluated, the same for every seed."""
    total = len(data.label[split])
    return stratified(_groups(data, split), config.max_eval or total, np.random.default_rng(_EVALUATION))


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` places of `total`, at equal distances: the first ones of a set in order of its classes are of one."""
    count = min(count, total)
    return np.arange(count) * total // max(count, 1)


def epoch_batches(
    count: int, size: int, generator: np.random.Generator, lengths: np.ndarray | None = None
) -> list[np.ndarray]:
    """Batches of an epoch, places of `count` rows in random order.

    With `lengths`, rows of like length come together: the random order is cut into groups of 16 batches, each group sorted by
    length and cut into batches, and all batches are put in random order.
    """
    places = generator.permutation(count)
    if lengths is None:
        return [places[start : start + size] for start in range(0, count, size)]
    groups = (places[start : start + _GROUP * size] for start in range(0, count, _GROUP * size))
    ordered = np.concatenate([group[np.argsort(-lengths[group], kind="stable")] for group in groups])
    batches = [ordered[start : start + size] for start in range(0, count, size)]
    return [batches[i] for i in generator.permutation(len(batches))]


_last: tuple[tuple[int, ...], np.ndarray | None, list[np.ndarray]] | None = None


def epoch_batch(index: int, count: int, size: int, key: Sequence[int], lengths: np.ndarray | None = None) -> np.ndarray:
    """One of :func:`epoch_batches`, of an order that is a function of a key such as seed and epoch.

    The epoch that was made last is kept: of a million rows it takes a quarter of a second.
    """
    global _last
    made = (count, size, *key)
    if _last is None or _last[0] != made or _last[1] is not lengths:
        _last = made, lengths, epoch_batches(count, size, np.random.default_rng(list(key)), lengths)
    return _last[2][index]


def batch_at(step: int, count: int, size: int, seed: int, lengths: np.ndarray) -> np.ndarray:
    """Places of the batch of a step, counted over epochs: rows of like length, every row once an epoch."""
    epoch, index = divmod(step, -(-count // size))
    return epoch_batch(index, count, size, (seed, epoch), lengths)
