"""The similarity of all pairs of relations as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from relsim.kl.result import RelationSimilarity
from relsim.merge.tables import write_tsv

__all__ = ["COLUMNS", "write_similarity"]

COLUMNS = "relation_a", "relation_b", "kl_ab", "kl_ba", "similarity", "stderr", "ci_low", "ci_high"


def write_similarity(found: RelationSimilarity, relations: Sequence[str], path: Path) -> None:
    """Write a TSV with a row for every unordered pair, the most alike first.

    ``kl_ab``, ``kl_ba`` in nats, ``similarity = exp(-max)``; ``stderr`` and the 95 % interval are of the larger
    divergence, for sampling error; an interval that is not claimed ends at infinity.
    """
    low, high = found.interval(of="max")
    i, j = torch.triu_indices(len(relations), len(relations), 1)
    worst = torch.maximum(found.kl[i, j], found.kl[j, i])

    def rows() -> Iterator[tuple[Any, ...]]:
        for at in torch.argsort(worst, stable=True).tolist():
            a, b = int(i[at]), int(j[at])
            forward, backward = float(found.kl[a, b]), float(found.kl[b, a])
            error = found.stderr[a, b] if forward >= backward else found.stderr[b, a]
            alike = float(torch.exp(-worst[at]))
            yield (
                relations[a],
                relations[b],
                forward,
                backward,
                alike,
                float(error),
                float(low[a, b]),
                float(high[a, b]),
            )

    write_tsv(path, COLUMNS, rows())
