"""Adapters beside a block: they read what the block reads and add to what it returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..functions import function
from ..hosts import Host
from ..linear import LinearPart
from ..precision import in_dtype_of
from ..space import Space, space_before
from .adapter import Bottleneck

__all__ = ["SOURCES", "Branch", "ParallelAdapter", "Reader", "beside"]

# Role that ends a block -> role that reads its input.
SOURCES = {"ffn.down": "ffn.up", "attention.out": "attention.query", "cross.out": "cross.query"}


@dataclass(frozen=True, kw_only=True)
class ParallelAdapter(Delta):
    r"""Parallel adapter: :math:`z \leftarrow z + s\,(U\,\phi(D x + c) + c')`, x the input of the block that z comes from.

    U and c' are 0 at the start, so the model is unchanged. On a Lorentz backbone x and z are space coordinates; D sees the
    time too, U that of the hidden point, and the sum joins the pre-activation of the block's last map before the lift.

    Parameters
    ----------
    bottleneck : int, >= 1. r; a block of d coordinates takes 2dr + r + d parameters.
    activation : str, name of a function of ``torch.nn.functional``
    scale : float. s; 4 for the paper's scaled parallel adapter.
    roles : roles of the linear layers that end a block and whose result is added to: ``"ffn.down"``, ``"attention.out"``,
        ``"cross.out"``
    reads : roles of the layers that read the input of those blocks, one for each of `roles`; None takes ``"ffn.up"``,
        ``"attention.query"``, ``"cross.query"``

    References
    ----------
    He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR 2022, table 1 and section 4.6.
    """

    size = "bottleneck"
    bottleneck: int = 48
    activation: str = "relu"
    scale: float = 1.0
    roles: tuple[str, ...] = ("ffn.down",)
    reads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise DeltaError(f"{self.name} takes a bottleneck >= 1, got {self.bottleneck}")
        function(self.activation)
        sources(self.roles, self.reads)

    def sites(self, host: Host) -> list[Site]:
        """Of every block the layer that reads and the one that ends it."""
        return beside(self, host, self.roles, sources(self.roles, self.reads))

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """Nothing but a reader at the beginning, D and U at the end."""
        if not isinstance(site, End):
            return Reader()
        n = site.source.in_features - space_before(site.source.module).columns
        return Branch(site, Bottleneck(n, site.out_features, self.bottleneck, space, self.activation), self.scale)


@dataclass
class End(Site):
    """The end of a block, that knows the site where its input is read."""

    source: Any = None


def sources(roles: tuple[str, ...], reads: tuple[str, ...] | None) -> tuple[str, ...]:
    """The reading role of each role."""
    if reads is None:
        if unknown := [role for role in roles if role not in SOURCES]:
            raise DeltaError(
                f"what reads the input of the block that ends with {unknown[0]!r}? Say reads=('role',), one for each of "
                f"roles; known by themselves are {', '.join(SOURCES)}"
            )
        return tuple(SOURCES[role] for role in roles)
    if len(reads) != len(roles):
        raise DeltaError(f"reads has one role for each of roles, got {len(reads)} for {len(roles)}")
    return reads


def beside(method: Delta, host: Host, roles: tuple[str, ...], reads: tuple[str, ...]) -> list[Site]:
    """Sites in pairs, beginning and end of each block.

    Raises
    ------
    DeltaError : a block has no beginning, or several.
    """
    found: list[Site] = []
    for role, read in zip(roles, reads, strict=True):
        begins = method.at(host, read)
        for end in method.at(host, role):
            block = (end.place.stack, end.place.layer)
            mine = [site for site in begins if (site.place.stack, site.place.layer) == block]
            if len(mine) != 1:
                raise DeltaError(
                    f"{method.name} reads the input of one {read!r} for {end.path}, and its layer has {len(mine)}"
                )
            found += [mine[0], End(**{f.name: getattr(end, f.name) for f in fields(end)}, source=mine[0])]
    return found


class _Slot:
    """What a block read last; a copy of the model begins without."""

    def __init__(self) -> None:
        self.u: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Slot:
        memo[id(self)] = copy = _Slot()
        return copy


class Reader(LinearPart):
    """Keeps the free coordinates of what its layer is given until the end of the block takes them.

    A recomputation (gradient checkpointing) reads anew, and what a broken-off one has left is overwritten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slot = _Slot()

    def before(self, host: nn.Module, h: Tensor) -> Tensor:
        """H itself."""
        self.slot.u = space_before(host).coordinates(h)
        return h


class Branch(LinearPart):
    """Adds ``scale * inner(u)``, u the free coordinates that the block has read."""

    def __init__(self, site: End, inner: nn.Module, scale: float) -> None:
        super().__init__()
        self.inner, self.scale, self.path = inner, scale, site.source.path
        self.__dict__["reader"] = site.source.part  # no child: it belongs to the other layer

    def addend(self, host: nn.Module, h: Tensor) -> Tensor:
        """The branch."""
        reader: Any = self.reader
        slot = reader.slot
        u, slot.u = slot.u, None
        if u is None:
            raise DeltaError(f"{self.path} was not called before the end of its block, so its input is not known")
        change: Tensor = self.inner(in_dtype_of(self.inner, u))
        return change if self.scale == 1 else self.scale * change
