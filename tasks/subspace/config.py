"""Options of the study of a subspace. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from tasks.config import require
from tasks.errors import UsageError
from tasks.registry import did_you_mean

from .fit_config import INTERPOLATIONS, PROJECTORS, own_projectors

__all__ = ["CONTROLS", "StudyConfig"]

CONTROLS = ("random", "pca", "shuffled")


@dataclass(frozen=True)
class StudyConfig:
    """The unified subspace of delta methods, from trained solutions to tables.

    Parameters
    ----------
    model
        one or several backbones by commas, as --model.name of the task text takes them
    head
        frozen label vectors: words or means, see --model.head of the task text
    deltas
        methods by commas; FullFineTuning is one too
    budget
        trained parameters of every method, where it has a size; null for the methods' own sizes
    data
        sets of texts by commas, whose solutions make the subspace; with one it is the subspace of a single task
    unseen
        sets by commas on which points are trained; rows with a text of the sets above are left out
    dims
        dimensions of the subspaces by commas
    projector
        dense, low-rank, fastfood or block
    own_projectors
        METHOD=KIND by commas, for methods with another one; FullFineTuning takes fastfood where nothing is said
    interpolation
        random weights of the methods' points: simplex, or stick-breaking as in the paper
    squared
        squared distance of the solutions; the paper's is not
    reconstruction
        weight of that distance beside the loss of the tasks
    controls
        by commas: random directions, pca of the solutions, shuffled solutions; null for none
    max_train
        most training rows of a set
    shots
        training rows of each class instead
    max_eval
        most validation and test rows of a set, each
    max_length
        tokens of an example that are read
    batch_size
        examples a step
    steps
        training steps of a solution
    lr_factor
        learning rate of solutions, in multiples of each method's usual one
    fit_steps
        steps of the approximation
    point_steps
        training steps of a point on an unseen set
    point_lr
        learning rates of a point by commas: of several, the one with the best validation score is taken, by subspace, method
        and set
    grid
        points along a side of the landscape; 0 for none
    planes
        random planes beside it, of three dimensions or more
    landscape_rows
        validation rows scored at each point of a plane
    threads
        CPU threads
    """

    model: str = "minilm"
    head: str = "words"
    deltas: str = "Adapter,LoRA,PrefixTuning"
    budget: int | None = None
    data: str = "SST-2,SST-5,CoLA,MRPC,SICK-E,MPQA"
    unseen: str = "CR,SUBJ,TREC,AG-News"
    dims: str = "4"
    projector: str = "dense"
    own_projectors: str | None = None
    interpolation: str = "simplex"
    squared: bool = False
    reconstruction: float = 1.0
    controls: str | None = "random,pca,shuffled"
    max_train: int | None = 1000
    shots: int | None = None
    max_eval: int | None = 500
    max_length: int = 64
    batch_size: int = 16
    steps: int = 600
    lr_factor: float = 1.0
    fit_steps: int = 600
    point_steps: int = 300
    point_lr: str = "0.1"
    grid: int = 7
    planes: int = 3
    landscape_rows: int = 100
    threads: int = 1

    def __post_init__(self) -> None:
        for name in (
            "budget",
            "max_train",
            "shots",
            "max_eval",
            "batch_size",
            "steps",
            "fit_steps",
            "point_steps",
            "threads",
        ):
            require(f"--{name}", getattr(self, name), at_least=1)
        require("--reconstruction", self.reconstruction, at_least=0)
        require("--grid", self.grid, at_least=0)
        if self.grid == 1:
            raise UsageError("--grid 1: a landscape has 2 points along a side or more, and 0 is none")
        require("--lr_factor", self.lr_factor, above=0)
        require("--planes", self.planes, at_least=0)
        require("--landscape_rows", self.landscape_rows, at_least=1)
        for name in ("model", "deltas", "data", "unseen"):
            words = self._words(name)
            if twice := sorted({word for word in words if words.count(word) > 1}):
                raise UsageError(f"--{name}: {twice[0]} stands there twice")
        if both := sorted(set(self.sets) & set(self.unseen_sets)):
            raise UsageError(f"--data and --unseen both name {both[0]}; unseen sets have no part in the subspace")
        for control in self.control_names:
            if control not in CONTROLS:
                raise UsageError(f"unknown control {control!r}. {did_you_mean(control, CONTROLS)}")
        for option, known in (
            ("projector", PROJECTORS),
            ("interpolation", INTERPOLATIONS),
            ("head", ("words", "means")),
        ):
            if (given := getattr(self, option)) not in known:
                raise UsageError(f"unknown {option} {given!r}. {did_you_mean(given, known)}")
        _ = self.own  # refuses what is misspelt
        for name, kind in (("dims", int), ("point_lr", float)):
            try:
                values = [kind(word) for word in getattr(self, name).split(",")]
            except ValueError:
                values = []
            if not values or not all(0 < value < inf for value in values) or len(set(values)) < len(values):
                what = "whole numbers above 0" if kind is int else "numbers above 0"
                raise UsageError(f"--{name} {getattr(self, name)!r}: {what} by commas, each once")

    def _words(self, name: str) -> list[str]:
        words = [word.strip() for word in getattr(self, name).split(",")]
        if not all(words):
            raise UsageError(f"--{name} {getattr(self, name)!r}: names by commas")
        return words

    @property
    def models(self) -> list[str]:
        """Backbones."""
        return self._words("model")

    @property
    def sets(self) -> list[str]:
        """Sets whose solutions make the subspace."""
        return self._words("data")

    @property
    def unseen_sets(self) -> list[str]:
        """Sets on which points are trained."""
        return self._words("unseen")

    @property
    def dimensions(self) -> list[int]:
        """Dimensions of the subspaces."""
        return [int(word) for word in self.dims.split(",")]

    @property
    def rates(self) -> list[float]:
        """Learning rates of points."""
        return [float(word) for word in self.point_lr.split(",")]

    @property
    def own(self) -> dict[str, str]:
        """Projectors of methods that have another one."""
        return own_projectors(self.own_projectors)

    @property
    def control_names(self) -> list[str]:
        """Controls; solutions of one task cannot be shuffled."""
        words = dict.fromkeys(word.strip() for word in (self.controls or "").split(",") if word.strip())
        return [word for word in words if word != "shuffled" or len(self.sets) > 1]
