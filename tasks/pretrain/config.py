"""Configuration of masked language modelling. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["GEOMETRIES", "POSITIONS", "EncoderConfig", "PretrainConfig", "TextConfig"]

GEOMETRIES = ("lorentz", "euclidean")
POSITIONS = ("rotary", "learned", "sinusoidal")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder, whose output layer shares the points of its tokens.

    Parameters
    ----------
    geometry
        lorentz, or euclidean: the flat twin, with the same free coordinates and parameters within 1 percent
    hidden_size
        size of a point, its time axis included; the twin has one coordinate less
    layers
        of attention and feed-forward maps
    heads
        of each attention; they divide hidden_size - 1
    k
        curvature is -1/k (lorentz); a large one, 1e4, is the flat limit
    learnable_k
        train k (lorentz)
    dropout
        share left out in training, of coordinates and of attention weights
    positions
        rotary, learned or sinusoidal; with the last two, as in any transformer of this size, the loss stays at the
        frequencies of the tokens for many more steps
    """

    geometry: str = "lorentz"
    hidden_size: int = 129
    layers: int = 4
    heads: int = 4
    k: float = 1.0
    learnable_k: bool = False
    dropout: float = 0.0
    positions: str = "rotary"

    def __post_init__(self) -> None:
        require("--model.hidden_size", self.hidden_size, at_least=2)
        require("--model.layers", self.layers, at_least=1)
        require("--model.heads", self.heads, at_least=1)
        require("--model.k", self.k, above=0)
        require("--model.dropout", self.dropout, at_least=0, at_most=0.99)
        for option, given, known in (
            ("geometry", self.geometry, GEOMETRIES),
            ("kind of positions", self.positions, POSITIONS),
        ):
            if given not in known:
                raise UsageError(f"unknown {option} {given!r}. {did_you_mean(given, known)}")
        if (self.hidden_size - 1) % self.heads:
            near = max(round((self.hidden_size - 1) / self.heads), 1) * self.heads + 1
            raise UsageError(
                f"--model.hidden_size counts the time axis, so --model.heads divides {self.hidden_size - 1}; with "
                f"{self.heads} heads take {near}"
            )


@dataclass(frozen=True)
class TextConfig:
    """How text becomes sequences of masked tokens.

    Parameters
    ----------
    vocabulary
        tokens of the byte-level BPE that is learned on the training split
    lowercase
        read capital letters as small ones
    length
        tokens of a sequence
    mask
        share of tokens to predict; of them 80 percent are masked, 10 percent replaced, 10 percent left
    valid_sequences
        sequences of the validation split that are scored, evenly spaced; the test split is scored whole
    """

    vocabulary: int = 8192
    lowercase: bool = True
    length: int = 128
    mask: float = 0.15
    valid_sequences: int = 512

    def __post_init__(self) -> None:
        require("--text.vocabulary", self.vocabulary, at_least=300)
        require("--text.length", self.length, at_least=8)
        require("--text.mask", self.mask, above=0, at_most=0.9)
        require("--text.valid_sequences", self.valid_sequences, at_least=1)


@dataclass(frozen=True)
class PretrainConfig:
    """Masked language modelling from nothing.

    Parameters
    ----------
    data
        pretraining-classics, or a folder with train.txt, valid.txt and test.txt, one paragraph a line
    epoch_steps
        batches that count as an epoch of --train.epochs, or null for a pass over the training split; batches go on
        through the text from epoch to epoch
    seed
        of the initial weights, the batches and their masks
    """

    data: str = "pretraining-classics"
    model: EncoderConfig = field(default_factory=EncoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=2,
            batch_size=16,
            lr=2e-3,
            optimizer="adamw",
            weight_decay=0.01,
            schedule="linear",
            warmup=100,
            eval_every=1,
        )
    )
    epoch_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--epoch_steps", self.epoch_steps, at_least=1)
