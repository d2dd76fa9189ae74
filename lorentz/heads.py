"""Output layers: classes of points, and edges between them."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .forms import asinh, at_least_float32, sinh, total
from .manifold import Lorentz
from .points import PointParameters, check_points

__all__ = ["KINDS", "FermiDirac", "LorentzClassifier"]

KINDS = ("prototype", "relative", "mlr")


def _arsinh_of_scaled_sinh(c: Tensor, g: Tensor) -> Tensor:
    """Compute asinh(c sinh g) for c >= 1 and any g: sinh overflows beyond 710 and the logarithm cancels near 0."""
    small = g.abs() < 1
    near = asinh(c * sinh(torch.where(small, g, torch.zeros_like(g))))
    size = torch.where(small, torch.ones_like(g), g.abs())
    e = torch.exp(-2 * size)
    half = c * (1 - e) / 2
    far = g.sign() * (size + torch.log(half + (half * half + e).sqrt()))
    return torch.where(small, near, far)


class LorentzClassifier(PointParameters):
    r"""Logits of classes for points.

    ``"prototype"``
        :math:`-d_L^2(x, p_c) + b_c`, the squared Lorentzian distance to a learned point. Computed in float64 as the next
        kind less :math:`d_L^2(x, o)`, which is exact for every k; the two cancel as :math:`e^{2 r / \sqrt k}` at the radius
        r: an error of :math:`10^{-9} k` at :math:`r = 8 \sqrt k` and of k at :math:`18 \sqrt k`.
    ``"relative"``
        :math:`d_L^2(x, o) - d_L^2(x, p_c) + b_c`, by how much the point is nearer than the origin o: the same classes and
        the same softmax, without what ``"prototype"`` adds to all classes alike, which grows with the radius of x and with
        k. For k to infinity it is :math:`2 p_c \cdot x_s - |p_c|^2 + b_c`. With the weight of an embedding it is the output
        layer of a language model. Computed in float32 at least: an error of :math:`k e^{2 r / \sqrt k}` times eps.
    ``"mlr"``
        Multinomial logistic regression with an offset a and a normal z for each class,
        :math:`\sqrt k |z| \operatorname{arsinh}\frac{\cosh(a/\sqrt k)\, z \cdot x_s - \sinh(a/\sqrt k)\,|z| x_0}
        {\sqrt k\, |z|}`: :math:`|z|` times the signed distance to the hyperplane that is perpendicular to the geodesic
        along z at the distance a from the origin. For k to infinity it is :math:`z \cdot x_s - a |z|`. Finite for every
        a; 0, with gradient 0, at z = 0, so do not start there. Computed in float64.

    Parameters
    ----------
    dim : int, >= 2. Size of a point, time axis included.
    num_classes : int, >= 1
    manifold : Lorentz
    kind : str, one of ``KINDS``
    bias : bool. Whether b, or a, is learned; 0 if not.

    Attributes
    ----------
    weight : Parameter, shape (num_classes, dim - 1): space coordinates of the prototypes (``weight.manifold`` is the
        manifold, by which Riemannian optimisers know them), or the normals z.
    bias : Parameter, shape (num_classes,), b or a, or None

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : sizes below their least, or an unknown `kind`.

    References
    ----------
    Chen et al., "Fully Hyperbolic Neural Networks", ACL 2022, section 4; Bdeir et al., "Fully Hyperbolic Convolutional
    Neural Networks", ICLR 2024, theorem 2.

    Examples
    --------
    >>> head = LorentzClassifier(5, 3, manifold=Lorentz(k=1.0), kind="mlr")
    >>> head(head.manifold.origin(2, 5)).shape
    torch.Size([2, 3])
    """

    returns_points: bool = False

    def __init__(
        self, dim: int, num_classes: int, *, manifold: Lorentz, kind: str = "prototype", bias: bool = True
    ) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if dim < 2 or num_classes < 1:
            raise ValueError(
                f"dim counts the time axis and is at least 2, and there is at least 1 class; "
                f"got dim={dim}, num_classes={num_classes}"
            )
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}; got {kind!r}")
        self.dim, self.num_classes, self.kind = dim, num_classes, kind
        self.manifold = manifold
        self.weight = nn.Parameter(torch.empty(num_classes, dim - 1))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self._tag()
        self.reset_parameters()

    def _tag(self) -> None:
        if self.kind != "mlr":
            self.weight.manifold = self.manifold  # type: ignore[attr-defined]

    def reset_parameters(self) -> None:
        """Normal coordinates of deviation ``(dim - 1) ** -0.5``, so vectors of length about 1; bias 0."""
        nn.init.normal_(self.weight, 0, (self.dim - 1) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Sizes and kind, shown by ``print``."""
        return f"{self.dim}, {self.num_classes}, kind={self.kind!r}, bias={self.bias is not None}"

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch classes"]:
        """Logits (..., num_classes) of points (..., dim), in the dtype of `x`."""
        check_points("LorentzClassifier", x, self.dim)
        if self.kind == "mlr":
            return self._regression(x).to(x.dtype)
        logits = self._prototype(x) if self.kind == "prototype" else self._relative(x)
        return (logits if self.bias is None else logits + self.bias).to(x.dtype)

    def _prototype(self, x: Tensor) -> Tensor:
        # 2 <p - o, x> - d^2(x, o), each time less that of the origin where it would cancel for large k.
        space, weight = math.space_of(x).double(), self.weight.double()
        k = self.manifold.k.to(space)
        root, squared, of_class = k.sqrt(), total(space * space, -1), (weight * weight).sum(-1)
        time, above = (k + squared).sqrt(), of_class / ((k + of_class).sqrt() + root)
        inner = F.linear(space, weight) - (time * above + root * (squared / (time + root)))
        return 2 * inner

    def _relative(self, x: Tensor) -> Tensor:
        space, weight = at_least_float32(math.space_of(x)), at_least_float32(self.weight)
        k = self.manifold.k.to(space)
        s, p = math.lift(space, k=k), math.lift(weight, k=k)
        return 2 * F.linear(torch.cat([-s[..., :1], s[..., 1:]], -1), math.from_origin(p, k=k))

    def _regression(self, x: Tensor) -> Tensor:
        # With p = z.x_s / |z| and c^2 = (x_0^2 - p^2) / k the argument is c sinh(artanh(p / x_0) - a / sqrt k).
        space, z = math.space_of(x).double(), self.weight.double()
        k = self.manifold.k.to(space)
        norm_sq = (z * z).sum(-1)
        zero = norm_sq == 0
        norm = torch.where(zero, torch.ones_like(norm_sq), norm_sq).sqrt()
        p = space @ (z / norm.unsqueeze(-1)).mT
        # |x_s| >= |p|; beyond radius 17 rounding may say otherwise.
        c_sq = 1 + torch.maximum((space * space).sum(-1, keepdim=True) / k - p * p / k, torch.zeros_like(p))
        c = c_sq.sqrt()
        root = k.sqrt()
        g = asinh(p / (root * c))
        if self.bias is not None:
            g = g - self.bias.double() / root
        return root * torch.where(zero, torch.zeros_like(norm), norm) * _arsinh_of_scaled_sinh(c, g)


class FermiDirac(nn.Module):
    r"""Probability of an edge between two points, :math:`1 / (e^{(d^2 - r) / t} + 1)`, d the geodesic distance.

    Parameters
    ----------
    r : float. Squared distance at which the probability is one half.
    t : float, > 0. Temperature.
    manifold : Lorentz
    learnable : bool. Learn r and the logarithm of t.

    Raises
    ------
    TypeError : `manifold` is no :class:`Lorentz`.
    ValueError : `t` is not positive; in a call, points of different sizes.

    References
    ----------
    Krioukov et al., "Hyperbolic geometry of complex networks", 2010; Nickel and Kiela, 2017, equation 7.

    Examples
    --------
    >>> decoder = FermiDirac(2.0, 1.0, manifold=Lorentz(k=1.0))
    >>> x = decoder.manifold.origin(3)
    >>> decoder(x, x)
    tensor(2.)
    """

    returns_points: bool = False
    takes_points: tuple[str, ...] = ("x", "y")
    r: Tensor
    log_t: Tensor

    def __init__(self, r: float = 2.0, t: float = 1.0, *, manifold: Lorentz, learnable: bool = False) -> None:
        super().__init__()
        if not isinstance(manifold, Lorentz):
            raise TypeError(f"manifold is a lorentz.Lorentz object, got {manifold!r}")
        if not t > 0:
            raise ValueError(f"t is a temperature and must be positive, got {t}")
        self.manifold = manifold
        self._start = {"r": float(r), "log_t": log(t)}
        for name in self._start:
            if learnable:
                self.register_parameter(name, nn.Parameter(torch.empty(())))
            else:
                self.register_buffer(name, torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put r and t back to what was given."""
        for name, number in self._start.items():
            nn.init.constant_(getattr(self, name), number)

    def extra_repr(self) -> str:
        """Values of r and t, shown by ``print``."""
        return f"r={float(self.r.detach()):g}, t={float(self.log_t.detach().exp()):g}"

    def forward(self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Logits :math:`(r - d^2) / t`, (...), of points (..., d) and (..., d), broadcast, in the dtype of `x`.

        Raises
        ------
        ValueError : points of two sizes.
        """
        if x.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"FermiDirac expects pairs of points of one size, and got {x.shape[-1]} and {y.shape[-1]} coordinates, time "
                f"first. Euclidean features become points by manifold.lift(features)."
            )
        distance_sq = math.dist2(x.double(), y.double(), k=self.manifold.k)
        return ((self.r.double() - distance_sq) * torch.exp(-self.log_t.double())).to(x.dtype)

    def probability(self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Probability (...) of an edge, the sigmoid of the logits."""
        return torch.sigmoid(self(x, y))
