"""The result of a comparison of relations: divergences, standard errors, ranked pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

__all__ = ["RelationSimilarity", "SimilarPair"]


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
    ess, df
        float64 ``(R,)``: effective number of heads behind row i, and degrees of freedom of its standard errors;
        infinite where nothing was left to chance.
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

    @property
    def similarity(self) -> Tensor:
        """``exp(-max(kl, kl.T))``, float64 ``(R, R)``, in [0, 1], symmetric, 1 on the diagonal.

        Differences between dissimilar pairs vanish on this scale; rank by ``kl`` where they matter.
        """
        return torch.exp(-torch.maximum(self.kl, self.kl.T))

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Two-sided interval of ``kl``: lower and upper ends, float64 ``(R, R)`` each, in nats.

        Student's t with ``df`` degrees of freedom, each planned look given an equal part of ``1 - level``.

        Parameters
        ----------
        level
            Coverage aimed at, inside (0, 1). Reached where ``ess`` is well above 10; see ``warnings``.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level}, expected a number between 0 and 1 such as 0.95")
        quantile = stats.t.ppf(1.0 - (1.0 - level) / (2.0 * self.looks), self.df.clamp(min=1.0).numpy())
        half = torch.nan_to_num(torch.as_tensor(quantile)[:, None] * self.stderr, nan=0.0, posinf=torch.inf)
        return self.kl - half, self.kl + half

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
