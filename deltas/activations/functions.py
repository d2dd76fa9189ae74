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

from .policy import made_by

__all__ = ["Watch", "consistent_attention"]

# Functions whose saved tensors are not rounded: their derivatives have a pole or a jump, or compare an argument with the
# result. With them the functions of torch in Python that call such ones, since no mode sees what is called inside. Names are
# without underscores at the ends and without the prefix of torch.special.
_EXACT = frozenset(
    [
        "acosh", "arccosh", "acos", "arccos", "asin", "arcsin", "atanh", "arctanh", "atan2", "arctan2", "tan", "logit",
        "erfinv", "ndtri", "entr", "hypot", "sinc",
        "sqrt", "rsqrt", "log", "log2", "log10", "log1p", "xlogy", "xlog1py", "logsumexp", "logcumsumexp", "logaddexp",
        "logaddexp2", "rpow",
        "reciprocal", "div", "divide", "true_divide", "truediv", "rtruediv", "rdiv", "idiv", "addcdiv", "prod", "cumprod",
        "fmod", "remainder", "mod", "rmod", "imod",
        "norm", "norm_except_dim", "std", "std_mean", "renorm", "cdist", "pdist", "dist",
        "amax", "amin", "aminmax", "max", "min", "median", "nanmedian", "scatter_reduce", "index_reduce", "segment_reduce",
        "cummax", "cummin", "maximum", "minimum", "fmax", "fmin",
        "abs", "absolute", "copysign", "clamp", "clamp_min", "clamp_max", "clip",
        "hardtanh", "relu6", "threshold", "softshrink", "hardshrink", "hardswish", "hardsigmoid",
        "digamma", "psi", "lgamma", "gammaln", "mvlgamma", "multigammaln", "polygamma", "zeta", "i0e", "i1", "i1e",
        "normalize", "cosine_similarity", "pairwise_distance", "gaussian_nll_loss", "poisson_nll_loss", "ctc_loss",
        "binary_cross_entropy", "l1_loss", "smooth_l1_loss", "huber_loss", "hinge_embedding_loss", "margin_ranking_loss",
        "multi_margin_loss", "multilabel_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
        "cosine_embedding_loss", "kl_div", "rms_norm", "grid_sample", "grid_sampler", "lp_pool1d", "lp_pool2d", "lp_pool3d",
        "det", "logdet", "slogdet", "inverse", "pinverse", "cholesky", "cholesky_solve", "cholesky_inverse",
        "triangular_solve", "lu", "lu_solve", "qr", "svd", "svd_lowrank", "pca_lowrank", "lobpcg",
    ]
)  # fmt: skip
_PRODUCTS = frozenset(["linalg_matmul", "linalg_multi_dot", "linalg_vecdot", "linalg_cross", "linalg_diagonal"])
# Functions whose saved argument tells by its sign which derivative holds, and enters it smoothly otherwise.
_SIGNED = frozenset(["leaky_relu", "rrelu", "rrelu_with_noise", "prelu", "elu", "selu"])
_torch_attention = F.scaled_dot_product_attention
_WITH_WEIGHT = frozenset(["linear", "bilinear", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))])


def _exact(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name = name.strip("_").removeprefix("special_")
    if name in _EXACT or (name.startswith("linalg_") and name not in _PRODUCTS):
        return True
    if name not in ("pow", "ipow", "float_power"):
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
    signed : whether what it saves keeps its sign
    weights : storages of the weights of the linear function that runs, which may be made of parameters (merged, normalised)
    makers : nodes of the graph that made them, by which copies of autocast are known
    """

    def __init__(self, *, attention: Callable[[], bool]) -> None:
        super().__init__()
        self.attention = attention
        self.exact = self.signed = False
        self.weights: frozenset[int] = frozenset()
        self.makers: tuple[Any, ...] = ()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention" and self.attention():
            return consistent_attention(*args, **kwargs)
        if name == "multi_head_attention_forward":
            self._weigh(args[5:6] + args[11:12], kwargs)
            try:
                with _inside if self.attention() else nullcontext():
                    return func(*args, **kwargs)
            finally:
                self._unweigh()
        if _exact(name, args, kwargs):
            self.exact = True
            try:
                return func(*args, **kwargs)
            finally:
                self.exact = False
        if name.strip("_") in _SIGNED:
            self.signed = True
            try:
                return func(*args, **kwargs)
            finally:
                self.signed = False
        if name in _WITH_WEIGHT:
            self._weigh(args[1:2], kwargs)
            try:
                return func(*args, **kwargs)
            finally:
                self._unweigh()
        return func(*args, **kwargs)

    def _weigh(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Know the weights among the arguments of the function that runs."""
        given = [*args, *(value for name, value in kwargs.items() if name.endswith("weight"))]
        tensors = [x for x in given if isinstance(x, Tensor) and x.layout is torch.strided and not x.is_nested]
        self.weights = frozenset(x.untyped_storage()._cdata for x in tensors)
        if not torch.compiler.is_compiling():  # which saves nothing under our hooks, and traces no nodes
            self.makers = tuple(node for x in tensors if (node := made_by(x.grad_fn)) is not None)

    def _unweigh(self) -> None:
        """Know none any more."""
        self.weights, self.makers = frozenset(), ()


class _Attention(torch.autograd.Function):
    """Scaled dot-product attention that saves q, k and v alone and runs anew in the backward pass.

    torch's kernels save the logarithms of the sums too, exactly, and with rounded q and k the backward pass then takes
    ``exp(q k - log sum)`` of terms that do not belong together, which has no bound.
    """

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any], state: Tensor | None
    ) -> Tensor:
        # The kernel that torch takes where a mask is trained: the result is the same to the bit.
        with torch.set_grad_enabled(mask is not None and mask.requires_grad):
            return _torch_attention(q, k, v, attn_mask=mask, **options).detach()

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
        # Where the backward pass runs inside the context too, its hooks would round what is saved here for a moment.
        plain = torch.autograd.graph.saved_tensors_hooks(_same, _same)
        with torch.enable_grad(), kernel, plain, ctx.autocast, _DrawingAgain(ctx.state, grad.device):
            # Of views, or the paths from one argument to another would be counted with those of the result.
            q, k, v, mask = inputs = [
                x if x is None else x.view_as(x) if twice else x.detach().requires_grad_(needed)
                for x, needed in zip(saved, need, strict=True)
            ]
            out = _torch_attention(q, k, v, attn_mask=mask, **ctx.options)  # type: ignore[arg-type]
        wanted = [x for x, needed in zip(inputs, need, strict=True) if x is not None and needed]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=twice))
        return *(next(found) if needed else None for needed in need), None, None


def _same(x: Tensor) -> Tensor:
    return x


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
