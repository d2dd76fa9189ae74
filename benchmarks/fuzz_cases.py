"""Random trainings: what a seed stands for, drawn before anything is built, so that one line tells all of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from random import Random
from typing import Any

import torch

from lorentz.check import safe_radius
from lorentz.linear import VARIANTS
from lorentz.transforms import PARAMETRISATIONS

__all__ = ["CURVATURES", "Case", "Layer", "draw"]

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
PRECISIONS = ("float32", "float32", "float64", "bfloat16", "autocast", "float16")
OPTIMIZERS = ("RiemannianAdam", "RiemannianSGD", "Adam")
MASKS = ("none", "bool", "additive", "padding")
FARTHEST = 20.0  # in units of sqrt(k): as far as the library promises digits
# Matrix products of float16 end at 65504: nearer inputs, slower steps, and no batch norm, whose gain has no bound.
FARTHEST_16, FASTEST_16 = safe_radius(torch.float16), 0.01


@dataclass(frozen=True)
class Layer:
    """One layer: its kind, the size of its points, time axis included, and its options."""

    kind: str
    size: int
    options: dict[str, Any]

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items() if value not in (None, False, 0.0)]
        return f"{self.kind}({', '.join([str(self.size), *options])})"


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes
    ----------
    task : "classes", "distances" or "edges"
    source : "points", "table" (rows of an embedding) or "tokens" (sequences of either)
    precision : dtype of parameters and inputs; "autocast" and "float16" are float32 under autocast to bfloat16 and float16,
        "float16" with a gradient scaler
    radius : distance of the inputs to the origin; with `mixed` every point draws its own below it
    clip : largest norm of the gradient of all dense parameters, or None
    """

    seed: int
    task: str
    source: str
    precision: str
    k: float
    learnable: bool
    optimizer: str
    lr: float
    clip: float | None
    decay: float
    momentum: float
    radius: float
    mixed: bool
    batch: int
    length: int
    size: int
    head: dict[str, Any]
    table: dict[str, Any] | None
    layers: tuple[Layer, ...]

    def __str__(self) -> str:
        """One line."""
        options = {"clip": self.clip, "weight_decay": self.decay, "momentum": self.momentum, **self.head}
        extra = " ".join(f"{name}={value}" for name, value in options.items() if value)
        source = self.source + ("" if self.table is None else f" of a table {self.table}")
        return (
            f"seed {self.seed}: {self.task} from {source}, {self.precision}, k={self.k:g}"
            f"{' learnable' if self.learnable else ''}, {self.optimizer} lr={self.lr:.2e} {extra}, "
            f"{self.batch} x {self.length} inputs at radius {'up to ' if self.mixed else ''}{self.radius:.2e}, "
            f"{self.size} -> {' -> '.join(map(str, self.layers))}"
        )


def _log_uniform(random: Random, low: float, high: float) -> float:
    return exp(random.uniform(log(low), log(high)))


def _layer(random: Random, kind: str, size: int) -> Layer:
    """A layer of this kind on points of this size."""
    if kind == "linear":
        options = {
            "variant": random.choice(VARIANTS),
            "activation": random.choice((None, None, "relu", "gelu", "tanh")),
            "dropout": random.choice((0.0, 0.0, 0.2)),
            "bias": random.random() < 0.8,
            "k": random.choice((None, None, None, None, *CURVATURES)),
        }
        residual = options["k"] is None and random.random() < 0.3
        return Layer(kind, size if residual else random.randint(2, 64), {**options, "residual": residual})
    if kind == "attention":
        heads = random.choice([n for n in (1, 2, 3, 4, 6, 8) if (size - 1) % n == 0])
        cross, even = random.random() < 0.2, (size - 1) // heads % 2 == 0
        options = {
            "heads": heads,
            "dropout": random.choice((0.0, 0.0, 0.2)),
            "rotary_base": 100.0 if even and not cross and random.random() < 0.3 else None,
            "mask": random.choice(MASKS),
            "is_causal": random.random() < 0.3,
            "cross": cross,
            "need_weights": random.random() < 0.2,
            "residual": random.random() < 0.5,
        }
        return Layer(kind, size, options)
    if kind in ("rotation", "transform"):
        return Layer(kind, size, {"parametrisation": random.choice(PARAMETRISATIONS)})
    if kind == "positions":
        return Layer(kind, size, {"learned": random.random() < 0.5})
    return Layer(kind, size, {})


def draw(seed: int) -> Case:
    """The training that this seed stands for."""
    random = Random(seed)
    task = random.choice(("classes", "distances", "edges"))
    source = random.choice(("points", "table", "tokens"))
    precision = random.choice(PRECISIONS)
    optimizer = random.choice(OPTIMIZERS)
    k = random.choice(CURVATURES)
    size = random.choice((2, 3, 5, 9, 17, 33, 64, random.randint(2, 64)))
    low = precision == "float16"
    kinds = ["linear"] * 4 + ["layer_norm", "rms_norm", "dropout", "boost", "rotation", "transform"]
    kinds += [] if low else ["batch_norm"]
    kinds += ["attention"] * 4 if source == "tokens" else []
    layers = [_layer(random, "positions", size)] if source == "tokens" and random.random() < 0.5 else []
    for _ in range(random.randint(1, 6)):
        layers.append(_layer(random, random.choice(kinds), layers[-1].size if layers else size))
    if all(layer.kind in ("dropout", "positions") for layer in layers):  # nothing to learn
        layers.append(_layer(random, "linear", size))
    table = None
    if source == "table" or (source == "tokens" and random.random() < 0.5):
        table = {"sparse": optimizer != "Adam" and random.random() < 0.6, "padding_idx": random.choice((None, 0))}
    head: dict[str, Any] = {}
    if task == "classes":
        head = {"kind": random.choice(("prototype", "mlr")), "bias": random.random() < 0.7}
    elif task == "edges":
        head = {"learnable": random.random() < 0.5}
    sgd = optimizer == "RiemannianSGD"
    return Case(
        seed=seed,
        task=task,
        source=source,
        precision=precision,
        k=k,
        learnable=random.random() < 0.3,
        optimizer=optimizer,
        lr=_log_uniform(random, 1e-4, FASTEST_16 if low else 1.0),
        # Plain gradient descent at these rates diverges on any network whose inputs have norms of 1e8.
        clip=1.0 if sgd or random.random() < 0.5 else None,
        decay=random.choice((0.0, 0.0, 0.01, 0.1)),
        momentum=random.choice((0.0, 0.9)) if sgd else 0.0,
        radius=min(_log_uniform(random, 1e-6, 20.0), (FARTHEST_16 if low else FARTHEST) * k**0.5),
        mixed=random.random() < 0.5,
        batch=random.choice((2, 8, 32, 64)) if source != "tokens" else random.choice((2, 4, 8)),
        length=1 if source != "tokens" else random.choice((1, 2, 7, 16)),
        size=size,
        head=head,
        table=table,
        layers=tuple(layers),
    )
