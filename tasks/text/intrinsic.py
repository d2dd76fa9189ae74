"""A text model of which only a point of a subspace of deltas is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import deltas
from deltas.subspace import IntrinsicSubspace
from deltas.vector import drawn
from tasks.errors import UsageError

from .config import SubspaceConfig
from .model import TextModel

__all__ = ["SOLUTION", "PointModel", "read_solution", "write_point", "write_solution"]

SOLUTION = "solution.safetensors"
_START = 0.02  # deviation of a point at the start, as in Yi et al. 2022


class PointModel(TextModel):
    """A delta is what a point of a subspace makes it.

    Parameters
    ----------
    backbone, head, pooling : as for :class:`TextModel`; nothing of them is trained
    handle : of the delta in the backbone
    config : folder of the subspace, and the method's name in it

    Attributes
    ----------
    point : (dim), trained
    codec : the method's projector
    """

    handle: deltas.Handle

    def __init__(
        self, backbone: Any, head: nn.Module, handle: deltas.Handle, config: SubspaceConfig, *, pooling: str
    ) -> None:
        super().__init__(backbone, head, pooling=pooling)
        method = config.method or handle.spec.name
        try:
            space = IntrinsicSubspace.load(str(config.folder))
            codec = space.codec(method).requires_grad_(False)
        except deltas.DeltaError as error:
            raise UsageError(f"--subspace {config.folder}: {error}") from None
        size = handle.flatten().numel()
        if codec.size != size:
            raise UsageError(
                f"--subspace {config.folder}: the solutions of {method} there have {codec.size} parameters, and this delta "
                f"has {size}: its options are others"
            )
        try:
            space.begin(handle, method=method)
        except deltas.DeltaError as error:
            raise UsageError(f"--delta {handle.spec.name} --subspace {config.folder}: {error}") from None
        self.codec, self.method = codec, method
        for module in (backbone, head):
            module.requires_grad_(False)
        self.point = nn.Parameter(_START * torch.randn(space.dim))
        self.__dict__["handle"] = handle  # not a module

    def pooled(self, batch: dict[str, Tensor]) -> Tensor:
        """Pooled hidden states with the delta at the point."""
        with self.handle.applied(self.codec.decode(self.point)):
            return super().pooled(batch)

    def settle(self) -> None:
        """Set the delta itself to what the point makes of it."""
        self.handle.unflatten(self.codec.decode(self.point.detach()))


def write_solution(handle: deltas.Handle, folder: Path) -> None:
    """Write the parameters of a trained delta, as they differ from its start, and the start where it drew one."""
    values = {"solution": handle.flatten()} | ({"start": handle.start()} if drawn(handle) else {})
    save_file({name: value.cpu().contiguous() for name, value in values.items()}, folder / SOLUTION)


def read_solution(folder: Path) -> tuple[Tensor, Tensor | None]:
    """Parameters of a trained delta and its start, of the folder of a finished run.

    Raises
    ------
    UsageError : no such file, or a broken one.
    """
    path = folder / "delta" / SOLUTION
    try:
        values = load_file(path)
        return values["solution"], values.get("start")
    except FileNotFoundError:
        raise UsageError(
            f"{folder} holds no solution: a run of the task text with --delta and --model.head words"
        ) from None
    except (SafetensorError, KeyError) as error:
        raise UsageError(f"{path} is broken: {error}") from None


def write_point(model: PointModel, folder: Path) -> None:
    """Write the trained point beside the delta that it makes."""
    document = {"method": model.method, "point": model.point.detach().tolist()}
    (folder / "point.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
