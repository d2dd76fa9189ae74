"""Entity-marker features of a frozen encoder: made once for a data set and kept as safetensors."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.data.sentences import Marked, RelationSentences
from tasks.encoder import encoder_folder
from tasks.sources import model_sha256

__all__ = ["PARTS", "encode", "feature_file", "features", "frozen_encoder", "spans"]

# The states that a sentence is described by, side by side: its two opening marks, means over both arguments, over what
# stands between them, and over everything.
PARTS = ("first mark", "second mark", "first argument", "second argument", "between", "sentence")
_FIRST, _SECOND = "@", "#"  # tokens that the encoder knows, unlike a new special token
_TOKENS = 4096  # a batch
_LONGEST = 256


def spans(sentence: Marked) -> tuple[str, list[tuple[int, int]]]:
    """Text with both arguments marked, ``... @ first @ ... # second # ...``, and the character range of every part."""
    text, ranges = "", {}
    pieces = [
        ("", sentence.before), ("first mark", _FIRST), ("first argument", sentence.first.strip()), ("", _FIRST),
        ("between", sentence.between.strip()), ("second mark", _SECOND),
        ("second argument", sentence.second.strip()), ("", _SECOND), ("", sentence.after),
    ]  # fmt: skip
    for name, piece in pieces:
        text += " " if text and not text.endswith(" ") else ""
        if name:
            ranges[name] = (len(text), len(text) + len(piece))
        text += piece
    return text, [ranges[name] for name in PARTS[:-1]] + [(0, len(text))]


@torch.no_grad()
def encode(sentences: Sequence[Marked], tokenizer: Any, model: Any) -> Tensor:
    """Features (N, 6 d) in float16, batched by length; a part without tokens is zero.

    Parameters
    ----------
    sentences : what to encode
    tokenizer, model : a fast tokenizer and an encoder of transformers
    """
    texts, ranges = zip(*map(spans, sentences), strict=True)
    coded = tokenizer(list(texts), truncation=True, max_length=_LONGEST, return_offsets_mapping=True)
    length = [len(ids) for ids in coded["input_ids"]]
    width = model.config.hidden_size
    out = torch.zeros(len(texts), len(PARTS) * width, dtype=torch.float16)
    order, start = sorted(range(len(texts)), key=length.__getitem__), 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and length[order[stop]] * (stop + 1 - start) <= _TOKENS:
            stop += 1
        rows = order[start:stop]
        batch = tokenizer.pad({"input_ids": [coded["input_ids"][k] for k in rows]}, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        offsets = torch.zeros(len(rows), hidden.shape[1], 2, dtype=torch.int64)
        for place, k in enumerate(rows):
            offsets[place, : length[k]] = torch.tensor(coded["offset_mapping"][k])
        where = torch.tensor([ranges[k] for k in rows])  # (B, parts, 2)
        begin, end = offsets[:, None, :, 0], offsets[:, None, :, 1]
        inside = (begin >= where[..., :1]) & (end <= where[..., 1:]) & (end > begin)
        weight = inside.to(hidden.dtype)
        mean = weight @ hidden / weight.sum(2, keepdim=True).clamp(min=1.0)
        out[rows] = mean.flatten(1).to(torch.float16)
        start = stop
    return out


def frozen_encoder(name: str) -> tuple[Any, Any]:
    """Tokenizer and model of an encoder.

    Raises
    ------
    UsageError : it is not there.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = encoder_folder(name)
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def feature_file(data: RelationSentences, encoder: str) -> Path:
    """Where the features are kept: a temporary folder, under a name that says what they are made of."""
    made_of = "\n".join([data.sha256, model_sha256(encoder_folder(encoder)), *PARTS, _FIRST, _SECOND, str(_LONGEST)])
    digest = hashlib.sha256(made_of.encode()).hexdigest()
    return Path(tempfile.gettempdir()) / "hyrel-features" / f"{data.name}-{digest[:16]}.safetensors"


def features(data: RelationSentences, encoder: str) -> dict[str, Tensor]:
    """Features of every split, float16 (N, 6 d): read from the kept file, or made and kept first.

    Parameters
    ----------
    data : the sentences
    encoder : as for :func:`tasks.encoder.sentence_encoder`

    Raises
    ------
    UsageError : an encoder that is not there
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = feature_file(data, encoder)
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError:  # damaged: made again
            pass
    tokenizer, model = frozen_encoder(encoder)
    made = {split: encode(data.sentences[split], tokenizer, model) for split in data.sentences}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(made, temporary)
    temporary.replace(path)
    return made
