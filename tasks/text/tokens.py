"""Token ids of all texts of a split, made once, and padded batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Tokens", "by_length", "tokenize"]

_AT_ONCE = 64  # texts a batch, of like length


class Tokens:
    """Token ids and types of texts, end to end.

    Parameters
    ----------
    ids, types : lists of a list for each text
    pad : id that fills a batch; it is masked
    """

    def __init__(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], *, pad: int) -> None:
        self.lengths = np.array([len(row) for row in ids], dtype=np.int64)
        self.starts = np.concatenate([[0], self.lengths.cumsum()])
        self.ids = np.fromiter((i for row in ids for i in row), np.int32, int(self.starts[-1]))
        self.types = np.fromiter((i for row in types for i in row), np.int32, int(self.starts[-1]))
        self.pad = pad

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """``input_ids``, ``token_type_ids`` and ``attention_mask`` (B, S), int64; S is that of the longest text."""
        lengths = self.lengths[rows]
        mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
        places = (self.starts[rows][:, None] + np.arange(mask.shape[1]))[mask]
        ids, types = np.full(mask.shape, self.pad, np.int64), np.zeros(mask.shape, np.int64)
        ids[mask], types[mask] = self.ids[places], self.types[places]
        made = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask.astype(np.int64)}
        return {name: torch.from_numpy(value) for name, value in made.items()}


def tokenize(tokenizer: Any, first: list[str], second: list[str] | None, *, max_length: int) -> Tokens:
    """Tokens of texts, or of pairs; what is beyond `max_length` is cut off, of a pair from the longer text."""
    made = tokenizer(
        first,
        second,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_token_type_ids=True,
        return_attention_mask=False,
        verbose=False,
    )
    pad = tokenizer.pad_token_id
    return Tokens(made["input_ids"], made["token_type_ids"], pad=0 if pad is None else pad)


def by_length(tokens: Tokens, function: Callable[[dict[str, Tensor]], Tensor], model: nn.Module) -> Tensor:
    """Apply a function of the model to batches of texts of like length; its results (N, ...) in the order of the texts."""
    device = next(model.parameters()).device
    order = np.argsort(-tokens.lengths, kind="stable")
    found = []
    for start in range(0, len(order), _AT_ONCE):
        batch = tokens.batch(order[start : start + _AT_ONCE])
        found.append(function({name: value.to(device) for name, value in batch.items()}).cpu())
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return torch.cat(found)[torch.from_numpy(back)]
