"""The result of a comparison of relations: divergences, standard errors, ranked pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from relsim.kl.blocks import read_about, write_atomically
from relsim.maths.intervals import skewed_interval

__all__ = ["LEAST_ESS", "RelationSimilarity", "SimilarPair"]

_SCHEMA = 1
LEAST_ESS = 10.0
"""Effective heads below which a standard error is too unreliable to make an interval of."""


@dataclass(frozen=True)
class SimilarPair:
    """One pair of relations; ``stderr`` and ``ess`` are those of the larger of the two divergences."""

    first: int | str
    second: int | str
    similarity: float
    kl_forward: float
    kl_backward: float
    stderr: float
    ess: float


@dataclass(frozen=True, eq=False)
class RelationSimilarity:
    """Divergences between all pairs of R relations.

    Parameters
    ----------
    kl
        float64 ``(R, R)``, in nats: ``kl[i, j]`` estimates KL(P_i || P_j). At least 0 but for the ancestral sampler.
    stderr
        float64 ``(R, R)``: standard error of ``kl`` from sampling heads (not of the model); 0 where exact, infinite
        where too few heads were seen to tell.
    ess
        float64 ``(R,)``: effective number of heads behind row i; infinite where nothing was left to chance.
    df
        float64 ``(R, R)``, or ``(R,)`` for whole rows: degrees of freedom of ``stderr``; infinite likewise.
    head_kl, tail_kl
        float64 ``(R, R)``: the two parts of ``kl``, from P(h | r) and from P(t | h, r).
    method
        "pooled", "ancestral" or "exact".
    heads_used
        Heads evaluated, counted again when a later look evaluates them again.
    looks
        Looks at the standard error that were planned; intervals are widened for them.
    warnings
        What a reader of the numbers must know.
    lower
        float64 ``(R, R)``: lower bound of ``kl`` that no chance enters, the head part plus the exact divergences at the
        heads that were enumerated. None for "ancestral", which enumerates nothing.
    skewness
        float64 ``(R,)``: of the estimates of each row, for the intervals; 0 where None.
    """

    kl: Tensor
    stderr: Tensor
    ess: Tensor
    df: Tensor
    head_kl: Tensor
    tail_kl: Tensor
    method: str
    heads_used: int
    looks: int
    warnings: tuple[str, ...]
    lower: Tensor | None = None
    skewness: Tensor | None = None

    @property
    def similarity(self) -> Tensor:
        """``exp(-max(kl, kl.T))``, float64 ``(R, R)``, in [0, 1], symmetric, 1 on the diagonal.

        Differences between dissimilar pairs vanish on this scale; rank by ``kl`` where they matter.
        """
        # An estimate may fall below 0, a divergence does not.
        return torch.exp(-torch.maximum(self.kl, self.kl.T).clamp(min=0))

    def interval(self, level: float = 0.95, *, of: str = "kl") -> tuple[Tensor, Tensor]:
        """Two-sided interval for sampling error: lower and upper ends, float64 ``(R, R)`` each, in nats.

        Student's t, widened for skewness, each planned look given an equal part of ``1 - level``. Where ``ess`` is
        below 10, or the divergences are too heavy-tailed to bound their mean from the sample, no interval is claimed:
        the upper end is infinite and the lower one is ``lower``. The error of the fitted model is no part of it; see
        :func:`relsim.kl.modelerror.model_error`.

        Parameters
        ----------
        level
            Coverage aimed at, inside (0, 1).
        of
            "kl", or "max" for ``max(kl, kl.T)``, whose ends are the larger ones of the two directions.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level}, expected a number between 0 and 1 such as 0.95")
        if of not in ("kl", "max"):
            raise ValueError(f"of is {of!r}, expected 'kl' or 'max'")
        df = self.df if self.df.dim() == 2 else self.df[:, None].expand_as(self.kl)
        skewness = torch.zeros_like(self.ess) if self.skewness is None else self.skewness
        low, high = skewed_interval(self.kl, self.stderr, df, skewness[:, None], level=level, looks=self.looks)
        refused = (self.ess < LEAST_ESS)[:, None] & (self.stderr > 0.0)
        low, high = low.masked_fill(refused, -torch.inf), high.masked_fill(refused, torch.inf)
        if self.lower is not None:
            low = torch.maximum(low, self.lower)
        return (low, high) if of == "kl" else (torch.maximum(low, low.T), torch.maximum(high, high.T))

    def certain(self, k: int, *, level: float = 0.95) -> Tensor:
        """Whether the k nearest of each relation, by ``max(kl, kl.T)``, are its k nearest: bool ``(R,)``.

        True where the intervals of the nearest k and of all others do not overlap, at a level at which all ends of a
        row hold together (Bonferroni).

        Parameters
        ----------
        k
            From 1.
        level
            Probability, for each relation, that what is called certain is true.
        """
        size = len(self.kl)
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1 neighbour")
        if k >= size - 1:
            return torch.ones(size, dtype=torch.bool)
        low, high = self.interval(1.0 - (1.0 - level) / (2 * (size - 1)), of="max")
        order = torch.argsort(torch.maximum(self.kl, self.kl.T).fill_diagonal_(torch.inf), dim=1, stable=True)
        nearest, others = order[:, :k], order[:, k : size - 1]
        return high.gather(1, nearest).amax(1) <= low.gather(1, others).amin(1)

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, whole or not at all."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        rest = {"method": self.method, "heads_used": self.heads_used, "looks": self.looks, "warnings": self.warnings}
        write_atomically(tensors, Path(path), {"schema": _SCHEMA, "similarity": rest})

    @classmethod
    def load(cls, path: str | Path) -> RelationSimilarity:
        """Read what :meth:`save` wrote."""
        about = read_about(Path(path))
        if about.get("schema") != _SCHEMA or "similarity" not in about:
            raise ValueError(f"{path} is no saved similarity (schema {about.get('schema')}, expected {_SCHEMA})")
        values: dict[str, Any] = about["similarity"] | load_file(path)
        return cls(**(values | {"warnings": tuple(values["warnings"])}))

    def top(self, n: int, *, relations: Sequence[str] | None = None) -> list[SimilarPair]:
        """The n unordered pairs with the smallest ``max(kl, kl.T)``, most similar first.

        Parameters
        ----------
        n
            At least 1; all pairs if there are fewer.
        relations
            Names to put in place of the ids.
        """
        size = len(self.kl)
        if n < 1:
            raise ValueError(f"n is {n}, expected at least 1 pair")
        if relations is not None and len(relations) != size:
            raise ValueError(f"{len(relations)} relation names given, expected {size}")
        i, j = torch.triu_indices(size, size, 1)
        worst = torch.maximum(self.kl[i, j], self.kl[j, i])
        pairs = []
        for k in torch.argsort(worst, stable=True)[:n].tolist():
            a, b = int(i[k]), int(j[k])
            wide, narrow = (a, b) if self.kl[a, b] >= self.kl[b, a] else (b, a)
            pairs.append(
                SimilarPair(
                    first=a if relations is None else relations[a],
                    second=b if relations is None else relations[b],
                    similarity=math.exp(-float(worst[k])),
                    kl_forward=float(self.kl[a, b]),
                    kl_backward=float(self.kl[b, a]),
                    stderr=float(self.stderr[wide, narrow]),
                    ess=float(self.ess[wide]),
                )
            )
        return pairs
