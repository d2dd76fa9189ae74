"""Configuration of knowledge-graph completion. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import ADDED, TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

RANKS = ("mrr", "hits@1", "hits@3", "hits@10")
METRICS = {
    "link": [f"{protocol}{metric}" for protocol in ("", "paper_") for metric in RANKS],
    "relation": [f"relation_{metric}" for metric in RANKS],
    "triples": ["triples_accuracy", "triples_f1", "triples_roc_auc"],
}
LOSSES = ("logistic", "self_adversarial", "cross_entropy", "margin")
ROTATING = ("lorentz_rotate", "rotate", "lorentz_rote", "rote")
DIAGONAL = ("distmult", "complex")
COUNT, WEIGHT = 500, 50.0

__all__ = ["LOSSES", "METRICS", "KGConfig", "LossConfig", "ModelConfig", "NegativesConfig", "RegularizationConfig"]


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"unknown {value!r} to --{option}. {did_you_mean(value, known)}")


@dataclass(frozen=True)
class ModelConfig:
    """Scorer and its sizes.

    Parameters
    ----------
    scorer
        Lorentz: hybonet, lorentz_transe (boosts), lorentz_rotate (rotations), lorentz_rote (both); their Euclidean twins
        mure, transe, rotate, rote; bilinear: complex, distmult, rescal
    dim
        size of an entity; the time axis of Lorentz scorers counts, and Euclidean ones have dim - 1 coordinates
    k
        curvature is -1/k (Lorentz scorers); 1e6 is flat
    margin
        the score of two equal points without biases; of bilinear scorers a constant
    scale
        bound of the relation transform's sigmoid (hybonet)
    max_norm
        cap on the space norm of entities, or null
    init_std
        deviation of the initial coordinates
    start
        relation matrices and rotations at the start: uniform, or identity (plus noise), which fits small graphs with few
        negatives better but ranks the head itself high
    bound
        what scale bounds (hybonet): time, as in the published script, or space, as in the paper's equation
    rotation
        givens (an angle for each pair of coordinates) or full (a whole rotation matrix), of scorers that rotate
    """

    scorer: str = "hybonet"
    dim: int = 32
    k: float = 1.0
    margin: float = 6.0
    scale: float = 3.5
    max_norm: float | None = 1.5
    init_std: float = 0.3
    start: str = "uniform"
    bound: str = field(default="time", metadata=ADDED)
    rotation: str = field(default="givens", metadata=ADDED)

    def __post_init__(self) -> None:
        require("--model.dim", self.dim, at_least=2)
        require("--model.margin", self.margin)
        for name in ("k", "scale", "max_norm", "init_std"):
            require(f"--model.{name}", getattr(self, name), above=0)
        if self.start not in ("uniform", "identity"):
            raise UsageError(f"--model.start is uniform or identity, got {self.start!r}")
        _one_of("model.bound", self.bound, ("time", "space"))
        _one_of("model.rotation", self.rotation, ("givens", "full"))
        if self.bound == "space" and self.scorer != "hybonet":
            raise UsageError(f"--model.bound space is of hybonet; leave it out for {self.scorer}")
        if self.rotation == "full" and self.scorer not in ROTATING:
            raise UsageError(
                f"--model.rotation full is of {', '.join(ROTATING)}; leave it out for {self.scorer}, or take one of them"
            )
        if self.scorer == "complex" and self.dim % 2 == 0:
            raise UsageError(
                f"complex numbers are pairs, and --model.dim counts a time axis beside them, so it is odd; got {self.dim}: "
                f"take {self.dim - 1} or {self.dim + 1}"
            )
        if self.scorer in ROTATING and self.dim < 3:
            raise UsageError(
                f"{self.scorer} rotates pairs of coordinates: --model.dim must be at least 3, got {self.dim}"
            )


@dataclass(frozen=True)
class NegativesConfig:
    """Corrupted tails.

    Parameters
    ----------
    count
        entities drawn: once for a whole batch, without replacement, or for each triple (see sharing)
    weight
        how many negatives a triple's loss counts them as (logistic loss)
    filter
        which true triples never serve as negatives: train, all (the published script's way) or none
    sharing
        batch (one draw for all triples of a batch), triple (a draw for each) or all (no draw: every entity is a candidate)
    """

    count: int = COUNT
    weight: float = WEIGHT
    filter: str = "train"
    sharing: str = field(default="batch", metadata=ADDED)

    def __post_init__(self) -> None:
        require("--negatives.count", self.count, at_least=1)
        require("--negatives.weight", self.weight, at_least=0)
        if self.filter not in ("train", "all", "none"):
            raise UsageError(f"--negatives.filter is train, all or none; got {self.filter!r}")
        _one_of("negatives.sharing", self.sharing, ("batch", "triple", "all"))
        if self.sharing == "all" and self.count != COUNT:
            raise UsageError(
                "--negatives.count is for drawn negatives; leave it out, or take --negatives.sharing batch or triple"
            )


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Parameters
    ----------
    kind
        logistic; self_adversarial (logistic, hard negatives weighted more); cross_entropy (the tail among its negatives);
        margin (each negative at least margin below)
    margin
        of the margin loss
    temperature
        of self-adversarial weights: softmax(temperature * score) over the negatives of a triple
    smoothing
        label smoothing (logistic and cross_entropy)
    multi_label
        one example for each (head, relation), all its training tails true (logistic with --negatives.sharing all)
    """

    kind: str = "logistic"
    margin: float = 1.0
    temperature: float = 1.0
    smoothing: float = 0.0
    multi_label: bool = False

    def __post_init__(self) -> None:
        _one_of("loss.kind", self.kind, LOSSES)
        require("--loss.margin", self.margin, above=0)
        require("--loss.temperature", self.temperature, at_least=0)
        require("--loss.smoothing", self.smoothing, at_least=0, at_most=0.5)
        for option, kind in (("margin", "margin"), ("temperature", "self_adversarial")):
            if getattr(self, option) != 1.0 and self.kind != kind:
                raise UsageError(f"--loss.{option} is of --loss.kind {kind}; leave it out for {self.kind}")
        if self.smoothing and self.kind not in ("logistic", "cross_entropy"):
            raise UsageError(f"--loss.smoothing is of logistic and cross_entropy; leave it out for {self.kind}")
        if self.multi_label and self.kind != "logistic":
            raise UsageError(f"--loss.multi_label is of the logistic loss; take --loss.kind logistic, not {self.kind}")


@dataclass(frozen=True)
class RegularizationConfig:
    """What keeps the model from fitting the training triples alone, beside the norm cap ``model.max_norm``.

    Parameters
    ----------
    n3
        weight of the cubed moduli of head, relation and tail, a triple (complex, distmult)
    dropout
        probability by which a coordinate of an entity becomes 0
    """

    n3: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require("--regularization.n3", self.n3, at_least=0)
        require("--regularization.dropout", self.dropout, at_least=0, at_most=0.9)


@dataclass(frozen=True)
class KGConfig:
    """Link prediction on a knowledge graph.

    Parameters
    ----------
    data
        name of a data set, or a folder with train, valid and test triples (head, relation, tail)
    monitor
        validation metric that selects the model: mrr (standard protocol), paper_mrr, relation_mrr, triples_accuracy, ...
    seed
        of the initial weights, the batches and the negatives
    evaluate
        what is measured: link (rank the tail and the head), relation (rank the relation), triples (tell true ones from
        hard negatives); one, a list, or several with commas
    sparse
        update the entities of a batch alone (optimizers adam, riemannian_adam and riemannian_sgd)
    """

    data: str = "WN18RR"
    model: ModelConfig = field(default_factory=ModelConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(lr=0.01, schedule="hold"))
    monitor: str = "mrr"
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig, metadata=ADDED)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig, metadata=ADDED)
    evaluate: str | list[str] = field(default="link", metadata=ADDED)
    sparse: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        require_seed(self.seed)
        if not isinstance(self.evaluate, str):  # one spelling, so that hashes are equal
            object.__setattr__(self, "evaluate", ",".join(self.evaluate))
        for name in self.measured:
            _one_of("evaluate", name, tuple(METRICS))
        metrics = [metric for name in self.measured for metric in METRICS[name]]
        if self.monitor not in metrics:
            owner = next((name for name, known in METRICS.items() if self.monitor in known), None)
            if owner:
                raise UsageError(f"--monitor {self.monitor} needs --evaluate {','.join([*self.measured, owner])}")
            raise UsageError(f"unknown metric {self.monitor!r} to --monitor. {did_you_mean(self.monitor, metrics)}")
        self._check_loss()
        if self.sparse:
            self._check_sparse()

    @property
    def measured(self) -> list[str]:
        """Names in ``evaluate``."""
        return [name.strip() for name in str(self.evaluate).split(",")]

    def _check_loss(self) -> None:
        kind, everything = self.loss.kind, self.negatives.sharing == "all"
        if self.negatives.weight != WEIGHT and (kind != "logistic" or self.loss.multi_label):
            raise UsageError(f"--negatives.weight is of the logistic loss of drawn tails; leave it out for {kind}")
        if self.loss.multi_label and not everything:
            raise UsageError("--loss.multi_label needs every entity as a candidate: add --negatives.sharing all")
        if self.loss.multi_label and self.negatives.filter != "train":
            raise UsageError("--loss.multi_label takes the training triples as true; leave --negatives.filter at train")
        if self.regularization.n3 and self.model.scorer not in DIAGONAL:
            raise UsageError(
                f"--regularization.n3 is of {' and '.join(DIAGONAL)}; for {self.model.scorer} take --model.max_norm or "
                f"--regularization.dropout"
            )

    def _check_sparse(self) -> None:
        if self.negatives.sharing == "all":
            raise UsageError("with --negatives.sharing all every entity has a gradient; leave --sparse out")
        if self.train.optimizer not in ("adam", "riemannian_adam", "riemannian_sgd"):
            raise UsageError(
                f"--sparse works with --train.optimizer adam, riemannian_adam and riemannian_sgd, not "
                f"{self.train.optimizer}"
            )
        if self.train.optimizer == "adam" and self.train.weight_decay:
            raise UsageError(
                "sparse Adam takes no --train.weight-decay; take --train.optimizer riemannian_adam, whose decay is that of "
                "the rows of a batch, or leave --sparse out"
            )
