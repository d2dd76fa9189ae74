"""Relation vectors of TransE, DistMult and RESCAL, trained for link prediction on the facts of a suite."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from relsim.facts import Facts
from tasks.config import TrainConfig
from tasks.data.kg import KnowledgeGraph
from tasks.kg.config import KGConfig, ModelConfig, NegativesConfig
from tasks.kg.scorers import SCORERS
from tasks.kg.task import KnowledgeGraphCompletion

__all__ = ["relation_vectors"]

EPOCHS, BATCH, LR, DIM = {"transe": 10, "distmult": 10, "rescal": 5}, 1000, 5e-3, 101


def relation_vectors(name: str, facts: Facts, *, seed: int) -> NDArray[np.float64]:
    """Vectors (R, m) after a training with shared negatives and reciprocal relations; RESCAL's are matrices of 50 x 50."""
    triples = torch.stack([facts.head, facts.relation, facts.tail], 1)
    none = triples[:0]
    digest = hashlib.sha256(triples.numpy().tobytes()).hexdigest()
    graph = KnowledgeGraph("suite", triples, none, none, facts.entities, facts.relations, digest)
    config = KGConfig(
        model=ModelConfig(dim=51 if name == "rescal" else DIM, margin=0.0, init_std=0.1),
        negatives=NegativesConfig(count=300, weight=10.0),
        train=TrainConfig(epochs=EPOCHS[name], batch_size=BATCH, lr=LR),
        seed=seed,
    )
    torch.manual_seed(seed)
    task, model = KnowledgeGraphCompletion(config), SCORERS[name](facts.num_entities, facts.num_relations, config.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    batches = task.n_batches(graph)
    for step in range(EPOCHS[name] * batches):
        optimizer.param_groups[0]["lr"] = LR * (1.0 - step / (EPOCHS[name] * batches))
        loss, _ = task.step(model, task.train_batch(graph, step // batches, step % batches, seed))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.relation_vectors().detach().double().numpy()
