"""Trained solutions, and the models in which they act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltas
from deltas.base import methods_of
from deltas.vector import drawn
from tasks.api import configure
from tasks.config import to_dict
from tasks.data.text import Texts
from tasks.errors import UsageError
from tasks.folder import RunFolder
from tasks.sources import changed_sources, files_sha256
from tasks.text.config import DeltaConfig
from tasks.text.intrinsic import SOLUTION, read_solution
from tasks.text.labels import LabelHead
from tasks.text.model import TextModel
from tasks.text.task import TextTask

__all__ = ["Readers", "Solved", "method_folder", "read_solved", "refuse_choosing", "solutions_sha256"]


def method_folder(solutions: str | Path, data: str, method: str) -> Path:
    """Folder of the run that solved a set with a method."""
    return Path(solutions) / Path(data).name / method


@dataclass(frozen=True)
class Solved:
    """Solutions of sets by methods, with the configurations that found them.

    Attributes
    ----------
    vectors : parameters of a trained delta as they differ from its start, by set and method
    starts : those starts, by method; methods that begin at the backbone have none
    configs : of the task text, by method
    """

    vectors: dict[str, dict[str, Tensor]]
    starts: dict[str, Tensor]
    configs: dict[str, Any]


def solutions_sha256(solutions: str | Path, sets: Sequence[str], methods: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the solutions that are there, by what errors call them."""
    found = {}
    for data in sets:
        for method in methods:
            path = method_folder(solutions, data, method) / "delta" / SOLUTION
            if path.is_file():
                found[f"the solution {Path(data).name}/{method}"] = files_sha256([path])
    return found


def refuse_choosing(delta: str, options: Mapping[str, Any]) -> None:
    """Refuse a delta whose parameters are others on every set.

    Raises
    ------
    UsageError : SparseAdapter, which chooses them when it is made.
    """
    if any(isinstance(method, deltas.SparseAdapter) for method in methods_of(deltas.parse(delta, options))):
        raise UsageError(
            f"{delta}: a SparseAdapter chooses its parameters anew on every set: its solutions share no space"
        )


def _config(folder: Path) -> Any:
    run = RunFolder(folder)
    if not run.finished:
        raise UsageError(f"{folder} holds no finished run; solutions are runs of the task text with --delta")
    tree = run.config()
    if tree.pop("task", None) != "text":
        raise UsageError(f"{folder} is no run of the task text")
    config = configure("text", overrides=tree)
    if changed := changed_sources(run.result().get("sources", {}), TextTask(config).sources()):
        raise UsageError(f"{changed[0]} has changed since {folder} was solved with it: solve it again")
    return config


def _comparable(config: Any) -> dict[str, Any]:
    """What must not differ between the sets of one method."""
    tree = to_dict(config)
    return {key: tree[key] for key in ("model", "delta", "max_length")}


def read_solved(solutions: str | Path, sets: list[str], methods: list[str]) -> Solved:
    """Read the solutions of all sets and methods.

    Raises
    ------
    UsageError : one that is not there or not finished, or of other options or another start than the method's others.
    """
    vectors: dict[str, dict[str, Tensor]] = {data: {} for data in sets}
    starts: dict[str, Tensor] = {}
    configs: dict[str, Any] = {}
    for method in methods:
        for data in sets:
            folder = method_folder(solutions, data, method)
            config, (vector, start) = _config(folder), read_solution(folder)
            if method not in configs:
                refuse_choosing(config.delta.name, config.delta.options)
                configs[method] = config
                if start is not None:
                    starts[method] = start
            elif _comparable(config) != _comparable(configs[method]):
                raise UsageError(f"{folder}: other options of model or delta than those of {sets[0]} with {method}")
            elif start is not None and not torch.equal(start, starts[method]):
                raise UsageError(
                    f"{folder}: the delta began elsewhere than that of {sets[0]}; solutions of one method share a seed"
                )
            vectors[data][method] = vector
    return Solved(vectors, starts, configs)


class Readers(nn.Module):
    """Frozen models with all deltas attached, one backbone for all methods that share it, and label vectors for each set.

    Attributes
    ----------
    handles : by method
    """

    def __init__(self, solved: Solved) -> None:
        super().__init__()
        self.configs = solved.configs
        self.backbones: Any = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.handles: dict[str, deltas.Handle] = {}
        self.starts = solved.starts
        self.models: dict[tuple[str, str], TextModel] = {}  # their backbones and heads are the modules above
        self.readers: dict[tuple[str, str], TextTask] = {}

    def add(self, data: Texts) -> None:
        """Make the label vectors of a set, on untouched backbones, and the tokens of its rows; before :meth:`attach`."""
        for method, config in self.configs.items():
            key = self._key(method)
            if (key, data.name) not in self.models:
                task = TextTask(replace(config, data=data.name, delta=DeltaConfig(), tuning="full"))
                model = task.build(task.config, data)
                assert isinstance(model, TextModel)
                if key not in self.backbones:
                    self.backbones[key] = model.backbone.requires_grad_(False)
                head = model.head
                assert isinstance(head, LabelHead)
                head.reads(self.backbones[key])
                self.heads[f"{key}|{data.name}".replace(".", "_")] = head
                model = TextModel(self.backbones[key], head, pooling=config.model.pooling)
                self.models[key, data.name], self.readers[key, data.name] = model.eval(), task

    def attach(self) -> None:
        """Put every method's delta into its backbone, at the common start of its solutions; one acts at a time."""
        for place, (method, config) in enumerate(self.configs.items()):
            backbone = self.backbones[self._key(method)]
            for other in deltas.handles(backbone).values():
                if other.active:
                    other.disable()
            handle = deltas.attach(
                backbone, deltas.parse(config.delta.name, config.delta.options), name=f"method{place}", heads=()
            )
            if method in self.starts:
                handle.begin(self.starts[method])
            elif drawn(handle):
                raise UsageError(f"the solutions of {method} lack the start that its delta drew: solve the sets again")
            self.handles[method] = handle
        self.backbones.requires_grad_(False)

    def _key(self, method: str) -> str:
        """Backbone of a method."""
        return self.configs[method].model.name.replace(".", "_")

    def task(self, method: str, data: str) -> TextTask:
        """The task that makes batches of a set and scores a method on it."""
        return self.readers[self._key(method), data]

    def model(self, method: str, data: str) -> TextModel:
        """The model that reads a set with a method."""
        return self.models[self._key(method), data]

    def count(self, data: Texts, split: str) -> int:
        """Rows of a split that are used."""
        return min(len(task.rows(data, split)) for (_, name), task in self.readers.items() if name == data.name)

    def lengths(self, data: Texts, split: str) -> np.ndarray:
        """Tokens of the used rows of a split, as the first backbone counts them."""
        task = next(task for (_, name), task in self.readers.items() if name == data.name)
        return task.tokens(data, split).lengths[: self.count(data, split)]

    def batch(self, data: Texts, split: str, rows: np.ndarray) -> dict[str, dict[str, Tensor]]:
        """Tokens and labels of rows of a set, for each backbone."""
        found = {}
        for (key, name), task in self.readers.items():
            if name == data.name:
                label = task.labels(data, split)[torch.from_numpy(rows)]
                device = next(self.backbones[key].parameters()).device
                batch = {**task.tokens(data, split).batch(rows), "label": label}
                found[key] = {part: value.to(device) for part, value in batch.items()}
        return found

    def loss(self, method: str, data: str, batch: dict[str, dict[str, Tensor]]) -> Tensor:
        """Cross entropy of a batch with the delta of a method as it acts."""
        own = batch[self._key(method)]
        return F.cross_entropy(self.model(method, data)(own), own["label"])

    def right(self, method: str, data: str, batch: dict[str, dict[str, Tensor]]) -> np.ndarray:
        """Which rows of a batch the delta of a method, as it acts, gets right: 1 or 0."""
        own = batch[self._key(method)]
        found: np.ndarray = (self.model(method, data)(own).argmax(1) == own["label"]).cpu().numpy().astype(np.float64)
        return found
