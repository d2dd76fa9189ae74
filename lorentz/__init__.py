"""Fully hyperbolic neural layers in the Lorentz model (Chen et al., ACL 2022).

Points are plain tensors ``x = (time, space)`` with ``<x, x>_L = -k``; the curvature is ``-1/k`` and every size counts
the time axis.
"""

from . import check, flat, geodesics, models, optim, tangent, transport
from . import math as math  # no name of `import *`, which would hide the standard module
from .attention import LorentzMultiheadAttention
from .cache import LorentzCache
from .check import check_manifold
from .convolution import LorentzConv1d, LorentzConv2d
from .embedding import LorentzEmbedding
from .graph import LorentzGraphConv, neighbourhood
from .graph_attention import LorentzGraphAttention
from .heads import FermiDirac, LorentzClassifier
from .linear import LorentzLinear
from .manifold import Lorentz
from .normalization import LorentzBatchNorm, LorentzDropout, LorentzLayerNorm, LorentzRMSNorm
from .pooling import LorentzPooling
from .positional import LearnedPositions, SinusoidalPositions, rotary, rotate, shift
from .rotations import givens, rotation_matrix
from .sampling import wrapped_normal
from .sparse import SparseMatrix
from .stacks import LorentzTransformerDecoder, LorentzTransformerEncoder
from .transformer import LorentzTransformerDecoderLayer, LorentzTransformerEncoderLayer
from .transforms import Boost, LorentzTransform, Rotation, boost, boost_matrix, nearest_lorentz, polar

__all__ = [
    "Boost",
    "FermiDirac",
    "LearnedPositions",
    "Lorentz",
    "LorentzBatchNorm",
    "LorentzCache",
    "LorentzClassifier",
    "LorentzConv1d",
    "LorentzConv2d",
    "LorentzDropout",
    "LorentzEmbedding",
    "LorentzGraphAttention",
    "LorentzGraphConv",
    "LorentzLayerNorm",
    "LorentzLinear",
    "LorentzMultiheadAttention",
    "LorentzPooling",
    "LorentzRMSNorm",
    "LorentzTransform",
    "LorentzTransformerDecoder",
    "LorentzTransformerDecoderLayer",
    "LorentzTransformerEncoder",
    "LorentzTransformerEncoderLayer",
    "Rotation",
    "SinusoidalPositions",
    "SparseMatrix",
    "boost",
    "boost_matrix",
    "check",
    "check_manifold",
    "flat",
    "geodesics",
    "givens",
    "models",
    "nearest_lorentz",
    "neighbourhood",
    "optim",
    "polar",
    "rotary",
    "rotate",
    "rotation_matrix",
    "shift",
    "tangent",
    "transport",
    "wrapped_normal",
]
