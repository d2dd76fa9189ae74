"""Where a non-finite loss came from: the step is replayed under hooks that name the first bad tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["first_nonfinite"]


def _bad(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and not bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, tuple | list) and any(_bad(v) for v in value)


def first_nonfinite(model: nn.Module, step: Callable[[], Tensor]) -> str:
    """Replay ``step() -> loss`` and name the first parameter, module output or gradient that is not finite.

    `step` must restore its own random state, so that the replay is the step that failed.
    """
    for name, parameter in model.named_parameters():
        if _bad(parameter):
            return f"parameter {name} was already non-finite before this step (the update before it broke it)"
    found: list[str] = []
    handles = []

    def on_output(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not found and _bad(output):
                source = "from a non-finite input" if _bad(args) else "from finite inputs"
                found.append(f"the output of module {name or 'model'} ({type(module).__name__}), {source}")

        return hook

    def on_gradient(name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if not found and _bad(gradient):
                found.append(f"the gradient of parameter {name}")

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(on_output(name)))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_hook(on_gradient(name)))
    try:
        loss = step()
        if not found and not bool(torch.isfinite(loss)):
            found.append("the loss itself, from finite module outputs")
        if not found:
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "nothing on replay: the failure does not repeat (a hardware or threading fault?)"
