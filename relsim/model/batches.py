"""Training batches of facts as a pure function of (seed, epoch, index), grouped so that softmax rows are shared."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from relsim.facts import Facts

__all__ = ["FactBatches"]


class FactBatches:
    """Batches of whole (head, relation) groups, with shared negatives where there are many entities.

    ``batch(epoch, index, seed)`` depends on its arguments alone, so a training run can be resumed from them.

    Parameters
    ----------
    facts
        The training facts, at least one.
    batch_size
        Groups, that is softmax rows of the tail term, a batch.
    negatives
        Draws a batch for the sampled normaliser; 0 for the exact one. By default 0 up to ``exact_below`` entities,
        where the exact normaliser is as cheap, and 2000 above.
    exact_below
        Entity count up to which the default is the exact normaliser.

    Raises
    ------
    ValueError
        For empty facts or non-positive sizes.
    """

    def __init__(
        self, facts: Facts, *, batch_size: int = 1024, negatives: int | None = None, exact_below: int = 4000
    ) -> None:
        if len(facts) == 0:
            raise ValueError("facts is empty: there is nothing to fit. Was everything below the minimum support?")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1 group a batch")
        if negatives is None:
            negatives = 0 if facts.num_entities <= exact_below else 2000
        if negatives < 0:
            raise ValueError(f"negatives is {negatives}, expected 0 (exact softmax) or more draws a batch")
        self.facts, self.batch_size, self.negatives = facts, batch_size, negatives
        head, relation, tail = facts.head.numpy(), facts.relation.numpy(), facts.tail.numpy()
        self._order = np.lexsort((tail, head, relation))
        key = (relation * facts.num_entities + head)[self._order]
        self._start = np.flatnonzero(np.diff(key, prepend=-1))
        self._stop = np.append(self._start[1:], len(key))
        self._epoch: tuple[tuple[int, int], np.ndarray[tuple[int], np.dtype[np.int64]]] | None = None
        self._total = facts.count.double().sum() / len(self)
        # Half uniform so that no entity has a huge correction, half by (dampened) use as an argument.
        use = np.bincount(np.concatenate([head, tail]), minlength=facts.num_entities) ** 0.75
        self._q = 0.5 / facts.num_entities + 0.5 * use / use.sum()

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return -(-len(self._start) // self.batch_size)

    def batch(self, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Return one batch as :meth:`FactDistribution.loss` takes it.

        Parameters
        ----------
        epoch, index, seed
            Each at least 0, index below ``len(self)``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of epoch {epoch} asked for, there are {len(self)}")
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            self._epoch = (seed, epoch), np.random.default_rng([seed, epoch]).permutation(len(self._start))
        groups = self._epoch[1][index * self.batch_size : (index + 1) * self.batch_size]
        size = self._stop[groups] - self._start[groups]
        offset = np.repeat(self._start[groups] - np.cumsum(size) + size, size)
        rows = torch.from_numpy(self._order[offset + np.arange(size.sum())])
        facts = self.facts
        batch = {
            "head": facts.head[rows],
            "relation": facts.relation[rows],
            "tail": facts.tail[rows],
            "count": facts.count[rows],
            "total": self._total,
        }
        if self.negatives:
            rng = np.random.default_rng([seed, epoch, index])
            # A systematic draw: every entity is taken floor or ceil of its expected number of times.
            edges = np.cumsum(self._q) / self._q.sum() * self.negatives
            points = np.searchsorted(edges, (np.arange(self.negatives) + rng.random()), side="right")
            ids, copies = np.unique(np.minimum(points, len(edges) - 1), return_counts=True)
            batch["negatives"] = torch.from_numpy(ids)
            batch["correction"] = torch.from_numpy(np.log(copies / (self.negatives * self._q[ids])))
        return batch
