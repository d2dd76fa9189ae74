"""Encoders of nodes on one interface: embeddings, scores of pairs, and scores of classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz import (
    FermiDirac,
    Lorentz,
    LorentzClassifier,
    LorentzGraphAttention,
    LorentzGraphConv,
    LorentzLinear,
    SparseMatrix,
)
from lorentz import math as lmath

from .config import GraphConfig
from .features import Inputs
from .layers import EuclideanLinear, FeatureLinear, GraphAttention, TangentConv

__all__ = ["ENCODERS", "Encoder"]

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu, "tanh": torch.tanh, "elu": F.elu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
}  # fmt: skip


def _squared(x: Tensor, pairs: Tensor) -> Tensor:
    """Differences (P, d) of the rows that pairs (2, P) name."""
    return x.index_select(0, pairs[0]) - x.index_select(0, pairs[1])


class Encoder(nn.Module):
    """Model of a graph. It holds the graph and the features, which are no parameters.

    Parameters
    ----------
    features : Tensor or SparseMatrix, shape (N, d)
    graph : SparseMatrix (N, N), rows that sum to 1
    classes : number of classes, or 0
    """

    head: nn.Module | None

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.features, self.graph = features, graph
        self.activation = ACTIVATIONS.get(config.model.activation)

    def inputs(self) -> tuple[Inputs, SparseMatrix]:
        """Features and graph on the device of the parameters."""
        device = next(self.parameters()).device
        if self.graph.index.device != device:
            self.features, self.graph = self.features.to(device), self.graph.to(device)
        return self.features, self.graph

    def act(self, x: Tensor) -> Tensor:
        """Activation between layers."""
        return x if self.activation is None else self.activation(x)

    @abstractmethod
    def forward(self) -> Tensor:
        """Embeddings (N, d) of all nodes."""

    @abstractmethod
    def proximity(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Negative squared distances (P,) of pairs (2, P) that the margin loss compares."""

    def edge_logits(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Logits (P,) of the Fermi-Dirac probability of an edge, by the geodesic distance."""
        return (self.config.loss.r + self.proximity(h, pairs)) / self.config.loss.t

    def class_scores(self, h: Tensor, nodes: Tensor) -> Tensor:
        """Scores (n, classes) of nodes (n,): linear ones, or negative squared distances of points to one of each class."""
        assert self.head is not None
        scores: Tensor = self.head(h.index_select(0, nodes))
        return scores


class _LorentzEncoder(Encoder):
    """Points of the hyperboloid, and decoders by distances between them."""

    bounded = False  # whether the layers bound the radius of what they return

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        model = config.model
        self.manifold = Lorentz(model.k)
        self.decoder = FermiDirac(config.loss.r, config.loss.t, manifold=self.manifold)
        self.head = LorentzClassifier(model.dim, classes, manifold=self.manifold) if classes else None

    def proximity(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Negative squared Lorentzian distances; plain where the layers are bounded, so that points are near the origin."""
        if not self.bounded:
            return -self.manifold.sqdist(h.index_select(0, pairs[0]), h.index_select(0, pairs[1]))
        difference = _squared(h, pairs)
        return difference[:, 0].square() - difference[:, 1:].square().sum(-1)

    def edge_logits(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Logits by the geodesic distance."""
        logits: Tensor = self.decoder(h.index_select(0, pairs[0]), h.index_select(0, pairs[1]))
        return logits

    def inputs(self) -> tuple[Inputs, SparseMatrix]:
        """Points of dense features, or sparse features; and the graph."""
        x, graph = super().inputs()
        return (self.manifold.lift(x) if isinstance(x, Tensor) else x), graph

    def start(self, linear: LorentzLinear) -> None:
        """Initial weights of the published script: uniform in 1 / sqrt(out_features), none on the time."""
        bound = linear.out_features**-0.5
        nn.init.uniform_(linear.weight, -bound, bound)
        with torch.no_grad():
            linear.weight[:, 0] = 0
        if not self.config.model.time_weights:
            linear.weight.register_hook(lambda grad: F.pad(grad[:, 1:], (1, 0)))


class LorentzGCN(_LorentzEncoder):
    """Lorentz linear maps and centroids of neighbours."""

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        model = config.model
        self.first = FeatureLinear(
            features.shape[1] + 1, model.dim, manifold=self.manifold, variant=model.variant, dropout=model.dropout,
            scale=model.scale,
        )  # fmt: skip
        self.layers = nn.ModuleList(
            LorentzGraphConv(
                model.dim, model.dim, manifold=self.manifold, variant=model.variant, dropout=model.dropout,
                scale=model.scale, activation=self.activation,
            )
            for _ in range(model.layers)
        )  # fmt: skip
        self.bounded = model.variant != "unbounded"
        first = self.layers[0]
        assert isinstance(first, LorentzGraphConv)
        first.linear = self.first
        del self.first
        for layer in self.layers:
            assert isinstance(layer, LorentzGraphConv)
            self.start(layer.linear)

    def forward(self) -> Tensor:
        """Points (N, dim)."""
        h, graph = self.inputs()
        for layer in self.layers:
            assert isinstance(layer, LorentzGraphConv)
            h = layer.combine(layer.linear(h), graph)
        assert isinstance(h, Tensor)
        return h


class LorentzAttention(_LorentzEncoder):
    """A Lorentz linear map of the features, then attention layers over the edges."""

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        model = config.model
        self.first = FeatureLinear(
            features.shape[1] + 1, model.dim, manifold=self.manifold, variant=model.variant, dropout=model.dropout,
            scale=model.scale,
        )  # fmt: skip
        self.start(self.first)
        self.layers = nn.ModuleList(
            LorentzGraphAttention(
                model.dim, model.dim, model.heads, manifold=self.manifold, self_loops=False,
                activation=self.activation if i else None, dropout=model.dropout,
            )
            for i in range(model.layers)
        )  # fmt: skip

    def forward(self) -> Tensor:
        """Points (N, dim)."""
        x, graph = self.inputs()
        h: Tensor = self.first(x)
        edges = graph.index.flip(0)  # sources and targets, loops among them
        for layer in self.layers:
            h = layer(h, edges)
        return h


class HGCN(Encoder):
    """Tangent-space convolutions; links by the geodesic distance, classes by a linear map of the tangent vector."""

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        model = config.model
        self.manifold = Lorentz(model.k)
        sizes = [features.shape[1], *[model.dim - 1] * model.layers]
        self.layers = nn.ModuleList(
            TangentConv(a, b, manifold=self.manifold, dropout=model.dropout) for a, b in pairwise(sizes)
        )
        self.head = nn.Linear(model.dim - 1, classes) if classes else None

    returns_points = False

    def forward(self) -> Tensor:
        """Tangent vectors (N, dim - 1)."""
        h, graph = self.inputs()
        for layer in self.layers:
            h = self.act(layer(h, graph))
        assert isinstance(h, Tensor)
        return h

    def proximity(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Negative squared geodesic distances."""
        points = lmath.expmap0(F.pad(h, (1, 0)), k=self.manifold.k)
        return -self.manifold.dist2(points.index_select(0, pairs[0]), points.index_select(0, pairs[1]))


class _EuclideanEncoder(Encoder):
    def proximity(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Negative squared distances."""
        return -_squared(h, pairs).square().sum(-1)

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        self.sizes = [features.shape[1], *[config.model.dim - 1] * config.model.layers]
        self.head = nn.Linear(config.model.dim - 1, classes) if classes else None


class GCN(_EuclideanEncoder):
    """Linear maps and means of neighbours: Kipf and Welling, ICLR 2017."""

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        self.layers = nn.ModuleList(
            EuclideanLinear(a, b, dropout=config.model.dropout) for a, b in pairwise(self.sizes)
        )

    def forward(self) -> Tensor:
        """Vectors (N, dim - 1)."""
        h, graph = self.inputs()
        for i, layer in enumerate(self.layers):
            h = graph @ layer(self.act(h) if i and isinstance(h, Tensor) else h)
        assert isinstance(h, Tensor)
        return h


class GAT(_EuclideanEncoder):
    """Attention over the edges: Velickovic et al., ICLR 2018."""

    def __init__(self, config: GraphConfig, features: Inputs, graph: SparseMatrix, classes: int) -> None:
        super().__init__(config, features, graph, classes)
        self.layers = nn.ModuleList(
            GraphAttention(a, b, config.model.heads, dropout=config.model.dropout) for a, b in pairwise(self.sizes)
        )

    def forward(self) -> Tensor:
        """Vectors (N, dim - 1)."""
        h, graph = self.inputs()
        for i, layer in enumerate(self.layers):
            h = layer(self.act(h) if i and isinstance(h, Tensor) else h, graph)
        assert isinstance(h, Tensor)
        return h


ENCODERS: dict[str, type[Encoder]] = {
    "lorentz_gcn": LorentzGCN,
    "lorentz_attention": LorentzAttention,
    "hgcn": HGCN,
    "gcn": GCN,
    "gat": GAT,
}
