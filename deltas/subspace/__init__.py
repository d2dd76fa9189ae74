"""The unified optimisation subspace: solutions of different delta methods as points of one space of few dimensions.

After Yi et al., "Different Tunes Played with Equal Skill: Exploring a Unified Optimization Subspace for Delta Tuning"
(Findings of EMNLP 2022).
"""

from .controls import full_space, pca_subspace, random_subspace, shuffled
from .interpolation import INTERPOLATIONS
from .landscape import Landscape, Plane, landscape
from .objective import TaskLoss
from .projectors import PROJECTORS
from .solutions import Solutions
from .subspace import IntrinsicSubspace, Objective

__all__ = [
    "INTERPOLATIONS",
    "PROJECTORS",
    "IntrinsicSubspace",
    "Landscape",
    "Objective",
    "Plane",
    "Solutions",
    "TaskLoss",
    "full_space",
    "landscape",
    "pca_subspace",
    "random_subspace",
    "shuffled",
]
