"""Configuration of the embedding of taxonomies. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError

__all__ = ["HierarchyConfig", "ModelConfig", "NegativesConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """Geometry and its sizes.

    Parameters
    ----------
    geometry
        lorentz, or euclidean (its twin)
    dim
        size of a point with its time axis; the twin has dim - 1 coordinates
    k
        curvature is -1/k; a large k is the flat limit
    distance
        geodesic, or squared (Lorentzian or Euclidean)
    scale
        factor of the distance in the softmax
    max_radius
        points stay within this distance of the origin; null for the optimiser's default (10 times the root of k in float32)
    init
        start: walk (every node a normal step from its parent in the taxonomy that is fitted) or normal (all about the
        origin, as in the papers, whose figures only this start may stand beside; it wants a slow warm-up, see the recipe
        mammals-6-normal)
    init_std
        deviation of each coordinate of the step, or of the point
    """

    geometry: str = "lorentz"
    dim: int = 11
    k: float = 1.0
    distance: str = "geodesic"
    scale: float = 1.0
    max_radius: float | None = None
    init: str = "walk"
    init_std: float = 0.3

    def __post_init__(self) -> None:
        require("--model.dim", self.dim, at_least=2)
        for name in ("k", "scale", "max_radius", "init_std"):
            require(f"--model.{name}", getattr(self, name), above=0)
        if self.max_radius is not None and self.geometry == "lorentz" and self.max_radius > 40 * self.k**0.5:
            raise UsageError(
                f"--model.max_radius must be at most 40 times the root of k, {40 * self.k**0.5:g}, beyond which the squared "
                f"coordinates of a point overflow float32; got {self.max_radius:g}"
            )
        if self.init not in ("walk", "normal"):
            raise UsageError(f"--model.init is walk or normal, got {self.init!r}")
        if self.distance not in ("geodesic", "squared"):
            raise UsageError(f"--model.distance is geodesic or squared, got {self.distance!r}")


@dataclass(frozen=True)
class NegativesConfig:
    """Nodes that a batch shares as negatives.

    Parameters
    ----------
    count
        drawn uniformly without replacement for each batch; as many as there are nodes, or more, means all
    weight
        how many negatives the sum over them stands for; null for as many as are drawn
    """

    count: int = 1000
    weight: float | None = None

    def __post_init__(self) -> None:
        require("--negatives.count", self.count, at_least=1)
        require("--negatives.weight", self.weight, above=0)


@dataclass(frozen=True)
class HierarchyConfig:
    """Embedding of a taxonomy: every node closer to its ancestors than to anything else.

    The whole transitive closure is fitted and reconstructed, as in the papers: there is no held-out part. The validation
    score is that of a fixed sample of nodes, the test score that of all.

    Parameters
    ----------
    data
        name of a data set, or a file of edges (descendant TAB ancestor)
    valid_nodes
        nodes whose reconstruction is followed during training
    seed
        of the initial points, the batches and the negatives
    """

    data: str = "WordNet-mammals"
    model: ModelConfig = field(default_factory=ModelConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=200, batch_size=512, lr=0.1, optimizer="riemannian_adam", clip=None, schedule="hold"
        )
    )
    valid_nodes: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--valid_nodes", self.valid_nodes, at_least=1)
        if self.train.clip is not None:
            raise UsageError("--train.clip must be null for a hierarchy: gradients are sparse and have no norm to clip")
        if self.train.optimizer in ("adam", "adamw", "sgd"):
            raise UsageError(
                f"--train.optimizer {self.train.optimizer} takes no sparse gradients, which a hierarchy has; take "
                "riemannian_adam, riemannian_sgd or adagrad"
            )
        if self.train.optimizer == "adagrad" and self.train.weight_decay:
            raise UsageError("adagrad on sparse gradients takes no --train.weight-decay; take riemannian_adam")
