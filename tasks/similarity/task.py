"""The task of relation similarity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relsim.baselines import count_cosine, count_kl_max
from relsim.distribution import FactDistribution
from relsim.evaluation.suites import Suite, make_suite
from relsim.evidence.counts import Counts
from relsim.facts import Facts
from relsim.fit import held_out_nll, parameter_groups
from relsim.kl.localscale import local_scaling
from relsim.model.batches import FactBatches
from relsim.similarity import similarity
from tasks.data.kg import KnowledgeGraph
from tasks.errors import UsageError

from .config import SimilarityConfig
from .judge import judge
from .model import make_distribution
from .table import write_similarity

__all__ = ["RelationSimilarityTask", "graph_facts"]

_MOST_HELD_OUT = 0.5


def graph_facts(graph: KnowledgeGraph) -> Facts:
    """Training triples of a graph as facts with count 1, equal ones once."""
    triples = torch.unique(graph.train, dim=0)
    ones = torch.ones(len(triples))
    head, relation, tail = (triples[:, i].contiguous() for i in range(3))
    return Facts(head, relation, tail, ones, graph.entities, graph.relations)


class RelationSimilarityTask:
    """Maximum likelihood of the training facts; the held-out ones select the model, the suite judges its divergences."""

    name = "similarity"
    Config = SimilarityConfig
    Data = KnowledgeGraph
    kind = "kg"
    takes = "knowledge graph"
    monitor = "-nll"
    alone = "the groups of a batch share their candidates"

    def __init__(self, config: SimilarityConfig) -> None:
        self.config = config
        self._made: tuple[str, Suite | None, dict[str, Facts], FactBatches] | None = None
        self._held_out = config.held_out

    @property
    def exports(self) -> str | None:
        """Name of the folder in that of the run that holds the similarities, where no suite judges them."""
        return "similarity" if self.config.suite == "none" else None

    def export(self, model: nn.Module, data: KnowledgeGraph, folder: Path) -> None:
        """Fill the folder with ``pairs.tsv``, the similarity of all pairs of relations under the best model."""
        assert isinstance(model, FactDistribution)
        found = similarity(model, heads=self.config.heads, seed=self.config.seed)
        write_similarity(found, data.relations, folder / "pairs.tsv")

    def remarks(self, model: nn.Module) -> list[str]:
        """Say where more was held out than asked for."""
        if self._held_out == self.config.held_out:
            return []
        return [f"--held_out {self.config.held_out} leaves no fact to evaluate on: {self._held_out} was held out"]

    def prepare(self, data: KnowledgeGraph) -> tuple[Suite | None, dict[str, Facts], FactBatches]:
        """Suite, facts by split, and batches of a graph; made once for each content."""
        if self._made is None or self._made[0] != data.sha256:
            config = self.config
            source = graph_facts(data)
            try:
                suite = None if config.suite == "none" else make_suite(config.suite, source, seed=config.seed)
            except ValueError as error:
                raise UsageError(
                    f"--suite {config.suite} on {data.name}: {error}; capped-10 is content with the fewest, none with any"
                ) from None
            facts = source if suite is None else suite.facts
            train, valid, test = self._split(facts)
            if not len(valid) or not len(test):
                raise UsageError(f"--held_out {config.held_out} leaves no fact to evaluate on in {data.name}: raise it")
            batches = FactBatches(train, batch_size=config.train.batch_size, negatives=config.negatives)
            self._made = data.sha256, suite, {"train": train, "valid": valid, "test": test}, batches
        return self._made[1:]

    def _split(self, facts: Facts) -> tuple[Facts, Facts, Facts]:
        """Facts to train on, for validation and for the test; the default share grows until it leaves some of each."""
        while True:
            train, held = facts.split(self._held_out, seed=self.config.seed)
            valid, test = held.split(0.5, seed=self.config.seed)
            enough = len(valid) and len(test)
            # A share that was asked for is kept, and refused where it does not do.
            if enough or self.config.held_out != SimilarityConfig.held_out or self._held_out >= _MOST_HELD_OUT:
                return train, valid, test
            self._held_out = min(2 * self._held_out, _MOST_HELD_OUT)

    def build(self, config: SimilarityConfig, data: KnowledgeGraph) -> FactDistribution:
        """Make the distribution."""
        return make_distribution(config.model, self.prepare(data)[1]["train"], seed=config.seed)

    def n_batches(self, data: KnowledgeGraph) -> int:
        """Count the batches of an epoch."""
        return len(self.prepare(data)[2])

    def train_batch(self, data: KnowledgeGraph, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Make a batch of (head, relation) groups, with shared negatives where there are many entities."""
        return self.prepare(data)[2].batch(epoch, index, seed)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean negative log-likelihood of the facts of a batch."""
        assert isinstance(model, FactDistribution)
        return model.loss(batch), {}

    def evaluate(self, model: nn.Module, data: KnowledgeGraph, split: str) -> dict[str, float]:
        """Held-out likelihood; on the test split also the suite's scores of the divergences and of two count measures.

        The prefix ``local_`` stands for divergences beside those to the nearest relations (``relsim.kl.localscale``).
        """
        assert isinstance(model, FactDistribution)
        suite, facts, _ = self.prepare(data)
        head, tail = held_out_nll(model, facts[split])
        metrics = {"nll": head + tail, "nll_head": head, "nll_tail": tail}
        if split == "valid" or suite is None:
            return metrics
        found = similarity(model, heads=self.config.heads, seed=self.config.seed)
        kl = found.kl.numpy()
        worst = np.maximum(kl, kl.T)
        local = local_scaling(worst)
        np.fill_diagonal(local, 0.0)
        counts = Counts(suite.facts)
        scores = {
            "": -worst,
            "local_": local,
            "count_kl_": -count_kl_max(counts),
            "count_cosine_": count_cosine(counts),
        }
        for prefix, score in scores.items():
            metrics |= {prefix + name: value for name, value in judge(suite, (score + score.T) / 2).items()}
        apart = ~torch.eye(len(kl), dtype=torch.bool)
        return metrics | {"kl_stderr_median": float(found.stderr[apart].median())}

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Networks with the weight decay of the configuration, relation vectors with a third of it, entities with none."""
        assert isinstance(model, FactDistribution)
        return parameter_groups(model, self.config.train.weight_decay)
