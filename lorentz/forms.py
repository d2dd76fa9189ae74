"""Building blocks in forms that do not cancel, shared by the functions of this package."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "NO_DIRECTION",
    "K",
    "arsinhc",
    "asinh",
    "at_least_float32",
    "check_real",
    "chord",
    "double_space",
    "gram",
    "safe_sqrt",
    "scalar",
    "sinh",
    "sinhc",
    "space_of",
    "sqrt_k",
    "squeeze",
    "total",
    "unit_pair",
    "unit_space",
    "unit_time",
]

K = float | Tensor
NO_DIRECTION = 1e-15  # length below which a vector has no direction that a gradient could follow


def space_of(x: Float[Tensor, "..."], *, dim: int = -1) -> Float[Tensor, "..."]:
    """Space coordinates of points: everything but the first entry along `dim`."""
    return x.narrow(dim, 1, x.shape[dim] - 1)


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32 if it is in bfloat16 or float16, else itself."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def total(x: Tensor, dim: int) -> Tensor:
    """Sum along `dim`, which stays."""
    return x.sum(dim, keepdim=True)


def check_real(x: Tensor) -> None:
    """Refuse coordinates in a dtype that would cut off k, times and distances to whole numbers."""
    if not x.is_floating_point():
        raise TypeError(
            f"points and vectors are floating-point numbers, got {x.dtype}: convert by .float() or .double()"
        )


def scalar(k: K, like: Tensor) -> Tensor:
    """Scalar tensor of a number or tensor, in the dtype of `like` (a Python float would first become float32)."""
    check_real(like)
    return k.to(like) if isinstance(k, Tensor) else torch.full((), k, dtype=like.dtype, device=like.device)


def sqrt_k(k: K, like: Tensor) -> Tensor:
    """Square root of k as a scalar tensor in the dtype of `like`."""
    return scalar(k, like).sqrt()


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, not infinite: there is no direction to move in."""
    zero = x == 0
    return torch.where(zero, torch.zeros_like(x), torch.where(zero, torch.ones_like(x), x).sqrt())


def squeeze(x: Tensor, dim: int, keepdim: bool) -> Tensor:
    """Drop the size-1 axis `dim` unless `keepdim`."""
    return x if keepdim else x.squeeze(dim)


def double_space(x: Tensor, dim: int) -> Tensor:
    """Space part in float64."""
    check_real(x)
    return space_of(x, dim=dim).double()


def unit_space(x: Tensor, k: K, dim: int) -> Tensor:
    """Space part in float64, scaled to the hyperboloid of k = 1."""
    s = double_space(x, dim)
    return s / sqrt_k(k, s)


def unit_pair(x: Tensor, y: Tensor, k: K, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Space parts a of `x` and b of `y` as :func:`unit_space` gives them, and a - b.

    The difference is taken first: the division by sqrt(k) rounds, and near points have only their last digits apart.
    """
    s, u = double_space(x, dim), double_space(y, dim)
    root = sqrt_k(k, s)
    return s / root, u / root, (s - u) / root


def unit_time(s: Tensor, dim: int) -> Tensor:
    """Time of the point of k = 1 with space part `s`."""
    return (1 + total(s * s, dim)).sqrt()


def gram(u: Tensor, v: Tensor, s: Tensor, uv: Tensor, dim: int) -> Tensor:
    r"""Gram determinant :math:`(u\cdot v)|s|^2 - (u\cdot s)(v\cdot s) = |s|^2\, u_{\perp s}\cdot v_{\perp s}`, given u.v.

    The second form does not cancel for long s; the first has every derivative at s = 0 and is taken below length 1,
    where callers add u.v, so that what it loses does not count.
    """
    s_sq, us = total(s * s, dim), total(u * s, dim)
    vs = us if v is u else total(v * s, dim)
    short = s_sq < 1
    safe = torch.where(short, torch.ones_like(s_sq), s_sq)
    u_perp = u - us / safe * s
    v_perp = u_perp if v is u else v - vs / safe * s
    return torch.where(short, uv * s_sq - us * vs, s_sq * total(u_perp * v_perp, dim))


def chord(a: Tensor, b: Tensor, diff: Tensor, dim: int) -> Tensor:
    r"""Squared Lorentzian distance q of the points of k = 1 with space parts a and b, of difference `diff`, not cancelling.

    With D = a - b and S = a + b, Lagrange's identity gives
    :math:`(tt')^2 - (1 + a\cdot b)^2 = |D|^2 + |S|^2 |D_{\perp S}|^2 / 4`, a sum of squares, hence
    :math:`q = 2(tt' - a\cdot b - 1) = 2(|D|^2 + |S|^2|D_{\perp S}|^2/4) / (1 + tt' + a\cdot b)`. Symmetric to the bit.
    Where a.b <= -1 nothing cancels in the plain form and the denominator would.
    """
    both = a + b
    diff_sq = total(diff * diff, dim)
    area = gram(diff, diff, both, diff_sq, dim) / 4
    inner = total(a * b, dim)
    times = ((1 + total(a * a, dim)) * (1 + total(b * b, dim))).sqrt()
    opposite = inner <= -1
    close = 2 * (diff_sq + area)
    close = close / torch.where(opposite, torch.ones_like(inner), 1 + times + inner)
    return torch.where(opposite, 2 * (times - inner) - 2, close)


def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine; in ONNX by a logarithm, as onnxruntime has it in float32 alone."""
    if not torch.onnx.is_in_onnx_export():
        return torch.asinh(x)
    size = x.abs()
    return x.sign() * torch.log1p(size + size * size / (1 + (1 + size * size).sqrt()))


def sinh(x: Tensor) -> Tensor:
    """Hyperbolic sine; in ONNX by the exponential function, for the same reason."""
    return (x.exp() - (-x).exp()) / 2 if torch.onnx.is_in_onnx_export() else torch.sinh(x)


def sinhc(squared: Tensor) -> Tensor:
    """sinh(n) / n of n = sqrt(squared); the series below 1e-4 is exact in float64 and has every derivative."""
    small = squared < 1e-4
    n = torch.where(small, torch.ones_like(squared), squared).sqrt()
    series = 1 + squared / 6 * (1 + squared / 20 * (1 + squared / 42))
    return torch.where(small, series, sinh(n) / n)


def arsinhc(squared: Tensor) -> Tensor:
    """asinh(n) / n of n = sqrt(squared)."""
    small = squared < 1e-4
    n = torch.where(small, torch.ones_like(squared), squared).sqrt()
    series = 1 - squared / 6 * (1 - squared * 9 / 20 * (1 - squared * 25 / 42))
    return torch.where(small, series, asinh(n) / n)
