"""Tables of points whose squared distances are a bilinear form, so that many of them are one matrix product."""

from __future__ import annotations

from abc import abstractmethod
from math import inf, sinh, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from lorentz import Lorentz, LorentzEmbedding
from lorentz import math as lmath
from lorentz.optim_base import default_radius
from lorentz.sampling import wrapped_normal

from .config import ModelConfig

__all__ = ["GEOMETRIES", "Euclidean", "Hyperboloid", "Table"]


class Table(nn.Module):
    r"""Points of a geometry, with ``<query(x), key(y)> = q(x, y)``, the squared (Lorentzian) distance.

    What the loss calls the distance d is the geodesic distance, or q itself.
    """

    points: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.squared, self.scale = config.distance == "squared", config.scale

    @abstractmethod
    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key features in float64, shapes (n, m), of points (n, d)."""

    @abstractmethod
    def distance(self, q: Tensor) -> Tensor:
        """Distance d of positive q of any shape, differentiable."""

    @abstractmethod
    def slope(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Distance d, and its derivative with respect to q; both may be computed in place of q. An infinite q has slope 0."""

    @abstractmethod
    def around(self, space: Tensor, std: float) -> Tensor:
        """Draw a normal point about each point, given by its free coordinates (n, dim - 1); returns the same."""

    def log_mass(self, q: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\log\sum_j e^{-scale\,d_{ij}}` of q (n, m), shape (n,), and its derivative with respect to q."""
        d, slope = self.slope(q)
        score = d.mul_(-self.scale)
        top = score.amax(1, keepdim=True).clamp_(min=-1e30)  # a row of nothing but infinite distances has no mass
        w = score.sub_(top).exp_()
        total = w.sum(1, keepdim=True).clamp_(min=1e-37)
        return (total.log() + top).squeeze(1), slope.mul_(w).mul_(-self.scale / total)

    def space(self) -> Tensor:
        """Free coordinates of all points, shape (n, dim - 1)."""
        weight: Tensor = self.points.weight  # type: ignore[assignment]
        return weight.detach()

    def stopped(self) -> tuple[float, float]:
        """Share of the points that lie at the largest radius, where the optimiser stops them, and that radius."""
        return 0.0, inf

    def every(self) -> tuple[Tensor, Tensor]:
        """Features of all points, in order."""
        space = self.space()
        return self.features(self.points(torch.arange(len(space), device=space.device)))

    @torch.no_grad()
    def walk(self, parent: Tensor, depth: Tensor, std: float) -> None:
        """Start from a branching random walk: roots at the origin, every other node a normal step from its parent.

        Parameters
        ----------
        parent : int64 Tensor, shape (n,), -1 for a root
        depth : int64 Tensor, shape (n,), larger for a node than for its parent
        std : deviation of each coordinate of a step
        """
        space = self.space().zero_()
        for level in torch.unique(depth[parent >= 0]):
            nodes = torch.nonzero((depth == level) & (parent >= 0)).squeeze(1)
            space[nodes] = self.around(space[parent[nodes]], std)


class Hyperboloid(Table):
    r"""Points of the Lorentz model.

    :math:`q = -2k - 2\langle x, y\rangle_L`, :math:`d = 2\sqrt k\operatorname{arsinh}\sqrt{q/4k}`. With
    :math:`\tilde x = x_0 - \sqrt k`, :math:`q = 2(\sqrt k(\tilde x + \tilde y) + \tilde x\tilde y - s\cdot s')`, which
    does not cancel for large k and tends to the squared Euclidean distance: a large k is the flat limit by the same code.

    References
    ----------
    Nickel and Kiela, "Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry", ICML 2018 (geodesic);
    Law et al., "Lorentzian Distance Learning for Hyperbolic Representations", ICML 2019 (squared Lorentzian).
    """

    def __init__(self, num_nodes: int, config: ModelConfig) -> None:
        super().__init__(config)
        self.k = config.k
        self.max_radius = config.max_radius or default_radius(torch.float32) * sqrt(config.k)
        self.points = LorentzEmbedding(
            num_nodes, config.dim, manifold=Lorentz(config.k), sparse=True, std=config.init_std
        )

    def stopped(self) -> tuple[float, float]:
        """See :class:`Table`."""
        limit = sqrt(self.k) * sinh(self.max_radius / sqrt(self.k))
        norm = torch.linalg.vector_norm(self.space().double(), dim=1)
        return float((norm >= limit * (1 - 1e-4)).double().mean()), self.max_radius

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of lifted points."""
        s = lmath.space_of(x).double()
        root = sqrt(self.k)
        over = (s * s).sum(-1, keepdim=True)
        over = over / ((self.k + over).sqrt() + root)
        one = torch.ones_like(over)
        return torch.cat([-2 * s, 2 * over, 2 * root * over, one], -1), torch.cat([s, over, one, 2 * root * over], -1)

    def distance(self, q: Tensor) -> Tensor:
        """Geodesic, or squared Lorentzian."""
        return q if self.squared else 2 * sqrt(self.k) * torch.asinh((q / (4 * self.k)).sqrt())

    def slope(self, q: Tensor) -> tuple[Tensor, Tensor]:
        r"""With :math:`p = q/2k`, :math:`r = \sqrt{p(p + 2)}`: :math:`\sqrt k\log(1 + p + r)` and :math:`1/(2\sqrt k r)`."""
        if self.squared:
            return q, torch.ones_like(q)
        p, r = self._parts(q)
        return p.log1p_().mul_(sqrt(self.k)), r.reciprocal_().mul_(0.5 / sqrt(self.k))

    def log_mass(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Table`; at k = 1 and scale 1, ``exp(-d) = 1 / (1 + p + r)`` needs no logarithm and cannot underflow."""
        if self.squared or self.k != 1 or self.scale != 1:
            return super().log_mass(q)
        p, r = self._parts(q)
        w = p.add_(1).reciprocal_()
        total = w.sum(1, keepdim=True).clamp_(min=1e-37)
        return total.log().squeeze(1), w.div_(r).mul_(-0.5 / total)

    def _parts(self, q: Tensor) -> tuple[Tensor, Tensor]:
        p = q.div_(2 * self.k)
        r = torch.addcmul(2 * p, p, p).sqrt_()
        return p.add_(r), r

    def around(self, space: Tensor, std: float) -> Tensor:
        """Wrapped normal points, brought back to the largest radius."""
        mean = lmath.lift(space.double(), k=self.k)  # a long step overflows float32 before it is brought back
        drawn = lmath.space_of(wrapped_normal(tuple(mean.shape), mean=mean, std=std, k=self.k, dtype=mean.dtype))
        limit = sqrt(self.k) * sinh(self.max_radius / sqrt(self.k))
        return (drawn * (limit / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)).clamp(max=1)).to(space.dtype)


class Euclidean(Table):
    """The twin: as many free coordinates, `dim` counts a time axis that is not there; q is the squared distance."""

    def __init__(self, num_nodes: int, config: ModelConfig) -> None:
        super().__init__(config)
        self.points = nn.Embedding(num_nodes, config.dim - 1, sparse=True)
        nn.init.normal_(self.points.weight, 0, config.init_std)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of vectors."""
        s = x.double()
        norm = (s * s).sum(-1, keepdim=True)
        one = torch.ones_like(norm)
        return torch.cat([-2 * s, norm, one], -1), torch.cat([s, one, norm], -1)

    def distance(self, q: Tensor) -> Tensor:
        """Euclidean, or squared Euclidean."""
        return q if self.squared else q.sqrt()

    def slope(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative of the root, or 1."""
        if self.squared:
            return q, torch.ones_like(q)
        d = q.sqrt_()
        return d, 0.5 / d

    def around(self, space: Tensor, std: float) -> Tensor:
        """Normal vectors."""
        return space + std * torch.randn_like(space)


GEOMETRIES: dict[str, Any] = {"lorentz": Hyperboloid, "euclidean": Euclidean}
