"""Running statistics of batch norms: training moves them though no optimiser does, so a delta has to answer for them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["forget", "keep", "kept", "moved", "restore", "statistics"]

NAMES = ("running_mean", "running_var", "num_batches_tracked")  # as torch and lorentz call them
_KEPT = "_delta_statistics"  # attribute of a model with deltas: their values before the first of them


def statistics(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Running statistics of modules by path, those inside of deltas left out."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in modules
        for name in NAMES
        if (buffer := module._buffers.get(name)) is not None and ".deltas." not in f".{path}."
    }


def keep(model: nn.Module, modules: Iterable[tuple[str, nn.Module]]) -> None:
    """Note the statistics of a model's modules before the first delta is attached."""
    model.__dict__[_KEPT] = {path: buffer.detach().clone() for path, buffer in statistics(modules).items()}


def kept(model: nn.Module) -> dict[str, Tensor]:
    """The statistics before the first delta was attached."""
    found: dict[str, Tensor] = model.__dict__.get(_KEPT, {})
    return found


def forget(model: nn.Module) -> None:
    """Drop the note, with the last delta."""
    model.__dict__.pop(_KEPT, None)


def moved(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the statistics that are no longer what they were before the first delta."""
    if not (before := kept(model)):
        return {}
    return {
        path: buffer.detach().clone()
        for path, buffer in statistics(model.named_modules()).items()
        if path in before and not torch.equal(buffer, before[path].to(buffer))
    }


@torch.no_grad()
def restore(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Set statistics, those that are still there."""
    now = statistics(model.named_modules()) if values else {}
    for path, value in values.items():
        if path in now:
            now[path].copy_(value)
