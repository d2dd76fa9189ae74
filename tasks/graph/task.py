"""The task of link prediction and node classification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor, nn

from lorentz import SparseMatrix, neighbourhood
from tasks.data.graphs import Graph
from tasks.registry import lookup

from .config import METRICS, GraphConfig
from .features import Inputs, has_negative, node_features
from .models import ENCODERS, Encoder
from .splits import PUBLISHED_SEED, SHARES, split_links, split_nodes

__all__ = ["GraphTask", "Prepared"]


@dataclass
class Prepared:
    """What training and evaluation read of a graph, for one problem and split.

    Attributes
    ----------
    features : of the nodes
    graph : weights of the message graph, loops included
    edges : lp: training edges (M, 2); edges and non-edges (P, 2) of ``valid`` and ``test`` in `pairs`, edges first
    nodes, labels : nc: nodes of each split, and the labels of all nodes
    """

    features: Inputs
    graph: SparseMatrix
    classes: int = 0
    edges: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    pairs: dict[str, Tensor] = field(default_factory=dict)
    nodes: dict[str, Tensor] = field(default_factory=dict)
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


def _weights(edges: np.ndarray, nodes: int, normalisation: str) -> SparseMatrix:
    pairs = torch.from_numpy(edges.T.copy())
    return neighbourhood(torch.cat([pairs, pairs.flip(0)], 1), nodes, normalisation=normalisation)


class GraphTask:
    """One graph, one batch an epoch. Link prediction passes messages along training edges alone."""

    name = "graph"
    Config = GraphConfig
    Data = Graph
    kind = "graph"
    takes = "plain graph"
    alone = "a batch is the whole graph"

    def __init__(self, config: GraphConfig) -> None:
        self.config = config
        self.monitor = config.monitor or METRICS[config.problem][0]
        self._made: tuple[str, Prepared] | None = None

    def prepare(self, data: Graph) -> Prepared:
        """Split the graph and prepare its features; done once for each content."""
        if self._made is None or self._made[0] != data.sha256:
            make = self._links if self.config.problem == "lp" else self._classes
            if data.split == "own" and self.config.normalise_features and has_negative(data.features):
                data.warnings.append(
                    f"features of {data.name} have values below 0, and each row is divided by its sum, which may turn signs "
                    "round; --normalise_features false leaves them as they are"
                )
            self._made = data.sha256, make(data)
        return self._made[1]

    def _links(self, data: Graph) -> Prepared:
        seed = PUBLISHED_SEED if self.config.split_seed is None else self.config.split_seed
        split = split_links(data.edges, data.nodes, seed=seed)
        data.split = f"5 % validation, 10 % test edges, seed {seed}"
        pairs = {
            "valid": np.concatenate([split.valid, split.valid_false]),
            "test": np.concatenate([split.test, split.test_false]),
        }
        config = self.config
        return Prepared(
            node_features(data, split.train, classify=False, normalise=config.normalise_features),
            _weights(split.train, data.nodes, config.model.normalisation),
            edges=split.train,
            keys=np.sort(split.train[:, 0] * data.nodes + split.train[:, 1]),
            pairs={name: torch.from_numpy(pair.T.copy()) for name, pair in pairs.items()},
        )

    def _classes(self, data: Graph) -> Prepared:
        parts, warnings = split_nodes(data, seed=self.config.split_seed)
        data.warnings += [warning for warning in warnings if warning not in data.warnings]
        if self.config.split_seed is not None:
            data.split = f"fresh, seed {self.config.split_seed}"
        elif data.parts is None and data.name not in SHARES:
            data.split = "fresh, seed 0"
        config = self.config
        return Prepared(
            node_features(data, data.edges, classify=True, normalise=config.normalise_features),
            _weights(data.edges, data.nodes, config.model.normalisation),
            classes=data.classes,
            nodes={split: torch.from_numpy(part) for split, part in parts.items()},
            labels=torch.from_numpy(data.labels),
        )

    def build(self, config: GraphConfig, data: Graph) -> Encoder:
        """Make the encoder."""
        made = self.prepare(data)
        encoder = lookup(ENCODERS, config.model.encoder, kind="encoder")
        return encoder(config, made.features, made.graph, made.classes)

    def n_batches(self, data: Graph) -> int:
        """One."""
        return 1

    def train_batch(self, data: Graph, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Training edges (2, M) and as many pairs of nodes that are none of them; or training nodes and their labels."""
        made = self.prepare(data)
        if self.config.problem == "nc":
            nodes = made.nodes["train"]
            return {"nodes": nodes, "labels": made.labels[nodes]}
        draw = np.random.default_rng([seed, epoch, index])
        drawn = np.empty((0, 2), np.int64)
        count = len(made.edges)
        while len(drawn) < count:
            pairs = np.sort(draw.integers(0, data.nodes, (count + count // 8 + 8, 2)), 1)
            key = pairs[:, 0] * data.nodes + pairs[:, 1]
            place = np.searchsorted(made.keys, key).clip(max=count - 1)
            drawn = np.concatenate([drawn, pairs[made.keys[place] != key]])
        both = np.concatenate([made.edges, drawn[:count]])
        return {"pairs": torch.from_numpy(both.T.copy())}

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss."""
        assert isinstance(model, Encoder)
        loss, h = self.config.loss, model()
        if "labels" in batch:
            scores, labels = model.class_scores(h, batch["nodes"]), batch["labels"]
            if loss.kind == "cross_entropy":
                return F.cross_entropy(scores, labels), {}
            # As published: the true class is among those it is compared with, where it adds a constant.
            return F.relu(loss.margin - scores.gather(1, labels[:, None]) + scores).mean(), {}
        if loss.kind == "fermi_dirac":
            positive, negative = model.edge_logits(h, batch["pairs"]).chunk(2)
            return (F.softplus(-positive).mean() + F.softplus(negative).mean()) / 2, {}
        positive, negative = model.proximity(h, batch["pairs"]).chunk(2)
        # Half, as in the published mean over both members of a pair: the gradient's norm is clipped.
        return F.relu(loss.margin - positive + negative).mean() / 2, {}

    def evaluate(self, model: nn.Module, data: Graph, split: str) -> dict[str, float]:
        """Areas under the curves of edges against non-edges; or F1 (binary for two classes, else micro) and accuracy."""
        assert isinstance(model, Encoder)
        made, h = self.prepare(data), model()
        if self.config.problem == "lp":
            scores = model.proximity(h, made.pairs[split].to(h.device)).detach().double().cpu()
            if not bool(torch.isfinite(scores).all()):
                return dict.fromkeys(METRICS["lp"], float("nan"))  # the runner says so
            truth = torch.arange(len(scores)) < len(scores) // 2
            auc, ap = float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))
            return {"roc_auc": auc, "ap": ap, "auc_ap": (auc + ap) / 2}
        nodes = made.nodes[split].to(h.device)
        scores = model.class_scores(h, nodes).detach()
        if not bool(torch.isfinite(scores).all()):
            return dict.fromkeys(METRICS["nc"], float("nan"))
        found, truth = scores.argmax(1).cpu(), made.labels[made.nodes[split]]
        average = "binary" if made.classes == 2 else "micro"
        return {
            "f1": float(f1_score(truth, found, average=average)),
            "accuracy": float((found == truth).double().mean()),
        }

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Matrices with the weight decay of the configuration; biases, scales and points without."""
        decayed = [p for p in model.parameters() if p.ndim > 1 and not hasattr(p, "manifold")]
        known = {id(p) for p in decayed}
        rest = [p for p in model.parameters() if id(p) not in known]
        return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
