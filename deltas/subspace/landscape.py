"""How well a plane of intrinsic points does, and how much of it does well for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import DeltaError

__all__ = ["Landscape", "Plane", "landscape"]


@dataclass(frozen=True)
class Plane:
    """A square in a plane of the intrinsic space.

    Attributes
    ----------
    centre : (dim)
    first, second : orthogonal directions (dim) whose lengths are half the sides of the square
    """

    centre: Tensor
    first: Tensor
    second: Tensor

    def point(self, x: float, y: float) -> Tensor:
        """Point (dim) at coordinates from -1 to 1."""
        return self.centre + x * self.first + y * self.second

    def coordinates(self, point: Tensor) -> tuple[float, float]:
        """Coordinates of the nearest point of the plane."""
        away = point - self.centre
        return tuple(float(away @ axis / (axis @ axis)) for axis in (self.first, self.second))  # type: ignore[return-value]

    @classmethod
    def through(cls, points: Sequence[Tensor], *, margin: float = 1.5) -> Plane:
        """The plane that is nearest to some points, around their mean; the farthest one lies at 1 / margin of half a side.

        With three points it goes through them. A direction in which they do not differ is drawn at random.
        """
        table = torch.stack([p.detach().cpu().double() for p in points])
        if len(table) < 2 or table.shape[1] < 2:
            raise DeltaError("a plane is laid through two points or more, of two dimensions or more")
        centre = table.mean(0)
        away = table - centre
        reach = float(away.norm(dim=1).max())
        if not reach > 0:
            raise DeltaError("the points are equal: no plane goes through them in particular")
        generator = torch.Generator().manual_seed(0)
        filled = torch.cat(
            [away, 1e-9 * reach * torch.randn(2, table.shape[1], generator=generator, dtype=torch.float64)]
        )
        axes = torch.linalg.svd(filled, full_matrices=False).Vh[:2] * reach * margin
        return cls(*(part.float().to(points[0].device) for part in (centre, axes[0], axes[1])))

    def turned(self, seed: int) -> Plane:
        """A square of the same centre and size in a random plane."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(len(self.centre), 2, generator=generator, dtype=torch.float64)
        axes = torch.linalg.qr(drawn).Q.T.float().to(self.centre.device)
        return Plane(self.centre, axes[0] * self.first.norm(), axes[1] * self.second.norm())


@dataclass(frozen=True)
class Landscape:
    """Scores of methods on a grid over a plane.

    Attributes
    ----------
    plane : of the intrinsic space
    axis : coordinates along each side, (n,)
    cases : by method, (n, n, m): the score of each of m examples at each point, row by the second coordinate
    """

    plane: Plane
    axis: np.ndarray
    cases: Mapping[str, np.ndarray]

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Mean score at each point, by method, (n, n)."""
        return {name: table.mean(-1) for name, table in self.cases.items()}

    def share(
        self,
        best: Mapping[str, np.ndarray],
        *,
        keep: float = 0.9,
        chance: float = 0.0,
        rows: np.ndarray | None = None,
    ) -> float:
        """Share of the square where every method keeps a part of its own best score above chance, and is above chance.

        Parameters
        ----------
        best : by method, score of each of the m examples where the method is best
        keep : the part
        chance : score of a guess
        rows : examples to take; None for all
        """
        chosen = slice(None) if rows is None else rows
        parts = []
        for name, table in self.cases.items():
            above, wanted = table[..., chosen].mean(-1) - chance, keep * (best[name][chosen].mean() - chance)
            parts.append((above > 0) & (above >= wanted))  # a best that is not above chance has nothing to keep
        return float(np.all(parts, axis=0).mean())

    def interval(
        self,
        best: Mapping[str, np.ndarray],
        *,
        keep: float = 0.9,
        chance: float = 0.0,
        draws: int = 1000,
        seed: int = 0,
    ) -> tuple[float, float]:
        """95 % bootstrap interval of :meth:`share` over the examples, the same in every place."""
        generator, count = np.random.default_rng(seed), next(iter(self.cases.values())).shape[-1]
        found = [
            self.share(best, keep=keep, chance=chance, rows=np.array(generator.integers(count, size=count)))
            for _ in range(draws)
        ]
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)


def landscape(
    score: Callable[[str, Tensor], np.ndarray], plane: Plane, *, methods: Sequence[str], grid: int = 11
) -> Landscape:
    """Scores of methods on a grid over a plane.

    Parameters
    ----------
    score : ``score(method, point)``, (m,): of each example, 1 for a right one
    grid : points along each side
    """
    if grid < 2:
        raise DeltaError(f"a grid has at least two points along each side, got {grid}")
    axis = np.linspace(-1.0, 1.0, grid)
    cases = {
        name: np.array([[score(name, plane.point(float(x), float(y))) for x in axis] for y in axis], dtype=np.float64)
        for name in methods
    }
    return Landscape(plane, axis, cases)
