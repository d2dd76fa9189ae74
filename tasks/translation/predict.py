"""Translations of new lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.errors import UsageError

from .translate import translate

__all__ = ["predict_translations"]


def predict_translations(
    task: Any, model: Any, data: Any, rows: Sequence[Sequence[str]], *, top: int
) -> list[dict[str, Any]]:
    """``line`` and its ``translation``, by the beam search of the configuration; an empty line stays empty.

    Raises
    ------
    UsageError : a row of several parts.
    """
    for number, row in enumerate(rows, 1):
        if len(row) > 1:
            raise UsageError(f"row {number}: expected one line without tabs, got {' TAB '.join(row)[:80]!r}")
    lines, config = [row[0] if row else "" for row in rows], task.config
    found = translate(
        model,
        task.tokenizer,
        lines,
        beams=config.decode.beams,
        length_penalty=config.decode.length_penalty,
        max_length=config.max_length,
    )
    return [{"line": line, "translation": text} for line, text in zip(lines, found, strict=True)]
