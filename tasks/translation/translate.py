"""Translating lines with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.errors import UsageError

__all__ = ["FOLDER", "load_translator", "longest_translation", "translate"]

FOLDER = "translator"  # in that of a run
_AT_ONCE = 50  # lines a batch, of like length
_LONGER = 1.5  # most tokens of a translation for one of the line, and a few more
_MORE = 10


def longest_translation(length: int) -> int:
    """Most tokens that are written for a sentence of so many."""
    return int(_LONGER * length) + _MORE


@torch.no_grad()
def translate(
    model: Any,
    tokenizer: Any,
    lines: Sequence[str],
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    max_length: int = 100,
) -> list[str]:
    """Translations of lines by beam search, in their order; of an empty line the empty line.

    Parameters
    ----------
    model, tokenizer : an encoder-decoder of transformers, such as :class:`lorentz.hf.LorentzForConditionalGeneration`
    lines : sentences of the source language
    beams : translations kept at each step
    length_penalty : exponent of the length by which a translation's log-probability is divided
    max_length : tokens of a line that are read; a translation has at most half as many again, and ten
    """
    if isinstance(lines, str):
        raise UsageError("lines are several sentences, got one string; give a list")
    ids = [row[:max_length] for row in tokenizer(list(lines), verbose=False)["input_ids"]] if len(lines) else []
    device = next(model.parameters()).device
    found = [""] * len(lines)
    order = sorted((i for i, line in enumerate(lines) if line.strip()), key=lambda i: -len(ids[i]))
    training = model.training
    model.eval()
    for first in range(0, len(order), _AT_ONCE):
        rows = order[first : first + _AT_ONCE]
        longest = len(ids[rows[0]])
        tokens = np.full((len(rows), longest), tokenizer.pad_token_id, np.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(ids[row])] = ids[row]
        inputs = torch.from_numpy(tokens).to(device)
        written = model.generate(
            inputs,
            attention_mask=(inputs != tokenizer.pad_token_id).long(),
            num_beams=beams,
            do_sample=False,
            length_penalty=length_penalty,
            early_stopping=beams > 1,
            max_new_tokens=longest_translation(longest),
        )
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            found[row] = " ".join(text.split())
    model.train(training)
    return found


def load_translator(folder: str | Path) -> tuple[Any, Any]:
    """Model and tokenizer of a finished run of the task, or of its folder ``translator``.

    Raises
    ------
    UsageError : no translator there.
    """
    from transformers import AutoTokenizer

    from lorentz.hf import LorentzForConditionalGeneration

    path = Path(folder)
    path = path / FOLDER if (path / FOLDER).is_dir() else path
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{folder} holds no translator: it is made by `hyrel run translation`, when the run is finished"
        )
    return LorentzForConditionalGeneration.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
