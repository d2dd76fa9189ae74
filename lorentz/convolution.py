"""Convolution of sequences and images of points: the points of a patch become one, which a Lorentz linear map sees."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .linear import LorentzLinear
from .manifold import Lorentz

__all__ = ["LorentzConv1d", "LorentzConv2d"]

Size = int | tuple[int, ...]


class _Conv(nn.Module):
    axes: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Size,
        *,
        manifold: Lorentz,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        bias: bool = True,
        variant: str = "unbounded",
        activation: Callable[[Tensor], Tensor] | None = None,
        dropout: float = 0.0,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        if in_features < 2:
            raise ValueError(f"sizes count the time axis, so they are at least 2; got in_features={in_features}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {dropout}")
        self.kernel_size = self._sizes("kernel_size", kernel_size, 1)
        self.stride, self.dilation = self._sizes("stride", stride, 1), self._sizes("dilation", dilation, 1)
        self.padding = self._sizes("padding", padding, 0)
        self.in_features, self.out_features = in_features, out_features
        self.activation, self.dropout = activation, dropout
        self.linear = LorentzLinear(
            prod(self.kernel_size) * (in_features - 1) + 1,
            out_features,
            manifold=manifold,
            bias=bias,
            variant=variant,
            scale=scale,
        )
        self.manifold = manifold

    def _sizes(self, name: str, size: Size, least: int) -> tuple[int, ...]:
        sizes = (size,) * self.axes if isinstance(size, int) else tuple(size)
        if len(sizes) != self.axes or any(not isinstance(n, int) or n < least for n in sizes):
            one = "a whole number" if self.axes == 1 else f"a whole number or {self.axes} of them"
            raise ValueError(f"{name} is {one}, at least {least}; got {size}")
        return sizes

    def extra_repr(self) -> str:
        """Sizes, shown by ``print``."""
        return (
            f"{self.in_features}, {self.out_features}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}"
        )

    def _check(self, x: Tensor) -> None:
        if x.ndim <= self.axes or x.shape[-1] != self.in_features:
            grid = ("length",) if self.axes == 1 else ("height", "width")
            raise ValueError(
                f"{type(self).__name__} expects points (..., {', '.join(grid)}, {self.in_features}), time first, and got "
                f"{tuple(x.shape)}. Euclidean features of size {self.in_features - 1}, channels last, become points by "
                f"manifold.lift(features)."
            )
        for n, kernel, padding, dilation in zip(
            x.shape[-1 - self.axes : -1], self.kernel_size, self.padding, self.dilation, strict=True
        ):
            if n + 2 * padding < dilation * (kernel - 1) + 1:
                raise ValueError(
                    f"the kernel spans {dilation * (kernel - 1) + 1} points and the padded input has {n + 2 * padding}"
                )

    def _patches(self, x: Tensor) -> Tensor:
        """Points (..., *grid, patch) that concatenate those under the kernel at each place."""
        space = math.space_of(x)
        space = space if self.activation is None else self.activation(space)
        space = F.dropout(space, self.dropout, self.training)
        space = F.pad(space, (0, 0, *(n for p in reversed(self.padding) for n in (p, p))))
        for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True):
            # Each window appends an axis; the next axis of the grid is as far from the end as the last one was.
            space = space.unfold(-1 - self.axes, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        # (..., *grid, channels, *kernel) to (..., *grid, *kernel, channels)
        space = space.movedim(-1 - self.axes, -1).flatten(-1 - self.axes)
        return self.manifold.lift(space)

    def _convolve(self, x: Tensor, addend: Tensor | None) -> Tensor:
        self._check(x)
        y: Tensor = self.linear(self._patches(x), addend=addend)
        return y


class LorentzConv1d(_Conv):
    r"""Convolution of a sequence of points.

    The points :math:`x_1, \ldots, x_n` under the kernel become one point of :math:`n (d - 1)` space coordinates, their
    direct concatenation :math:`(\sqrt{\sum_i x_{i,0}^2 - (n - 1) k},\; x_{1,s}, \ldots, x_{n,s})`, which the same
    :class:`LorentzLinear` maps at every place. Padding is with the origin, whose space coordinates are 0.

    Parameters
    ----------
    in_features, out_features : int, >= 2. Sizes of a point, time axis included; points are the last axis.
    kernel_size : int, >= 1
    manifold : Lorentz, of input and result
    stride, padding, dilation : int, as in :class:`torch.nn.Conv1d`
    bias, variant, scale : as in :class:`LorentzLinear`
    activation : callable on the space part of the *input*, or None
    dropout : float in [0, 1), on the space part of the input, after the activation

    Attributes
    ----------
    linear : LorentzLinear, of ``kernel_size * (in_features - 1) + 1`` coordinates: the points of a patch in order

    References
    ----------
    Qu and Zou, "Lorentzian Fully Hyperbolic Generative Adversarial Network", 2022, section 4.1; Bdeir et al., "Fully
    Hyperbolic Convolutional Neural Networks", ICLR 2024, section 4.1.

    Examples
    --------
    >>> layer = LorentzConv1d(5, 9, 3, manifold=Lorentz(k=1.0), padding=1, stride=2)
    >>> layer(layer.manifold.origin(2, 10, 5)).shape
    torch.Size([2, 5, 9])
    """

    axes = 1

    def forward(
        self, x: Float[Tensor, "*batch length in_features"], *, addend: Float[Tensor, "*batch out space"] | None = None
    ) -> Float[Tensor, "*batch out out_features"]:
        r"""Map points (..., L, in_features) to points (..., L', out_features), in the dtype of `x`.

        :math:`L' = \lfloor (L + 2\,padding - dilation (kernel\_size - 1) - 1) / stride \rfloor + 1`.

        Parameters
        ----------
        addend : Tensor, shape (..., L', out_features - 1), joins the space part before the lift: the residual.

        Raises
        ------
        ValueError : another size of points, or fewer of them than the kernel spans.
        """
        return self._convolve(x, addend)


class LorentzConv2d(_Conv):
    r"""Convolution of an image of points; see :class:`LorentzConv1d`, with two axes before the coordinates.

    Parameters
    ----------
    in_features, out_features : int, >= 2. Sizes of a point, time axis included; points are the last axis (channels last).
    kernel_size : int or two, >= 1
    manifold : Lorentz, of input and result
    stride, padding, dilation : int or two, as in :class:`torch.nn.Conv2d`
    bias, variant, activation, dropout, scale : as in :class:`LorentzConv1d`

    Attributes
    ----------
    linear : LorentzLinear, of ``height * width * (in_features - 1) + 1`` coordinates: the points of a patch by rows

    References
    ----------
    Bdeir et al., "Fully Hyperbolic Convolutional Neural Networks", ICLR 2024, section 4.1.

    Examples
    --------
    >>> layer = LorentzConv2d(4, 9, 3, manifold=Lorentz(k=1.0), padding=1)
    >>> layer(layer.manifold.origin(2, 8, 8, 4)).shape
    torch.Size([2, 8, 8, 9])
    """

    axes = 2

    def forward(
        self,
        x: Float[Tensor, "*batch height width in_features"],
        *,
        addend: Float[Tensor, "*batch h w space"] | None = None,
    ) -> Float[Tensor, "*batch h w out_features"]:
        """Map points (..., H, W, in_features) to points (..., H', W', out_features), in the dtype of `x`.

        H' and W' are as the length in :meth:`LorentzConv1d.forward`.

        Parameters
        ----------
        addend : Tensor, shape (..., H', W', out_features - 1), joins the space part before the lift: the residual.

        Raises
        ------
        ValueError : another size of points, or fewer of them than the kernel spans.
        """
        return self._convolve(x, addend)
