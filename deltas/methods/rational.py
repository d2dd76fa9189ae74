"""Learnable activation functions: a rational function in every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..hosts import Host
from ..replacing import ActivationPart
from ..space import Space

__all__ = ["RationalActivation", "fit_rational", "rational"]

Function = Callable[[Tensor], Tensor]
POINTS = 2001


@dataclass(frozen=True, kw_only=True)
class RationalActivation(Delta):
    r"""Rational activation (RAFT): every feed-forward layer learns a function of its own in place of f = gelu, relu, ...

    :math:`f(x) + F(x) - F_0(x)`, with :math:`F(x) = \frac{\sum_{j \le m} a_j x^j}{1 + |\sum_{1 \le k \le n} b_k x^k|}`, and
    F_0 the F that fits f by least squares on [-bound, bound]. At the start F = F_0, so the model is unchanged to the bit. The
    gradients of a and b are those of F alone, and what is learned differs from F by the error of the fit: with the default
    sizes at most 0.004 for gelu, 0.0006 for silu, 0.0001 for tanh and 0.06 for relu, at its corner.

    L layers take :math:`L(m + n + 1)` parameters. On a Lorentz backbone f acts on space coordinates, and so does this.

    Parameters
    ----------
    numerator, denominator : int, >= 1. m and n.
    bound : float, > 0
    roles : roles of activation functions

    References
    ----------
    Fang et al., "Transformers with Learnable Activation Functions", Findings of EACL 2023, equation 2.
    """

    numerator: int = 5
    denominator: int = 4
    bound: float = 5.0
    roles: tuple[str, ...] = ("ffn.activation",)

    def __post_init__(self) -> None:
        if min(self.numerator, self.denominator) < 1 or not self.bound > 0:
            raise DeltaError(
                f"RationalActivation takes numerator, denominator >= 1 and bound > 0, got {self.numerator}, "
                f"{self.denominator}, {self.bound}"
            )

    def sites(self, host: Host) -> list[Site]:
        """Activation functions."""
        return self.at(host, *self.roles, kind="activation")

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """Coefficients that fit the function there."""
        base = getattr(site.module, site.path.rpartition(".")[2])
        return _Rational(*fit_rational(base, self.numerator, self.denominator, bound=self.bound))


def rational(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """F(x) with a_0 to a_m and b_1 to b_n, in at least float32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    a, b = a.to(x), b.to(x)
    top, low = a[-1] * x, b[-1] * x
    for coefficient in a[1:-1].flip(0):
        top = (top + coefficient) * x
    for coefficient in b[:-1].flip(0):
        low = (low + coefficient) * x
    return (top + a[0]) / (1 + low.abs())


def fit_rational(base: Function, m: int, n: int, *, bound: float = 5.0) -> tuple[list[float], list[float]]:
    """Coefficients a (m + 1) and b (n) of least squares to a function on [-bound, bound], in float64, rounded to 1e-6.

    Linear least squares of ``P - f (Q - 1) = f``, reweighted by 1 / Q until it stands, begin; then the true error is
    minimised.
    """
    grid = torch.linspace(-bound, bound, POINTS, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        return _fit(base(grid).double().numpy().tobytes(), m, n, bound)


@lru_cache(maxsize=64)  # layers mostly have one function, in an object each
def _fit(values: bytes, m: int, n: int, bound: float) -> tuple[list[float], list[float]]:
    from scipy.optimize import least_squares

    wanted, x = np.frombuffer(values), np.linspace(-1, 1, POINTS)  # powers of numbers up to 1: well conditioned
    up, low = np.vander(x, m + 1, increasing=True), np.vander(x, n + 1, increasing=True)[:, 1:]
    weight = np.ones_like(x)
    for _ in range(20):
        system = np.concatenate([up, -wanted[:, None] * low], 1) * weight[:, None]
        found = np.linalg.lstsq(system, wanted * weight, rcond=None)[0]
        weight = 1 / (1 + np.abs(low @ found[m + 1 :]))
    found = least_squares(lambda c: up @ c[: m + 1] / (1 + np.abs(low @ c[m + 1 :])) - wanted, found, x_scale="jac").x
    a, b = found[: m + 1] / bound ** np.arange(m + 1), found[m + 1 :] / bound ** np.arange(1, n + 1)
    return a.round(6).tolist(), b.round(6).tolist()


class _Rational(ActivationPart):
    def __init__(self, a: list[float], b: list[float]) -> None:
        super().__init__()
        self.numerator = nn.Parameter(torch.tensor(a))
        self.denominator = nn.Parameter(torch.tensor(b))
        self.register_buffer("a", torch.tensor(a), persistent=False)  # fitted anew wherever the delta is attached
        self.register_buffer("b", torch.tensor(b), persistent=False)

    a: Tensor
    b: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``f(x) + F(x) - F_0(x)``."""
        change = rational(x, self.numerator, self.denominator) - rational(x, self.a, self.b)
        y: Tensor = self.base(x)
        return y + change.to(y.dtype)
