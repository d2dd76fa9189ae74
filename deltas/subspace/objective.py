"""Losses of tasks with the deltas of several methods at given vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..errors import DeltaError, lookup
from ..handle import Handle, handles
from .sharing import shared_passes

__all__ = ["TaskLoss", "only"]


def only(handle: Handle) -> None:
    """Let one delta of a model act, and no other."""
    for other in handles(handle.model).values():
        if other is not handle and other.active:
            other.disable()
    handle.enable()


class TaskLoss:
    """Loss of tasks as :meth:`IntrinsicSubspace.approximate` and ``optimise`` take it.

    The models are put into evaluation mode when it is made, and the passes of one batch share what does not differ between
    methods on one model. The delta of the last pass is the one that acts afterwards; the others of its model are off.

    Parameters
    ----------
    handles : deltas by method, of one model or of several; at most one delta of a model acts at a time
    loss : ``loss(method, task, batch)``, a scalar: a forward pass through the model of the method's delta, which acts
    batches : ``batches(task, step)``, a batch
    """

    def __init__(
        self,
        handles: Mapping[str, Handle],
        loss: Callable[[str, str, Any], Tensor],
        batches: Callable[[str, int], Any],
    ) -> None:
        if not handles:
            raise DeltaError("there is no delta: give {method: handle}")
        self.handles, self.loss, self.batches = dict(handles), loss, batches
        self.models = {id(handle.model): handle.model for handle in self.handles.values()}
        for model in self.models.values():
            model.eval()

    def __call__(self, task: str, vectors: Mapping[str, Tensor], step: int) -> Tensor:
        """Mean loss over the methods of `vectors`, all on one batch."""
        batch = self.batches(task, step)
        total: list[Tensor] = []
        with ExitStack() as stack:
            for key, model in self.models.items():
                mine = [handle for handle in self.handles.values() if id(handle.model) == key]
                stack.enter_context(shared_passes(model, mine))
            for method, vector in vectors.items():
                total.append(self._known(method, task, batch, vector))
        return torch.stack(total).mean()

    def _known(self, method: str, task: str, batch: Any, vector: Tensor) -> Tensor:
        """Loss of one method, whose gradient is taken at once.

        Its activations are free before the next method's pass, and a delta that trains parameters of the backbone may be
        switched off, which writes into them.
        """
        if not (torch.is_grad_enabled() and vector.requires_grad):
            return self._at(method, task, batch, vector)
        leaf = vector.detach().requires_grad_(True)
        loss = self._at(method, task, batch, leaf)
        (grad,) = torch.autograd.grad(loss, [leaf])
        move = torch.dot(vector, grad)
        return loss.detach() + (move - move.detach())

    def _at(self, method: str, task: str, batch: Any, vector: Tensor) -> Tensor:
        handle = lookup(self.handles, method, kind="method")
        only(handle)
        with handle.applied(vector):
            return self.loss(method, task, batch)

    def of(self, task: str, method: str) -> Callable[[Tensor, int], Tensor]:
        """``f(vector, step)``, the loss of one task through one method, for ``optimise``."""
        return lambda vector, step: self._at(method, task, self.batches(task, step), vector)
