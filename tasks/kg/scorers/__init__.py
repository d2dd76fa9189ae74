"""Scorers of triples by name, and the Euclidean twin of each Lorentz one."""

from __future__ import annotations

from .base import EuclideanDistanceScorer, EuclideanScorer, LorentzScorer, Scorer
from .classic import RESCAL, ComplEx, DistMult, TransE
from .hybonet import HyboNet, MuRE
from .isometry import LorentzRotatE, LorentzRotE, LorentzTransE, RotatE, RotE

__all__ = [
    "RESCAL",
    "SCORERS",
    "TWINS",
    "ComplEx",
    "DistMult",
    "EuclideanDistanceScorer",
    "EuclideanScorer",
    "HyboNet",
    "LorentzRotE",
    "LorentzRotatE",
    "LorentzScorer",
    "LorentzTransE",
    "MuRE",
    "RotE",
    "RotatE",
    "Scorer",
    "TransE",
]

SCORERS: dict[str, type[Scorer]] = {
    "hybonet": HyboNet,
    "mure": MuRE,
    "lorentz_transe": LorentzTransE,
    "transe": TransE,
    "lorentz_rotate": LorentzRotatE,
    "rotate": RotatE,
    "lorentz_rote": LorentzRotE,
    "rote": RotE,
    "complex": ComplEx,
    "distmult": DistMult,
    "rescal": RESCAL,
}

TWINS = {"hybonet": "mure", "lorentz_transe": "transe", "lorentz_rotate": "rotate", "lorentz_rote": "rote"}
