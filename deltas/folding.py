"""Fold a part into the weights of its layer, and take it out again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Site
from .errors import DeltaError

__all__ = ["fold_all", "unfold"]


def fold_all(model: nn.Module, sites: list[Site]) -> dict[str, Tensor]:
    """Fold the parts of a delta into their layers, or none of them.

    Returns
    -------
    What was there before, by path, on the CPU.

    Raises
    ------
    DeltaError : as :func:`_fold`; any other error of a method passes through. The model is unchanged then.
    """
    base: dict[str, Tensor] = {}
    try:
        for site in sorted(sites, key=_turn):
            if site.part is not None:
                _fold(model, site, base)
    except BaseException:
        unfold(model, base)
        raise
    return base


def _turn(site: Site) -> int:
    """Parts are folded in the order in which they act; what changes the input acts on all that the weight has become."""
    if getattr(site.part, "first", False):
        return 0
    return 1 if type(site.part).__dict__.get("before") is None else 2


def _fold(model: nn.Module, site: Site, base: dict[str, Tensor]) -> None:
    """Fold one part into its layer.

    Parameters
    ----------
    base : takes what was there, by path

    Raises
    ------
    DeltaError : it is no change of a weight, or the weight is one that another layer has too, or no plain parameter.
    """
    assert site.method is not None
    if getattr(site.part, "merged", None) is not None:
        _plain(site, "weight")
    weight = site.method.merged_weight(site)
    if weight is None:
        where = f" at {site.path}" if site.path else ""
        raise DeltaError(
            f"{site.method.name} cannot be merged: what it does{where} is no change of a weight. Methods that merge are "
            "those that add to a weight or scale it: LoRA, IA3, KronA, KAdaptation, LoKr, BitFit, LNTuning"
        )
    for own, new in (("weight", weight), ("bias", site.method.merged_bias(site))):
        if new is not None:
            parameter = _plain(site, own)
            _refuse_tied(model, site.path, own, parameter)
            base.setdefault(f"{site.path}.{own}", parameter.detach().cpu().clone())
            parameter.copy_(new)


def _plain(site: Site, own: str) -> nn.Parameter:
    """A parameter of the site's layer, of real numbers."""
    found = site.module._parameters.get(own)
    if found is None or not found.is_floating_point() or found.is_meta:
        seen = getattr(site.module, own, None)
        what = f"{seen.dtype} on {seen.device}" if isinstance(seen, Tensor) else f"a {type(seen).__name__}"
        raise DeltaError(
            f"{site.path}.{own} cannot take a change: merging needs a parameter of real numbers, and that of this "
            f"{type(site.module).__name__} is computed, packed or quantised ({what}). Leave the delta beside it, or merge it "
            "into the model before it is quantised"
        )
    return found


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
