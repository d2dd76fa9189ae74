"""One seed of a study: solutions, subspaces, points and transfers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import deltas
from deltas.subspace import IntrinsicSubspace, TaskLoss, pca_subspace, random_subspace
from deltas.subspace.objective import only
from tasks.api import run
from tasks.compare_deltas.methods import LRS, USUAL_LR
from tasks.data.load import load
from tasks.data.text import Texts
from tasks.errors import RunError, UsageError
from tasks.process import accelerator
from tasks.sources import files_sha256
from tasks.text.backbone import backbone_sha256, load_backbone
from tasks.text.config import ModelConfig
from tasks.text.rows import batch_at
from tasks.text.stored import SUBSPACE_FILES

from .cells import Cell, best_guess
from .config import StudyConfig
from .ledger import Ledger
from .reading import Readers, Solved, method_folder, read_solved, refuse_choosing, solutions_sha256

__all__ = ["JOINT", "Method", "Study", "study_methods"]

JOINT = "joint"


@dataclass(frozen=True)
class Method:
    """A delta on a backbone.

    Attributes
    ----------
    label : its name in the study: that of the delta, with that of the backbone before it where there are several
    options : of the delta, under the budget
    parameters : how many it has
    """

    label: str
    model: str
    delta: str
    options: dict[str, Any]
    parameters: int

    @property
    def lr(self) -> float:
        """Learning rate of its solutions."""
        return LRS.get(self.delta.split("+")[0], USUAL_LR)


def study_methods(config: StudyConfig) -> list[Method]:
    """Methods of a study.

    Raises
    ------
    UsageError : an unknown delta, one that a backbone cannot take, one without a vector that means the same on every set; or
        two methods of one label.
    """
    found = []
    for model in config.models:
        backbone = load_backbone(ModelConfig(name=model))
        for name in (word.strip() for word in config.deltas.split(",")):
            try:
                budget = config.budget if name != "FullFineTuning" else None
                options = {} if budget is None else deltas.fit_budget(backbone, name, budget)
                count = deltas.plan(backbone, deltas.parse(name, options), heads=()).parameters
                refuse_choosing(name, options)
            except deltas.DeltaError as error:
                raise UsageError(f"--deltas {name} on {model}: {error}") from None
            if not count:
                raise UsageError(
                    f"--deltas {name}: it has no parameters of its own, so there is no space of its solutions"
                )
            label = name if len(config.models) == 1 else f"{Path(model).name}_{name}"
            found.append(Method(label.replace(".", "_"), model, name, options, count))
    labels = [method.label for method in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UsageError(f"--model {config.model}: two of them would be {twice[0]}; give folders of different names")
    return found


class Study:
    """One seed.

    Parameters
    ----------
    config, methods : of the study
    folder : of everything that this seed makes
    say : told of every step
    """

    def __init__(
        self,
        config: StudyConfig,
        methods: list[Method],
        *,
        seed: int,
        folder: Path,
        data_dir: str | None,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.methods, self.seed, self.folder = config, methods, seed, folder
        self.data_dir, self.say = data_dir, say
        self.ledger = Ledger(folder / "measured.jsonl")
        self.labels = [method.label for method in methods]
        self._unseen: dict[str, Texts] = {}
        self._readers: Readers | None = None

    # runs of the task text

    def _text(self, data: str, out: Path, *, unseen: bool, **more: Any) -> Any:
        config = self.config
        told = {
            "data": data,
            "max_train": config.max_train if config.shots is None else None,
            "shots": config.shots,
            "max_eval": config.max_eval,
            "max_length": config.max_length,
            "apart_from": config.data if unseen else None,
            "group_by_length": True,
            **more,
        }
        return run("text", seed=self.seed, out=out, data_dir=self.data_dir, quiet=True, **told)

    def _training(self, lr: float) -> dict[str, Any]:
        config = self.config
        every = max(1, config.steps // 4)
        return {
            "max_steps": config.steps, "eval_steps": every, "batch_size": config.batch_size, "lr": lr,
            "threads": config.threads,
        }  # fmt: skip

    def solve(self, data: str, method: Method, *, unseen: bool) -> float:
        """Train a whole delta on a set; its test score."""
        result = self._text(
            data,
            method_folder(self.solutions, data, method.label),
            unseen=unseen,
            model={"name": method.model, "head": self.config.head},
            delta={"name": method.delta, "options": method.options},
            train=self._training(method.lr * self.config.lr_factor),
        )
        return _first(result.metrics["test"])

    @property
    def solutions(self) -> Path:
        """Folder of the solutions."""
        return self.folder / "solutions"

    def whole(self) -> dict[tuple[str, str], float]:
        """Solutions of all sets; test scores of the unseen ones by set and method."""
        found = {}
        for place, data in enumerate([*self.config.sets, *self.config.unseen_sets]):
            unseen = place >= len(self.config.sets)
            for method in self.methods:
                score = self.solve(data, method, unseen=unseen)
                self.say(f"seed {self.seed}: {data} {method.label}: {score:.4f}")
                if unseen:
                    found[data, method.label] = score
        return found

    def references(self) -> list[list[Any]]:
        """Rows of the unseen sets without a delta: majority, a trained head alone, frozen label vectors alone."""
        rows = []
        for data in self.config.unseen_sets:
            base = self.folder / "references" / Path(data).name
            told = {"unseen": True}
            majority = self._text(data, base / "majority", model={"name": "majority"}, **told)
            rows.append([self.seed, data, "majority", "", _first(majority.metrics["test"])])
            for model in self.config.models:
                name = Path(model).name
                head = self._text(
                    data, base / f"head-{name}", model={"name": model}, tuning="head", head_lr=1e-2,
                    train=self._training(1e-2), **told,
                )  # fmt: skip
                rows.append([self.seed, data, "head alone", name, _first(head.metrics["test"])])
                label = next(method.label for method in self.methods if method.model == model)
                made_of = f"{self.texts(data).sha256} {backbone_sha256(ModelConfig(name=model))}"
                start = self.ledger.get(f"start {data} {name}", partial(self._untouched, label, data), of=made_of)
                rows.append([self.seed, data, "label vectors alone", name, start])
        return rows

    # subspaces

    def space(self, kind: str, dim: int, solved: Solved) -> IntrinsicSubspace:
        """The joint subspace, or a control; trained through the runner, or read again.

        Raises
        ------
        UsageError : solutions that make no such space, or a stored one that is broken.
        """
        folder = self.folder / "subspaces" / f"{kind}-{dim}"
        try:
            return self._space(kind, dim, solved, folder)
        except deltas.DeltaError as error:
            raise UsageError(f"the subspace {kind}-{dim}: {error}. To find it anew, delete {folder}") from None

    def _space(self, kind: str, dim: int, solved: Solved, folder: Path) -> IntrinsicSubspace:
        config = self.config
        own = {m.label: "fastfood" for m in self.methods if m.delta == "FullFineTuning"} | config.own
        if kind in ("random", "pca"):
            space = (
                random_subspace(solved.vectors, dim, seed=self.seed, starts=solved.starts, own=own)
                if kind == "random"
                else pca_subspace(solved.vectors, dim, starts=solved.starts)
            )
            space.save(folder / "subspace")
            return space
        result = run(
            "subspace-fit",
            seed=self.seed,
            out=folder,
            data_dir=self.data_dir,
            quiet=True,
            data=config.data,
            solutions=str(self.solutions),
            methods=",".join(self.labels),
            dim=dim,
            projector=config.projector,
            own_projectors=",".join(f"{label}={kind}" for label, kind in own.items()) or None,
            reconstruction=config.reconstruction,
            interpolation=config.interpolation,
            squared=config.squared,
            shuffle=kind == "shuffled",
            train={
                "max_steps": config.fit_steps, "eval_steps": max(1, config.fit_steps // 4),
                "batch_size": config.batch_size, "threads": config.threads,
            },
        )  # fmt: skip
        return IntrinsicSubspace.load(result.folder / "subspace")

    def made_of(self, kind: str, dim: int, data: str) -> str:
        """SHA-256 of the solutions, of the trained space, and of the set on which a point of it is measured."""
        found = {**solutions_sha256(self.solutions, self.config.sets, self.labels), "set": self.texts(data).sha256}
        if kind not in ("random", "pca"):  # which are functions of the solutions
            folder = self.folder / "subspaces" / f"{kind}-{dim}" / "subspace"
            found["space"] = files_sha256(folder / name for name in SUBSPACE_FILES)
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    # points

    @property
    def readers(self) -> Readers:
        """Frozen models with all deltas, and the label vectors of the unseen sets and of the first seen one."""
        if self._readers is None:
            solved = self.solved()
            self._readers = Readers(solved)
            for data in self.config.unseen_sets:
                self._unseen[data] = load(data, self.data_dir, kind="text", apart_from=self.config.data)
                self._readers.add(self._unseen[data])
            first = load(self.config.sets[0], self.data_dir, kind="text")
            self._readers.add(first)
            self._unseen[first.name] = first
            self._readers.attach()
            self._readers.to(accelerator() or torch.device("cpu"))  # as the runs that found the solutions
        return self._readers

    def solved(self) -> Solved:
        """Solutions of the seen sets."""
        names = [Path(data).name for data in self.config.sets]
        return read_solved(self.solutions, names, self.labels)

    def texts(self, data: str) -> Texts:
        """An unseen set, or the first seen one."""
        _ = self.readers
        return self._unseen[data]

    def _untouched(self, label: str, data: str) -> float:
        readers, texts = self.readers, self.texts(data)
        for handle in readers.handles.values():
            if handle.active:
                handle.disable()
        with torch.no_grad():
            found = readers.task(label, texts.name).evaluate(readers.model(label, texts.name), texts, "test")
        return _first(found)

    def score(self, space: IntrinsicSubspace, label: str, data: str, point: Tensor, split: str) -> float:
        """Score of a method on a set at a point."""
        readers, texts = self.readers, self.texts(data)
        handle = readers.handles[label]
        only(handle)
        with torch.no_grad(), handle.applied(space.decode(label, point)):
            found = _first(readers.task(label, texts.name).evaluate(readers.model(label, texts.name), texts, split))
        if not isfinite(found):
            raise RunError(f"the {split} score of {label} on {data} is not finite at a point of the subspace")
        return found

    def train_point(self, space: IntrinsicSubspace, label: str, data: str, lr: float) -> Tensor:
        """Train a point on an unseen set through a method."""
        readers, texts = self.readers, self.texts(data)
        count, lengths = readers.count(texts, "train"), readers.lengths(texts, "train")

        def batches(task: str, step: int) -> Any:
            return readers.batch(texts, "train", batch_at(step, count, self.config.batch_size, self.seed, lengths))

        loss = TaskLoss({label: readers.handles[label]}, readers.loss, batches)
        return space.optimise(
            loss.of(texts.name, label), via=label, steps=self.config.point_steps, lr=lr, seed=self.seed
        )

    def guess(self, data: str) -> float:
        """Test score of the best guess on a set."""
        texts, label = self.texts(data), self.labels[0]
        task = self.readers.task(label, texts.name)
        return best_guess(task.labels(texts, "test").numpy(), len(texts.labels), task.monitor)

    def cells(self, whole: dict[tuple[str, str], float]) -> list[Cell]:
        """Optimisation and transfer of all subspaces."""
        found = []
        solved, guesses = self.solved(), {data: self.guess(data) for data in self.config.unseen_sets}
        for dim in self.config.dimensions:
            for kind in [JOINT, *self.config.control_names]:
                space = self.space(kind, dim, solved)
                for data in self.config.unseen_sets:
                    for via in self.labels:
                        key = f"point {kind} {dim} {data} {via}"
                        made_of = self.made_of(kind, dim, data)
                        row = self.ledger.get(key, partial(self._point, space, data, via), of=made_of)
                        metric = self.readers.task(via, self.texts(data).name).monitor
                        found += [
                            Cell(
                                self.seed, kind, dim, data, via, to, score, whole[data, to], guesses[data], row["rows"],
                                metric,
                            )
                            for to, score in row["scores"].items()
                        ]  # fmt: skip
                        self.say(f"seed {self.seed}: {key}: {row['scores'][via]:.4f} of {whole[data, via]:.4f}")
        return found

    def _point(self, space: IntrinsicSubspace, data: str, via: str) -> dict[str, Any]:
        points, scores, reasons = {}, {}, []
        for rate in self.config.rates:
            try:
                points[rate] = self.train_point(space, via, data, rate)
                scores[rate] = (
                    self.score(space, via, data, points[rate], "valid") if len(self.config.rates) > 1 else 0.0
                )
            except (deltas.DeltaError, RunError) as error:  # not finite
                reasons.append(f"{rate:g}: {error}")
        if not scores:
            raise RunError(f"{data} through {via}: no point, by --point_lr, {'; '.join(reasons)}")
        rate = max(scores, key=lambda rate: scores[rate])
        texts = self.texts(data)
        label = self.readers.task(via, texts.name).labels(texts, "test")
        return {
            "scores": {to: self.score(space, to, data, points[rate], "test") for to in self.labels},
            "rows": len(label),
            "lr": rate,
            "point": points[rate].tolist(),
        }


def _first(metrics: dict[str, float]) -> float:
    return next(iter(metrics.values()))
