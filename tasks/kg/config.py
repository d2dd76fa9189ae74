"""Configuration of knowledge-graph completion. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

METRICS = [f"{protocol}{metric}" for protocol in ("", "paper_") for metric in ("mrr", "hits@1", "hits@3", "hits@10")]

__all__ = ["METRICS", "KGConfig", "ModelConfig", "NegativesConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """Scorer and its sizes.

    Parameters
    ----------
    scorer
        hybonet (Lorentz) or mure (its Euclidean twin)
    dim
        size of an entity; for hybonet the time axis counts
    k
        curvature is -1/k (Lorentz scorers)
    margin
        the score of two equal points without biases
    scale
        bound of the relation transform's sigmoid
    max_norm
        cap on the space norm of entities, or null
    init_std
        deviation of the initial entity coordinates
    start
        relation matrices at the start: uniform, or identity (plus the same noise), which fits small graphs with few
        negatives better but ranks the head itself high
    """

    scorer: str = "hybonet"
    dim: int = 32
    k: float = 1.0
    margin: float = 6.0
    scale: float = 3.5
    max_norm: float | None = 1.5
    init_std: float = 0.3
    start: str = "uniform"

    def __post_init__(self) -> None:
        require("--model.dim", self.dim, at_least=2)
        require("--model.margin", self.margin)
        for name in ("k", "scale", "max_norm", "init_std"):
            require(f"--model.{name}", getattr(self, name), above=0)
        if self.start not in ("uniform", "identity"):
            raise UsageError(f"--model.start is uniform or identity, got {self.start!r}")


@dataclass(frozen=True)
class NegativesConfig:
    """Corrupted tails that a batch shares.

    Parameters
    ----------
    count
        entities drawn without replacement for each batch
    weight
        how many negatives a triple's loss counts them as
    filter
        which true triples never serve as negatives: train, all (the published script's way) or none
    """

    count: int = 500
    weight: float = 50.0
    filter: str = "train"

    def __post_init__(self) -> None:
        require("--negatives.count", self.count, at_least=1)
        require("--negatives.weight", self.weight, at_least=0)
        if self.filter not in ("train", "all", "none"):
            raise UsageError(f"--negatives.filter is train, all or none; got {self.filter!r}")


@dataclass(frozen=True)
class KGConfig:
    """Link prediction on a knowledge graph.

    Parameters
    ----------
    data
        name of a data set, or a folder with train, valid and test triples (head, relation, tail)
    monitor
        validation metric that selects the model: mrr (standard protocol) or paper_mrr
    seed
        of the initial weights, the batches and the negatives
    """

    data: str = "WN18RR"
    model: ModelConfig = field(default_factory=ModelConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(lr=0.01, schedule="hold"))
    monitor: str = "mrr"
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        if self.monitor not in METRICS:
            raise UsageError(f"unknown metric {self.monitor!r} to --monitor. {did_you_mean(self.monitor, METRICS)}")
