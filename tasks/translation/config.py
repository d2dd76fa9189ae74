"""Configuration of machine translation. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.pretrain.config import EncoderConfig
from tasks.registry import did_you_mean

__all__ = ["MONITORS", "DecodeConfig", "ModelConfig", "TranslationConfig"]

MONITORS = ("cross_entropy", "bleu")


@dataclass(frozen=True)
class ModelConfig(EncoderConfig):
    """Encoder and decoder over one vocabulary; the output layer shares the points of the tokens.

    Parameters
    ----------
    geometry
        lorentz, or euclidean: the flat twin, with the same free coordinates and parameters within 1 percent
    hidden_size
        size of a point, its time axis included; the twin has one coordinate less
    layers
        of the encoder, and as many of the decoder
    heads
        of each attention; they divide hidden_size - 1
    k
        curvature is -1/k (lorentz); a large one, 1e4, is the flat limit
    learnable_k
        train k (lorentz)
    dropout
        share left out in training, of coordinates and of attention weights
    positions
        rotary, learned or sinusoidal
    """

    layers: int = 3
    dropout: float = 0.1


@dataclass(frozen=True)
class DecodeConfig:
    """Beam search.

    Parameters
    ----------
    beams
        translations kept at each step; 1 is greedy search
    length_penalty
        exponent of the length by which a translation's log-probability is divided
    valid_lines
        lines of the validation split that are translated at every evaluation, evenly spaced; 0 for none
    """

    beams: int = 4
    length_penalty: float = 1.0
    valid_lines: int = 0

    def __post_init__(self) -> None:
        require("--decode.beams", self.beams, at_least=1)
        require("--decode.length_penalty", self.length_penalty)
        require("--decode.valid_lines", self.valid_lines, at_least=0)


@dataclass(frozen=True)
class TranslationConfig:
    """Translation of sentences, from nothing but the training pairs.

    Parameters
    ----------
    data
        name of a parallel text, or a folder with train, valid and test of two languages: train.en and train.de, say
    source
        language that is read
    target
        language that is written
    vocabulary
        tokens of the byte-level BPE that is learned on both sides of the training split
    lowercase
        read and write capital letters as small ones
    max_length
        tokens of a sentence: longer training pairs are left out, longer sentences to translate are cut
    smoothing
        share of the target's probability that is spread over the vocabulary in training
    monitor
        validation metric that selects the model: cross_entropy, or bleu of --decode.valid_lines
    seed
        of the initial weights, the dropout and the batches
    """

    data: str = "Multi30k"
    source: str = "en"
    target: str = "de"
    model: ModelConfig = field(default_factory=ModelConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=20,
            batch_size=64,
            lr=2e-3,
            optimizer="adamw",
            weight_decay=0.01,
            schedule="linear",
            warmup=400,
            eval_every=1,
        )
    )
    vocabulary: int = 6000
    lowercase: bool = False
    max_length: int = 100
    smoothing: float = 0.1
    monitor: str = "cross_entropy"
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--vocabulary", self.vocabulary, at_least=300)
        require("--max_length", self.max_length, at_least=4)
        require("--smoothing", self.smoothing, at_least=0, at_most=0.9)
        if self.source == self.target:
            raise UsageError(f"--source and --target are both {self.source}; give two languages")
        if self.monitor not in MONITORS:
            raise UsageError(f"--monitor {self.monitor}: {did_you_mean(self.monitor, MONITORS)}")
        if self.monitor == "bleu" and not self.decode.valid_lines:
            raise UsageError(
                "--monitor bleu: nothing of the validation split is translated; give --decode.valid_lines 200, say"
            )
