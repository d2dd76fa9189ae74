"""Attention of the heads' points: torch's fused kernel, and the plain formula for weights and second derivatives."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .forms import at_least_float32
from .masks import causal_mask
from .signatures import signed

__all__ = ["attend", "average", "weights"]


def weights(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention weights (b, h, s, t) by the plain formula, in at least float32; 0 where masked, NaN in rows without keys."""
    with torch.autocast(q.device.type, enabled=False):
        logits = at_least_float32(q) @ at_least_float32(k).mT
    if causal:
        logits = logits.masked_fill(~causal_mask(q.shape[-2], k.shape[-2], 0, q.device), -torch.inf)
    if mask is not None:
        logits = logits + mask if mask.is_floating_point() else logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1)


def average(w: Tensor, v: Tensor) -> Tensor:
    """Weighted sums (b, h, s, d) of v, in at least float32 also under autocast."""
    with torch.autocast(v.device.type, enabled=False):
        return w @ at_least_float32(v)


class _TwiceDifferentiable(torch.autograd.Function):
    """Identity on what the fused kernel returned; a backward pass that builds a graph takes the plain formula.

    The kernel has a first derivative only. An ordinary backward pass hands the gradient on to it and costs nothing.
    """

    generate_vmap_rule = True
    saved_exact: tuple[str, ...] = ("out",)  # by the centroid, whose norm is a difference of its coordinates

    @staticmethod
    @signed
    def forward(out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:5])
        ctx.causal = inputs[5]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return grad, None, None, None, None, None
        q, k, v, mask = ctx.saved_tensors
        grad = at_least_float32(grad)
        w = weights(q, k, mask, ctx.causal)
        along = grad @ at_least_float32(v).mT
        slope = w * (along - (w * along).sum(-1, keepdim=True))
        to_mask = slope.sum_to_size(mask.shape).to(mask.dtype) if ctx.needs_input_grad[4] else None
        to_q, to_k, to_v = slope @ at_least_float32(k), slope.mT @ at_least_float32(q), w.mT @ grad
        return None, to_q.to(q.dtype), to_k.to(k.dtype), to_v.to(v.dtype), to_mask, None


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """Weighted sums (b, h, s, d) of v by ``softmax(q k^T)``, differentiable twice where `dropout` is 0."""
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=1.0)
    # Compiled code has no second derivative at all, and with dropout the kernel's own choice of weights is not known.
    if dropout > 0 or torch.compiler.is_compiling() or not out.requires_grad:
        return out
    twice: Tensor = _TwiceDifferentiable.apply(out, q, k, v, mask, causal)  # type: ignore[no-untyped-call]
    return twice
