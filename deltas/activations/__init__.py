"""Activation-compressed training: what a forward pass saves for the backward pass, at a few bits a number.

After Liu et al., "GACT: Activation Compressed Training for Generic Network Architectures" (ICML 2022).
"""

from .calibration import Calibration, allocate
from .compressor import ActivationCompressor
from .functions import consistent_attention
from .groups import BITS, Groups, Noise, quantise
from .policy import Policy
from .report import Line, Report

__all__ = [
    "BITS",
    "ActivationCompressor",
    "Calibration",
    "Groups",
    "Line",
    "Noise",
    "Policy",
    "Report",
    "allocate",
    "consistent_attention",
    "quantise",
]
