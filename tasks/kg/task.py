"""The task of knowledge-graph completion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tasks.data.kg import KnowledgeGraph
from tasks.errors import UsageError
from tasks.launch import rows_of_rank
from tasks.registry import lookup

from .batches import Batches
from .classification import classify, require_negatives
from .config import COUNT, KGConfig
from .losses import contrast, multi_label
from .ranking import rank, rank_relations, ranking_metrics
from .scorers import SCORERS, Scorer
from .scorers.classic import DiagonalScorer

__all__ = ["KnowledgeGraphCompletion"]


class KnowledgeGraphCompletion:
    """Link prediction with reciprocal relations: a scorer, a loss, and how tails are corrupted."""

    name = "kg"
    Config = KGConfig
    Data = KnowledgeGraph
    kind = "kg"
    takes = "knowledge graph"

    def __init__(self, config: KGConfig) -> None:
        self.config = config
        self.monitor = config.monitor
        self.batches = Batches(config)

    def build(self, config: KGConfig, data: KnowledgeGraph) -> Scorer:
        """Make the scorer."""
        if "triples" in config.measured:
            require_negatives(data)
        drawn = config.negatives
        if drawn.sharing == "triple" and drawn.count > max(data.num_entities, COUNT):
            raise UsageError(
                f"--negatives.count {drawn.count} for each triple is more than the {data.num_entities} entities of "
                f"{data.name}; take --negatives.sharing all, or at most that many"
            )
        if drawn.sharing == "batch" and COUNT != drawn.count > data.num_entities:
            warning = (
                f"--negatives.count {drawn.count} is more than the {data.num_entities} entities of {data.name}, which are "
                "drawn without replacement: each is a negative once"
            )
            data.warnings += [warning] if warning not in data.warnings else []
        scorer = lookup(SCORERS, config.model.scorer, kind="scorer")
        return scorer(
            data.num_entities,
            data.num_relations,
            config.model,
            dropout=config.regularization.dropout,
            sparse=config.sparse,
        )

    def n_batches(self, data: KnowledgeGraph) -> int:
        """Count the batches of an epoch, over triples and their inverses."""
        return self.batches.count(data)

    def train_batch(self, data: KnowledgeGraph, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Draw a batch; see :class:`tasks.kg.batches.Batches`."""
        return self.batches.draw(data, epoch, index, seed)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch."""
        assert isinstance(model, Scorer)
        head, relation, loss = batch["head"], batch["relation"], self.config.loss
        if loss.multi_label:
            scores = model.score_tails(head, relation)
            return multi_label(scores, batch["true_row"], batch["true_column"], smoothing=loss.smoothing), {}
        tail = batch["tail"]
        if "negatives" in batch:
            positive, negative = model.score_batch(head, relation, tail, batch["negatives"])
        else:
            negative = model.score_tails(head, relation)
            positive = negative.gather(1, tail[:, None]).squeeze(1)
        if "true_row" in batch:
            negative = negative.index_put((batch["true_row"], batch["true_column"]), negative.new_tensor(-torch.inf))
        total = contrast(positive, negative, loss, weight=self.config.negatives.weight)
        if self.config.regularization.n3:
            assert isinstance(model, DiagonalScorer)
            total = total + self.config.regularization.n3 * model.n3(head, relation, tail)
        return total, {}

    def part(self, batch: dict[str, Tensor], rank: int, count: int) -> dict[str, Tensor]:
        """Triples of one process; negatives that a batch shares are those of all."""
        rows = rows_of_rank(len(batch["head"]), rank, count)
        part: dict[str, Tensor] = {name: batch[name][rows] for name in ("head", "relation", "tail") if name in batch}
        if "negatives" in batch:
            part["negatives"] = batch["negatives"][rows] if batch["negatives"].ndim == 2 else batch["negatives"]
        if "true_row" in batch:
            own = (rows.start <= batch["true_row"]) & (batch["true_row"] < rows.stop)
            part |= {"true_row": batch["true_row"][own] - rows.start, "true_column": batch["true_column"][own]}
        return part

    def evaluate(self, model: nn.Module, data: KnowledgeGraph, split: str) -> dict[str, float]:
        """Measure what ``evaluate`` names; the ranks of the paper's protocol have the prefix ``paper_``."""
        assert isinstance(model, Scorer)
        device = next(model.parameters()).device
        metrics: dict[str, float] = {}
        if "link" in self.config.measured:
            standard, paper = rank(model, data.with_inverses(split).to(device), data.known("all").to(device))
            metrics |= ranking_metrics(standard) | ranking_metrics(paper, "paper_")
        if "relation" in self.config.measured:
            triples: Tensor = getattr(data, split)
            metrics |= ranking_metrics(rank_relations(model, triples.to(device), data), "relation_")
        if "triples" in self.config.measured:
            metrics |= classify(model, data, split)
        return metrics

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Entities with their norm cap; everything else."""
        entities = [p for name, p in model.named_parameters() if name in ("entity", "entity.weight")]
        known = {id(p) for p in entities}
        rest = [p for p in model.parameters() if id(p) not in known]
        return [
            {"params": entities, "max_norm": self.config.model.max_norm, "sparse": self.config.sparse},
            {"params": rest},
        ]
