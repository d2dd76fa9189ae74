"""The unified optimisation subspace of delta methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DeltaError, lookup
from ..handle import Handle
from .codec import Codec
from .interpolation import INTERPOLATIONS, random_weights
from .landscape import Landscape, Plane, landscape
from .projectors import PROJECTORS
from .solutions import Solutions, checked

__all__ = ["IntrinsicSubspace", "Objective"]

Objective = Callable[[str, Mapping[str, Tensor], int], Tensor]
"""``objective(task, vectors, step)``: mean over methods of the task's loss with each method's delta at its vector, for which
gradients are taken; see :class:`deltas.subspace.TaskLoss`."""


class IntrinsicSubspace(nn.Module):
    r"""A space of few dimensions, a point of which is a solution of every method.

    A projector :math:`P_t` of each method t takes a point I to the parameters of its delta, as they differ from the start,
    :math:`\theta_t = s_t P_t I`. Projectors are found by decomposing the solutions of several methods jointly
    (Yi et al., "Different Tunes Played with Equal Skill", Findings of EMNLP 2022, section 3.2): an encoder of each method
    gives the points :math:`I_t`, and the loss of a task is

    .. math:: \lambda \sum_t \| \theta_t / s_t - P_t I_t \| + \frac1T \sum_t L(s_t P_t \sum_u w_u I_u)

    with random weights w of sum one, so that one point serves every method. Here :math:`s_t`, the root mean square length
    of a method's solutions, makes methods of all sizes count alike; the paper takes s = 1.

    Parameters
    ----------
    dim : of the space
    projector : ``"dense"``, ``"low-rank"``, ``"fastfood"`` or ``"block"``, or one for each method
    reconstruction : lambda; the paper takes 0.1 for one task and 10 for many, beside the sum of the methods' losses, which
        here is their mean: its lambda is T times as large as the same weight here
    interpolation : ``"simplex"`` (uniform), or the paper's ``"stick-breaking"``
    squared : squared norm; the paper's is not
    options : of the projectors, by method
    seed : of the first values and the weights

    Examples
    --------
    >>> import torch
    >>> from deltas.subspace import IntrinsicSubspace
    >>> solutions = {"sst2": {"LoRA": torch.randn(64), "Adapter": torch.randn(80)}}
    >>> space = IntrinsicSubspace(4).approximate(solutions, steps=10)
    >>> space.decode("Adapter", space.encode("LoRA", solutions["sst2"]["LoRA"])).shape
    torch.Size([80])
    """

    def __init__(
        self,
        dim: int,
        projector: str | Mapping[str, str] = "dense",
        *,
        reconstruction: float = 1.0,
        interpolation: str = "simplex",
        squared: bool = False,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(dim, int) or dim < 1:
            raise DeltaError(f"a space has a whole number of dimensions, at least one, got {dim}")
        if not 0 <= reconstruction < inf:
            raise DeltaError(f"reconstruction is the weight of a loss, 0 or more, got {reconstruction:g}")
        lookup(INTERPOLATIONS, interpolation, kind="interpolation")
        for kind in [projector] if isinstance(projector, str) else projector.values():
            lookup(PROJECTORS, kind, kind="projector")
        self.dim, self.kind, self.seed = dim, projector, seed
        self.reconstruction, self.interpolation, self.squared = reconstruction, interpolation, squared
        self.options = {name: dict(own) for name, own in (options or {}).items()}
        self.codecs = nn.ModuleDict()
        self._solutions: dict[str, dict[str, Tensor]] = {}
        self._objective: Objective | None = None

    # methods

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in order."""
        return list(self.codecs)

    @property
    def sizes(self) -> dict[str, int]:
        """Parameters of each method's delta."""
        return {name: self.codec(name).size for name in self.methods}

    def codec(self, method: str) -> Codec:
        """Encoder and projector of a method.

        Raises
        ------
        DeltaError : unknown; with the nearest name.
        """
        if not self.codecs:
            raise DeltaError("this space has no methods yet: approximate() gives it those of the solutions")
        found: Codec = lookup(dict(self.codecs.items()), method, kind="method of this space")  # type: ignore[assignment]
        return found

    def prepare(
        self, solutions: Solutions, *, starts: Mapping[str, Tensor] | None = None, encoders: bool = True
    ) -> IntrinsicSubspace:
        """Take the solutions and draw encoders and projectors for their methods; :meth:`approximate` does it first.

        Parameters
        ----------
        solutions : by task and method
        starts : by method, ``Handle.start()`` of its deltas: all solutions are counted from one start, which a delta must
            have to be set to a point. Kept with the space; :meth:`begin` and :meth:`transfer` set it
        encoders : whether solutions are encoded by trained encoders

        Raises
        ------
        DeltaError : a task without the solution of some method, a vector of another size, a number that is not finite, or
            solutions that are all zero.
        """
        rows = checked(solutions)
        names = list(next(iter(rows.values())))
        for name, start in (starts or {}).items():
            if not bool(torch.isfinite(start).all()):
                raise DeltaError(f"the start of {name} is not finite everywhere")
        generator = torch.Generator().manual_seed(self.seed)
        codecs = {}
        for name in names:
            vectors = torch.stack([row[name] for row in rows.values()])
            scale = float(vectors.square().sum(1).mean().sqrt())
            if not scale:
                raise DeltaError(f"all solutions of {name} are zero: were its deltas trained?")
            codecs[name] = Codec(
                vectors.shape[1],
                self.dim,
                projector=self.kind
                if isinstance(self.kind, str)
                else lookup(self.kind, name, kind="method in projector"),
                scale=scale,
                start=(starts or {}).get(name),
                encoder=encoders,
                generator=generator,
                options=self.options.get(name),
            )
        for what, given in (("options", self.options), ("starts", starts or {})):
            if unknown := sorted(set(given) - set(names)):
                lookup(codecs, unknown[0], kind=f"method in {what}")
        try:
            self.codecs = nn.ModuleDict(codecs)
        except KeyError as error:  # a name that modules have for themselves
            raise DeltaError(f"a method's name that cannot be used: {error.args[0]}; give it another") from None
        self._solutions = rows
        return self

    # points and solutions

    def encode(self, method: str, vector: Tensor) -> Tensor:
        """Point (dim) of a solution (size) of a method, as its encoder gives it."""
        codec = self.codec(method)
        if vector.shape != (codec.size,):
            raise DeltaError(
                f"solutions of {method} have {codec.size} parameters, got a tensor of shape {tuple(vector.shape)}"
            )
        return codec.encode(vector)

    def decode(self, method: str, point: Tensor) -> Tensor:
        """Parameters (size) of a method's delta at a point (dim), as they differ from its start; differentiable."""
        codec = self.codec(method)
        if point.shape != (self.dim,):
            raise DeltaError(
                f"points of this space have {self.dim} coordinates, got a tensor of shape {tuple(point.shape)}"
            )
        return codec.decode(point)

    @torch.no_grad()
    def point(self, task: str, method: str | None = None) -> Tensor:
        """Point of a task of the solutions: that of a method, or the mean of all."""
        row = lookup(self._solutions, task, kind="task of the solutions")
        names = self.methods if method is None else [method]
        return torch.stack([self.encode(name, row[name].to(self.codec(name).scale.device)) for name in names]).mean(0)

    # approximation

    def loss(self, task: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one task at one step, of which :meth:`approximate` makes the sum smaller, and its two parts."""
        row = lookup(self._solutions, task, kind="task of the solutions")
        points, distances = [], []
        for name in self.methods:
            codec = self.codec(name)
            vector = row[name].to(codec.scale.device)
            points.append(codec.encode(vector))
            missed = vector / codec.scale - codec.projector(points[-1])
            distances.append(missed.square().sum() if self.squared else torch.linalg.vector_norm(missed))
        distance = torch.stack(distances).sum()
        scalars = {"reconstruction": distance.detach() / len(points)}
        total = self.reconstruction * distance
        if self._objective is not None:
            weights = random_weights(len(points), kind=self.interpolation, seed=self.seed, step=step).to(
                points[0].device
            )
            mixed = (weights[:, None] * torch.stack(points)).sum(0)
            own = self._objective(task, {name: self.codec(name).decode(mixed) for name in self.methods}, step)
            scalars["task"] = own.detach()
            total = total + own
        return total, scalars

    def use(self, objective: Objective | None) -> None:
        """Take the loss of the tasks beside that of reconstruction, or none."""
        self._objective = objective

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser, with rates that suit all sizes; 0.01 is usual."""
        return [group for name in self.methods for group in self.codec(name).param_groups(lr)]

    def approximate(
        self,
        solutions: Solutions,
        data: Objective | None = None,
        *,
        starts: Mapping[str, Tensor] | None = None,
        steps: int = 1000,
        lr: float = 1e-2,
        callback: Callable[[int, dict[str, float]], None] | None = None,
    ) -> IntrinsicSubspace:
        """Find the space of some solutions, in memory; ``hyrel run subspace`` does it with checkpoints.

        Parameters
        ----------
        solutions, starts : as for :meth:`prepare`
        data : loss of the tasks at given deltas; None takes reconstruction alone
        steps : of Adam, the tasks in turn, with a rate that falls to zero
        lr : first learning rate
        callback : told of step and losses

        Returns
        -------
        The space itself.

        Raises
        ------
        DeltaError : as for :meth:`prepare`; or a loss that is not finite, at which step.
        """
        _require_steps(steps)
        self.prepare(solutions, starts=starts)
        self.use(data)
        optimizer = torch.optim.Adam(self.param_groups(lr))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        tasks = list(self._solutions)
        for step in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss, scalars = self.loss(tasks[step % len(tasks)], step)
            value = _finite(loss, step)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if callback is not None:
                callback(step, {"loss": value, **{key: float(value) for key, value in scalars.items()}})
        return self

    # new tasks

    def optimise(
        self,
        task: Callable[[Tensor, int], Tensor],
        *,
        via: str,
        steps: int = 500,
        lr: float = 5e-2,
        start: Tensor | None = None,
        seed: int = 0,
        callback: Callable[[int, float], None] | None = None,
    ) -> Tensor:
        """Train a point, and nothing else, on a task through one method.

        Parameters
        ----------
        task : ``task(vector, step)``, the loss with the method's delta at a vector; a :class:`TaskLoss` has such functions
        via : the method
        steps : of Adam, with a rate that falls to zero
        lr : first learning rate; 0.01 and 0.05 in the paper
        start : first point; None draws it from N(0, 0.02^2)
        callback : told of step and loss

        Returns
        -------
        The point (dim).

        Raises
        ------
        DeltaError : an unknown method; or a loss that is not finite, at which step.
        """
        _require_steps(steps)
        drawn = 0.02 * torch.randn(self.dim, generator=torch.Generator().manual_seed(seed)) if start is None else start
        point = drawn.detach().clone().to(self.codec(via).scale).requires_grad_(True)
        optimizer = torch.optim.Adam([point], lr=lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for step in range(steps):
            loss = task(self.decode(via, point), step)
            value = _finite(loss, step)
            if not loss.requires_grad:
                raise DeltaError(
                    "the loss does not depend on the vector that the task is given: is it used, and not detached?"
                )
            (point.grad,) = torch.autograd.grad(loss, [point])
            optimizer.step()
            schedule.step()
            if callback is not None:
                callback(step, value)
        return point.detach()

    def begin(self, handle: Handle, *, method: str | None = None) -> None:
        """Set a delta to the start from which this space's solutions are counted, where that is kept."""
        start = self.codec(handle.spec.name if method is None else method).start
        if start is not None:
            handle.begin(start)

    @torch.no_grad()
    def transfer(self, point: Tensor, to: Handle, *, method: str | None = None) -> Tensor:
        """Set a delta to the solution of a point, without training.

        Parameters
        ----------
        point : (dim)
        to : handle of the delta
        method : its name in this space; None for that of the delta

        Returns
        -------
        The parameters that it was set to, as they differ from its start.
        """
        self.begin(to, method=method)
        vector = self.decode(to.spec.name if method is None else method, point)
        to.unflatten(vector)
        return vector

    @torch.no_grad()
    def landscape(self, score: Callable[[str, Tensor], np.ndarray], plane: Plane, *, grid: int = 11) -> Landscape:
        """Scores of every method over a plane of points.

        Parameters
        ----------
        score : ``score(method, vector)``, (m,): of each of m examples, 1 for a right one, with the method's delta at a vector
        plane : ``Plane.through`` the methods' points of a task, say
        grid : points along each side
        """
        return landscape(
            lambda name, point: score(name, self.decode(name, point)), plane, methods=self.methods, grid=grid
        )

    # files

    def save(self, folder: str | Path) -> None:
        """Store the space in ``subspace.safetensors`` and ``subspace.json``; the solutions are no part of it."""
        from .storage import save

        save(self, folder)

    @staticmethod
    def load(folder: str | Path) -> IntrinsicSubspace:
        """A stored space.

        Raises
        ------
        DeltaError : no such files, or broken ones; says which and why.
        """
        from .storage import load

        return load(folder)


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise DeltaError(f"training takes at least one step, got steps={steps}")


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss.detach())
    if not isfinite(value):
        raise DeltaError(f"the loss at step {step} is {value:g}: a smaller lr, or is the loss itself not finite?")
    return value
