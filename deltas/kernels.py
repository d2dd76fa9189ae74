"""Linear layers, low-rank changes of them, and linear layers that see the time of points, each in one differentiable step."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["low_rank_linear", "timed_linear"]


def _batched(*tensors: Tensor) -> bool:
    """Whether one of them is a batch of ``torch.vmap``, which may not be added in place to one that is none."""
    compiling = torch.compiler.is_compiling()
    return not compiling and any(torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors)


def _folds(rows: int, weight: Tensor) -> bool:
    """Whether the sum of the weights, made twice, is cheaper than adding to what is made of every row.

    It was measured on CPUs alone. Where products are rounded to fewer digits than the weights have, a small change would be
    lost in the sum; quantised or sharded weights have none.
    """
    if torch.compiler.is_compiling():
        return False
    m, n = weight.shape
    plain = type(weight) in (Tensor, torch.nn.Parameter) and weight.device.type == "cpu"
    exact = weight.dtype == torch.float64 or (
        weight.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    )
    return plain and exact and rows * (m + n) > 4 * m * n


class _LowRankLinear(torch.autograd.Function):
    """``x W^T + b + s u B^T`` with ``u = x A^T``: x stored once, nothing of the size of z but z.

    Of many rows the weight is W + s B A, made anew in each pass and not stored; else the products are added in place. u,
    which is small, is stored too; where the backward pass is differentiated itself it is computed anew. B is stored and not
    s B, for what is no parameter may be rounded by those who compress what is stored.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        flat, C = x.reshape(-1, x.shape[-1]), B * scale
        u, batched = flat @ A.T, _batched(x, weight, A, B)
        if not batched and _folds(len(flat), weight):
            z = F.linear(flat, torch.addmm(weight, C, A), bias)
        else:
            z = F.linear(flat, weight, bias)
            z = torch.addmm(z, u, C.T) if batched else z.addmm_(u, C.T)
        return z.view(*x.shape[:-1], z.shape[-1]), u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, bias, A, B, scale = inputs
        ctx.save_for_backward(x, weight, A, B, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.scale = scale
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, A, B, u = ctx.saved_tensors
        need = ctx.needs_input_grad
        flat, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        again = torch.is_grad_enabled() or _batched(g, x, weight, A, B)
        C = B * ctx.scale
        low = g @ C if need[0] or need[3] else None
        dx = None
        if need[0]:
            assert low is not None
            if not again and _folds(len(flat), weight):
                dx = g @ torch.addmm(weight, C, A)
            else:
                dx = torch.addmm(g @ weight, low, A) if again else (g @ weight).addmm_(low, A)
            dx = dx.view(x.shape)
        dA = low.T @ flat if need[3] and low is not None else None
        # The transposed product takes half the time of g.T @ u on a CPU.
        dB = (((flat @ A.T if again else u).T @ g) * ctx.scale).T.contiguous() if need[4] else None
        dW = g.T @ flat if need[1] else None
        db = g.sum(0) if need[2] and ctx.has_bias else None
        return dx, dW, db, dA, dB, None


# ``apply`` looks for the signature at every call, which takes longer than a small product.
_LowRankLinear.forward.__signature__ = inspect.signature(_LowRankLinear.forward)  # type: ignore[attr-defined]


def low_rank_linear(x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float) -> Tensor:
    """``x (W + s B A)^T + b`` of x (..., n), W (m, n), A (r, n), B (m, r).

    The sum of the weights is made for many rows in full precision alone, and never stored.
    """
    z, _ = _LowRankLinear.apply(x, weight, bias, A, B, scale)  # type: ignore[no-untyped-call]
    return z  # type: ignore[no-any-return]


def _time(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """``sqrt(k + |u|^2) - sqrt(k)`` without cancellation, (..., 1), and the root."""
    if torch.is_grad_enabled():
        square = (u * u).sum(-1, keepdim=True)
    else:  # in one pass; its second derivative at 0 would be wrong
        square = torch.linalg.vector_norm(u, dim=-1, keepdim=True).square()
    root = (k + square).sqrt()
    return square / (root + k.sqrt()), root


def _timed(u: Tensor, weight: Tensor, bias: Tensor | None, k: Tensor) -> Tensor:
    """:func:`timed_linear` of torch's own operations. The time joins the smaller of the two sides."""
    time, _ = _time(u, k)
    if u.shape[-1] < weight.shape[0]:
        return F.linear(torch.cat([time.to(u.dtype), u], -1), weight, bias)
    return torch.addcmul(F.linear(u, weight[:, 1:], bias), time, weight[:, 0])


class _TimedLinear(torch.autograd.Function):
    """``u W_s^T + t w_0 + b`` for a matrix with few rows: besides u nothing is stored, and u is not copied."""

    @staticmethod
    def forward(u: Tensor, weight: Tensor, bias: Tensor | None, k: Tensor) -> Tensor:
        time, _ = _time(u, k)
        return F.linear(u, weight[:, 1:], bias).addcmul_(time, weight[:, 0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, weight, bias, k = inputs
        ctx.save_for_backward(u, weight, k)
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, k = ctx.saved_tensors
        need = ctx.needs_input_grad
        time, root = _time(u, k)
        along = g @ weight[:, :1]  # dL/dt
        du = dW = db = dk = None
        if need[0]:
            du = g @ weight[:, 1:]
            plain = torch.is_grad_enabled() or _batched(g, u, weight, k)
            du = torch.addcmul(du, along / root, u) if plain else du.addcmul_(along / root, u)
        flat = g.reshape(-1, g.shape[-1]).T
        if need[1]:
            dW = torch.cat([flat @ time.reshape(-1, 1), flat @ u.reshape(-1, u.shape[-1])], 1)
        if need[2] and ctx.has_bias:
            db = flat.sum(1)
        if need[3]:
            dk = (along * (1 / root - 1 / k.sqrt()) / 2).sum()
        return du, dW, db, dk

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.vmap(_timed, in_dims)(*inputs), 0


_TimedLinear.forward.__signature__ = inspect.signature(_TimedLinear.forward)  # type: ignore[attr-defined]


def timed_linear(u: Tensor, weight: Tensor, bias: Tensor | None, k: Tensor) -> Tensor:
    r""":math:`W\,(\sqrt{k + |u|^2} - \sqrt k,\ u) + b` of u (..., n), W (m, n + 1), b (m,) or None, and k in u's dtype."""
    plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(u.device.type)
    if plain or u.shape[-1] < weight.shape[0]:
        return _timed(u, weight, bias, k)
    return _TimedLinear.apply(u, weight, bias, k)  # type: ignore[no-any-return, no-untyped-call]
