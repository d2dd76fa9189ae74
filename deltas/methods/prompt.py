"""Prompt tuning: learned tokens before those of the input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Delta, Site
from ..embeddings import EmbeddingsPart, table_of
from ..errors import DeltaError
from ..hosts import Host
from ..space import Space
from .prefix import POSITIONS

__all__ = ["PTuning", "PromptTuning"]


@dataclass(frozen=True, kw_only=True)
class PromptTuning(Delta):
    r"""Prompt tuning: the model reads :math:`[P; X]` in place of the input X, with n learned tokens P.

    The tokens join after the embedding layer (as words without a position where the model adds positions to words itself, as
    GPT-2 does) and are taken off before heads and poolers, so that shapes outside are unchanged and the input's tokens keep
    their positions. A decoder of an encoder-decoder sees the states of the input's tokens. Layers with a window of attention
    (Mistral, Gemma 3) count it in slots, so that in a row padded on the left the padding stands between P and the words. On a
    Lorentz backbone P are points with the learned space coordinates.

    Parameters
    ----------
    length : int, >= 1. n
    init : str, ``"random"`` or ``"vocabulary"``: normal values, or embeddings of words drawn without replacement
    words : ids of words to start from, repeated up to n, in place of drawn ones
    init_std : float, > 0. Deviation of the normal values.
    positions : str. ``"kept"``, or ``"shifted"``: the tokens are words to the embedding layer, those of the input are counted
        on from position n, and a pooler that reads the first token reads that of P. That is what peft's checkpoints are
        trained for.

    References
    ----------
    Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021, section 2.
    """

    exact = False
    size = "length"
    length: int = 20
    init: str = "random"
    words: tuple[int, ...] | None = None
    init_std: float = 0.02
    positions: str = "kept"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise DeltaError(f"{self.name} takes a length >= 1, got {self.length}")
        if self.init not in ("random", "vocabulary"):
            raise DeltaError(f'init is "random" or "vocabulary", got {self.init!r}')
        if self.positions not in POSITIONS:
            raise DeltaError(f'positions is "kept" or "shifted", got {self.positions!r}')

    def sites(self, host: Host) -> list[Site]:
        """The input."""
        if self.layers is not None:
            raise DeltaError(f"{self.name} acts on the input and takes no layers")
        return [self.at_input(host)]

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """P."""
        return _Prompt(self._start(site), self.positions == "shifted")

    def count(self, site: Site) -> int:
        """``n d``."""
        return self.length * site.out_features

    def _start(self, site: Site) -> Tensor:
        if self.init == "random" and self.words is None:
            return torch.randn(self.length, site.out_features) * self.init_std
        return embedded(site, self._ids(site), words=self.positions == "shifted")

    def _ids(self, site: Site) -> Tensor:
        table = table_of(site.module.get_submodule(site.names[0]))
        if table is None:
            raise DeltaError(f"init by words needs a table of words, and {site.path or 'this model'} has none")
        if self.words is None:
            ids = torch.randperm(table.num_embeddings)
        else:
            ids = torch.tensor(self.words, dtype=torch.long)
            if not len(ids) or int(ids.min()) < 0 or int(ids.max()) >= table.num_embeddings:
                raise DeltaError(f"words are ids from 0 to {table.num_embeddings - 1}, got {self.words}")
        return ids.repeat(-(-self.length // len(ids)))[: self.length].to(table.weight.device)


@torch.no_grad()
def embedded(site: Site, ids: Tensor, *, words: bool) -> Tensor:
    """Free coordinates (n, size) of words: rows of the table, or what the embedding layer makes of each word alone."""
    entry = site.module.get_submodule(site.names[0])
    table = table_of(entry)
    assert table is not None
    if words or table is entry:
        rows: Tensor = table(ids)
        return rows.detach().clone()
    modes = [(module, module.training) for module in entry.modules()]
    entry.eval()
    try:
        x: Tensor = site.space.coordinates(entry(input_ids=ids[:, None]))[:, 0]
    finally:
        for module, mode in modes:
            module.training = mode
    return x.detach().clone()


class _Prompt(EmbeddingsPart):
    def __init__(self, start: Tensor, shifted: bool) -> None:
        super().__init__()
        self.length, self.shifted = start.shape[0], shifted
        self.prompt = nn.Parameter(start)

    def tokens(self, x: Tensor | None, layer: int) -> Tensor:
        """P."""
        return self.prompt


@dataclass(frozen=True, kw_only=True)
class PTuning(PromptTuning):
    r"""P-tuning: prompt tuning whose tokens are made by a network, :math:`P = W_3\,\phi(W_2\,\phi(W_1 E + b_1) + b_2) + b_3`.

    E is a learned table (n, d) and :math:`\phi` the rectifier. The network ties the tokens together while they are trained.
    The bidirectional LSTM that the paper puts before it is left out: the perceptron alone does that too.

    Parameters
    ----------
    hidden : int or None. Size of the network's hidden layers; that of a token if None.
    length, init, words, init_std, positions : as in :class:`PromptTuning`; the start is that of E

    References
    ----------
    Liu et al., "GPT Understands, Too", 2021, section 3.2.
    """

    hidden: int | None = None

    def build(self, site: Site, space: Space, shared: nn.Module | None = None) -> nn.Module:
        """E and the network."""
        return _Mapped(self._start(site), self.positions == "shifted", self._hidden(site))

    def _hidden(self, site: Site) -> int:
        return site.out_features if self.hidden is None else self.hidden

    def count(self, site: Site) -> int:
        """``n d + (d h + h) + (h h + h) + (h d + d)``."""
        d, h = site.out_features, self._hidden(site)
        return self.length * d + h * (d + 1) + h * (h + 1) + d * (h + 1)


class _Mapped(_Prompt):
    def __init__(self, start: Tensor, shifted: bool, hidden: int) -> None:
        super().__init__(start, shifted)
        size = start.shape[1]
        self.maps = nn.ModuleList([nn.Linear(size, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, size)])

    def tokens(self, x: Tensor | None, layer: int) -> Tensor:
        """What the network makes of E."""
        first, second, last = self.maps
        p: Tensor = last(F.relu(second(F.relu(first(self.prompt)))))
        return p
