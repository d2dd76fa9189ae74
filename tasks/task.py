"""What the runner asks of a task and of its data."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

__all__ = ["Data", "Task"]


class Data(Protocol):
    """What a task trains on: a name, the SHA-256 of its content, the name of its split, and what to warn of."""

    name: str
    sha256: str
    split: str
    warnings: list[str]


class Task(Protocol):
    """What the runner asks of a task. It neither writes files nor keeps state between batches.

    A task may also have

    - ``exports``, the name of a folder in that of the run, and ``export(model, data, folder)``, which fills it from the best
      model: what there is to hand over besides weights. The runner makes and places the folder.
    - ``sources() -> dict[str, str]``, the SHA-256 of each pretrained model, or result of another run, that it reads, by name:
      a run goes on, or counts as finished, with the same ones alone.
    - ``frozen(model) -> frozenset[str]``, names of the tensors of the model's state that stay as they were built:
      checkpoints leave them out.
    - ``remarks(model) -> list[str]``, what a user should be warned of in a trained model.
    - ``part(batch, rank, count) -> batch``, the rows of a batch that one of several processes takes, where they are not the
      rows of each of its tensors, and ``weigh(batch) -> float``, what the mean of ``step`` is over, where that is not rows.
    - ``alone``, why batches cannot be cut: several processes are refused.
    - ``details() -> dict``, what else ``result.json`` should say of the run, as plain values.
    """

    name: str
    Config: type
    Data: type  # what the loader must give; `kind` is its name in the table of data sets, `takes` its name in words
    kind: str
    takes: str
    monitor: str  # metric of the validation split; a leading "-" means that smaller is better
    config: Any

    def build(self, config: Any, data: Any) -> nn.Module:
        """Make the model; every random number is drawn from torch's generator, which the runner has seeded."""

    def n_batches(self, data: Any) -> int:
        """Count the batches of an epoch; 0 where building the model has fitted it."""

    def train_batch(self, data: Any, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Make batch `index` of `epoch`, a pure function of its arguments: a resumed run needs no loader state."""

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch, and scalars to log."""

    def evaluate(self, model: nn.Module, data: Any, split: str) -> dict[str, float]:
        """Compute the metrics of a split."""

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Group the parameters by optimiser, learning rate and norm cap."""
