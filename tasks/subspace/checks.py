"""What can be known to fail before hours of training: sets, dimensions and projectors of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.data.load import load
from tasks.data.several import read_several
from tasks.data.text import Texts
from tasks.errors import UsageError
from tasks.registry import did_you_mean

from .config import StudyConfig
from .study import Method

__all__ = ["check_methods", "check_sets"]


def check_sets(config: StudyConfig, data_dir: str | None) -> None:
    """Load every set once.

    Raises
    ------
    UsageError : one that is not there, is no classification of two classes or more, or has the name of another one.
    """
    every = [*config.sets, *config.unseen_sets]
    names = [Path(data).name for data in every]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--data and --unseen: two sets are called {twice[0]}; results go by the names")
    found: list[Texts] = list(read_several(config.data, data_dir).sets.values())
    found += [load(data, data_dir, kind="text", apart_from=config.data) for data in config.unseen_sets]
    for data in found:
        if data.kind != "classification":
            raise UsageError(
                f"{data.name} is a regression; label vectors, by which points are read, are those of classes"
            )
        if len(data.labels) < 2:
            raise UsageError(f"all texts of {data.name} have the label {data.labels[0]}")


def check_methods(config: StudyConfig, methods: Sequence[Method]) -> None:
    """Compare what was asked for with the sizes and labels of the methods.

    Raises
    ------
    UsageError : more dimensions than a method has numbers, or a projector for no method.
    """
    least = min(methods, key=lambda method: method.parameters)
    if (dim := max(config.dimensions)) > least.parameters:
        raise UsageError(
            f"--dims {dim}: {least.label} has {least.parameters} numbers, and a subspace has fewer dimensions"
        )
    labels = [method.label for method in methods]
    for label in config.own:
        if label not in labels:
            raise UsageError(f"--own_projectors names {label}, which is no method. {did_you_mean(label, labels)}")
