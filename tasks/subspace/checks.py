"""What can be known to fail before hours of training: sets, dimensions and projectors of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.data.load import load
from tasks.data.several import read_several
from tasks.data.text import Texts
from tasks.errors import UsageError
from tasks.folder import RunFolder
from tasks.registry import did_you_mean

from .config import StudyConfig
from .study import Method

__all__ = ["check_methods", "check_sets", "check_unchanged"]


def check_sets(config: StudyConfig, data_dir: str | None) -> list[Texts]:
    """Load every set once.

    Returns
    -------
    The seen sets and the unseen ones.

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
    return found


def check_unchanged(folder: Path, sets: Sequence[Texts]) -> None:
    """Compare the sets with what the solutions of a study were trained on.

    Raises
    ------
    UsageError : some have changed since; names all at once.
    """
    changed = {}
    for data in sets:
        runs = [RunFolder(path.parent) for path in folder.glob(f"seed*/solutions/{data.name}/*/result.json")]
        if old := [run for run in runs if run.result()["data"]["sha256"] != data.sha256]:
            changed[data.name] = len(old)
    if changed:
        raise UsageError(
            f"{' and '.join(changed)} changed since the study in {folder} was begun, of which {sum(changed.values())} "
            "solutions are of the old content: choose another --runs, or delete that folder"
        )


def check_methods(config: StudyConfig, methods: Sequence[Method]) -> None:
    """Compare what was asked for with the sizes and labels of the methods.

    Raises
    ------
    UsageError : more dimensions than a method has parameters, or a projector for no method.
    """
    least = min(methods, key=lambda method: method.parameters)
    if (dim := max(config.dimensions)) > least.parameters:
        raise UsageError(
            f"--dims {dim}: {least.label} has {least.parameters} parameters, and a subspace has fewer dimensions"
        )
    labels = [method.label for method in methods]
    for label in config.own:
        if label not in labels:
            raise UsageError(f"--own_projectors names {label}, which is no method. {did_you_mean(label, labels)}")
