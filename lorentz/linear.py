"""The Lorentz linear layer, the only one."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .forms import at_least_float32
from .fused import bounded_linear, free_linear, fused_lift
from .manifold import Lorentz
from .points import check_points

__all__ = ["VARIANTS", "LorentzLinear"]

VARIANTS = ("paper", "sigmoid_time", "unbounded")


class LorentzLinear(nn.Module):
    r"""Fully hyperbolic linear layer: a matrix on the whole point, time included, then a lift back to the hyperboloid.

    With :math:`h = \mathrm{lift}(\mathrm{dropout}(\mathrm{activation}(x_s)))` and :math:`z = W h + b` the variants are

    ``"paper"``
        :math:`|y_s| = \lambda\,\sigma(z_0)`, direction of :math:`z_{1:}`. Reachable radius: below
        :math:`\sqrt k\,\operatorname{arsinh}(\lambda/\sqrt k)` (3.0 at the default scale 10, k = 1).
    ``"sigmoid_time"``
        :math:`y_0 = \lambda\,\sigma(z_0) + 1.1\sqrt k`, direction of :math:`z_{1:}`. Reachable radius: between
        :math:`0.44\sqrt k` and :math:`\sqrt k\,\operatorname{arcosh}(1.1 + \lambda/\sqrt k)`; not the origin.
    ``"unbounded"``
        :math:`y_s = z`, no time row. Every radius; contains every Lorentz transform and is the cheapest.

    It covers boosts and rotations alike, which a linear map of a tangent space does not.

    Parameters
    ----------
    in_features, out_features : int, >= 2. Sizes of the last dimension, time axis included.
    manifold : Lorentz, of the input
    manifold_out : Lorentz, of the result; the same if None
    bias : bool. A bias on every row of `weight`, initially 0.
    variant : str, one of ``VARIANTS``
    activation : callable on the space part of the *input*, before the matrix, or None
    dropout : float in [0, 1), on the space part of the input, after the activation
    scale : float, > 0, initial :math:`\lambda` (learned as its logarithm); not used by ``"unbounded"``
    centred : bool. :math:`z = W (h - o) + b` with o the origin: the same maps, but b is what the origin becomes, and the
        time column, which starts at 0, multiplies :math:`\sqrt{k + |h_s|^2} - \sqrt k`. At first the space coordinates are
        those of ``nn.Linear``, and for large k they stay so; without it, a step of an optimiser on the time column moves
        them by :math:`\sqrt k` times its size.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features), row 0 the time row; (out_features - 1, in_features) for
        ``"unbounded"``.

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : sizes below 2, an unknown `variant`, `dropout` outside of [0, 1), `scale` not positive; in a call, points
        of another size.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, equation 3.

    Examples
    --------
    >>> manifold = Lorentz(k=1.0)
    >>> layer = LorentzLinear(17, 33, manifold=manifold)
    >>> layer(manifold.origin(4, 17)).shape
    torch.Size([4, 33])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        manifold: Lorentz,
        manifold_out: Lorentz | None = None,
        bias: bool = True,
        variant: str = "paper",
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
        scale: float = 10.0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz) or not isinstance(manifold_out, Lorentz | None):
            raise TypeError(
                f"manifold and manifold_out are lorentz.Lorentz objects, got {manifold!r}, {manifold_out!r}"
            )
        if in_features < 2 or out_features < 2:
            raise ValueError(
                f"sizes count the time axis, so they are at least 2; got in_features={in_features}, "
                f"out_features={out_features}"
            )
        if variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(map(repr, VARIANTS))}; got {variant!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {dropout}")
        if not scale > 0:
            raise ValueError(f"scale is the bound of the sigmoid and must be positive, got {scale}")
        self.in_features, self.out_features = in_features, out_features
        self.manifold = manifold
        self.manifold_out = manifold if manifold_out is None else manifold_out
        self.variant, self.activation, self.dropout, self.centred = variant, activation, dropout, centred
        self.scale = scale
        rows = out_features - (variant == "unbounded")
        self.weight = nn.Parameter(torch.empty(rows, in_features))
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None
        self.log_scale = None if variant == "unbounded" else nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ``+-1 / sqrt(in_features)``, the variance of ``nn.Linear``; bias 0, a centred time column, the scale."""
        bound = (self.in_features - self.centred) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.centred:
            with torch.no_grad():
                self.weight[:, 0] = 0
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.log_scale is not None:
            nn.init.constant_(self.log_scale, log(self.scale))

    def extra_repr(self) -> str:
        """Sizes and variant, shown by ``print``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"variant={self.variant!r}" + (", centred=True" if self.centred else "")
        )

    def forward(
        self,
        x: Float[Tensor, "*batch in_features"],
        *,
        addend: Float[Tensor, "*batch space"] | None = None,
    ) -> Float[Tensor, "*batch out_features"]:
        """Map points (..., in_features) to points (..., out_features), in the dtype of `x`.

        Parameters
        ----------
        x : Tensor, shape (..., in_features), on the hyperboloid of ``manifold``
        addend : Tensor, shape (..., out_features - 1), joins the space part of z before the lift. Residual
            connections and deltas enter here. The bounded variants keep the direction of the sum and not its length, so
            a residual branch is ``"unbounded"``.
        """
        if addend is not None and addend.shape[-1] != self.out_features - 1:
            raise ValueError(
                f"addend joins the {self.out_features - 1} space coordinates of the result, and has {addend.shape[-1]}. Of a "
                "point x it is lorentz.math.space_of(x)."
            )
        return self.map(self.prepare(x), addend=addend)

    def map(self, h: Tensor, *, addend: Tensor | None = None) -> Tensor:
        """The layer after :meth:`prepare`: ``lift(W h + b + addend)``, in the dtype of `h`."""
        return self._fused(h, addend) if self._fits(h) else self._low_precision(h, addend).to(h.dtype)

    def preactivation(self, h: Tensor) -> Tensor:
        """``W h + b`` of what :meth:`prepare` returned, ``W (h - o) + b`` if centred: a number for each row of `weight`."""
        return F.linear(h, self.weight, self._constant()) if self._fits(h) else self._plain(h, None)

    def finish(self, z: Tensor) -> Tensor:
        """Points of a pre-activation z: ``map(h)`` is ``finish(preactivation(h))`` up to rounding."""
        return self._lift(at_least_float32(z)).to(z.dtype)

    def prepare(self, x: Tensor) -> Tensor:
        """The point that the matrix sees: `x` after activation and dropout."""
        check_points("LorentzLinear", x, self.in_features)
        if self.activation is None and not (self.dropout and self.training):
            return x
        space = math.space_of(x)
        space = space if self.activation is None else self.activation(space)
        return fused_lift(F.dropout(space, self.dropout, self.training), k=self.manifold.k)

    def _fits(self, h: Tensor) -> bool:
        """Whether the fused functions serve: one dtype of at least float32, no autocast."""
        wide = h.dtype == self.weight.dtype and h.dtype in (torch.float32, torch.float64)
        return wide and not torch.is_autocast_enabled(h.device.type)

    def _constant(self) -> Tensor | None:
        """What is added to ``W h``."""
        if not self.centred:
            return self.bias
        origin = -self.manifold.k.sqrt() * self.weight[:, 0]
        return origin if self.bias is None else self.bias + origin

    def _fused(self, h: Tensor, addend: Tensor | None) -> Tensor:
        k = self.manifold_out.k.to(h.device)
        if self.log_scale is None:
            return free_linear(h, self.weight, self._constant(), addend=addend, k=k)
        of_time = self.variant == "sigmoid_time"
        scale = self.log_scale.exp()
        return bounded_linear(h, self.weight, self._constant(), addend=addend, scale=scale, k=k, of_time=of_time)

    def _plain(self, h: Tensor, addend: Tensor | None) -> Tensor:
        """Pre-activation z; the stored time is not trusted."""
        point = math.lift(math.space_of(h), k=self.manifold.k)
        if self.centred:
            point = math.from_origin(point, k=self.manifold.k)
        z = F.linear(point, self.weight, self.bias).to(h.dtype)
        if addend is None:
            return z
        return z + (addend if self.log_scale is None else F.pad(addend, (1, 0)))

    def _low_precision(self, h: Tensor, addend: Tensor | None) -> Tensor:
        """bfloat16, float16 and autocast: the lift is done in float32."""
        return self._lift(self._plain(h, addend))

    def _lift(self, z: Tensor) -> Tensor:
        k = self.manifold_out.k
        if self.log_scale is None:
            return fused_lift(z, k=k)
        bound = "space" if self.variant == "paper" else "time"
        return math.bounded_lift(z, scale=self.log_scale.exp(), k=k, bound=bound)
