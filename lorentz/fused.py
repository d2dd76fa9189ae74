"""The Lorentz linear maps as autograd functions with closed-form gradients, so that no lift is stored or replayed.

A second derivative recomputes everything from the inputs by differentiable operations; nothing that was saved enters it.
k comes in float64 and its gradient is summed in float64: its parts cancel, and in float32 the order of summation would show.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .batched import is_batched
from .math import NO_DIRECTION, lift
from .signatures import signed

__all__ = ["bounded_linear", "free_heads", "free_linear", "fused_lift"]

ALIGNED = 8


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
    return (norm / length).masked_fill(length < NO_DIRECTION, 0) + 0 * length


def _bounded(
    x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None, scale: Tensor, k: Tensor, of_time: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Result, ratio and gate by differentiable operations."""
    z = _preactivation(x, weight, bias, addend)
    gate = torch.sigmoid(z[..., :1])
    squared = (z[..., 1:] * z[..., 1:]).sum(-1, keepdim=True)
    flat = squared < NO_DIRECTION**2
    ratio = (_norm(scale * gate, k, of_time) / squared.masked_fill(flat, 1).sqrt()).masked_fill(flat, 0) + 0 * squared
    space = ratio * z[..., 1:]
    time = (k + (space * space).sum(-1, keepdim=True)).sqrt()
    return torch.cat([time, space], -1), ratio, gate


class _BoundedLinear(torch.autograd.Function):
    """``bounded_lift(x W^T + b + (0, addend))`` with its gradient in closed form.

    With z the pre-activation, m the space norm of the result, r = m / |z_s|, y = (T, s), s = r z_s and an incoming gradient
    (g_t, g_s): ``D = <g_s, s>``, ``dL/dm = D / m + g_t m / T``, ``dL/dz_s = r (g_s - s D / m^2)``.
    """

    saved_exact: tuple[str, ...] = ("y", "ratio")

    @staticmethod
    @signed
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
        # torch.compile of torch 2.11 loses what was saved of a tensor that was read and then changed in place.
        y = y * ratio if torch.compiler.is_compiling() else y.mul_(ratio)
        y[..., :1] = (ratio * length).square_().add_(k).sqrt_()
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
        # For a second derivative everything that was saved is recomputed from the inputs.
        if torch.is_grad_enabled() or is_batched(grad, y):
            y, ratio, gate = _bounded(x, weight, bias, addend, scale, k, ctx.of_time)
            return _gradients(ctx, (x, weight, bias, addend, scale, k), y, ratio, gate, grad)
        return _gradients_at_once(ctx, (x, weight, bias, addend, scale, k), y, ratio, gate, grad)

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, tuple[int, int, int]]:
        return torch.vmap(_bounded, in_dims)(*inputs), (0, 0, 0)


Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor]


def _through_norm(
    inputs: Inputs, y: Tensor, ratio: Tensor, gate: Tensor, along: Tensor, grad_time: Tensor, of_time: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From D = <g_s, s>: the weight of y in dL/dz, dL/dz_0, and the parts of dL/dscale and dL/dk, all (..., 1)."""
    scale, k = inputs[4], inputs[5]
    flat = ratio == 0  # at the origin without a direction nothing flows back
    bound = scale * gate
    norm = _norm(bound, k, of_time).masked_fill(flat, 1)
    norm_sq = norm * norm
    slope = grad_time / y[..., :1]
    level = torch.addcmul(along, slope, norm_sq).masked_fill(flat, 0)  # m dL/dm
    to_k = slope / 2  # T = sqrt(k + m^2)
    if of_time:  # m^2 = t^2 - k of t = bound + 1.1 sqrt(k): m dm/dbound = t, m dm/dk = 1.1 t / (2 sqrt(k)) - 1/2
        to_norm, time = level / norm_sq, bound + 1.1 * k.sqrt()
        to_k = to_k + to_norm * (time * 1.1 / (2 * k.sqrt()) - 0.5)
        level = to_norm * time * bound
    # One norm at a time: its square underflows where the gate is all but shut.
    return (along / norm) * (ratio / norm), level * (1 - gate), level / scale, to_k


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
        to_k.sum(dtype=torch.float64),
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
        to_k.sum(dtype=torch.float64) if need[5] else None,
        None,
    )


def _free(
    x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None, k: Tensor, heads: int, sign: int
) -> Tensor:
    """Result by differentiable operations."""
    z = F.linear(x, weight, bias)
    z = z if addend is None else z + addend
    space = z.reshape(*z.shape[:-1], heads, z.shape[-1] // heads)
    squared = (space * space).sum(-1, keepdim=True)
    time = (k + squared).sqrt()
    first = sign * time if sign else squared / (time + k.sqrt())
    return torch.cat([first, space], -1)


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    """``x @ matrix`` with rows that start at multiples of 8 numbers; writing others takes half as long again."""
    columns = matrix.shape[1]
    extra = -columns % ALIGNED
    y: Tensor = x.reshape(-1, x.shape[-1]) @ (F.pad(matrix, (0, extra)) if extra else matrix)
    return y.view(*x.shape[:-1], columns + extra)[..., :columns]


def _with_room(rows: Tensor, heads: int) -> Tensor:
    """Rows of a weight or numbers of a bias with a zero before every head, and zeros up to a multiple of 8."""
    columns = rows.shape[0] + heads
    extra, behind = -columns % ALIGNED, (0, 0) * (rows.dim() - 1)
    if heads == 1:
        return F.pad(rows, (*behind, 1, extra))
    room = rows.new_zeros(columns + extra, *rows.shape[1:])
    room[:columns].view(heads, -1, *rows.shape[1:])[:, 1:] = rows.view(heads, -1, *rows.shape[1:])
    return room


class _Lift(torch.autograd.Function):
    """``lift(s)``: ``dL/ds = g_s + g_t s / T`` and ``dL/dk = g_t / 2T``, T the time."""

    saved_exact: tuple[str, ...] = ("y",)

    @staticmethod
    @signed
    def forward(space: Tensor, k: Tensor) -> Tensor:
        columns = space.shape[-1] + 1
        y = space.new_empty(*space.shape[:-1], columns + -columns % ALIGNED)[..., :columns]
        y[..., 1:] = space
        y[..., :1] = torch.linalg.vector_norm(space, dim=-1, keepdim=True).square_().add_(k).sqrt_()
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        slope = grad[..., :1] / y[..., :1]
        need = ctx.needs_input_grad
        to_space = torch.addcmul(grad[..., 1:], y[..., 1:], slope) if need[0] else None
        return to_space, slope.sum(dtype=torch.float64) / 2 if need[1] else None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.vmap(lambda space, k: lift(space, k=k), in_dims)(*inputs), 0


def fused_lift(space: Tensor, *, k: Tensor) -> Tensor:
    """Point ``lift(space)``, in one pass where the dtype allows it."""
    if space.dtype not in (torch.float32, torch.float64):
        return lift(space, k=k)
    y: Tensor = _Lift.apply(space, k.to(space.device))  # type: ignore[no-untyped-call]
    return y


class _FreeLinear(torch.autograd.Function):
    """``lift(x W^T + b + addend)`` of every head: ``dL/dz = g_s + g_t z / T`` and ``dL/dk = g_t / 2T``, T the time.

    Both hold for a time y_0 of either sign, and the first also for ``y_0 = T - sqrt(k)``, the time above that of the origin
    (sign 0), where ``dL/dk = -g_t y_0 / (2 T sqrt(k))``.
    """

    saved_exact: tuple[str, ...] = ("y",)

    @staticmethod
    @signed
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, addend: Tensor | None, k: Tensor, heads: int, sign: int
    ) -> Tensor:
        # Room for the time of every head, so that the result is written once.
        flat, rows = x.reshape(-1, x.shape[-1]), _with_room(weight, heads)
        y = flat @ rows.T if bias is None else torch.addmm(_with_room(bias, heads), flat, rows.T)
        y = y[:, : weight.shape[0] + heads].view(*x.shape[:-1], heads, weight.shape[0] // heads + 1)
        space = y[..., 1:]
        if addend is not None:
            space += addend.expand(*x.shape[:-1], weight.shape[0]).reshape(space.shape)
        squared = torch.linalg.vector_norm(space, dim=-1, keepdim=True).square_()
        if sign:
            time = squared.add_(k).sqrt_()
            y[..., :1] = time if sign > 0 else time.neg_()
        else:
            y[..., :1] = squared / (squared + k).sqrt_().add_(k.sqrt())
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, addend, k, _heads, sign = inputs
        ctx.save_for_backward(x, weight, output, k)
        ctx.absent = bias is None, addend is None  # type: ignore[attr-defined]
        ctx.sign = sign  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, y, k = ctx.saved_tensors  # the result is part of the graph: a second derivative goes through it
        slope = grad[..., :1] / (y[..., :1] if ctx.sign else y[..., :1] + k.sqrt())
        grad_z = torch.addcmul(grad[..., 1:], y[..., 1:], slope)
        grad_z = grad_z.reshape(*grad_z.shape[:-2], weight.shape[0])
        rows = grad_z.reshape(-1, grad_z.shape[-1])
        need = ctx.needs_input_grad
        to_k = None
        if need[4]:
            turned = slope if ctx.sign else -slope * y[..., :1] / k.sqrt()
            to_k = turned.sum(dtype=torch.float64) / 2
        return (
            _product(grad_z, weight) if need[0] else None,
            rows.T @ x.reshape(-1, x.shape[-1]) if need[1] else None,
            rows.sum(0) if need[2] and not ctx.absent[0] else None,
            grad_z if need[3] and not ctx.absent[1] else None,
            to_k,
            None,
            None,
        )

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.vmap(_free, in_dims)(*inputs), 0


def free_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, addend: Tensor | None, k: Tensor) -> Tensor:
    """Point ``lift(x W^T + b + addend)``, the weight without a time row. All in one dtype but `k`, a float64 scalar."""
    return free_heads(x, weight, bias, addend=addend, k=k, heads=1).squeeze(-2)


def free_heads(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, addend: Tensor | None, k: Tensor, heads: int, sign: int = 1
) -> Tensor:
    """The same with the space coordinates split into heads: points (..., heads, n + 1), the times of the given sign.

    Sign 0 gives what is left of a time without that of the origin, ``|s|^2 / (T + sqrt(k))``, which does not cancel.
    """
    y: Tensor = _FreeLinear.apply(x, weight, bias, addend, k, heads, sign)  # type: ignore[no-untyped-call]
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

    All tensors in one dtype, float32 or float64, but `k`; `scale` and `k` scalar, `k` in float64.
    """
    y: Tensor = _BoundedLinear.apply(x, weight, bias, addend, scale, k, of_time)[0]  # type: ignore[no-untyped-call]
    return y
