"""Centroids of the heads of an attention layer, merged into one point by an autograd function that writes it once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .batched import is_batched
from .signatures import signed

__all__ = ["merge_heads"]


def _by_head(space: Tensor, heads: int) -> Tensor:
    """(b, s, h * n) to (b, s, h, n)."""
    return space.view(*space.shape[:-1], heads, space.shape[-1] // heads)


def _length_squared(x: Tensor) -> Tensor:
    """Sum of squares (..., 1) without a temporary of the size of x."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_()


class _MergeHeads(torch.autograd.Function):
    r"""One point from the heads' weighted sums a: ``lift`` of the spaces of ``sqrt(k) a / sqrt(max(-<a, a>_L, k))``.

    With n the norm under the root, ``r = sqrt(k / n)``, ``y = r a_s`` the head's coordinates, T the time of the result,
    an incoming gradient (g_t, g_s) and ``p = g_s + g_t y / T``, ``D = <p, y>`` a head: ``dL/da_s = r p + D a_s / n``,
    ``dL/da_t = -D a_t / n``, ``dL/dk = sum D / 2k + g_t / 2T``. Rounding alone brings n below its bound k: the value is the
    bound's there and the derivative stays that of n, divided by the rounding error of n where that is above k.
    """

    saved_exact: tuple[str, ...] = ("a", "point", "ratio")

    @staticmethod
    @signed
    def forward(a: Tensor, dead: Tensor | None, k: Tensor) -> tuple[Tensor, Tensor]:
        time = a[..., :1]
        norm = time * time - _length_squared(a[..., 1:])
        # A sum of points has a time above 0, which is what torch's kernel returns for a query that is NaN.
        ratio = (k / torch.maximum(norm, k)).sqrt().masked_fill_(time == 0, torch.nan)
        if dead is not None:
            ratio = ratio.masked_fill(dead, 0)
        batch, heads, length, size = a.shape
        point = a.new_empty(batch, length, heads * (size - 1) + 1)
        inner = point[..., 1:]
        _by_head(inner, heads).copy_(a[..., 1:].transpose(1, 2)).mul_(ratio.transpose(1, 2))
        if dead is not None:  # whatever the kernel returned for a row without keys, NaN included, is replaced
            _by_head(inner, heads).masked_fill_(dead.transpose(1, 2), 0)
        point[..., :1] = _length_squared(inner).add_(k).sqrt_()
        return point, ratio

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        a, dead, k = inputs
        point, ratio = output
        ctx.mark_non_differentiable(ratio)
        ctx.save_for_backward(a, dead, k, point, ratio)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _unused: Tensor | None) -> tuple[Tensor | None, ...]:
        a, dead, k, point, ratio = ctx.saved_tensors
        heads = a.shape[1]
        if dead is not None:
            a = a.masked_fill(dead, 0)
        twice = torch.is_grad_enabled() or is_batched(grad, a)
        if twice:  # the ratio that was saved is no part of the graph
            ratio = (k / _norm(a, k)).sqrt()
            ratio = ratio if dead is None else ratio.masked_fill(dead, 0)
        slope = grad[..., :1] / point[..., :1]
        inward = _by_head(torch.addcmul(grad[..., 1:], point[..., 1:], slope), heads).transpose(1, 2)
        # One buffer serves the product under the sum and the gradient.
        buffer = a if twice else torch.empty_like(a)
        product = inward * a[..., 1:] if twice else buffer[..., 1:].copy_(inward).mul_(a[..., 1:])
        along = product.sum(-1, keepdim=True) * ratio
        inside = ratio > 0
        # D / n, with 1 / n = ratio^2 / k; nothing where the mask decided.
        pull = torch.where(inside, along * ratio * ratio / k, torch.zeros_like(along))
        pull = torch.where(ratio >= 1, pull * _trust(a, k), pull)
        to_a = None
        if ctx.needs_input_grad[0]:
            if twice:
                to_a = torch.cat([-pull * a[..., :1], torch.addcmul(inward * ratio, a[..., 1:], pull)], -1)
            else:
                to_a = buffer.copy_(a).mul_(pull)
                to_a[..., :1].neg_()
                to_a[..., 1:].addcmul_(inward, ratio)
        to_k = None
        if ctx.needs_input_grad[2]:
            turned = torch.where(inside, along, torch.zeros_like(along)).sum(dtype=torch.float64)
            to_k = (turned / k + slope.sum(dtype=torch.float64)) / 2
        return to_a, None, to_k

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, tuple[int, int]]:
        return torch.vmap(_merge, in_dims)(*inputs), (0, 0)


def _trust(a: Tensor, k: Tensor) -> Tensor:
    """``k / max(k, eps a_t^2)`` (..., 1), a constant: what a norm of about k tells of its own derivative."""
    time = a[..., :1].detach()
    noise = torch.finfo(a.dtype).eps * time * time
    return (k / torch.maximum(noise, k)).detach()


def _norm(a: Tensor, k: Tensor) -> Tensor:
    """``max(-<a, a>_L, k)`` (..., 1), with the derivative of the first as far as it is known."""
    norm = a[..., :1] * a[..., :1] - (a[..., 1:] * a[..., 1:]).sum(-1, keepdim=True)
    value = torch.maximum(norm, k).detach()
    slope = torch.where(norm <= k, _trust(a, k), torch.ones_like(norm))
    return value + slope * (norm - norm.detach())


def _merge(a: Tensor, dead: Tensor | None, k: Tensor) -> tuple[Tensor, Tensor]:
    """Result and ratio by differentiable operations."""
    time = a[..., :1]
    ratio = (k / _norm(a, k)).sqrt().masked_fill(time == 0, torch.nan)
    space = ratio * a[..., 1:]
    if dead is not None:
        ratio, space = ratio.masked_fill(dead, 0), space.masked_fill(dead, 0)
    space = space.transpose(1, 2).flatten(-2)
    return torch.cat([(k + (space * space).sum(-1, keepdim=True)).sqrt(), space], -1), ratio


def merge_heads(a: Tensor, *, k: Tensor, dead: Tensor | None = None) -> Tensor:
    """Point (b, s, h * n + 1) whose space coordinates are those of the heads' centroids, from weighted sums (b, h, s, n + 1).

    Rows that are `dead`, bool and broadcast to (b, h, s, 1), give the origin of that head.
    """
    point: Tensor = _MergeHeads.apply(a, dead, k)[0]  # type: ignore[no-untyped-call]
    return point
