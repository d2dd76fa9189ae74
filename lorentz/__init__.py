"""Fully hyperbolic neural layers in the Lorentz model (Chen et al., ACL 2022).

Points are plain tensors ``x = (time, space)`` with ``<x, x>_L = -k``; the curvature is ``-1/k`` and every size counts
the time axis.
"""

from . import check, math
from .check import check_manifold
from .embedding import LorentzEmbedding
from .linear import LorentzLinear
from .manifold import Lorentz

__all__ = ["Lorentz", "LorentzEmbedding", "LorentzLinear", "check", "check_manifold", "math"]
