"""Where tokens of a delta can join the input of a backbone, and what gives them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from .errors import DeltaError
from .hosts import Host, Place
from .space import Space, space_of

__all__ = ["EmbeddingsPart", "Flow", "flow_of", "table_of"]

_REFUSED = {
    "deberta": "its embedding layer multiplies by the attention mask",
    "deberta-v2": "its embedding layer multiplies by the attention mask",
}


class EmbeddingsPart(nn.Module):
    """A part that gives tokens of the input, or moves the positions of the input's own.

    Attributes
    ----------
    length : number of tokens it gives, 0 for none
    shifted : whether its tokens enter the embedding layer as words do, the first of them at position 0, so that the input's
        tokens are counted on from there and a pooler reads the part's; else they come after the embedding layer
    shift : positions by which the input's tokens move besides
    deep : whether :meth:`tokens` gives others for every layer
    """

    length: int = 0
    shifted: bool = False
    shift: int = 0
    deep: bool = False

    def tokens(self, x: Tensor | None, layer: int) -> Tensor:
        """Free coordinates (length, size) or (batch, length, size) of the tokens.

        Parameters
        ----------
        x : free coordinates (batch, S, size) of the input's tokens; None for deeper layers
        layer : number of the layer that sees them; those of layer 0 join the input
        """
        raise NotImplementedError


class Flow(NamedTuple):
    """Where tokens join and leave; paths are those below the owner.

    Attributes
    ----------
    owner : path of the module whose ``forward`` takes ids and masks
    enter : of the embedding layer
    leave : of the module off whose output the tokens are taken, ``""`` for the owner
    positions : of the table of positions that is added to words, ``""`` for none
    layers : of the layers
    size : free coordinates of a token
    space : its geometry
    """

    owner: str
    enter: str
    leave: str
    positions: str
    layers: tuple[str, ...]
    size: int
    space: Space

    @property
    def place(self) -> Place:
        """The owner as a place."""
        return Place("embeddings", self.owner, -1, "")

    @property
    def names(self) -> tuple[str, ...]:
        """Paths below the owner, the layers last."""
        return (self.enter, self.leave, self.positions, *self.layers)


def table_of(module: nn.Module) -> nn.Embedding | None:
    """The table of words in an embedding layer, None if it has none."""
    if isinstance(module, nn.Embedding):
        return module
    for name in ("word_embeddings", "word"):
        if isinstance(found := getattr(module, name, None), nn.Embedding):
            return found
    return None


def flow_of(host: Host) -> Flow:
    """Where tokens can join and leave a host.

    Raises
    ------
    DeltaError : the host has no embedding layer, or none that is known to allow it.
    """
    kind = type(host.model).__name__
    if host.family in _REFUSED:
        raise DeltaError(
            f"tokens cannot join the input of this {kind}: {_REFUSED[host.family]}. Methods "
            "of its linear layers can be attached (Adapter, BitFit)"
        )
    config: Any = getattr(host.model, "config", None)
    family = getattr(config, "model_type", None)
    if family is not None and host.guessed:
        raise DeltaError(
            f"whether tokens can join the input of this {kind} is not known: its model_type {family!r} was taken for "
            f"{host.family!r} by its modules. Pass host={host.family!r} if its forward works in the same way"
        )
    path = _embedding_path(host)
    owner, _, enter = path.rpartition(".")
    module = host.model.get_submodule(path)
    table, first = table_of(module), getattr(module, "cls_token", None)
    config = getattr(host.model.get_submodule(owner), "config", None)
    if table is not module and getattr(config, "is_decoder", False):
        raise DeltaError(f"tokens cannot join the input of this {kind}: as a decoder it counts positions by its cache")
    if table is not None:
        size = table.embedding_dim
    elif isinstance(first, Tensor):
        size = first.shape[-1]
    else:
        raise DeltaError(f"{path} is a {type(module).__name__}, in which there is no table of words and no cls_token")

    def below(role: str) -> str:
        found = [p.path for p in host.places(role) if _within(p.path, owner)] if host.has(role) else []
        return _cut(found[0], owner) if found else ""

    return Flow(owner, enter, below("encoder"), below("positions"), _layers(host, owner), size, space_of(module))


def _embedding_path(host: Host) -> str:
    places = host.places("embeddings")
    if len(places) > 1:  # those of an encoder and a decoder
        places = [place for place in places if "encoder" in place.path.split(".")]
    if len(places) != 1:
        raise DeltaError(f"this {type(host.model).__name__} has no single embedding layer of an encoder")
    return places[0].path


def _within(path: str, owner: str) -> bool:
    return path.startswith(f"{owner}.") if owner else True


def _cut(path: str, owner: str) -> str:
    return path[len(owner) + 1 :] if owner else path


def _layers(host: Host, owner: str) -> tuple[str, ...]:
    """Paths of the layers, up to their indices."""
    found: dict[int, str] = {}
    for place in host.places("attention") if host.has("attention") else []:
        if _within(place.path, owner):
            names = place.path.split(".")
            start = len(place.stack.split(".")) if place.stack else 0
            end = names.index(str(place.layer), start) + 1
            found.setdefault(place.layer, _cut(".".join(names[:end]), owner))
    return tuple(found[number] for number in sorted(found))
