"""Similarity-aware negative relations against uniform ones in relation prediction on CoDEx-S.

    python -m benchmarks.relsim_negatives --folder FOLDER [--seeds 0,1,2,3,4]

A small TransE with a bias for each relation ranks the relation of (head, tail); each training triple stands against a
few wrong relations that are no known fact, drawn uniformly or by ``exp(-D / T)`` with D the larger divergence of the
two fact distributions, mixed with the uniform draw. Either arm has six trials on validation data: uniform ones over
learning rate and weight decay, similarity-aware ones at the best of these over temperature and mixture. Then fresh
seeds, and 95 % t intervals of the paired differences. Divergences, trials and scores are kept in FOLDER. Results go
to benchmarks/results/relsim_negatives.json. One thread; data from the folder that HYREL_DATA names.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.argv import parse_seeds
from tasks.data.kg import KnowledgeGraph
from tasks.data.load import load
from tasks.kg.config import ModelConfig
from tasks.kg.scorers import SCORERS
from tasks.similarity.task import graph_facts

from .common import asked, row, save
from .paired import half_width, paired_row
from .relsim_suites import divergence

EPOCHS, BATCH, NEGATIVES, DIM = 30, 500, 4, 65
TUNING_SEED = 100


@dataclass(frozen=True)
class Plan:
    """How a predictor is trained; ``share`` of the negatives are drawn by similarity, at a temperature in nats."""

    lr: float
    decay: float
    share: float = 0.0
    temperature: float = 1.0


def draw_table(kl: NDArray[np.float64], plan: Plan) -> Tensor:
    """Probability of each negative relation given the right one, (R, R), 0 on the diagonal."""
    size = len(kl)
    scaled = torch.from_numpy(-np.maximum(kl, kl.T) / plan.temperature).fill_diagonal_(-torch.inf)
    even = (1.0 - torch.eye(size, dtype=torch.float64)) / (size - 1)
    return plan.share * torch.softmax(scaled, 1) + (1.0 - plan.share) * even


def known_relations(graph: KnowledgeGraph, splits: tuple[str, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """Look up which relations hold between pairs, bool (B, R)."""
    triples = torch.cat([getattr(graph, split) for split in splits])
    key = triples[:, 0] * graph.num_entities + triples[:, 2]
    pairs, place = torch.unique(key, return_inverse=True)
    table = torch.zeros(len(pairs) + 1, graph.num_relations, dtype=torch.bool)  # the last row is of unknown pairs
    table[place, triples[:, 1]] = True

    def look(head: Tensor, tail: Tensor) -> Tensor:
        wanted = head * graph.num_entities + tail
        at = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
        return table[torch.where(pairs[at] == wanted, at, len(pairs))]

    return look


class Predictor(nn.Module):
    """Scores of candidate relations (B, n) of pairs (B,)."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        super().__init__()
        sizes = graph.num_entities, graph.num_relations
        self.scorer = SCORERS["transe"](*sizes, ModelConfig(dim=DIM, margin=0.0, init_std=0.3))
        self.bias = nn.Parameter(torch.zeros(graph.num_relations))

    def forward(self, head: Tensor, tail: Tensor, relations: Tensor) -> Tensor:
        """Scores (B, n)."""
        count, flat = relations.shape[1], relations.flatten()
        score = self.scorer.score(head.repeat_interleave(count), flat, tail.repeat_interleave(count))
        return (score + self.bias[flat]).view(-1, count)


def train(graph: KnowledgeGraph, kl: NDArray[np.float64], plan: Plan, seed: int) -> Predictor:
    """Softmax of the right relation among the drawn wrong ones; the rate falls linearly to zero."""
    torch.manual_seed(seed)
    model = Predictor(graph)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.lr, weight_decay=plan.decay, fused=True)
    table, known = draw_table(kl, plan), known_relations(graph, ("train",))
    generator = torch.Generator().manual_seed(seed)
    steps = EPOCHS * -(-len(graph.train) // BATCH)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if not len(order):
            order = torch.randperm(len(graph.train), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        head, relation, tail = graph.train[rows].unbind(1)
        # A known fact is no negative: its place is taken out of the draw. A pair has wrong relations left, always.
        chance = table[relation].masked_fill(known(head, tail), 0.0)
        wrong = torch.multinomial(chance, NEGATIVES, replacement=True, generator=generator)
        logits = model(head, tail, torch.cat([relation[:, None], wrong], 1))
        loss = F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.int64))
        optimizer.param_groups[0]["lr"] = plan.lr * (1.0 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def predict(model: Predictor, graph: KnowledgeGraph, split: str) -> tuple[Tensor, Tensor]:
    """Filtered rank of the right relation (mean rank on ties), and the best relation that is not another right one."""
    head, relation, tail = getattr(graph, split).unbind(1)
    every = torch.arange(graph.num_relations).expand(len(head), -1)
    score = model(head, tail, every).double()
    target = score.gather(1, relation[:, None])
    score[known_relations(graph, ("train", "valid", "test"))(head, tail)] = -torch.inf
    score.scatter_(1, relation[:, None], target)
    rank = 1 + (score > target).sum(1) + ((score == target).sum(1) - 1) / 2
    return rank, score.argmax(1)


def kept_divergence(graph: KnowledgeGraph, folder: Path) -> NDArray[np.float64]:
    path = folder / f"kl-{graph.name}.npy"
    if not path.exists():
        np.save(path, divergence(graph_facts(graph), 0)[0])
    return np.load(path)


def tuned(graph: KnowledgeGraph, kl: NDArray[np.float64], folder: Path, plain: Plan | None) -> Plan:
    """The best of six trials on validation data; the trials are kept."""
    if plain is None:
        trials = [Plan(lr, decay) for lr, decay in product((0.003, 0.01, 0.03), (0.01, 0.3))]
    else:
        trials = [replace(plain, share=s, temperature=t) for s, t in product((0.5, 1.0), (2.0, 6.0, 20.0))]
    path = folder / f"trials-{'uniform' if plain is None else 'similar'}.json"
    if not path.exists():
        found = [
            float((1 / predict(train(graph, kl, trial, TUNING_SEED), graph, "valid")[0]).mean()) for trial in trials
        ]
        path.write_text(json.dumps([asdict(t) | {"mrr": f} for t, f in zip(trials, found, strict=True)], indent=1))
        print(path.read_text(), flush=True)
    entries = json.loads(path.read_text())
    return trials[int(np.argmax([entry["mrr"] for entry in entries]))]


def scores(graph: KnowledgeGraph, kl: NDArray[np.float64], plan: Plan, seed: int, folder: Path) -> dict[str, Any]:
    """Test scores and predictions of one seed."""
    path = folder / f"test-{'similar' if plan.share else 'uniform'}-{seed}.json"
    if not path.exists():
        rank, best = predict(train(graph, kl, plan, seed), graph, "test")
        found = {
            "mrr": float((1 / rank).mean()),
            "hits@1": float((rank <= 1).double().mean()),
            "predicted": best.tolist(),
        }
        path.write_text(json.dumps(found))
        print(path.name, found["mrr"], found["hits@1"], flush=True)
    return dict(json.loads(path.read_text()))


def predictions(graph: KnowledgeGraph, seeds: list[int], folder: Path) -> list[NDArray[np.int64]]:
    """Predicted relations of the test triples by the tuned predictor with uniform negatives, one array a seed."""
    kl = kept_divergence(graph, folder)
    plain = tuned(graph, kl, folder, None)
    return [np.array(scores(graph, kl, plain, seed, folder)["predicted"]) for seed in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where divergences, trials and scores are kept")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    seeds, graph = parse_seeds(args.seeds), load("CoDEx-S")
    kl = kept_divergence(graph, args.folder)
    plain = tuned(graph, kl, args.folder, None)
    arms = {"uniform negatives": plain, "similarity-aware negatives": tuned(graph, kl, args.folder, plain)}
    found = {name: [scores(graph, kl, plan, seed, args.folder) for seed in seeds] for name, plan in arms.items()}
    most = graph.train[:, 1].bincount().argmax()
    rows = [row("largest relation, hits@1 unfiltered", float((graph.test[:, 1] == most).double().mean()), "1")]
    for metric in ("mrr", "hits@1"):
        values = {name: [one[metric] for one in found[name]] for name in arms}
        for name in arms:
            mean = statistics.mean(values[name])
            rows.append(row(f"{name}, {metric}", mean, "1", n=len(seeds), half=half_width(values[name])))
        rows.append(paired_row(f"similarity-aware minus uniform, {metric}", *reversed(values.values())))
    for entry in rows:
        print(entry["what"], round(entry["value"], 4), entry["spread"])
    print(save("relsim_negatives", asked("relsim_negatives"), rows, threads=1))


if __name__ == "__main__":
    main()
