"""The task of approximating a subspace: solutions of delta methods are decomposed jointly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import deltas
from deltas.subspace import IntrinsicSubspace, TaskLoss, shuffled
from tasks.data.several import SeveralTexts
from tasks.errors import UsageError
from tasks.text.rows import batch_at, spread

from .fit_config import FitConfig
from .reading import Readers, Solved, read_solved, solutions_sha256

__all__ = ["SubspaceFit", "SubspaceModel"]


class SubspaceModel(nn.Module):
    """``space``, which is trained, and the frozen ``readers`` of the tasks."""

    def __init__(self, space: IntrinsicSubspace, readers: Readers) -> None:
        super().__init__()
        self.space, self.readers = space, readers

    def train(self, mode: bool = True) -> SubspaceModel:
        """Set the mode of the space; the readers stay in evaluation mode."""
        super().train(mode)
        self.readers.eval()
        return self


class SubspaceFit:
    """One subspace for the solutions of several tasks and methods, through the runner: it is checkpointed and goes on."""

    name = "subspace-fit"
    Config = FitConfig
    Data = SeveralTexts
    kind = "texts"
    takes = "list of sets of texts"
    monitor = "-loss"
    exports = "subspace"
    alone = "a step is one set in turn"

    def __init__(self, config: FitConfig) -> None:
        self.config = config
        self._solved: Solved | None = None
        self._data: SeveralTexts | None = None
        self._rows = np.empty(0, np.int64)

    def sources(self) -> dict[str, str]:
        """SHA-256 of the solutions."""
        sets = [word.strip() for word in self.config.data.split(",")]
        return solutions_sha256(self.config.solutions, sets, self.config.names)

    def solved(self, data: SeveralTexts) -> Solved:
        """Trained solutions; read once."""
        if self._solved is None:
            self._solved = read_solved(self.config.solutions, list(data.sets), self.config.names)
        return self._solved

    def build(self, config: FitConfig, data: SeveralTexts) -> SubspaceModel:
        """Draw the space and put every method's delta into its backbone."""
        solved, self._data = self.solved(data), data
        space = IntrinsicSubspace(
            config.dim,
            {name: config.own.get(name, config.projector) for name in config.names},
            reconstruction=config.reconstruction,
            interpolation=config.interpolation,
            squared=config.squared,
            seed=config.seed,
        )
        try:
            vectors = shuffled(solved.vectors, seed=config.seed) if config.shuffle else solved.vectors
            space.prepare(vectors, starts=solved.starts)
        except deltas.DeltaError as error:
            raise UsageError(str(error)) from None
        readers = Readers(solved)
        if config.task_loss:
            for texts in data.sets.values():
                readers.add(texts)
            readers.attach()
        model = SubspaceModel(space, readers)
        space.use(self._objective(model, "train"))
        return model

    def _batch(self, readers: Readers, task: str, split: str) -> Any:
        assert self._data is not None
        return readers.batch(self._data.sets[task], split, self._rows)

    def frozen(self, model: nn.Module) -> frozenset[str]:
        """Names of the tensors that no step changes."""
        return frozenset(name for name in model.state_dict() if name.startswith("readers."))

    def n_batches(self, data: SeveralTexts) -> int:
        """Count the batches of an epoch: each set once."""
        return len(data.sets)

    def train_batch(self, data: SeveralTexts, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Say which step it is: the sets come in turn, and the rows of one are a function of seed and epoch."""
        return {"step": torch.tensor(epoch * len(data.sets) + index), "seed": torch.tensor(seed)}

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the subspace on one set."""
        assert isinstance(model, SubspaceModel)
        assert self._data is not None
        step = int(batch["step"])
        turn, place = divmod(step, len(self._data.sets))
        task, texts = list(self._data.sets.items())[place]
        if self.config.task_loss:
            count, lengths = model.readers.count(texts, "train"), model.readers.lengths(texts, "train")
            self._rows = batch_at(turn, count, self.config.train.batch_size, int(batch["seed"]), lengths)
        return model.space.loss(task, step)

    def evaluate(self, model: nn.Module, data: SeveralTexts, split: str) -> dict[str, float]:
        """Loss, distance of the solutions, and loss of the tasks at weights that all evaluations share; means over sets."""
        assert isinstance(model, SubspaceModel)
        found: list[dict[str, float]] = []
        for place, (name, texts) in enumerate(data.sets.items()):
            if self.config.task_loss:
                self._rows = spread(model.readers.count(texts, split), self.config.valid_rows)
            model.space.use(self._objective(model, split))
            # Steps below zero are those of no training batch; what is drawn for them is the same at every evaluation.
            loss, scalars = model.space.loss(name, -1 - place)
            found.append({"loss": float(loss), **{key: float(value) for key, value in scalars.items()}})
        model.space.use(self._objective(model, "train"))
        return {key: float(np.mean([row[key] for row in found])) for key in found[0]}

    def _objective(self, model: SubspaceModel, split: str) -> Any:
        if not self.config.task_loss:
            return None
        readers = model.readers
        return TaskLoss(readers.handles, readers.loss, lambda task, step: self._batch(readers, task, split))

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters of the space, at rates that suit their sizes."""
        assert isinstance(model, SubspaceModel)
        return model.space.param_groups(self.config.train.lr)

    def export(self, model: nn.Module, data: SeveralTexts, folder: Path) -> None:
        """Fill the folder with the space."""
        assert isinstance(model, SubspaceModel)
        model.space.save(folder)
