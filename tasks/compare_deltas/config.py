"""Options of the comparison. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.config import require
from tasks.errors import UsageError

__all__ = ["CONTROLS", "CompareConfig"]

# Rows that stand in every comparison: what the rest is measured against, and what needs no backbone.
CONTROLS = ("full", "head", "majority", "tfidf")


@dataclass(frozen=True)
class CompareConfig:
    """Delta methods side by side.

    The defaults are a first look: eight methods on MiniLM in less than ten minutes of one core. For numbers to rely on take
    several seeds, --steps 300 --batch-size 32 --max-train 2000 --lr-factors 0.3,1,3, and all rows, --max-eval null.

    Parameters
    ----------
    model
        one or several backbones by commas, as --model.name of the task text takes them
    data
        one or several data sets of the task text by commas
    deltas
        methods by commas, combinations by +, or all; full, head, majority and tfidf come beside them
    budget
        trained parameters: every method with a size gets the one that comes nearest, others keep theirs; null for defaults
    steps
        training steps
    batch_size
        examples a step
    max_train
        most training rows
    max_eval
        most validation and test rows each, or null
    max_length
        tokens of an example that are read
    lr_factors
        multiples of each method's usual learning rate by commas: it takes the one with the best validation score on the first
        data set, with a seed that is in no row; a single one is taken as it is; null for the usual rate
    head_lr
        learning rate of the head beside a delta or full fine-tuning
    evaluations
        evaluations on validation data during training, of which the best is kept
    group_by_length
        whether the texts of a training batch are of like length, which saves about 40 percent of the time
    costs
        whether to measure time and memory of a step too
    threads
        CPU threads
    """

    model: str = "minilm"
    data: str = "SST-2"
    deltas: str = "LoRA,Adapter,ParallelAdapter,Compacter,PrefixTuning,IA3,BitFit,LNTuning"
    budget: int | None = None
    steps: int = 100
    batch_size: int = 16
    max_train: int = 1600
    max_eval: int | None = 400
    max_length: int = 64
    lr_factors: str | None = None
    head_lr: float = 1e-2
    evaluations: int = 3
    group_by_length: bool = True
    costs: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("budget", "steps", "batch_size", "max_train", "max_eval", "evaluations", "threads"):
            require(f"--{name}", getattr(self, name), at_least=1)
        require("--head_lr", self.head_lr, above=0)
        for name in ("model", "data", "deltas"):
            words = [word.strip() for word in getattr(self, name).split(",")]
            if not all(words):
                raise UsageError(f"--{name} {getattr(self, name)!r}: names by commas, LoRA,BitFit for example")
            if twice := sorted({word for word in words if words.count(word) > 1}):
                raise UsageError(f"--{name} names {' and '.join(twice)} twice; every row of a comparison is another")
        try:
            factors = self.factors
        except ValueError:
            raise UsageError(f"--lr_factors {self.lr_factors!r}: numbers by commas, 0.3,1,3 for example") from None
        if any(not factor > 0 for factor in factors):
            raise UsageError(f"--lr_factors {self.lr_factors!r}: learning rates are positive")

    @property
    def factors(self) -> list[float]:
        """Multiples of the usual learning rate to choose among; none if each method has that."""
        return [float(word) for word in self.lr_factors.split(",")] if self.lr_factors else []

    @property
    def models(self) -> list[str]:
        """Backbones."""
        return [word.strip() for word in self.model.split(",")]

    @property
    def sets(self) -> list[str]:
        """Data sets."""
        return [word.strip() for word in self.data.split(",")]
