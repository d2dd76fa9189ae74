"""Sequences of tokens, and what of them is to be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .tokenizer import SPECIAL

__all__ = ["IGNORED", "mask_tokens", "pack"]

IGNORED = -100  # label of a token that is not predicted
_PARAGRAPHS = 2048  # encoded at a time


def pack(tokenizer: Any, paragraphs: Sequence[str], length: int) -> Tensor:
    """Sequences (n, length) int32 of the text as one stream: ``[CLS]``, then ``length - 1`` tokens of it.

    ``[SEP]`` ends every paragraph; what does not fill a last sequence is left out.
    """
    start, end = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
    parts, raw = [], tokenizer.backend_tokenizer
    for first in range(0, len(paragraphs), _PARAGRAPHS):
        coded = raw.encode_batch_fast(list(paragraphs[first : first + _PARAGRAPHS]), add_special_tokens=False)
        parts += [np.array([*text.ids, end], dtype=np.int32) for text in coded]
    stream = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    rows = len(stream) // (length - 1)
    body = stream[: rows * (length - 1)].reshape(rows, length - 1)
    return torch.from_numpy(np.pad(body, ((0, 0), (1, 0)), constant_values=start))


def mask_tokens(ids: Tensor, *, share: float, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs and labels (n, length) int64 of a batch of sequences: labels are ``IGNORED`` where nothing is predicted.

    A `share` of the tokens that are not special is drawn, each by itself, and at least one of a batch that has any. Of these
    80 percent become ``[MASK]``, 10 percent a random token, and 10 percent stay.

    References
    ----------
    Devlin et al., "BERT", NAACL 2019, section 3.1.
    """
    ids = ids.long()
    drawn = torch.rand(ids.shape, generator=generator).masked_fill(ids < len(SPECIAL), 1.0)
    chosen = drawn < share
    if not chosen.any() and bool((drawn < 1.0).any()):
        chosen.view(-1)[drawn.argmin()] = True
    how = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=generator)
    inputs = torch.where(chosen & (how < 0.8), SPECIAL.index("[MASK]"), ids)
    inputs = torch.where(chosen & (how >= 0.9), other, inputs)
    return inputs, ids.masked_fill(~chosen, IGNORED)
