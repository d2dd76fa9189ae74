"""Linear maps from a few intrinsic coordinates to the parameters of a delta."""

from __future__ import annotations

from math import ceil, log2, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import DeltaError, lookup

__all__ = [
    "PROJECTORS",
    "BlockProjector",
    "DenseProjector",
    "FastfoodProjector",
    "IdentityProjector",
    "LowRankProjector",
]


class Projector(nn.Module):
    """A matrix P, (size, dim), of which only products are needed.

    Columns have a length of about one at the start, so that a coordinate means the same for every size.

    Parameters
    ----------
    dim : of the intrinsic space
    size : parameters of the delta
    generator : of the first values

    Attributes
    ----------
    wide : class attribute; names of the parameters whose last axis runs over the parameters of the delta
    """

    wide: ClassVar[tuple[str, ...]] = ()

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        if dim < 1 or size < 1:
            raise DeltaError(f"a projector has at least one coordinate and one number, got dim {dim} and size {size}")
        self.dim, self.size = dim, size

    def forward(self, point: Tensor) -> Tensor:
        """P point: (..., dim) to (..., size)."""
        raise NotImplementedError

    def transpose(self, vector: Tensor) -> Tensor:
        """P' vector: (..., size) to (..., dim)."""
        raise NotImplementedError

    def matrix(self) -> Tensor:
        """P, (size, dim)."""
        found: Tensor = self(torch.eye(self.dim, device=next(iter(self.state_dict().values())).device))
        return found.T

    def solve(self, vector: Tensor) -> Tensor:
        """Least squares solution (dim) of P I = vector (size)."""
        matrix = self.matrix()
        # A rank below dim is one up to the rounding of P itself; the driver that sees it is that of CPUs.
        smallest = torch.finfo(matrix.dtype).eps * max(matrix.shape)
        target = vector.cpu().double()[:, None]
        found: Tensor = torch.linalg.lstsq(matrix.cpu().double(), target, rcond=smallest).solution[:, 0]
        return found.to(vector)

    def config(self) -> dict[str, Any]:
        """Options, as they are stored."""
        return {}


class DenseProjector(Projector):
    """P itself is trained: dim x size parameters, as in the paper."""

    wide = ("weight",)

    def __init__(self, dim: int, size: int, *, generator: torch.Generator) -> None:
        super().__init__(dim, size)
        self.weight = nn.Parameter(torch.randn(dim, size, generator=generator))  # P', row by row

    def forward(self, point: Tensor) -> Tensor:
        """P point."""
        return point @ self.weight / sqrt(self.size)

    def transpose(self, vector: Tensor) -> Tensor:
        """P' vector."""
        return vector @ self.weight.T / sqrt(self.size)


class LowRankProjector(Projector):
    """P = A B of a rank below dim: rank x (size + dim) parameters.

    Parameters
    ----------
    rank : of P; None for dim / 4, at least 1
    """

    wide = ("outer",)

    def __init__(self, dim: int, size: int, *, generator: torch.Generator, rank: int | None = None) -> None:
        super().__init__(dim, size)
        self.rank = max(dim // 4, 1) if rank is None else rank
        if not 1 <= self.rank <= min(dim, size):
            raise DeltaError(
                f"rank {self.rank} of a projector from {dim} to {size} parameters: give 1 to {min(dim, size)}"
            )
        self.outer = nn.Parameter(torch.randn(self.rank, size, generator=generator))
        self.inner = nn.Parameter(torch.randn(dim, self.rank, generator=generator))

    def forward(self, point: Tensor) -> Tensor:
        """P point."""
        return point @ self.inner @ self.outer / sqrt(self.rank * self.size)

    def transpose(self, vector: Tensor) -> Tensor:
        """P' vector."""
        return vector @ self.outer.T @ self.inner.T / sqrt(self.rank * self.size)

    def config(self) -> dict[str, Any]:
        """Options."""
        return {"rank": self.rank}


class BlockProjector(Projector):
    """P is block diagonal: the parameters in their order fall into equal runs, each with coordinates of its own.

    dim x size / blocks parameters.

    Parameters
    ----------
    blocks : number of runs, a divisor of dim; None for the greatest of 1 to 4 that divides it
    """

    wide = ("weight",)

    def __init__(self, dim: int, size: int, *, generator: torch.Generator, blocks: int | None = None) -> None:
        super().__init__(dim, size)
        self.blocks = next(n for n in (4, 3, 2, 1) if dim % n == 0) if blocks is None else blocks
        if self.blocks < 1 or dim % self.blocks or self.blocks > size:
            raise DeltaError(
                f"{self.blocks} blocks of {dim} coordinates and {size} parameters: give a divisor of {dim}"
            )
        self.width = ceil(size / self.blocks)
        self.weight = nn.Parameter(torch.randn(self.blocks, dim // self.blocks, self.width, generator=generator))

    def forward(self, point: Tensor) -> Tensor:
        """P point."""
        parts = point.reshape(*point.shape[:-1], self.blocks, -1)
        out = torch.einsum("...bi,biw->...bw", parts, self.weight) / sqrt(self.width)
        return out.flatten(-2)[..., : self.size]

    def transpose(self, vector: Tensor) -> Tensor:
        """P' vector."""
        padded = nn.functional.pad(vector, (0, self.blocks * self.width - self.size))
        parts = padded.reshape(*vector.shape[:-1], self.blocks, self.width)
        return (torch.einsum("...bw,biw->...bi", parts, self.weight) / sqrt(self.width)).flatten(-2)

    def config(self) -> dict[str, Any]:
        """Options."""
        return {"blocks": self.blocks}


_SMALLEST = 256  # rows of a block at least, so that what is kept of one block is little beside its dense columns


def hadamard(x: Tensor) -> Tensor:
    """Walsh-Hadamard transform of the last axis, a power of two long, in n log n steps: H H = n."""
    n = x.shape[-1]
    step = 1
    while step < n:
        pairs = x.reshape(*x.shape[:-1], n // (2 * step), 2, step)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([a + b, a - b], -2).flatten(-3)
        step *= 2
    return x


class FastfoodProjector(Projector):
    r"""P = blocks of :math:`g\, H G \Pi H B` (Le, Sarlos and Smola, ICML 2013, eq. 7) after a trained mixing of coordinates.

    H is the Walsh-Hadamard transform, Pi the permutation i -> a i + b mod n with an odd a, G Gaussian and B of signs, all
    drawn anew from a seed whenever they are needed. What is kept and trained is the gain g of each block and the mixing,
    dim x dim: size / 256 + dim^2 parameters, and size + 256 more where G is trained too (Yi et al. 2022 do that).

    Parameters
    ----------
    gaussian : ``"seeded"`` or ``"trained"``
    seed : of the draws
    """

    gains: nn.Parameter

    def __init__(
        self,
        dim: int,
        size: int,
        *,
        generator: torch.Generator,
        gaussian: str = "seeded",
        seed: int | None = None,
    ) -> None:
        super().__init__(dim, size)
        if gaussian not in ("seeded", "trained"):
            raise DeltaError(f"gaussian is 'seeded' or 'trained', got {gaussian!r}")
        self.length = max(_SMALLEST, 1 << ceil(log2(dim)))
        self.count = ceil(size / self.length)
        self.gaussian = gaussian
        self.seed = int(torch.randint(1 << 62, (1,), generator=generator)) if seed is None else seed
        self.gains = nn.Parameter(torch.ones(self.count))
        self.mixing = nn.Parameter(torch.eye(dim))
        self.diagonal = nn.Parameter(self._draw(torch.device("cpu"))[2]) if gaussian == "trained" else None

    def _draw(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Signs, permutation and Gaussian of every block, (count, length)."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.count, self.length)
        signs = torch.randint(2, shape, generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        steps = torch.randint(self.length // 2, (2, self.count, 1), generator=generator)
        order = ((2 * steps[0] + 1) * torch.arange(self.length) + steps[1]) % self.length
        gaussian = torch.randn(shape, generator=generator)
        return signs.to(device), order.to(device), gaussian.to(device)

    def _pieces(self) -> tuple[Tensor, Tensor, Tensor]:
        signs, order, gaussian = self._draw(self.gains.device)
        return signs, order, gaussian if self.diagonal is None else self.diagonal

    @property
    def _scale(self) -> float:
        # A column of H G Pi H B has squared length n * sum of G^2, about n^2 a block; all blocks make count of them.
        return 1 / (self.length * sqrt(self.count))

    def forward(self, point: Tensor) -> Tensor:
        """P point."""
        signs, order, gaussian = self._pieces()
        x = nn.functional.pad(point @ self.mixing, (0, self.length - self.dim)).unsqueeze(-2) * signs
        x = hadamard(x)
        x = x.gather(-1, order.expand(x.shape)) * gaussian
        out: Tensor = (hadamard(x) * self.gains.unsqueeze(-1)).flatten(-2)
        return out[..., : self.size] * self._scale

    def transpose(self, vector: Tensor) -> Tensor:
        """P' vector."""
        signs, order, gaussian = self._pieces()
        padded = nn.functional.pad(vector, (0, self.count * self.length - self.size))
        x = padded.reshape(*vector.shape[:-1], self.count, self.length)
        x = hadamard(x * self.gains.unsqueeze(-1)) * gaussian
        x = torch.zeros_like(x).scatter(-1, order.expand(x.shape), x)
        x = (hadamard(x) * signs).sum(-2)
        return x[..., : self.dim] @ self.mixing.T * self._scale

    def config(self) -> dict[str, Any]:
        """Options."""
        return {"gaussian": self.gaussian, "seed": self.seed}


class IdentityProjector(Projector):
    """P = 1: the delta's own full space, of as many coordinates as it has parameters."""

    def __init__(self, dim: int, size: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(dim, size)
        if dim != size:
            raise DeltaError(f"the full space of {size} parameters has {size} coordinates, got dim {dim}")

    def forward(self, point: Tensor) -> Tensor:
        """The point."""
        return point

    def transpose(self, vector: Tensor) -> Tensor:
        """The vector."""
        return vector

    def matrix(self) -> Tensor:
        """The identity."""
        return torch.eye(self.dim)

    def solve(self, vector: Tensor) -> Tensor:
        """The vector."""
        return vector


PROJECTORS: dict[str, type[Projector]] = {
    "dense": DenseProjector,
    "low-rank": LowRankProjector,
    "block": BlockProjector,
    "fastfood": FastfoodProjector,
    "identity": IdentityProjector,
}


def make_projector(kind: str, dim: int, size: int, *, generator: torch.Generator, **options: Any) -> Projector:
    """Projector of a kind.

    Raises
    ------
    DeltaError : an unknown kind, or an option that it has not.
    """
    made = lookup(PROJECTORS, kind, kind="projector")
    try:
        return made(dim, size, generator=generator, **options)  # type: ignore[call-arg]
    except TypeError as error:
        raise DeltaError(f"the {kind} projector: {error}") from None
