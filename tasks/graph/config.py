"""Configuration of the graph task. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["ENCODER_NAMES", "LOSSES", "METRICS", "GraphConfig", "LossConfig", "ModelConfig"]

ENCODER_NAMES = ("lorentz_gcn", "lorentz_attention", "hgcn", "gcn", "gat")
ACTIVATIONS = ("none", "relu", "tanh", "elu", "leaky_relu")
LOSSES = {"lp": ("margin", "fermi_dirac"), "nc": ("margin", "cross_entropy")}
METRICS = {"lp": ("auc_ap", "roc_auc", "ap"), "nc": ("f1", "accuracy")}


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"unknown {option} {value!r}. {did_you_mean(value, known)}")


@dataclass(frozen=True)
class ModelConfig:
    """The encoder of the nodes.

    Parameters
    ----------
    encoder
        lorentz_gcn, lorentz_attention, hgcn (tangent space), gcn or gat (Euclidean)
    dim
        size of a node's point, time axis included; encoders without one have dim - 1 coordinates
    layers
        graph convolutions (published scripts for node classification count their decoder as one more)
    k
        curvature is -1/k (lorentz_gcn, lorentz_attention, hgcn)
    heads
        attention heads (lorentz_attention, gat)
    dropout
        share of a layer's input coordinates left out in training; of the weights' entries for hgcn
    activation
        between layers: none, relu, tanh, elu or leaky_relu
    variant
        of the Lorentz linear map: paper, sigmoid_time or unbounded (lorentz_gcn)
    scale
        initial bound of the sigmoid (lorentz_gcn)
    time_weights
        learn the weights on the time coordinate; no for the flat limit, k large, where time is a constant that would act as
        a second bias of size sqrt(k)
    normalisation
        of the neighbours' weights: row or symmetric
    """

    encoder: str = "lorentz_gcn"
    dim: int = 16
    layers: int = 2
    k: float = 1.0
    heads: int = 1
    dropout: float = 0.0
    activation: str = "none"
    variant: str = "sigmoid_time"
    scale: float = 10.0
    time_weights: bool = True
    normalisation: str = "row"

    def __post_init__(self) -> None:
        _one_of("encoder", self.encoder, ENCODER_NAMES)
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("normalisation", self.normalisation, ("row", "symmetric"))
        _one_of("variant", self.variant, ("paper", "sigmoid_time", "unbounded"))
        require("--model.dim", self.dim, at_least=2)
        require("--model.layers", self.layers, at_least=1)
        require("--model.heads", self.heads, at_least=1)
        require("--model.k", self.k, above=0)
        require("--model.scale", self.scale, above=0)
        require("--model.dropout", self.dropout, at_least=0, at_most=0.99)
        if (self.dim - 1) % self.heads and self.encoder in ("lorentz_attention", "gat"):
            raise UsageError(f"--model.heads must divide dim - 1 = {self.dim - 1}, got {self.heads}")


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Parameters
    ----------
    kind
        margin: hinge on the difference of scores; fermi_dirac (lp): cross-entropy of the Fermi-Dirac probability of an edge;
        cross_entropy (nc)
    margin
        of the hinge
    r
        squared distance at which an edge is as likely as not (fermi_dirac)
    t
        temperature (fermi_dirac)
    """

    kind: str = "margin"
    margin: float = 2.0
    r: float = 2.0
    t: float = 1.0

    def __post_init__(self) -> None:
        require("--loss.margin", self.margin, above=0)
        require("--loss.r", self.r)
        require("--loss.t", self.t, above=0)


@dataclass(frozen=True)
class GraphConfig:
    """Link prediction (lp) or node classification (nc) on one graph, which is one batch.

    Parameters
    ----------
    data
        name of a data set, or a folder with edges.csv and, where there are, features.npy, labels.npy and idx_*.npy
    problem
        lp or nc; --task is understood as well
    normalise_features
        divide each row by its sum, as published
    split_seed
        null for the published split (drawn with seed 1234 where none is fixed); a number draws a fresh one
    monitor
        validation metric that selects the model; null for auc_ap, the mean of roc_auc and ap, with lp, and f1 with nc
    seed
        of the initial weights, the negatives and dropout
    """

    ALIASES: ClassVar[dict[str, str]] = {"task": "problem"}

    data: str = "Airport"
    problem: str = "lp"
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=5000, batch_size=1, lr=0.02, optimizer="riemannian_adam", eval_every=5, patience=100
        )
    )
    normalise_features: bool = True
    split_seed: int | None = None
    monitor: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        if self.split_seed is not None:
            require_seed(self.split_seed)
        if self.train.batch_size != 1:
            raise UsageError(
                f"--train.batch_size {self.train.batch_size} is of no use here: the whole graph is one batch; leave it out"
            )
        if self.problem not in METRICS:
            raise UsageError(f"--problem is lp (link prediction) or nc (node classification), got {self.problem!r}")
        _one_of(f"loss of {self.problem}", self.loss.kind, LOSSES[self.problem])
        if self.monitor is not None:
            _one_of(f"metric of {self.problem} to --monitor", self.monitor, METRICS[self.problem])
