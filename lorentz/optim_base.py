"""What the Riemannian optimisers share: which parameter is which, the rows of sparse gradients, the radius."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite, sqrt
from typing import Any

import geoopt
import torch
from torch import Tensor

from .optim_chart import Chart, chunks, covector

__all__ = ["Group", "Riemannian", "State", "default_radius", "rate"]

State = dict[str, Tensor]
Group = dict[str, Any]

_LOW = (torch.float16, torch.bfloat16)
# In units of sqrt(k): where rounding moves a point by about 1e-3, 1e-5 and 0.1; and where chart steps could overflow.
_DEFAULT_RADIUS = {torch.float32: 10.0, torch.float64: 25.0, torch.float16: 5.0, torch.bfloat16: 4.0}
_LARGEST_RADIUS = {torch.float32: 14.0, torch.float64: 36.0, torch.float16: 8.0, torch.bfloat16: 8.0}


def rate(group: Group) -> float:
    """Step size of a group; a scheduler may keep it in a tensor."""
    return float(group["lr"])


def default_radius(dtype: torch.dtype) -> float:
    """Default of ``max_radius`` for points of this dtype, in units of the root of k."""
    return _DEFAULT_RADIUS[dtype]


class Riemannian(torch.optim.Optimizer):
    """Base of the optimisers; a subclass says how points and other numbers move."""

    clipped: int = 0
    overflowed: int = 0

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        # By parameter, not in the groups: a state_dict holds numbers and tensors only, and a copied parameter forgets.
        self._manifolds: dict[Tensor, geoopt.Lorentz] = {}
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "_manifolds": self._manifolds,
            "clipped": self.clipped,
            "overflowed": self.overflowed,
        }

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters; see :class:`torch.optim.Optimizer`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_group(group)
            for p in group["params"]:
                manifold = _manifold_of(p)
                if manifold is not None:
                    _check_radius(group["max_radius"], p, manifold)
                    self._manifolds[p] = manifold
        except Exception:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` returned; see :class:`torch.optim.Optimizer`."""
        super().load_state_dict(state_dict)
        saved = [name for group in state_dict["param_groups"] for name in group["params"]]
        for name, p in zip(saved, [p for group in self.param_groups for p in group["params"]], strict=True):
            if p in self._manifolds and p.dtype in _LOW and name in state_dict["state"]:  # torch rounded the moments
                self.state[p] = {
                    n: t.to(p.device, torch.float32, copy=True) for n, t in state_dict["state"][name].items()
                }

    @staticmethod
    def _zeros(space: Tensor, chart: Chart | None) -> Tensor:
        """Initial moments: those of points are float32 at least, as a float16 square ends at 65504."""
        return torch.zeros_like(space, dtype=torch.float32 if chart and space.dtype in _LOW else space.dtype)

    def _chart(self, p: Tensor, group: Group) -> Chart:
        k = float(self._manifolds[p].k.detach())
        radius = group["max_radius"]
        if radius is None:
            return Chart(k, default_radius(p.dtype) * sqrt(k))
        # A k that is learned may have fallen since the radius was accepted.
        return Chart(k, min(float(radius), _largest_radius(p, k)))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if given, recomputes the loss and its gradients first. Returns its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        stopped = self.overflowed = 0
        with torch.no_grad():
            for group in self.param_groups:
                plain = []
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    counts = self.state[p].get("step")  # one a row, once a gradient was sparse
                    if p in self._manifolds or p.grad.is_sparse or (counts is not None and counts.ndim):
                        stopped += self._rows(p, group)
                    else:
                        plain.append(p)
                if plain:
                    self._plain(plain, group)
        self.clipped = stopped
        return loss

    def _rows(self, p: Tensor, group: Group) -> int:
        """Step of a parameter of points, or of the rows of a sparse gradient."""
        manifold, grad, state = self._manifolds.get(p), p.grad, self.state[p]
        assert grad is not None
        chart = None if manifold is None else self._chart(p, group)
        ambient = isinstance(p, geoopt.ManifoldTensor) and chart is not None
        point = p.detach().as_subclass(Tensor)
        if not state:
            if chart is not None:
                _check_inside(point[..., 1:] if ambient else point, chart)
            state.update(self._fresh(point[..., 1:] if ambient else point, group, chart))
        elif group.get("momentum") and "momentum_buffer" not in state:  # it was set after the first step
            fresh = self._fresh(point[..., 1:] if ambient else point, group, chart)
            state["momentum_buffer"] = fresh["momentum_buffer"]
        if not grad.is_sparse:
            _advance(state)
            if point.ndim == 1:  # a single point: a table of one row
                grad, point = grad.unsqueeze(0), point.unsqueeze(0)
                return self._move(
                    point, grad, {n: t.unsqueeze(0) if t.ndim else t for n, t in state.items()}, group, chart, ambient
                )
            return self._move(point, grad, state, group, chart, ambient)
        if grad.sparse_dim() != 1 or grad.ndim < 2:
            raise ValueError(
                f"sparse gradients are taken by rows (one sparse dimension, as nn.Embedding(sparse=True) gives); "
                f"got {grad.sparse_dim()} sparse of {grad.ndim} dimensions"
            )
        if state["step"].ndim == 0:  # from now on every row counts its own steps
            state["step"] = state["step"].to(p.device).repeat(len(p), *[1] * (p.ndim - 1))
        grad = grad.coalesce()
        rows = grad.indices()[0]
        part, taken = point.index_select(0, rows), {n: t.index_select(0, rows) for n, t in state.items()}
        _advance(taken)
        stopped = self._move(part, grad.values(), taken, group, chart, ambient)
        point.index_copy_(0, rows, part)
        for name, value in taken.items():
            state[name].index_copy_(0, rows, value)
        return stopped

    def _move(self, point: Tensor, grad: Tensor, state: State, group: Group, chart: Chart | None, ambient: bool) -> int:
        stopped = 0
        named = {n: t for n, t in state.items() if t.ndim}
        for x, g, *values in chunks(point, grad, *named.values()):
            part = {**state, **dict(zip(named, values, strict=True))}
            if chart is None:
                self._euclidean_(x, g, part, group)
                continue
            s = x[..., 1:] if ambient else x
            h = covector(g, s, chart.k) if ambient else g
            if s.dtype in _LOW:
                work = s.float()
                stopped += self._riemannian_(work, h.float(), part, group, chart)
                s.copy_(work)
            else:
                stopped += self._riemannian_(s, h, part, group, chart)
            if ambient:
                x[..., 0] = (chart.k + s.square().sum(-1)).sqrt()
        return stopped

    def _fresh(self, space: Tensor, group: Group, chart: Chart | None) -> State:
        raise NotImplementedError

    def _riemannian_(self, space: Tensor, h: Tensor, state: State, group: Group, chart: Chart) -> int:
        raise NotImplementedError

    def _euclidean_(self, x: Tensor, g: Tensor, state: State, group: Group) -> None:
        raise NotImplementedError

    def _plain(self, params: list[Tensor], group: Group) -> None:
        raise NotImplementedError


def _advance(state: State) -> None:
    state["step"] += 1


def _check_group(group: Group) -> None:
    for name in ("lr", "weight_decay", "eps"):
        if name in group and not (isfinite(group[name]) and group[name] >= 0):
            raise ValueError(f"{name} is a number >= 0, got {group[name]}")
    for name, value in (
        *zip(("beta1", "beta2"), group.get("betas", ()), strict=False),
        ("momentum", group.get("momentum", 0)),
    ):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is in [0, 1), got {value}")
    radius = group["max_radius"]
    if radius is not None and not (isfinite(radius) and radius > 0):
        raise ValueError(f"max_radius is a positive number or None for the default of the dtype, got {radius}")


def _largest_radius(p: Tensor, k: float) -> float:
    return _LARGEST_RADIUS[p.dtype] * sqrt(k)


def _check_radius(radius: float | None, p: Tensor, manifold: geoopt.Lorentz) -> None:
    k = float(manifold.k.detach())
    if radius is not None and radius > _largest_radius(p, k):
        raise ValueError(
            f"max_radius={radius:g} is beyond what {p.dtype} can hold at k = {k:g}: at most {_largest_radius(p, k):g}; "
            f"use a smaller one or float64 points"
        )


def _manifold_of(p: Tensor) -> geoopt.Lorentz | None:
    manifold = getattr(p, "manifold", None)
    if manifold is None or isinstance(manifold, geoopt.Euclidean):
        return None
    if not isinstance(manifold, geoopt.Lorentz):
        raise TypeError(
            f"lorentz.optim moves points of lorentz.Lorentz or geoopt.Lorentz; a parameter of shape {tuple(p.shape)} is on "
            f"{manifold!r}: give it to geoopt.optim instead"
        )
    if p.dtype not in _DEFAULT_RADIUS:
        raise TypeError(f"points are real floating-point numbers, got a parameter of {p.dtype}")
    return manifold


def _check_inside(space: Tensor, chart: Chart) -> None:
    wide = space.double()
    norm = torch.linalg.vector_norm(wide, dim=-1)
    outside = int((norm > chart.max_norm * (1 + 4 * torch.finfo(space.dtype).eps)).sum())
    if outside:
        farthest = float((norm / sqrt(chart.k)).asinh().max()) * sqrt(chart.k)
        raise ValueError(
            f"{outside} of {norm.numel()} points of a parameter of shape {tuple(space.shape)} lie beyond max_radius "
            f"{chart.max_radius:g}, the farthest at {farthest:.4g}: bring them in or pass a larger max_radius"
        )
