"""Riemannian Adam and SGD for points of the Lorentz model, and plain Adam and SGD for everything else."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from .optim_base import Group, Riemannian, State, rate
from .optim_chart import Chart, squared_norm, travel_

__all__ = ["RiemannianAdam", "RiemannianSGD"]


class RiemannianAdam(Riemannian):
    r"""Adam whose points move along geodesics; every other parameter gets AdamW.

    With the covector (plain derivative) h of the space coordinates s and :math:`|h|_s^2 = |h|^2 + (h\cdot s)^2 / k`,

    .. math:: p = \beta_1 p + (1 - \beta_1) h, \quad v = \beta_2 v + (1 - \beta_2) |h|_s^2, \quad
        s' = \exp_s\!\Big(-\frac{\eta}{1 - \beta_1^t}
        \frac{p + (p\cdot s)s/k}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}\Big).

    v is one number a point, so a step is a multiple of the first moment and the exact parallel transport of p to the new
    point is one multiplication; v cannot be negative. As in Becigneul and Ganea (2019), in another chart.

    Parameters
    ----------
    params : parameters or groups of them. Points are parameters with an attribute ``manifold`` (space coordinates, as
        ``LorentzEmbedding.weight``) and geoopt's ``ManifoldParameter`` on ``Lorentz`` (points with their time).
    lr : float or scalar Tensor, >= 0
    betas : pair of floats in [0, 1)
    eps : float, >= 0
    weight_decay : float, >= 0, decoupled: multiplies a point's radius, and any other parameter, by ``1 - lr * weight_decay``.
    max_radius : float or None. Points stay within this distance of the origin; the default is :math:`10\sqrt k` in float32,
        25 in float64, 5 in float16, 4 in bfloat16, beyond which rounding outweighs the steps.
    fused : bool or None, for the parameters that are no points; see :class:`torch.optim.AdamW`

    Attributes
    ----------
    clipped : int. How many points ``max_radius`` stopped in the last step.
    overflowed : int. How many points had a finite gradient in the last step whose squared norm is not (beyond 1e19 in
        float32). It counts as 0: the point goes on with its momentum.

    Notes
    -----
    A sparse gradient moves its rows and nothing else: the moments of an absent row do not decay, its weight is not decayed,
    and from the first sparse gradient on every row counts its own steps. A row ends where the dense algorithm would, run
    over the steps in which the row occurred.

    Raises
    ------
    ValueError : a setting out of range, points beyond ``max_radius`` at the first step, or a sparse gradient not by rows.
    TypeError : a parameter on another manifold.

    References
    ----------
    Becigneul and Ganea, "Riemannian adaptive optimization methods", ICLR 2019, algorithm 1a.

    Examples
    --------
    >>> from lorentz import Lorentz, LorentzEmbedding
    >>> table = LorentzEmbedding(10, 5, manifold=Lorentz())
    >>> optimizer = RiemannianAdam(table.parameters(), lr=0.01)
    >>> table.manifold.dist0(table()).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_radius: float | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_radius": max_radius, "fused": fused,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _fresh(self, space: Tensor, group: Group, chart: Chart | None) -> State:
        zeros = self._zeros(space, chart)
        second = zeros if chart is None else zeros[..., :1]
        return {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": second.clone()}

    def _scales(self, state: State, group: Group) -> tuple[Any, Tensor]:
        """Step size of the first moment and its denominator, both times the root of v's bias correction."""
        beta1, beta2 = group["betas"]
        # Counts of rows are float32, in which 1 - 0.999 keeps four digits.
        step = state["step"].double() if state["step"].ndim else float(state["step"])
        root = (1 - beta2**step) ** 0.5
        size, floor = -rate(group) * root / (1 - beta1**step), group["eps"] * root
        second = state["exp_avg_sq"]
        if isinstance(size, Tensor):
            return size.to(second), second.sqrt().add_(floor.to(second))
        return size, second.sqrt().add_(floor)

    def _riemannian_(self, space: Tensor, h: Tensor, state: State, group: Group, chart: Chart) -> int:
        beta1, beta2 = group["betas"]
        squared = squared_norm(h, space, chart.k)
        if not float(squared.sum()) < inf:
            over = ~squared.isfinite() & (h.isfinite() & space.isfinite()).all(-1, keepdim=True)
            self.overflowed += int(over.sum())
            h, squared = h.masked_fill(over, 0), squared.masked_fill(over, 0)
        state["exp_avg_sq"].lerp_(squared, 1 - beta2)
        first = state["exp_avg"].lerp_(h, 1 - beta1)
        size, denominator = self._scales(state, group)
        return travel_(space, first, size / denominator, chart, shrink=1 - rate(group) * group["weight_decay"])

    def _euclidean_(self, x: Tensor, g: Tensor, state: State, group: Group) -> None:
        beta1, beta2 = group["betas"]
        state["exp_avg_sq"].lerp_(g * g, 1 - beta2)
        first = state["exp_avg"].lerp_(g, 1 - beta1)
        size, denominator = self._scales(state, group)
        x.mul_(1 - rate(group) * group["weight_decay"]).add_(size * first / denominator)

    def _plain(self, params: list[Tensor], group: Group) -> None:
        for p in params:
            if not self.state[p]:
                fresh = self._fresh(p, group, None)
                self.state[p].update({**fresh, "step": fresh["step"].to(p.device)} if group["fused"] else fresh)
        states = [self.state[p] for p in params]
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=rate(group),
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


class RiemannianSGD(Riemannian):
    r"""Gradient descent whose points move along geodesics; every other parameter gets plain SGD.

    :math:`p = \mu p + h`, :math:`s' = \exp_s(-\eta\,(p + (p\cdot s)s/k))`, p transported along; see :class:`RiemannianAdam`
    for points, ``max_radius``, ``clipped``, sparse gradients and errors.

    Parameters
    ----------
    params : parameters or groups of them
    lr : float or scalar Tensor, >= 0
    momentum : float in [0, 1)
    weight_decay : float, >= 0, decoupled: multiplies radii and parameters by ``1 - lr * weight_decay``.
    max_radius : float or None

    References
    ----------
    Bonnabel, "Stochastic gradient descent on Riemannian manifolds", 2013, equation 2.

    Examples
    --------
    >>> from lorentz import Lorentz, LorentzEmbedding
    >>> table = LorentzEmbedding(10, 5, manifold=Lorentz())
    >>> optimizer = RiemannianSGD(table.parameters(), lr=0.1, momentum=0.9)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        max_radius: float | None = None,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "max_radius": max_radius}
        )

    def _fresh(self, space: Tensor, group: Group, chart: Chart | None) -> State:
        # The step count tells rows of sparse gradients apart from none; without momentum nothing else is kept.
        fresh = {"step": torch.zeros(())}
        return {**fresh, "momentum_buffer": self._zeros(space, chart)} if group["momentum"] else fresh

    def _velocity(self, h: Tensor, state: State, group: Group) -> Tensor:
        if not group["momentum"]:
            return h.clone()
        return state["momentum_buffer"].mul_(group["momentum"]).add_(h)

    def _riemannian_(self, space: Tensor, h: Tensor, state: State, group: Group, chart: Chart) -> int:
        p = self._velocity(h, state, group)
        return travel_(space, p, -rate(group), chart, shrink=1 - rate(group) * group["weight_decay"])

    def _euclidean_(self, x: Tensor, g: Tensor, state: State, group: Group) -> None:
        p = self._velocity(g, state, group)
        x.mul_(1 - rate(group) * group["weight_decay"]).sub_(p, alpha=rate(group))

    def _plain(self, params: list[Tensor], group: Group) -> None:
        shrink = 1 - rate(group) * group["weight_decay"]
        buffers: list[Tensor | None] = []
        for p in params:
            if shrink != 1:
                p.mul_(shrink)
            if group["momentum"] and "momentum_buffer" not in self.state[p]:
                self.state[p].update(self._fresh(p, group, None))
            buffers.append(self.state[p]["momentum_buffer"] if group["momentum"] else None)
        sgd(
            params,
            [p.grad for p in params if p.grad is not None],
            buffers,
            has_sparse_grad=False,
            weight_decay=0.0,
            momentum=group["momentum"],
            lr=rate(group),
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
