"""When to stop drawing heads: goals in words, checked at a number of looks that is fixed in advance."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

from relsim.kl.result import RelationSimilarity

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """What is enough.

    Parameters
    ----------
    kind
        "median", "largest" (of the standard errors of all ordered pairs) or "top" (nearest relations certain).
    value
        Standard error aimed at, in nats, or number of nearest relations.
    """

    kind: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Read "se<0.1", "max se<0.1" or "top5".

        Raises
        ------
        ValueError
            For anything else.
        """
        top = re.fullmatch(r"top\s*([1-9][0-9]*)", text.strip())
        if top is not None:
            return cls("top", float(top.group(1)))
        error = re.fullmatch(r"(max )?\s*se\s*<\s*([0-9.eE+-]+)", text.strip())
        try:
            target = float(error.group(2)) if error else math.nan
        except ValueError:
            target = math.nan
        if error is None or not 0.0 < target < math.inf:
            raise ValueError(
                f"stop is {text!r}, expected 'se<0.1' (median standard error of all pairs, in nats), 'max se<0.1' "
                "(largest) or 'top5' (the 5 nearest of every relation certain at 95 %)"
            )
        return cls("largest" if error.group(1) else "median", target)

    def reached(self, result: RelationSimilarity) -> bool:
        """Whether the result, whose ``looks`` counts every planned look, is good enough."""
        if self.kind == "top":
            return bool(result.certain(int(self.value)).all())
        error = result.stderr[~torch.eye(len(result.stderr), dtype=torch.bool)]
        return float(error.median() if self.kind == "median" else error.max()) < self.value
