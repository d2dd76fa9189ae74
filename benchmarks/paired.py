"""Paired comparisons over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t, ttest_rel

from .common import row

__all__ = ["half_width", "holm", "paired_row"]


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % t interval of a mean."""
    return float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)


def paired_row(what: str, treated: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    """Mean difference over equal seeds with its 95 % t interval; says so where the interval includes 0."""
    difference = [a - b for a, b in zip(treated, control, strict=True)]
    mean, half = float(np.mean(difference)), half_width(difference)
    if abs(mean) <= half:
        what += ": no difference shown"
    p = float(ttest_rel(treated, control).pvalue) if any(difference) else 1.0  # scipy gives NaN for equal lists
    return row(what, mean, "1", n=len(difference), half=half) | {"interval": [mean - half, mean + half], "p": p}


def holm(rows: Sequence[dict[str, Any]]) -> None:
    """Add Holm's adjusted p to the rows of one question asked of several data sets, and say where it takes a claim back."""
    worst = 0.0
    for rank, entry in enumerate(sorted(rows, key=lambda entry: entry["p"])):
        worst = max(worst, min(1.0, (len(rows) - rank) * entry["p"]))
        entry["holm_p"] = worst
        if worst >= 0.05 and "no difference shown" not in entry["what"]:
            entry["what"] += ": no difference shown after Holm"
