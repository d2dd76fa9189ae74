"""Small encoders that come with the package: a Lorentz one and its Euclidean twin, trained alike."""

from __future__ import annotations

from pathlib import Path

from tasks.registry import lookup

__all__ = ["BACKBONES", "path"]

# name -> the folder beside this file; what it is, is in the folder's README.md
BACKBONES = {"euclidean-small": "euclidean-small", "lorentz-small": "lorentz-small"}


def path(name: str) -> Path:
    """Folder of a shipped encoder with its tokenizer, for ``from_pretrained``; import ``lorentz.hf`` before ``AutoModel``.

    Raises
    ------
    UsageError : no such encoder (the nearest is suggested).

    Examples
    --------
    >>> path("lorentz-small").name
    'lorentz-small'
    """
    return Path(__file__).parent / lookup(BACKBONES, name, kind="backbone")
