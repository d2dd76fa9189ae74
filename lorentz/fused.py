"""The Lorentz linear maps as autograd functions with closed-form gradients, so that no lift is stored or replayed.

A second derivative recomputes everything from the inputs by differentiable operations; nothing that was saved enters it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .math import NO_DIRECTION

__all__ = ["bounded_linear", "free_linear"]


def _preactivation(x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None) -> Tensor:
    z = F.linear(x, weight, bias)
    return z if addend is None else z + F.pad(addend, (1, 0))


def _norm(gate: Tensor, k: Tensor, of_time: bool) -> Tensor:
    """Space norm of the result, from the gate lambda * sigmoid(z_0)."""
    if not of_time:
        return gate
    over = gate + 0.1 * k.sqrt()
    return (over * (over + 2 * k.sqrt())).sqrt()


def _ratio(length: Tensor, norm: Tensor) -> Tensor:
    """Quotient norm / length; 0 where there is no direction (the origin results), NaN where the length overflowed."""
    flat = length < NO_DIRECTION
    return torch.where(
        flat, torch.zeros_like(norm), norm / torch.where(flat, torch.ones_like(length), length) + 0 * length
    )


class _BoundedLinear(torch.autograd.Function):
    """``bounded_lift(x W^T + b + (0, addend))`` with its gradient in closed form.

    With z the pre-activation, m the space norm of the result, r = m / |z_s|, y = (T, s), s = r z_s and an incoming gradient
    (g_t, g_s): ``D = <g_s, s>``, ``dL/dm = D / m + g_t m / T``, ``dL/dz_s = r (g_s - s D / m^2)``.
    """

    saved_exact: tuple[str, ...] = ("y", "ratio")

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None, scale: Tensor, k: Tensor, of_time: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = F.linear(x, weight, bias)
        if addend is not None:
            y[..., 1:] += addend
        gate = torch.sigmoid(y[..., :1])
        norm = _norm(scale * gate, k, of_time)
        length = torch.linalg.vector_norm(y[..., 1:], dim=-1, keepdim=True)
        ratio = _ratio(length, norm)
        y *= ratio
        y[..., :1] = (k + torch.where(ratio == 0, torch.zeros_like(norm), norm) ** 2).sqrt()
        return y, ratio, gate

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, bias, addend, scale, k, of_time = inputs
        y, ratio, gate = output
        ctx.mark_non_differentiable(ratio, gate)
        ctx.save_for_backward(x, weight, bias, addend, scale, k, y, ratio, gate)
        ctx.of_time = of_time  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_unused: Tensor) -> tuple[Any, ...]:
        x, weight, bias, addend, scale, k, y, ratio, gate = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: everything saved is recomputed from the inputs
            z = _preactivation(x, weight, bias, addend)
            gate = torch.sigmoid(z[..., :1])
            squared = (z[..., 1:] * z[..., 1:]).sum(-1, keepdim=True)
            flat = squared < NO_DIRECTION**2
            length = torch.where(
                flat, torch.zeros_like(squared), torch.where(flat, torch.ones_like(squared), squared).sqrt()
            )
            ratio = _ratio(length, _norm(scale * gate, k, ctx.of_time))
            space = ratio * z[..., 1:]
            time = (k + (space * space).sum(-1, keepdim=True)).sqrt()
            y = torch.cat([time, space], -1)
            return _gradients(ctx, (x, weight, bias, addend, scale, k), y, ratio, gate, grad)
        return _gradients_at_once(ctx, (x, weight, bias, addend, scale, k), y, ratio, gate, grad)


Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor]


def _through_norm(
    inputs: Inputs, y: Tensor, ratio: Tensor, gate: Tensor, along: Tensor, grad_time: Tensor, of_time: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From D = <g_s, s>: the weight of y in dL/dz, dL/dz_0, and the parts of dL/dscale and dL/dk, all (..., 1)."""
    scale, k = inputs[4], inputs[5]
    time = y[..., :1]
    flat = ratio == 0  # at the origin without a direction nothing flows back
    bound = scale * gate
    safe = torch.where(flat, torch.ones_like(time), _norm(bound, k, of_time) ** 2)
    along = torch.where(flat, torch.zeros_like(along), along)
    to_norm = along / safe + torch.where(flat, torch.zeros_like(time), grad_time / time)  # dL/dm / m
    # m dm/dbound is the bound itself, or the time t = bound + 1.1 sqrt(k) of m^2 = t^2 - k.
    lever = bound + 1.1 * k.sqrt() if of_time else bound
    to_gate = to_norm * lever
    to_k = grad_time / (2 * time)  # T = sqrt(k + m^2)
    if of_time:  # m dm/dk = 1.1 t / (2 sqrt(k)) - 1/2
        to_k = to_k + to_norm * (lever * 1.1 / (2 * k.sqrt()) - 0.5)
    return ratio * along / safe, to_gate * bound * (1 - gate), to_gate * gate, to_k


def _gradients(ctx: Any, inputs: Inputs, y: Tensor, ratio: Tensor, gate: Tensor, grad: Tensor) -> tuple[Any, ...]:
    """Gradients by differentiable operations."""
    x, weight, bias, addend, _scale, _k = inputs
    along = (grad[..., 1:] * y[..., 1:]).sum(-1, keepdim=True)
    back, first, to_scale, to_k = _through_norm(inputs, y, ratio, gate, along, grad[..., :1], ctx.of_time)
    grad_z = torch.cat([first, grad[..., 1:] * ratio - y[..., 1:] * back], -1)
    rows = grad_z.reshape(-1, grad_z.shape[-1])
    return (
        grad_z @ weight,
        rows.T @ x.reshape(-1, x.shape[-1]),
        None if bias is None else rows.sum(0),
        None if addend is None else grad_z[..., 1:],
        to_scale.sum(),
        to_k.sum(),
        None,
    )


def _gradients_at_once(
    ctx: Any, inputs: Inputs, y: Tensor, ratio: Tensor, gate: Tensor, grad: Tensor
) -> tuple[Any, ...]:
    """The same for one derivative, with a single buffer of the size of the output."""
    x, weight, bias, addend, _scale, _k = inputs
    need = ctx.needs_input_grad
    buffer = grad * y
    along = buffer.sum(-1, keepdim=True) - buffer[..., :1]
    back, first, to_scale, to_k = _through_norm(inputs, y, ratio, gate, along, grad[..., :1], ctx.of_time)
    torch.mul(grad, ratio, out=buffer)
    buffer.addcmul_(y, back, value=-1)
    buffer[..., :1] = first
    rows = buffer.reshape(-1, buffer.shape[-1])
    return (
        buffer @ weight if need[0] else None,
        rows.T @ x.reshape(-1, x.shape[-1]) if need[1] else None,
        rows.sum(0) if bias is not None and need[2] else None,
        buffer[..., 1:] if addend is not None and need[3] else None,
        to_scale.sum() if need[4] else None,
        to_k.sum() if need[5] else None,
        None,
    )


class _FreeLinear(torch.autograd.Function):
    """``lift(x W^T + b + addend)``: with T the time of the result, ``dL/dz = g_s + g_t z / T`` and ``dL/dk = g_t / 2T``."""

    saved_exact: tuple[str, ...] = ("y",)

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None, k: Tensor) -> Tensor:
        # A row of zeros in front leaves room for the time, so that the result is written once.
        y = F.linear(x, F.pad(weight, (0, 0, 1, 0)), None if bias is None else F.pad(bias, (1, 0)))
        if addend is not None:
            y[..., 1:] += addend
        y[..., :1] = (k + torch.linalg.vector_norm(y[..., 1:], dim=-1, keepdim=True) ** 2).sqrt()
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, bias, addend, k, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            z = F.linear(x, weight, bias) if addend is None else F.linear(x, weight, bias) + addend
            time = (k + (z * z).sum(-1, keepdim=True)).sqrt()
        else:
            z, time = y[..., 1:], y[..., :1]
        slope = grad[..., :1] / time
        grad_z = torch.addcmul(grad[..., 1:], z, slope)
        rows = grad_z.reshape(-1, grad_z.shape[-1])
        need = ctx.needs_input_grad
        return (
            grad_z @ weight if need[0] else None,
            rows.T @ x.reshape(-1, x.shape[-1]) if need[1] else None,
            rows.sum(0) if bias is not None and need[2] else None,
            grad_z if addend is not None and need[3] else None,
            slope.sum() / 2 if need[4] else None,
        )


def free_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, addend: Tensor | None, k: Tensor) -> Tensor:
    """Point ``lift(x W^T + b + addend)``, the weight without a time row. All tensors in one dtype; `k` scalar."""
    y: Tensor = _FreeLinear.apply(x, weight, bias, addend, k)  # type: ignore[no-untyped-call]
    return y


def bounded_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    addend: Tensor | None,
    scale: Tensor,
    k: Tensor,
    of_time: bool,
) -> Tensor:
    """Point ``bounded_lift(x W^T + b + (0, addend), scale=scale, k=k)``; see :func:`lorentz.math.bounded_lift`.

    All tensors in one dtype, float32 or float64; `scale` and `k` scalar.
    """
    y: Tensor = _BoundedLinear.apply(x, weight, bias, addend, scale, k, of_time)[0]  # type: ignore[no-untyped-call]
    return y
