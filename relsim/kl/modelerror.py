"""How much of the uncertainty of a divergence comes from sampling, and how much from the fit of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relsim.kl.result import RelationSimilarity

__all__ = ["ModelError", "model_error"]


@dataclass(frozen=True, eq=False)
class ModelError:
    """Divergences of several models of the same facts, fitted with different seeds.

    Parameters
    ----------
    kl
        float64 ``(R, R)``: mean over the models, in nats.
    sampling
        float64 ``(R, R)``: standard error of one model's divergence from sampling heads (root mean square).
    between
        float64 ``(R, R)``: variance between the models beyond what sampling explains, in nats squared; an unbiased
        estimate, which may fall below 0 where the models agree.
    models
        Number of models n.
    """

    kl: Tensor
    sampling: Tensor
    between: Tensor
    models: int

    @property
    def model(self) -> Tensor:
        """Standard deviation of a divergence between models, float64 ``(R, R)``; 0 where none can be told."""
        return torch.where(self.between > 0.0, self.between, 0.0).sqrt()

    @property
    def stderr(self) -> Tensor:
        """Standard error of ``kl`` from both, ``((between + sampling^2) / n)^(1/2)``, float64 ``(R, R)``."""
        # Both are of one variance, of which rounding may leave a little less than none.
        return ((self.between + self.sampling**2).clamp(min=0.0) / self.models).sqrt()


def model_error(results: Sequence[RelationSimilarity]) -> ModelError:
    """Tell sampling error and model error apart.

    Parameters
    ----------
    results
        Similarities of models that differ in their training seed alone, at least 2 (3 or more to learn much), each
        with heads of its own (another ``seed``).

    Raises
    ------
    ValueError
        For fewer than two, or results of different sizes.
    """
    if len(results) < 2:
        raise ValueError(f"{len(results)} similarity given, expected at least 2 from models with different seeds")
    sizes = sorted({len(result.kl) for result in results})
    if len(sizes) > 1:
        raise ValueError(f"the similarities cover {sizes} relations, expected the same relations in all")
    kl = torch.stack([result.kl for result in results])
    sampling = torch.stack([result.stderr**2 for result in results]).mean(0)
    return ModelError(kl.mean(0), sampling.sqrt(), kl.var(0) - sampling, len(results))
