"""Tokens, their types and positions as points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..flat import Euclidean
from ..geometry import geometry_of
from ..manifold import Lorentz
from ..points import PointParameters
from ..positional import LearnedPositions, SinusoidalPositions
from .configuration import LorentzConfig

__all__ = ["TokenEmbedding"]


def _tag_again(embedding: TokenEmbedding, _keys: Any) -> None:
    """The table of tokens, a module of its own, is loaded after the embedding that holds it."""
    embedding._tag()


class TokenEmbedding(PointParameters):
    """The sum of the space coordinates of a token, its type and its position, lifted and, unless norm is "none", normalised.

    Parameters
    ----------
    config : LorentzConfig
    manifold : the model's
    tokens : bool. Whether it has tables of tokens and types; a decoder is given its tokens' coordinates.

    Attributes
    ----------
    word : nn.Embedding of space coordinates (vocab_size, hidden_size - 1). The weight is a table of points, which
        Riemannian optimisers know by ``weight.manifold``.
    """

    def __init__(self, config: LorentzConfig, manifold: Lorentz | Euclidean, *, tokens: bool) -> None:
        super().__init__()
        self.manifold = manifold
        space, kind = config.hidden_size - 1, config.position_embedding_type
        self.word = nn.Embedding(config.vocab_size, space, padding_idx=config.pad_token_id) if tokens else None
        types = config.type_vocab_size if tokens else 0
        self.token_type = nn.Embedding(types, space) if types else None
        self.position: nn.Module | None = None
        if kind == "learned":
            self.position = LearnedPositions(config.max_position_embeddings, config.hidden_size)
        elif kind == "sinusoidal":
            self.position = SinusoidalPositions(config.hidden_size, scale=config.initializer_range)
        self.kind, self.max_length = kind, config.max_position_embeddings
        norm = geometry_of(manifold).norm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm = None if config.norm == "none" else norm
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.register_load_state_dict_post_hook(_tag_again)
        self._tag()

    def _tag(self) -> None:
        if self.word is not None and isinstance(self.manifold, Lorentz):
            self.word.weight.manifold = self.manifold  # type: ignore[attr-defined]

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        offset: int | Tensor = 0,
    ) -> Tensor:
        """Points (batch, length, hidden_size) of token ids, or of space coordinates, from position `offset` on."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of them")
        if inputs_embeds is None:
            assert self.word is not None
            inputs_embeds = self.word(input_ids)
        space, length = inputs_embeds, inputs_embeds.shape[1]
        if self.token_type is not None:
            if token_type_ids is None:
                token_type_ids = torch.zeros(1, dtype=torch.int64, device=space.device)
            space = space + self.token_type(token_type_ids)
        space = space + self._positions(position_ids, length, offset, space) if self.position is not None else space
        if self.kind == "rotary" and position_ids is not None:
            raise ValueError('position_embedding_type="rotary" counts positions itself and takes no position_ids')
        if self.norm is None:
            return self.manifold.lift(self.dropout(space))
        x: Tensor = self.norm(self.manifold.lift(space))
        geometry = geometry_of(self.manifold)
        return self.manifold.lift(self.dropout(geometry.space_of(x))) if self.training and self.dropout.p else x

    def _positions(self, position_ids: Tensor | None, length: int, offset: int | Tensor, like: Tensor) -> Tensor:
        assert self.position is not None
        if position_ids is None:
            position_ids = torch.arange(length, device=like.device) + offset
            if self.kind == "learned" and offset + length > self.max_length:
                raise ValueError(
                    f"got {offset + length} tokens, and there are {self.max_length} learned positions: truncate, raise "
                    f'max_position_embeddings, or use position_embedding_type="sinusoidal"'
                )
        positions: Tensor = self.position(position_ids)
        return positions.to(like.dtype)
