"""Fold a part into the weights of its layer, and take it out again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Site
from .errors import DeltaError

__all__ = ["fold", "unfold"]


def fold(model: nn.Module, site: Site, base: dict[str, Tensor]) -> None:
    """Fold one part into its layer.

    Parameters
    ----------
    base : takes what was there, by path

    Raises
    ------
    DeltaError : it is no change of a weight, or the weight is one that another layer has too.
    """
    assert site.method is not None
    weight = site.method.merged_weight(site)
    if weight is None:
        where = f" at {site.path}" if site.path else ""
        raise DeltaError(
            f"{site.method.name} cannot be merged: what it does{where} is no change of a weight. Methods that merge are "
            "those that add to a weight or scale it: LoRA, IA3, KronA, KAdaptation, LoKr, BitFit, LNTuning"
        )
    for own, new in (("weight", weight), ("bias", site.method.merged_bias(site))):
        if new is not None:
            parameter = site.module.get_parameter(own)
            _refuse_tied(model, site.path, own, parameter)
            base.setdefault(f"{site.path}.{own}", parameter.detach().cpu().clone())
            parameter.copy_(new)


def _refuse_tied(model: nn.Module, path: str, own: str, parameter: nn.Parameter) -> None:
    users = [p for p, m in model.named_modules() if any(t is parameter for t in m._parameters.values())]
    if others := [user for user in users if user != path]:
        raise DeltaError(
            f"{path}.{own} is the {own} of {others[0]} too, which merging would change: leave the delta beside it"
        )


@torch.no_grad()
def unfold(model: nn.Module, base: dict[str, Tensor]) -> None:
    """Restore the weights to the bit."""
    for path, value in base.items():
        model.get_parameter(path).copy_(value)
