"""The processes that train one run together: one, or those that ``torchrun`` or a launcher like it started."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import Tensor, nn

from .errors import HyrelError, RunError, UsageError
from .folder import RunFolder
from .launch import launched, rows_of_rank
from .process import accelerator

__all__ = ["Follower", "Team"]

T = TypeVar("T")
Batch = dict[str, Tensor]

_PATIENCE = timedelta(days=1)  # the others wait while the leader evaluates


def _part() -> None:
    """Leave the group before the interpreter takes its threads away, which would abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


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
    """Processes that hold the same model and each take a part of the rows of every batch.

    Gradients are averaged with the weight of each part, so a step is that of one process with the whole batch, but for the
    numbers that each process draws for itself. Process 0 leads: it evaluates and writes.

    Raises
    ------
    UsageError : several processes without the address at which they meet, or more than there are devices; or one in which
        accelerate was started before on another device.
    """

    def __init__(self) -> None:
        several = launched() > 1
        if several and (missing := [name for name in ("MASTER_ADDR", "MASTER_PORT", "RANK") if name not in os.environ]):
            raise UsageError(
                f"WORLD_SIZE is {launched()} and {' and '.join(missing)} are not set: start several processes by torchrun "
                "--nproc-per-node N --no-python hyrel run ..., or unset WORLD_SIZE"
            )
        here = accelerator() is not None
        place = os.environ.get("LOCAL_RANK", "0")
        if several and here and place.isdecimal() and int(place) >= torch.accelerator.device_count():
            raise UsageError(
                f"{int(place) + 1} processes or more on this machine, which has {torch.accelerator.device_count()} devices: "
                "give torchrun at most as many by --nproc-per-node"
            )
        # What ACCELERATE_ variables say of precision and accumulation is not heard.
        try:
            self.accelerator = Accelerator(
                # Where there is one that is not taken; and else processes without a device would not join.
                cpu=not here and (several or torch.accelerator.is_available()),
                mixed_precision="no",
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
            )
        except ValueError as error:
            raise UsageError(f"accelerate was started otherwise in this process, take a new one: {error}") from None
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.count > 1:
            atexit.unregister(_part)  # one call, however many runs there were
            atexit.register(_part)

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.accelerator.device

    @property
    def leads(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.rank == 0

    def part(self, task: Any, batch: Batch) -> tuple[Batch, float] | None:
        """Rows of a batch that this process takes, and the weight of their mean; None where it has none.

        The task says how by ``part`` and ``weigh``; without them all tensors have a row for each example, but for single
        numbers, which all processes see.

        Raises
        ------
        UsageError : a batch of which it is not known how to cut it.
        """
        if self.count == 1:
            return batch, 1.0
        if hasattr(task, "part"):
            part: Batch = task.part(batch, self.rank, self.count)
            rows = len(next(iter(part.values())))
        else:
            sizes = {len(value) for value in batch.values() if value.ndim}
            if len(sizes) != 1:
                raise UsageError(f"batches of the task {task.name} have no common rows to cut: start it in one process")
            chosen = rows_of_rank(sizes.pop(), self.rank, self.count)
            part = {name: value[chosen] if value.ndim else value for name, value in batch.items()}
            rows = chosen.stop - chosen.start
        weight = float(task.weigh(part)) if hasattr(task, "weigh") and rows else float(rows)
        return (part, weight) if weight else None

    def agree(self, **facts: Any) -> None:
        """Refuse to go on where the processes do not see the same.

        Raises
        ------
        UsageError : names what differs.
        """
        seen = self.gather(facts)
        for name in facts:
            if any(other[name] != seen[0][name] for other in seen):
                raise UsageError(
                    f"the processes of this run do not see the same {name}: the run folder and the data must lie where all "
                    "of them read, and all take the same options"
                )

    def start(self, seed: int) -> None:
        """Let each process draw numbers of its own, for dropout, once all have built the same model."""
        if self.rank:
            torch.manual_seed(seed + 1_000_003 * self.rank)

    def exchange(self, model: nn.Module, loss: float, weight: float, *, wish: bool) -> tuple[float, bool]:
        """Average losses and gradients, by weight; returns the mean loss, and whether the leader wished.

        A process without rows has the weight 0. A parameter that has no gradient in any process stays without one; sparse
        gradients stay sparse.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        sparse = [float(p.grad is not None and p.grad.is_sparse) for p in parameters]
        had = [float(p.grad is not None) for p in parameters]
        told = [loss * weight if weight else 0.0, weight, float(wish and self.leads), *had, *sparse]
        notes = torch.tensor(told, dtype=torch.float64, device=self.device)
        dist.all_reduce(notes)
        total, whole, wished, *counts = notes.tolist()
        present, thin = counts[: len(parameters)], counts[len(parameters) :]
        dense = [p for p, there, few in zip(parameters, present, thin, strict=True) if there and not few]
        for few, parameter in zip(thin, parameters, strict=True):
            if few:
                parameter.grad = self._sum_rows(parameter, weight / whole)
        if dense:
            dtype = torch.float64 if any(p.dtype == torch.float64 for p in dense) else torch.float32
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).to(dtype).flatten() for p in dense])
            flat *= weight / whole
            dist.all_reduce(flat)
            for p, mean in zip(dense, flat.split([p.numel() for p in dense]), strict=True):
                p.grad = mean.view(p.shape).to(p.dtype)
        return total / whole, wished > 0

    def _sum_rows(self, parameter: nn.Parameter, factor: float) -> Tensor:
        """Sum of the sparse gradients of all processes, each times its factor: their rows, one after another."""
        own = parameter.grad
        if own is None:
            rows = torch.empty(0, dtype=torch.int64, device=parameter.device)
            values = parameter.new_empty(0, *parameter.shape[1:])
        else:
            own = own.coalesce()
            rows, values = own.indices()[0], own.values() * factor
        sizes = [torch.zeros(1, dtype=torch.int64, device=parameter.device) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(rows)], device=parameter.device))
        lengths = [int(size) for size in sizes]
        room = max(lengths)  # all give as many, of which the last may be no rows
        padded_rows, padded_values = rows.new_zeros(room), values.new_zeros(room, *values.shape[1:])
        padded_rows[: len(rows)], padded_values[: len(rows)] = rows, values
        all_rows = [torch.empty_like(padded_rows) for _ in lengths]
        all_values = [torch.empty_like(padded_values) for _ in lengths]
        dist.all_gather(all_rows, padded_rows)
        dist.all_gather(all_values, padded_values)
        index = torch.cat([part[:size] for part, size in zip(all_rows, lengths, strict=True)])
        value = torch.cat([part[:size] for part, size in zip(all_values, lengths, strict=True)])
        return torch.sparse_coo_tensor(index[None], value, parameter.shape, check_invariants=False).coalesce()

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
