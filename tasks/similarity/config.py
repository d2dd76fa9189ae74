"""Configuration of relation similarity. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["GEOMETRIES", "SUITE_NAMES", "DistributionConfig", "SimilarityConfig"]

SUITE_NAMES = ("none", "disjoint", "overlapping", "capped-10", "capped-50", "capped-200", "biased", "kinds")
GEOMETRIES = ("euclidean", "lorentz")


@dataclass(frozen=True)
class DistributionConfig:
    """The fact distribution.

    Parameters
    ----------
    geometry
        euclidean: logits are dot products; lorentz: Lorentzian inner products of points on the hyperboloid
    dim
        size of an entity; with lorentz the time axis counts
    hidden
        width of both hidden layers
    dropout
        share of hidden units left out in training
    k
        curvature is -1/k (lorentz)
    warm_start
        start entities and relations from a factorisation of counts instead of at random
    """

    geometry: str = "euclidean"
    dim: int = 100
    hidden: int = 256
    dropout: float = 0.1
    k: float = 1.0
    warm_start: bool = True

    def __post_init__(self) -> None:
        require("--model.dim", self.dim, at_least=2)
        require("--model.hidden", self.hidden, at_least=1)
        require("--model.dropout", self.dropout, at_least=0, at_most=0.99)
        require("--model.k", self.k, above=0)
        if self.geometry not in GEOMETRIES:
            raise UsageError(f"unknown geometry {self.geometry!r}. {did_you_mean(self.geometry, GEOMETRIES)}")


@dataclass(frozen=True)
class SimilarityConfig:
    """Relation similarity from fact distributions.

    Parameters
    ----------
    data
        name of a data set, or a folder with train, valid and test triples (head, relation, tail); the training triples
        are used
    suite
        which known answer is planted: disjoint, overlapping, capped-10, capped-50, capped-200, biased, kinds; or none, which
        writes the similarity of the relations as they are, similarity/pairs.tsv in the folder of the run
    held_out
        share of each relation's facts kept from training, half of it for validation and half for the test; the default
        grows where it leaves none
    negatives
        entities drawn for a sampled normaliser, or 0 for the exact one; by default exact up to 4000 entities, else 2000
    heads
        heads in the pool that the divergences are summed over
    seed
        of the suite, the initial weights, the batches and the pool
    """

    data: str = "FB15k-237"
    suite: str = "disjoint"
    model: DistributionConfig = field(default_factory=DistributionConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=8,
            batch_size=512,
            lr=5e-3,
            optimizer="adamw",
            weight_decay=3.0,
            schedule="linear",
            clip=None,
            eval_every=1,
        )
    )
    held_out: float = 0.04
    negatives: int | None = None
    heads: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        if self.train.precision != "fp32":
            raise UsageError(
                f"--train.precision {self.train.precision}: the sums of a fact distribution are taken in fp32"
            )
        require("--heads", self.heads, at_least=1)
        require("--negatives", self.negatives, at_least=0)
        require("--held_out", self.held_out, above=0, at_most=0.5)
        if self.suite not in SUITE_NAMES:
            raise UsageError(f"unknown suite {self.suite!r}. {did_you_mean(self.suite, SUITE_NAMES)}")
