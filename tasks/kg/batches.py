"""Batches of triples with corrupted tails: pure functions of seed, epoch and index."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tasks.data.kg import KnowledgeGraph

from .config import KGConfig

__all__ = ["Batches"]

Batch = dict[str, Tensor]


class Batches:
    """Batches of an epoch over the training triples and their inverses.

    A batch has ``head``, ``relation`` and ``tail`` (B,), ``negatives`` (N,) or (B, N) where some are drawn, and
    ``true_row``, ``true_column``: where a candidate is a known answer. With ``loss.multi_label`` it has no tail: its
    examples are pairs of head and relation, and the true places all their tails.
    """

    def __init__(self, config: KGConfig) -> None:
        self.config = config
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def _examples(self, data: KnowledgeGraph) -> int:
        return len(data.known("train").keys) if self.config.loss.multi_label else 2 * len(data.train)

    def count(self, data: KnowledgeGraph) -> int:
        """Count the batches of an epoch."""
        return -(-self._examples(data) // self.config.train.batch_size)

    def draw(self, data: KnowledgeGraph, epoch: int, index: int, seed: int) -> Batch:
        """Draw batch `index` of `epoch`."""
        if self._order is None or self._order[0] != (seed, epoch):  # kept for speed; a function of seed and epoch alone
            permutation = np.random.default_rng([seed, epoch]).permutation(self._examples(data))
            self._order = ((seed, epoch), torch.from_numpy(permutation))
        size = self.config.train.batch_size
        chosen = self._order[1][index * size : (index + 1) * size]
        if self.config.loss.multi_label:
            known = data.known("train")
            key = known.keys[chosen]
            head, relation = key // known.num_relations, key % known.num_relations
            row, column = known.lookup(head, relation)
            return {"head": head, "relation": relation, "true_row": row, "true_column": column}
        head, relation, tail = data.with_inverses("train")[chosen].unbind(1)
        batch = {"head": head, "relation": relation, "tail": tail}
        rng = np.random.default_rng([seed, epoch, index])
        sharing, count = self.config.negatives.sharing, self.config.negatives.count
        if sharing == "batch":
            count = min(count, data.num_entities)
            batch["negatives"] = torch.from_numpy(rng.choice(data.num_entities, count, replace=False))
        elif sharing == "triple":
            batch["negatives"] = torch.from_numpy(rng.integers(data.num_entities, size=(len(head), count)))
        if self.config.negatives.filter != "none":
            batch |= self._true(data, batch)
        elif sharing == "all":  # the triple itself is still no negative of itself
            batch |= {"true_row": torch.arange(len(tail)), "true_column": tail}
        return batch

    def _true(self, data: KnowledgeGraph, batch: Batch) -> Batch:
        """Where a candidate is a known answer: rows and columns of the scores of the negatives."""
        known, sharing = data.known(self.config.negatives.filter), self.config.negatives.sharing
        if sharing == "batch":
            row, column = known.among(batch["head"], batch["relation"], batch["negatives"])
            return {"true_row": row, "true_column": column}
        row, tails = known.lookup(batch["head"], batch["relation"])
        if sharing == "all":
            return {"true_row": row, "true_column": tails}
        answers = row * data.num_entities + tails  # sorted, as rows and the tails of a row are
        drawn = torch.arange(len(batch["head"]))[:, None] * data.num_entities + batch["negatives"]
        at = torch.searchsorted(answers, drawn).clamp(max=len(answers) - 1)
        true_row, true_column = (answers[at] == drawn).nonzero().unbind(1)
        return {"true_row": true_row, "true_column": true_column}
