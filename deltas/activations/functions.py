"""Functions of torch whose saved tensors need more than rounding: attention, roots and logarithms, weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

__all__ = ["Watch", "consistent_attention"]

# Their derivatives have a pole where their argument or result is smallest: rounding there is not small in the gradient.
_STEEP = frozenset(
    [
        "acosh", "arccosh", "acos", "arccos", "asin", "arcsin", "atanh", "arctanh", "sqrt", "rsqrt", "log", "log2", "log10",
        "log1p", "reciprocal", "div", "divide", "true_divide", "__truediv__", "__rtruediv__", "__rdiv__", "__idiv__",
        "normalize", "cosine_similarity", "pairwise_distance",
    ]
)  # fmt: skip
_torch_attention = F.scaled_dot_product_attention
_WITH_WEIGHT = frozenset(["linear", "bilinear", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))])


def _steep_power(args: tuple[Any, ...]) -> bool:
    """Whether a power has a pole at zero, or its derivative has."""
    exponent = args[1] if len(args) > 1 else None
    return isinstance(exponent, int | float) and exponent < 1


class _Inside:
    """While entered, torch's own functions in Python, inside which no mode acts, take consistent attention too.

    It is equal to the bit, so that it does not matter that other threads take it meanwhile.
    """

    def __init__(self) -> None:
        self.lock, self.count = Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            self.count += 1
            F.scaled_dot_product_attention = consistent_attention  # type: ignore[assignment]

    def __exit__(self, *_error: object) -> None:
        with self.lock:
            self.count -= 1
            if not self.count:
                F.scaled_dot_product_attention = _torch_attention


_inside = _Inside()


class Watch(TorchFunctionMode):
    """While it is entered, says of a function that runs what of it must stay exact, and makes attention consistent.

    Attributes
    ----------
    steep : whether the function that runs has a derivative with a pole
    weight : storage of the weight of the linear function that runs, which may be made from parameters (merged, normalised)
    """

    def __init__(self, *, attention: bool) -> None:
        super().__init__()
        self.attention = attention
        self.steep = False
        self.weight: int | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention" and self.attention:
            return consistent_attention(*args, **kwargs)
        if name == "multi_head_attention_forward" and self.attention:
            with _inside:
                return func(*args, **kwargs)
        if name in _STEEP or name.rstrip("_") in _STEEP or (name.strip("_") == "pow" and _steep_power(args)):
            self.steep = True
            try:
                return func(*args, **kwargs)
            finally:
                self.steep = False
        if name in _WITH_WEIGHT:
            weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
            if isinstance(weight, Tensor) and weight.layout is torch.strided:
                self.weight = weight.untyped_storage()._cdata
            try:
                return func(*args, **kwargs)
            finally:
                self.weight = None
        return func(*args, **kwargs)


class _Attention(torch.autograd.Function):
    """Scaled dot-product attention that saves q, k and v alone and runs anew in the backward pass.

    torch's kernels save the logarithms of the sums too, exactly, and with rounded q and k the backward pass then takes
    ``exp(q k - log sum)`` of numbers that do not belong together, which has no bound.
    """

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any], state: Tensor | None
    ) -> Tensor:
        return _torch_attention(q, k, v, attn_mask=mask, **options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, options, state = inputs
        ctx.save_for_backward(*tensors)
        ctx.options, ctx.state = options, state

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor | None, ...] = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        inputs = [
            x if x is None or twice else x.detach().requires_grad_(need)
            for x, need in zip(saved, ctx.needs_input_grad, strict=False)
        ]
        wanted = [x for x, need in zip(inputs, ctx.needs_input_grad, strict=False) if x is not None and need]
        # The fused kernels have a first derivative only.
        kernel = sdpa_kernel(SDPBackend.MATH) if twice else nullcontext()
        with torch.enable_grad(), kernel, _drawing_again(ctx.state, grad.device):
            q, k, v, mask = inputs
            out = _torch_attention(q, k, v, attn_mask=mask, **ctx.options)  # type: ignore[arg-type]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=twice))
        return tuple(next(found) if need else None for need in ctx.needs_input_grad)


class _drawing_again:
    """Random numbers from a state, after which the generator is where it was; nothing without a state."""

    def __init__(self, state: Tensor | None, device: torch.device) -> None:
        self.state, self.device = state, device

    def __enter__(self) -> None:
        if self.state is not None:
            self.now = _random_state(self.device)
            _set_random_state(self.state, self.device)

    def __exit__(self, *_error: object) -> None:
        if self.state is not None:
            _set_random_state(self.now, self.device)


def _random_state(device: torch.device) -> Tensor:
    return torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)


def consistent_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``, equal to the bit, that saves nothing but its arguments.

    The backward pass runs the forward pass again, with the same random numbers where there is dropout.
    """
    options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    tensors = [x for x in (query, key, value, attn_mask) if x is not None]
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if plain or not torch.is_grad_enabled() or not any(x.requires_grad for x in tensors):
        return _torch_attention(query, key, value, attn_mask=attn_mask, **options)  # type: ignore[arg-type]
    state = _random_state(query.device) if dropout_p else None
    out: Tensor = _Attention.apply(query, key, value, attn_mask, options, state)  # type: ignore[no-untyped-call]
    return out
