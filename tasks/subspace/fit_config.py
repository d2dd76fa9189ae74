"""Configuration of the approximation of a subspace. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["INTERPOLATIONS", "PROJECTORS", "FitConfig", "own_projectors"]

PROJECTORS = ("dense", "low-rank", "fastfood", "block")
INTERPOLATIONS = ("simplex", "stick-breaking")


def own_projectors(text: str | None) -> dict[str, str]:
    """Projectors by method, of METHOD=KIND by commas.

    Raises
    ------
    UsageError : another form, an unknown kind, or a method twice.
    """
    found: dict[str, str] = {}
    for word in (word.strip() for word in (text or "").split(",") if word.strip()):
        name, equals, kind = (part.strip() for part in word.partition("="))
        if not equals:
            raise UsageError(f"--own_projectors {word!r}: METHOD=KIND by commas")
        if kind not in PROJECTORS:
            raise UsageError(f"unknown projector {kind!r}. {did_you_mean(kind, PROJECTORS)}")
        if name in found:
            raise UsageError(f"--own_projectors {text!r}: {name} stands there twice")
        found[name] = kind
    return found


@dataclass(frozen=True)
class FitConfig:
    """One subspace for the solutions of several tasks and delta methods.

    Parameters
    ----------
    data
        sets of texts by commas, on which there are solutions
    solutions
        folder with a run of the task text, with --delta and --model.head words, for each set and method: SET/METHOD
    methods
        their folders' names by commas; each is one method of the subspace
    dim
        dimensions
    projector
        dense, low-rank, fastfood or block
    own_projectors
        METHOD=KIND by commas, for methods with another one: FullFineTuning=fastfood
    reconstruction
        weight of the distance of the solutions from the subspace, beside the loss of the tasks
    task_loss
        whether the loss of the tasks counts too
    interpolation
        random weights of the methods' points: simplex (uniform), or stick-breaking as in the paper
    squared
        squared distance; the paper's is not
    shuffle
        hand every method's solutions round the tasks, a control
    valid_rows
        validation rows of each set on which the loss is measured
    seed
        of the first values and the batches
    """

    data: str = "SST-2"
    solutions: str = "runs/solutions"
    methods: str = "Adapter,LoRA,PrefixTuning"
    dim: int = 4
    projector: str = "dense"
    own_projectors: str | None = None
    reconstruction: float = 1.0
    task_loss: bool = True
    interpolation: str = "simplex"
    squared: bool = False
    shuffle: bool = False
    valid_rows: int = 64
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            max_steps=600, eval_steps=100, batch_size=16, lr=1e-2, optimizer="adam", schedule="linear", clip=None
        )
    )
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--dim", self.dim, at_least=1)
        require("--valid_rows", self.valid_rows, at_least=1)
        require("--reconstruction", self.reconstruction, at_least=0)
        for option, known in (("projector", PROJECTORS), ("interpolation", INTERPOLATIONS)):
            if (given := getattr(self, option)) not in known:
                raise UsageError(f"unknown {option} {given!r}. {did_you_mean(given, known)}")
        if not all(self.names) or len(set(self.names)) < len(self.names):
            raise UsageError(f"--methods {self.methods!r}: names by commas, each once")
        for name in self.own:
            if name not in self.names:
                raise UsageError(f"--own_projectors names {name}, which is no method. {did_you_mean(name, self.names)}")
        if self.shuffle and "," not in self.data:
            raise UsageError("--shuffle hands solutions round the tasks, and there is one task")

    @property
    def names(self) -> list[str]:
        """Methods."""
        return [word.strip() for word in self.methods.split(",")]

    @property
    def own(self) -> dict[str, str]:
        """Projectors of methods that have another one."""
        return own_projectors(self.own_projectors)
