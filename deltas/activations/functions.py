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

# Functions whose saved tensors are not rounded: their derivatives have a pole, or compare an argument with the result. With
# them the functions of torch in Python that call such ones, since no mode sees what is called inside.
_EXACT = frozenset(
    [
        "acosh", "arccosh", "acos", "arccos", "asin", "arcsin", "atanh", "arctanh", "atan2", "arctan2", "tan", "logit",
        "erfinv",
        "sqrt", "rsqrt", "log", "log2", "log10", "log1p", "xlogy", "logsumexp", "logcumsumexp", "logaddexp", "logaddexp2",
        "reciprocal", "div", "divide", "true_divide", "truediv", "rtruediv", "rdiv", "idiv", "prod",
        "cumprod",
        "norm", "vector_norm", "linalg_vector_norm", "matrix_norm", "std", "std_mean", "renorm", "cdist", "dist",
        "amax", "amin", "aminmax", "max", "min", "median", "nanmedian", "scatter_reduce", "index_reduce", "segment_reduce",
        "cummax", "cummin", "hardtanh", "relu6", "threshold", "softshrink", "hardshrink", "digamma", "lgamma", "polygamma",
        "normalize", "cosine_similarity", "pairwise_distance", "gaussian_nll_loss", "poisson_nll_loss", "ctc_loss",
        "lp_pool1d", "lp_pool2d", "lp_pool3d", "triplet_margin_loss", "cosine_embedding_loss", "det", "logdet", "slogdet",
        "linalg_det", "linalg_slogdet", "inverse", "linalg_inv", "linalg_solve", "linalg_cholesky", "cholesky", "svd",
        "linalg_svd", "linalg_svdvals", "linalg_eigh", "linalg_eigvalsh", "linalg_qr", "qr",
    ]
)  # fmt: skip
_torch_attention = F.scaled_dot_product_attention
_WITH_WEIGHT = frozenset(["linear", "bilinear", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))])


def _exact(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name.strip("_") in _EXACT:
        return True
    if name.strip("_") != "pow":
        return False
    exponent = kwargs.get("exponent", args[1] if len(args) > 1 else None)
    return not isinstance(exponent, int | float) or exponent < 1  # a pole at zero, of the power or of its derivative


class _Inside:
    """While entered, torch's own functions in Python, inside which no mode acts, take consistent attention too.

    It is equal to the bit, so that it does not matter that other threads take it meanwhile.
    """

    def __init__(self) -> None:
        self.lock, self.count = Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            self.count += 1
            if self.count == 1:
                self.before = F.scaled_dot_product_attention
                F.scaled_dot_product_attention = consistent_attention  # type: ignore[assignment]

    def __exit__(self, *_error: object) -> None:
        with self.lock:
            self.count -= 1
            if not self.count:
                F.scaled_dot_product_attention = self.before


_inside = _Inside()


class Watch(TorchFunctionMode):
    """While it is entered, says of a function that runs what of it must stay exact, and makes attention consistent.

    Parameters
    ----------
    attention : asked at each attention whether to make it consistent

    Attributes
    ----------
    exact : whether nothing that the function saves may be rounded
    weights : storages of the weights of the linear function that runs, which may be made of parameters (merged, normalised)
    """

    def __init__(self, *, attention: Callable[[], bool]) -> None:
        super().__init__()
        self.attention = attention
        self.exact = False
        self.weights: frozenset[int] = frozenset()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention" and self.attention():
            return consistent_attention(*args, **kwargs)
        if name == "multi_head_attention_forward":
            self.weights = _storages(args[5:6] + args[11:12], kwargs)
            try:
                with _inside if self.attention() else nullcontext():
                    return func(*args, **kwargs)
            finally:
                self.weights = frozenset()
        if _exact(name, args, kwargs):
            self.exact = True
            try:
                return func(*args, **kwargs)
            finally:
                self.exact = False
        if name in _WITH_WEIGHT:
            self.weights = _storages(args[1:2], kwargs)
            try:
                return func(*args, **kwargs)
            finally:
                self.weights = frozenset()
        return func(*args, **kwargs)


def _storages(args: tuple[Any, ...], kwargs: dict[str, Any]) -> frozenset[int]:
    """Storages of the weights among the arguments of a function."""
    tensors = [*args, *(value for name, value in kwargs.items() if name.endswith("weight"))]
    return frozenset(x.untyped_storage()._cdata for x in tensors if isinstance(x, Tensor) and x.layout is torch.strided)


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
        device = output.device.type
        on, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.autocast = torch.autocast(device, dtype=dtype, enabled=on)  # casts the arguments again as it did

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor | None, ...] = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        need = ctx.needs_input_grad[:4]
        # The fused kernels have a first derivative only.
        kernel = sdpa_kernel(SDPBackend.MATH) if twice else nullcontext()
        with torch.enable_grad(), kernel, ctx.autocast, _DrawingAgain(ctx.state, grad.device):
            # Of views, or the paths from one argument to another would be counted with those of the result.
            q, k, v, mask = inputs = [
                x if x is None else x.view_as(x) if twice else x.detach().requires_grad_(needed)
                for x, needed in zip(saved, need, strict=True)
            ]
            out = _torch_attention(q, k, v, attn_mask=mask, **ctx.options)  # type: ignore[arg-type]
        wanted = [x for x, needed in zip(inputs, need, strict=True) if x is not None and needed]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=twice))
        return *(next(found) if needed else None for needed in need), None, None


class _DrawingAgain:
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
