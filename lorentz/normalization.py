"""Normalisation and dropout of points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .fused import fused_lift
from .manifold import Lorentz
from .points import PointParameters, check_points
from .transport import transport_to_origin

__all__ = ["LorentzBatchNorm", "LorentzDropout", "LorentzLayerNorm", "LorentzRMSNorm"]


class _Norm(nn.Module):
    def __init__(self, dim: int, *, manifold: Lorentz, eps: float = 1e-5) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if dim < 2 or not eps > 0:
            raise ValueError(f"dim counts the time axis and is at least 2, eps is positive; got dim={dim}, eps={eps}")
        self.dim, self.eps = dim, eps
        self.manifold = manifold

    def extra_repr(self) -> str:
        """Size, shown by ``print``."""
        return f"{self.dim}, eps={self.eps:g}"


class LorentzLayerNorm(_Norm):
    r"""Layer normalisation of the space coordinates, then a lift.

    With the initial gain 1 the result lies near radius :math:`\sqrt k \operatorname{arsinh}\sqrt{(dim - 1) / k}`.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    eps : float, > 0, added to the variance
    bias : bool. Whether a vector is added before the lift.

    Attributes
    ----------
    weight, bias : Parameter, shape (dim - 1,), gain and shift of the space coordinates

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `dim` below 2, or `eps` not positive.
    """

    def __init__(self, dim: int, *, manifold: Lorentz, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(dim, manifold=manifold, eps=eps)
        self.weight = nn.Parameter(torch.empty(dim - 1))
        self.bias = nn.Parameter(torch.empty(dim - 1)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gain 1 and shift 0."""
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Points (..., dim) to points (..., dim) on the hyperboloid, in the dtype of `x`."""
        check_points("LorentzLayerNorm", x, self.dim)
        space = F.layer_norm(math.space_of(x), (self.dim - 1,), self.weight, self.bias, self.eps)
        return fused_lift(space.to(x.dtype), k=self.manifold.k)


class LorentzRMSNorm(_Norm):
    r"""Root-mean-square normalisation of the space coordinates, then a lift: directions stay, radii become alike.

    With the initial gain 1 the result lies near radius :math:`\sqrt k \operatorname{arsinh}\sqrt{(dim - 1) / k}`.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    eps : float, > 0, added to the mean square

    Attributes
    ----------
    weight : Parameter, shape (dim - 1,), gain of the space coordinates

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `dim` below 2, or `eps` not positive.
    """

    def __init__(self, dim: int, *, manifold: Lorentz, eps: float = 1e-5) -> None:
        super().__init__(dim, manifold=manifold, eps=eps)
        self.weight = nn.Parameter(torch.empty(dim - 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gain 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Points (..., dim) to points (..., dim) on the hyperboloid, in the dtype of `x`."""
        check_points("LorentzRMSNorm", x, self.dim)
        space = F.rms_norm(math.space_of(x), (self.dim - 1,), self.weight, self.eps)
        return fused_lift(space.to(x.dtype), k=self.manifold.k)


class LorentzBatchNorm(PointParameters, _Norm):
    r"""Batch normalisation about the centroid: move it to the learned point b and the mean squared distance to g^2.

    .. math:: y = \exp_b\Big(\mathrm{PT}_{o \to b}\big(\tfrac{g}{\sqrt{\sigma^2 + \epsilon}}
              \mathrm{PT}_{\mu \to o}(\log_\mu x)\big)\Big)

    with :math:`\mu` the centroid of the batch and :math:`\sigma^2` the mean squared geodesic distance to it, or, in
    evaluation mode, their running values. All dimensions but the last are the batch. Computed in float64.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    manifold : Lorentz
    eps : float, > 0, added to the mean squared distance
    momentum : float in (0, 1], share of the newest batch in the running values; the running mean is moved by a
        weighted centroid

    Attributes
    ----------
    weight : Parameter, scalar, g; at the start 1
    bias : Parameter, shape (dim - 1,), space coordinates of b; at the start the origin. ``bias.manifold`` is the
        manifold, by which Riemannian optimisers know it.
    running_mean, running_var : buffers, shapes (dim - 1,), space coordinates, and ()

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `dim` below 2, `eps` not positive, `momentum` outside of (0, 1]; training on one point.

    References
    ----------
    Lou et al., "Differentiating through the Fréchet Mean", ICML 2020, section 5.1, with the centroid as the mean.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int, *, manifold: Lorentz, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(dim, manifold=manifold, eps=eps)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum is the share of the newest batch, in (0, 1]; got {momentum}")
        self.momentum = momentum
        self.weight = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(dim - 1))
        self.register_buffer("running_mean", torch.empty(dim - 1))
        self.register_buffer("running_var", torch.empty(()))
        self.register_buffer("num_batches_tracked", torch.empty((), dtype=torch.int64))
        self._tag()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Move to the origin and spread 1, and forget all batches."""
        for t in (self.weight, self.running_var):
            nn.init.ones_(t)
        for t in (self.bias, self.running_mean, self.num_batches_tracked):
            nn.init.zeros_(t)

    def _tag(self) -> None:
        self.bias.manifold = self.manifold  # type: ignore[attr-defined]

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Points (..., dim) to points (..., dim) on the hyperboloid, in the dtype of `x`.

        Raises
        ------
        ValueError : in training, one point, which has no spread; call ``eval()`` or give at least 2.
        """
        check_points("LorentzBatchNorm", x, self.dim)
        points = x.reshape(-1, self.dim).double()
        n = points.shape[0]  # not len(), which would make a constant of it in an exported program
        if self.training and n == 1:
            raise ValueError("LorentzBatchNorm cannot train on 1 point; give a batch of at least 2, or call eval()")
        k = self.manifold.k
        batch_statistics = self.training and n > 0
        mean = math.centroid(points, k=k) if batch_statistics else math.lift(self.running_mean.double(), k=k)
        tangent = transport_to_origin(mean, math.logmap(mean, points, k=k), k=k)
        if batch_statistics:
            # At the origin the length of a tangent vector is the Euclidean one, and transport keeps it.
            var = (tangent * tangent).sum(-1).mean()
            self._track(mean.detach(), var.detach(), n)
        else:
            var = self.running_var.double()
        centre = math.lift(self.bias.double(), k=k)
        scaled = self.weight.double() / (var + self.eps).sqrt() * tangent
        # exp_b of a vector transported from o is the boost that takes o to b, applied to exp_o of the vector.
        y = math.expmap0(scaled, k=k)
        space, b, root = math.space_of(y), math.space_of(centre), k.to(y).sqrt()
        share = (y[..., :1] + (b * space).sum(-1, keepdim=True) / (root + centre[..., :1])) / root
        # The time is derived after rounding to the dtype of x, so that the rounded point is on the hyperboloid.
        return self.manifold.lift((space + share * b).to(x.dtype)).reshape(x.shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, n: int) -> None:
        k = self.manifold.k.detach()
        share = mean.new_tensor([1 - self.momentum, self.momentum])
        both = torch.stack([math.lift(self.running_mean.double(), k=k), mean])
        self.running_mean.copy_(math.space_of(math.centroid(both, share, k=k)))
        self.running_var.lerp_((var * n / (n - 1)).to(self.running_var), self.momentum)
        self.num_batches_tracked.add_(1)


class LorentzDropout(nn.Module):
    """Dropout of space coordinates, then a lift.

    Parameters
    ----------
    p : float in [0, 1), probability of a coordinate to become 0; the others are divided by ``1 - p``
    manifold : Lorentz

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `p` outside of [0, 1).
    """

    def __init__(self, p: float = 0.5, *, manifold: Lorentz) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if not 0 <= p < 1:
            raise ValueError(f"p is a probability in [0, 1), got {p}")
        self.p = p
        self.manifold = manifold

    def extra_repr(self) -> str:
        """Probability, shown by ``print``."""
        return f"p={self.p:g}"

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Points (..., dim) to points (..., dim) on the hyperboloid, in the dtype of `x`."""
        return self.manifold.lift(F.dropout(math.space_of(x), self.p, self.training))
