"""Activations of a training step, held at a few bits where the configuration says so."""

from __future__ import annotations

from typing import Any

from torch import nn

from deltas.activations import ActivationCompressor, Policy

from .config import TrainConfig

__all__ = ["bytes_held", "compressor_of"]


def compressor_of(model: nn.Module, train: TrainConfig, seed: int) -> ActivationCompressor | None:
    """What holds the activations of a step, where the configuration asks for it."""
    if train.activation_bits is None:
        return None
    return ActivationCompressor(
        model, bits=train.activation_bits, policy=Policy(marked=train.activation_points), seed=seed
    )


def bytes_held(compressor: ActivationCompressor | None) -> dict[str, Any] | None:
    """Bytes of the last step of this process, for ``result.json``; None where there was none."""
    if compressor is None or compressor.report is None:
        return None
    return {"bits": compressor.bits, "group": compressor.group, **compressor.report.as_dict()}
