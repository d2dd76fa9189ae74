"""Spaces to hold the joint one against: random, of principal components, of solutions of other tasks, and whole."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import DeltaError
from .codec import Codec
from .projectors import DenseProjector
from .solutions import Solutions, checked
from .subspace import IntrinsicSubspace

__all__ = ["full_space", "pca_subspace", "random_subspace", "shuffled"]


def random_subspace(
    solutions: Solutions,
    dim: int,
    *,
    seed: int = 0,
    starts: Mapping[str, Tensor] | None = None,
    own: Mapping[str, str] | None = None,
) -> IntrinsicSubspace:
    """Space of random directions, orthonormal for each method and not trained.

    Coordinates of different methods have nothing to do with each other, so a transfer through it does as well as chance.

    Parameters
    ----------
    solutions : give methods, sizes and scales, and nothing else
    starts : as for :meth:`IntrinsicSubspace.prepare`
    dim : at most the smallest size
    own : projectors of methods whose directions are not to be held as a matrix, such as ``{"FullFineTuning": "fastfood"}``;
        theirs are as that projector draws them, of length about one and nearly orthogonal
    """
    kinds = {name: (own or {}).get(name, "dense") for name in next(iter(checked(solutions).values()))}
    space = IntrinsicSubspace(dim, kinds, seed=seed).prepare(solutions, starts=starts, encoders=False)
    for name, size in space.sizes.items():
        if dim > size:
            raise DeltaError(f"{name} has {size} parameters, too few for {dim} directions")
        if kinds[name] != "dense":
            space.codec(name).projector.requires_grad_(False)
            continue
        directions = torch.linalg.qr(_dense(space, name).weight.T).Q.T
        _set(space, name, directions)
    return space


def pca_subspace(solutions: Solutions, dim: int, *, starts: Mapping[str, Tensor] | None = None) -> IntrinsicSubspace:
    """Space of the principal components of the joint solutions; no training.

    The solutions of a task, each divided by its method's usual length, are one long row. The first `dim` right singular
    vectors of these rows (around zero, which is the start of every delta) are the directions, of which each method has its
    part; they keep the coordinates of all methods together. No mean is taken away: a point at zero stays the start.

    Parameters
    ----------
    dim : at most the number of tasks; above that the space has as many directions as there are tasks, and says so in `dim`
    """
    rows = checked(solutions)
    names = list(next(iter(rows.values())))
    dim = min(dim, len(rows))
    space = IntrinsicSubspace(dim).prepare(rows, starts=starts, encoders=False)
    scaled = [torch.cat([row[name] / space.codec(name).scale for name in names]) for row in rows.values()]
    table = torch.stack(scaled).double()
    _, values, directions = torch.linalg.svd(table, full_matrices=False)
    kept = int((values > values[0] * 1e-10).sum())
    if kept < dim:
        raise DeltaError(f"the solutions of {len(rows)} tasks have {kept} independent directions, asked for {dim}")
    # Coordinates of a usual solution are of order one, as in a trained space.
    directions = directions[:dim] * (values[:dim] / len(rows) ** 0.5)[:, None]
    for name, part in zip(names, directions.float().split([space.codec(n).size for n in names], dim=1), strict=True):
        _set(space, name, part)
    return space


def full_space(solutions: Solutions, method: str) -> IntrinsicSubspace:
    """The whole space of one method: its parameters, divided by the usual length, are the coordinates."""
    rows = {task: {method: row[method]} for task, row in checked(solutions).items()}
    size = next(iter(rows.values()))[method].numel()
    return IntrinsicSubspace(size, "identity").prepare(rows, encoders=False)


def shuffled(solutions: Solutions, *, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Solutions that belong together no more: every method's are handed round the tasks by a rotation of its own.

    A task then has, of every method but the first, the solution of another task, of different tasks where there are enough.

    Raises
    ------
    DeltaError : a single task.
    """
    rows = checked(solutions)
    tasks = list(rows)
    if len(tasks) < 2:
        raise DeltaError("solutions of one task cannot be shuffled")
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(seed)).tolist()
    place = {task: order[i] for i, task in enumerate(tasks)}
    around = {place[task]: task for task in tasks}
    names = list(rows[tasks[0]])
    shift = {name: (i - 1) % (len(tasks) - 1) + 1 if i else 0 for i, name in enumerate(names)}
    return {
        task: {name: rows[around[(place[task] + shift[name]) % len(tasks)]][name] for name in names} for task in tasks
    }


def _dense(space: IntrinsicSubspace, name: str) -> DenseProjector:
    codec: Codec = space.codec(name)
    assert isinstance(codec.projector, DenseProjector)
    return codec.projector


def _set(space: IntrinsicSubspace, name: str, directions: Tensor) -> None:
    """Give a projector its directions (dim, size), and train them no more."""
    projector = _dense(space, name)
    projector.weight = nn.Parameter(directions * projector.size**0.5, requires_grad=False)
