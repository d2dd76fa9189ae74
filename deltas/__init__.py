"""Delta tuning (parameter-efficient tuning) on Euclidean and Lorentz backbones."""

from typing import Any

__all__ = ["DELTAS"]

DELTAS: dict[str, Any] = {}
