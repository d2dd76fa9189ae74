"""The task of knowledge-graph completion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.data.kg import KnowledgeGraph
from tasks.registry import lookup

from .config import KGConfig
from .ranking import rank, ranking_metrics
from .scorers import SCORERS, Scorer

__all__ = ["KnowledgeGraphCompletion"]


class KnowledgeGraphCompletion:
    """Link prediction with reciprocal relations and negatives shared by the batch, on the logistic loss."""

    name = "kg"
    Config = KGConfig

    def __init__(self, config: KGConfig) -> None:
        self.config = config
        self.monitor = config.monitor
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def build(self, config: KGConfig, data: KnowledgeGraph) -> Scorer:
        """Make the scorer."""
        scorer: Scorer = lookup(SCORERS, config.model.scorer, kind="scorer")(
            data.num_entities, data.num_relations, config.model
        )
        return scorer

    def n_batches(self, data: KnowledgeGraph) -> int:
        """Count the batches of an epoch, over triples and their inverses."""
        return -(-2 * len(data.train) // self.config.train.batch_size)

    def train_batch(self, data: KnowledgeGraph, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Draw a batch of triples, shared negatives, and which of them are true (row, column)."""
        if self._order is None or self._order[0] != (seed, epoch):  # kept for speed; a function of seed and epoch alone
            permutation = np.random.default_rng([seed, epoch]).permutation(2 * len(data.train))
            self._order = ((seed, epoch), torch.from_numpy(permutation))
        size = self.config.train.batch_size
        triples = data.with_inverses("train")[self._order[1][index * size : (index + 1) * size]]
        count = min(self.config.negatives.count, data.num_entities)
        drawn = np.random.default_rng([seed, epoch, index]).choice(data.num_entities, count, replace=False)
        head, relation, tail = triples.unbind(1)
        batch = {"head": head, "relation": relation, "tail": tail, "negatives": torch.from_numpy(drawn)}
        if self.config.negatives.filter != "none":
            row, known = data.known(self.config.negatives.filter).lookup(head, relation)
            column = torch.full((data.num_entities,), -1)
            column[batch["negatives"]] = torch.arange(count)
            hit = column[known]
            batch |= {"true_row": row[hit >= 0], "true_column": hit[hit >= 0]}
        return batch

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the logistic loss, the shared negatives weighted as ``negatives.weight`` of them."""
        assert isinstance(model, Scorer)
        positive, negative = model.score_batch(batch["head"], batch["relation"], batch["tail"], batch["negatives"])
        if "true_row" in batch:
            negative = negative.index_put((batch["true_row"], batch["true_column"]), negative.new_tensor(-torch.inf))
        weight = self.config.negatives.weight
        wrong = F.softplus(negative).mean(1).mean() * weight
        return (F.softplus(-positive).mean() + wrong) / (1 + weight), {}

    def evaluate(self, model: nn.Module, data: KnowledgeGraph, split: str) -> dict[str, float]:
        """Rank heads and tails of a split in both protocols; the paper's has the prefix ``paper_``."""
        assert isinstance(model, Scorer)
        device = next(model.parameters()).device
        standard, paper = rank(model, data.with_inverses(split).to(device), data.known("all").to(device))
        return ranking_metrics(standard) | ranking_metrics(paper, "paper_")

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Entities with their norm cap; everything else."""
        entities = [p for name, p in model.named_parameters() if name in ("entity", "entity.weight")]
        known = {id(p) for p in entities}
        rest = [p for p in model.parameters() if id(p) not in known]
        return [{"params": entities, "max_norm": self.config.model.max_norm}, {"params": rest}]
