"""Relations between the marked arguments of new sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tasks.data.sentences import RelationSentences, marked
from tasks.errors import UsageError
from tasks.rows import require_parts

from .features import encode

__all__ = ["predict_relations"]


@torch.no_grad()
def predict_relations(
    task: Any, model: Any, data: RelationSentences, rows: Sequence[Sequence[str]], *, top: int
) -> list[dict[str, Any]]:
    """``sentence``, the ``relation`` of its arguments and its ``probability`` by softmax.

    Raises
    ------
    UsageError : a row that is not one sentence with ``<e1>...</e1>`` before ``<e2>...</e2>``.
    """
    require_parts(rows, 1, "a sentence with <e1>...</e1> before <e2>...</e2>")
    sentences = []
    for number, (text,) in enumerate(rows, 1):
        found = marked(text)
        if found is None:
            raise UsageError(f"row {number}: expected <e1>...</e1> before <e2>...</e2>, got {text[:80]!r}")
        sentences.append(found)
    features = encode(sentences, *task.encoder)
    device = next(model.parameters()).device
    probability, place = model(features.to(device)).double().softmax(1).max(1)
    return [
        {"sentence": row[0], "relation": data.labels[i], "probability": p}
        for row, i, p in zip(rows, place.tolist(), probability.tolist(), strict=True)
    ]
