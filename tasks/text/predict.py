"""Classes of new texts, or predictions of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tasks.data.text import Texts
from tasks.rows import require_parts

from .backbone import load_tokenizer
from .model import TextModel
from .tokens import by_length, tokenize

__all__ = ["predict_texts"]


@torch.no_grad()
def predict_texts(
    task: Any, model: Any, data: Texts, rows: Sequence[Sequence[str]], *, top: int
) -> list[dict[str, Any]]:
    """``label`` and its ``probability`` by softmax, or the ``number`` of a regression, of each text or pair.

    Raises
    ------
    UsageError : a row that is not one text, or not two where the set is of pairs.
    """
    pairs = data.second is not None
    require_parts(rows, 2 if pairs else 1, "two texts with a tab between" if pairs else "one text")
    first, second = [row[0] for row in rows], [row[1] for row in rows] if pairs else None
    if isinstance(model, TextModel):
        tokens = tokenize(load_tokenizer(task.config.model.name), first, second, max_length=task.config.max_length)
        output = by_length(tokens, model, model)
    else:
        output = model.outputs(first, second)
    names = ("first", "second") if pairs else ("text",)
    found = [dict(zip(names, row, strict=True)) for row in rows]
    if data.kind == "regression":
        return [{**row, "number": value} for row, value in zip(found, output[:, 0].tolist(), strict=True)]
    probability, place = output.double().softmax(1).max(1)
    return [
        {**row, "label": data.labels[i], "probability": p}
        for row, i, p in zip(found, place.tolist(), probability.tolist(), strict=True)
    ]
