"""What stays exact, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeltaError, nearest

__all__ = ["Policy", "are_points", "made_by", "marked", "of_parameter", "unsuitable"]

# What leads from a parameter to the same values in another shape or dtype, as autocast's copies of weights do.
_SAME_NUMBERS = frozenset(
    f"{name}Backward0"
    for name in (
        "T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "ToCopy", "Slice", "Select", "Unsqueeze",
        "Squeeze", "Split", "SplitWithSizes", "Unbind", "Expand", "AsStrided", "Alias", "Clone", "Mt", "MH",
    )
)  # fmt: skip
_KNOWN = (
    torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """What activation compression leaves alone.

    Parameters, buffers, values without a gradient, float64, complex, sparse and non-finite tensors are never quantised,
    whatever the policy.

    Parameters
    ----------
    min_numel : smaller tensors stay exact: they cost little and are often the most sensitive
    skip : names of modules, with ``*`` and ``?``; nothing that they or their children save is quantised
    marked : bits of what an ``autograd.Function`` with ``saved_exact`` returns, as the layers of ``lorentz`` do: None keeps
        it exact; 8 keeps the first coordinate exact, which is the time of a point, and quantises the others
    exact : called with each tensor that would be quantised; True keeps it exact
    """

    min_numel: int = 4096
    skip: tuple[str, ...] = ()
    marked: int | None = None
    exact: Callable[[Tensor], bool] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.skip, str):
            raise DeltaError(f"skip is the text {self.skip!r}; give names in a tuple, ({self.skip!r},)")
        if self.min_numel < 1:
            raise DeltaError(f"min_numel is {self.min_numel}; give at least 1")
        if self.marked not in (None, 8):
            raise DeltaError(
                f"marked is {self.marked}; give None, which keeps points exact, or 8: with fewer bits the gradient of a "
                "point, which divides by its distance to the origin, is noise"
            )

    def skipped(self, path: str) -> bool:
        """Whether a module, or one that holds it, is named in `skip`."""
        parts = path.split(".")
        return any(fnmatchcase(".".join(parts[:end]), name) for end in range(1, len(parts) + 1) for name in self.skip)

    def check(self, model: nn.Module | None) -> None:
        """Refuse names that no module has.

        Raises
        ------
        DeltaError : with the nearest name.
        """
        if self.skip and model is None:
            raise DeltaError("skip names modules: give the model too, ActivationCompressor(model, ...)")
        paths = [path for path, _ in model.named_modules() if path] if model is not None else []
        for name in self.skip:
            if not any(fnmatchcase(path, name) for path in paths):
                raise DeltaError(f"skip: no module is named {name!r}. {nearest(name, paths)}")


def made_by(node: Any) -> Any:
    """Node of the graph that the values come from, behind changes of shape and dtype."""
    while node is not None and node.name() in _SAME_NUMBERS:
        node = node.next_functions[0][0]
    return node


def of_parameter(x: Tensor) -> bool:
    """Whether it is a leaf that gets a gradient, or one in another shape or dtype."""
    if x.is_leaf:
        return x.requires_grad
    node = made_by(x.grad_fn)
    return node is not None and node.name() == "torch::autograd::AccumulateGrad"


def marked(x: Tensor) -> bool:
    """Whether its values, or some that were joined to others, come from a Function that says what must not be quantised."""
    node = made_by(x.grad_fn)
    nodes = [node]
    if node is not None and node.name() == "CatBackward0":  # a point that was taken apart and put together
        nodes = [made_by(part) for part, _ in node.next_functions]
    return any(getattr(getattr(type(node), "_forward_cls", None), "saved_exact", ()) for node in nodes)


def are_points(x: Tensor) -> bool:
    """Whether the last dimension of a marked tensor is still that of the result that it shows: whole points, time first."""
    if x.dim() < 2 or x.stride(-1) != 1:
        return False
    node, copied = x.grad_fn, False
    while node is not None and node.name() in _SAME_NUMBERS:
        change = node.name().removesuffix("Backward0")
        if change in ("View", "UnsafeView", "ReshapeAlias"):
            if tuple(getattr(node, "_saved_self_sym_sizes", ()))[-1:] != x.shape[-1:]:
                return False
        elif change in ("Clone", "ToCopy"):
            copied = True  # from here on the strides say nothing of the order of dimensions
        elif change not in ("Transpose", "Permute", "Unsqueeze", "Alias", "Expand") or (
            copied and change in ("Transpose", "Permute")
        ):
            return False
        node = node.next_functions[0][0]
    return True


def unsuitable(x: Tensor) -> str | None:
    """Why a tensor has no values that could be quantised, or packed at all; None if it has."""
    if x.layout is not torch.strided or type(x) not in (Tensor, nn.Parameter) or x.is_nested or x.is_neg():
        return "sparse or another kind of tensor"
    if x.device.type == "meta" or not x.numel():
        return "empty"
    if x.dtype not in _KNOWN:
        return "float64 or another type"
    return None
