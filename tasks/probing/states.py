"""States of a frozen encoder by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.errors import UsageError

__all__ = ["WordStates", "layer_number", "word_states"]

_AT_ONCE = 64  # sentences a batch, of like length


@dataclass(frozen=True)
class WordStates:
    """States of the words of some sentences, end to end.

    Attributes
    ----------
    vectors : (W, d)
    starts : int64 (sentences kept + 1,), where each begins
    kept : int64, places of the sentences kept among those given
    """

    vectors: Tensor
    starts: np.ndarray
    kept: np.ndarray

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States (B, S, d), 0 beyond the end, and which words are there, bool (B, S)."""
        lengths = (self.starts[1:] - self.starts[:-1])[rows]
        there = torch.from_numpy(np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None])
        states = self.vectors.new_zeros(*there.shape, self.vectors.shape[1])
        places = np.concatenate([np.arange(self.starts[row], self.starts[row + 1]) for row in rows])
        states[there] = self.vectors[torch.from_numpy(places)]
        return states, there


def layer_number(backbone: Any, layer: int) -> int:
    """A layer counted from the embeddings, 0; negative ones count from the end, as in Python.

    Raises
    ------
    UsageError : there is no such layer.
    """
    count = int(backbone.config.num_hidden_layers)
    if not -count - 1 <= layer <= count:
        raise UsageError(
            f"--model.layer {layer}: the encoder has the layers 0 (its embeddings) to {count}, or -1 for the last"
        )
    return layer % (count + 1)


def _pieces(tokenizer: Any, sentences: Sequence[Sequence[str]], name: str) -> tuple[list[list[int]], list[np.ndarray]]:
    """Token ids of each sentence, and for each token the place of its word, -1 for a special one."""
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"--model.name {name}: its tokenizer does not tell which word a token is of (it is not a fast one)"
        )
    try:
        made = tokenizer(
            [list(words) for words in sentences], is_split_into_words=True, return_attention_mask=False, verbose=False
        )
    except (AssertionError, ValueError) as error:  # RoBERTa's wants add_prefix_space
        raise UsageError(f"--model.name {name}: its tokenizer takes no words: {' '.join(str(error).split())}") from None
    owners = [
        np.array([-1 if word is None else word for word in made.word_ids(i)], dtype=np.int64)
        for i in range(len(sentences))
    ]
    return made["input_ids"], owners


@torch.no_grad()
def word_states(
    backbone: Any,
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    *,
    layers: Sequence[int],
    max_length: int | None,
    name: str = "encoder",
) -> dict[int, WordStates]:
    """States of every word, the mean of those of its tokens, of several layers at once.

    Of a Lorentz model they are the space coordinates. Sentences with more tokens than `max_length`, or with a word of which
    the tokenizer leaves nothing, are left out.

    Parameters
    ----------
    layers : numbers from 0, the embeddings
    max_length : tokens, special ones included; None for no limit

    Raises
    ------
    UsageError : a tokenizer that does not tell words, or no sentence that fits.
    """
    ids, owners = _pieces(tokenizer, sentences, name)
    whole = [len(np.unique(owner[owner >= 0])) == len(words) for owner, words in zip(owners, sentences, strict=True)]
    fits = [max_length is None or len(row) <= max_length for row in ids]
    kept = np.flatnonzero(np.array(whole) & np.array(fits))
    if not len(kept):
        raise UsageError(f"no sentence has at most {max_length} tokens of {name}")
    lengths = np.array([len(sentences[i]) for i in kept.tolist()])
    starts = np.concatenate([[0], lengths.cumsum()])
    time = int(getattr(backbone.config, "geometry", None) == "lorentz")
    device = next(backbone.parameters()).device
    vectors: dict[int, Tensor] = {}
    backbone.eval()
    order = np.argsort([-len(ids[i]) for i in kept], kind="stable")
    for first in range(0, len(order), _AT_ONCE):
        rows = order[first : first + _AT_ONCE]
        longest = len(ids[kept[rows[0]]])
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        place = torch.full((len(rows), longest), -1)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            one = kept[row]
            n = len(ids[one])
            tokens[i, :n], mask[i, :n] = torch.tensor(ids[one]), 1
            owner = torch.from_numpy(owners[one])
            place[i, :n] = torch.where(owner >= 0, owner + int(starts[row]), -1)
        output = backbone(input_ids=tokens.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        word, there = place[place >= 0], place >= 0
        for layer in layers:
            states = output.hidden_states[layer].cpu().float()[there][:, time:]
            if layer not in vectors:
                vectors[layer] = states.new_zeros(int(starts[-1]), states.shape[1])
            vectors[layer].index_add_(0, word, states)
            count = torch.bincount(word, minlength=1)
            some = count.nonzero()[:, 0]
            vectors[layer][some] /= count[some, None]
    return {layer: WordStates(found, starts, kept) for layer, found in vectors.items()}
