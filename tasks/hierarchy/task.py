"""The task of embedding a taxonomy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.data.hierarchy import Hierarchy, ancestors_of
from tasks.launch import rows_of_rank
from tasks.registry import lookup

from .config import HierarchyConfig
from .loss import softmax_loss
from .models import GEOMETRIES, Table
from .reconstruction import reconstruction

__all__ = ["HierarchyEmbedding"]

STOPPED = 0.5  # share of points at the largest radius from which a run is warned of; good runs have fewer than a third
_SAMPLE = 20170522  # of the nodes that are followed: the same for every seed and configuration


class HierarchyEmbedding:
    """Batches of nodes with all their ancestors against negatives shared by the batch, on the softmax loss.

    Only the rows that a batch touches are updated.
    """

    name = "hierarchy"
    Config = HierarchyConfig
    Data = Hierarchy
    kind = "hierarchy"
    takes = "hierarchy"
    monitor = "map"

    def __init__(self, config: HierarchyConfig) -> None:
        self.config = config
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def build(self, config: HierarchyConfig, data: Hierarchy) -> Table:
        """Make the table of points."""
        table: Table = lookup(GEOMETRIES, config.model.geometry, kind="geometry")(data.num_nodes, config.model)
        if config.model.init == "walk":
            table.walk(data.parent, data.starts.diff(), config.model.init_std)
        return table

    def n_batches(self, data: Hierarchy) -> int:
        """Count the batches of an epoch, over nodes that have an ancestor."""
        return -(-len(data.heads) // self.config.train.batch_size)

    def train_batch(self, data: Hierarchy, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Draw nodes with all their ancestors, and shared negatives; see :func:`tasks.hierarchy.loss.softmax_loss`."""
        if self._order is None or self._order[0] != (seed, epoch):  # kept for speed; a function of seed and epoch alone
            permutation = np.random.default_rng([seed, epoch]).permutation(len(data.heads))
            self._order = ((seed, epoch), data.heads[torch.from_numpy(permutation)])
        size = self.config.train.batch_size
        head = self._order[1][index * size : (index + 1) * size]
        count = min(self.config.negatives.count, data.num_nodes)
        rng = np.random.default_rng([seed, epoch, index])
        drawn = torch.from_numpy(rng.choice(data.num_nodes, count, replace=False, shuffle=False))
        edge, tail = ancestors_of(data, head)
        place = torch.full((data.num_nodes,), -1)
        place[drawn] = torch.arange(count)
        row = torch.cat([torch.arange(len(head)), edge])
        column = place[torch.cat([head, tail])]
        row, column = row[column >= 0], column[column >= 0]
        order = torch.argsort(row, stable=True)
        nodes, inverse = torch.unique(torch.cat([head, drawn, tail]), return_inverse=True)
        parts = torch.split(inverse, [len(head), count, len(tail)])
        named = dict(zip(("head", "negative", "tail"), parts, strict=True))
        return {"nodes": nodes, **named, "edge": edge, "row": row[order], "column": column[order]}

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the softmax loss."""
        assert isinstance(model, Table)
        return softmax_loss(model, batch, self.config.negatives.weight or len(batch["negative"])), {}

    def part(self, batch: dict[str, Tensor], rank: int, count: int) -> dict[str, Tensor]:
        """Heads of one process with their edges; the nodes and the negatives are those of all."""
        rows = rows_of_rank(len(batch["head"]), rank, count)
        own, left = ((rows.start <= batch[name]) & (batch[name] < rows.stop) for name in ("edge", "row"))
        return {
            **batch,
            "head": batch["head"][rows],
            "tail": batch["tail"][own],
            "edge": batch["edge"][own] - rows.start,
            "row": batch["row"][left] - rows.start,
            "column": batch["column"][left],
        }

    def weigh(self, batch: dict[str, Tensor]) -> float:
        """Edges that the loss is the mean over."""
        return float(len(batch["edge"]))

    def evaluate(self, model: nn.Module, data: Hierarchy, split: str) -> dict[str, float]:
        """Reconstruct the ancestors of a fixed sample of nodes (``"valid"``), or of all (``"test"``)."""
        assert isinstance(model, Table)
        nodes = data.heads
        if split == "valid" and self.config.valid_nodes < len(nodes):
            chosen = np.random.default_rng(_SAMPLE).choice(len(nodes), self.config.valid_nodes, replace=False)
            nodes = nodes[torch.from_numpy(np.sort(chosen))]
        return reconstruction(model, data, nodes)

    def remarks(self, model: nn.Module) -> list[str]:
        """Warn of points that were stopped at the largest radius: the limit decides their distances, not the data."""
        assert isinstance(model, Table)
        share, radius = model.stopped()
        if share < STOPPED:
            return []
        return [
            f"{share:.0%} of the points lie at the largest radius, {radius:g}, where they are stopped; a smaller --train.lr, "
            "or a larger --model.max_radius"
        ]

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One group; points with their largest radius."""
        return [{"params": model.parameters(), "max_radius": self.config.model.max_radius}]
