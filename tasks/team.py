"""The processes that train one run together: one, or those that ``torchrun`` or ``accelerate launch`` started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import nn

from .errors import HyrelError, RunError, UsageError
from .folder import RunFolder

__all__ = ["Follower", "Team", "require_one_process"]

T = TypeVar("T")

_PATIENCE = timedelta(days=1)  # the others wait while the leader evaluates


def require_one_process(what: str) -> None:
    """Refuse a launcher of several processes.

    Raises
    ------
    UsageError : the environment says that there are more.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count.isdecimal() and int(count) > 1:
        raise UsageError(
            f"{what} works in one process and WORLD_SIZE is {count}: start it without torchrun or accelerate launch; a "
            "single `hyrel run TASK` may be trained by several"
        )


class Follower(RunFolder):
    """The run folder as a process sees it that does not lead: it reads, and writes nothing."""

    @contextmanager
    def open(self, config: Mapping[str, Any], env: Mapping[str, Any]) -> Iterator[None]:
        """Hold nothing: the leader does."""
        yield

    def append(self, name: str, row: Mapping[str, Any]) -> int:
        """Write nothing."""
        return 0

    def cut(self, name: str, size: int) -> None:
        """Cut nothing."""

    def write_checkpoint(self, name: str, write: Callable[[Path], None]) -> None:
        """Write nothing."""

    def prune(self, keep: set[str]) -> None:
        """Delete nothing."""


class Team:
    """Processes that see the same model and each a part of every batch, as one process would see the whole.

    A batch of B rows is cut into B / N of each of N processes, so options mean the same for any N; gradients are averaged
    over the processes. Process 0 leads: it evaluates and writes.
    """

    def __init__(self) -> None:
        # What ACCELERATE_ variables say of precision and accumulation is not heard.
        several = os.environ.get("WORLD_SIZE", "1") != "1"
        self.accelerator = Accelerator(
            cpu=several and not torch.accelerator.is_available(),  # else it would not join processes without one
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.accelerator.device

    @property
    def leads(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.rank == 0

    def part(self, task: Any) -> Any:
        """The task of this process, whose batches are its part of every one.

        Raises
        ------
        UsageError : a batch size that cannot be cut into so many equal parts.
        """
        if self.count == 1:
            return task
        train = task.config.train
        if train.batch_size % self.count:
            size = -(-train.batch_size // self.count) * self.count
            raise UsageError(
                f"--train.batch_size {train.batch_size} cannot be cut into {self.count} equal parts, one of each process; "
                f"take {size}"
            )
        config = replace(task.config, train=replace(train, batch_size=train.batch_size // self.count))
        return type(task)(config)

    def steps(self, batches: int) -> int:
        """Steps of an epoch of so many batches of one process.

        Raises
        ------
        UsageError : fewer than there are processes.
        """
        if batches < self.count and self.count > 1:
            raise UsageError(
                f"an epoch has {batches} batches, which {self.count} processes cannot share; start the run in one process"
            )
        return -(-batches // self.count)

    def place(self, index: int) -> int:
        """Batch of this process at step `index` of an epoch; the last step may have none for some."""
        return index * self.count + self.rank

    def start(self, seed: int) -> None:
        """Let each process draw numbers of its own, for dropout, once all have built the same model."""
        if self.rank:
            torch.manual_seed(seed + 1_000_003 * self.rank)

    def exchange(self, model: nn.Module, loss: float | None, *, wish: bool) -> tuple[float, bool]:
        """Average gradients over the processes that had a batch (loss not None); mean loss, and whether the leader wished.

        A parameter without a gradient in all processes stays without one.

        Raises
        ------
        UsageError : sparse gradients.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        if any(p.grad is not None and p.grad.is_sparse for p in parameters):
            raise UsageError("sparse gradients cannot be averaged over processes: turn --sparse off")
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
        had = [float(p.grad is not None) for p in parameters]
        notes = torch.tensor([loss or 0.0, float(loss is not None), float(wish and self.leads), *had], dtype=dtype)
        parts = [(p.new_zeros(p.shape) if p.grad is None else p.grad).to(dtype).flatten() for p in parameters]
        flat = torch.cat([notes.to(self.device), *parts])
        dist.all_reduce(flat)
        total, active, wished, *have = flat[: len(notes)].tolist()
        start = len(notes)
        for parameter, present in zip(parameters, have, strict=True):
            end = start + parameter.numel()
            if present:
                mean = flat[start:end].view(parameter.shape) / active
                parameter.grad = mean.to(parameter.dtype)
            start = end
        return total / active, wished > 0

    def level(self, model: nn.Module, *, parameters: bool = False) -> None:
        """Give every process the leader's buffers, and at the start its parameters."""
        if self.count > 1:
            for tensor in [*model.buffers(), *(p.detach() for p in model.parameters() if parameters)]:
                dist.broadcast(tensor, 0)

    def gather(self, value: T) -> list[T]:
        """Values of all processes by rank."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def share(self, make: Callable[[], T]) -> T:
        """What the leader makes, in every process.

        Raises
        ------
        RunError : in the others, where making it failed.
        """
        if self.count == 1:
            return make()
        told: list[Any] = [None, None]
        failure: Exception | None = None
        if self.leads:
            try:
                told = [make(), None]
            except Exception as error:
                failure, told = error, [None, str(error) if isinstance(error, HyrelError) else repr(error)]
        dist.broadcast_object_list(told, 0)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise RunError(told[1])
        made: T = told[0]
        return made
