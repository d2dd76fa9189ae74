"""The settings that suit the comparison of relations, in one call."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import FitReport, fit
from relsim.model.warmstart import warm_start

__all__ = ["fit_distribution", "planned_epochs"]

_BATCH = 512
# Gradient steps below which a model still looks like its start.
_LEAST_STEPS = 700


def planned_epochs(facts: Facts) -> int:
    """Epochs of :func:`fit_distribution`: 6, and more on few facts, until 700 steps are made."""
    groups = len(torch.unique(facts.relation * facts.num_entities + facts.head))
    return max(6, math.ceil(_LEAST_STEPS / math.ceil(groups / _BATCH)))


def fit_distribution(
    facts: Facts,
    *,
    epochs: int | None = None,
    seed: int = 0,
    held_out: Facts | float = 0.04,
    callback: Callable[[int, dict[str, float]], None] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[FactDistribution, FitReport]:
    """Build a fact distribution and fit it with the settings that suit the comparison of relations.

    Relations and entities start from counts (:func:`relsim.model.warmstart.warm_start`), the networks are decayed and
    thinned out, and both terms stop apart. Two relations that mean the same then differ by what their facts say and not
    by what was learned by heart: the settings were chosen on FB15k-237 relations cut into parts, by how well parts of
    one relation find each other.

    Parameters
    ----------
    facts
        At least one fact, two entities and one relation.
    epochs
        Passes at most; by default as many as :func:`planned_epochs` says.
    seed
        Of the weights, the batches and the held-out facts: equal arguments give equal models.
    held_out
        Facts that decide when to stop, or the share of ``facts`` to hold out for it, above 0 and below 1.
    callback
        As in :func:`fit`.
    device
        Where the model is fitted, and stays. The start is the same everywhere; divergences are summed on the CPU.

    Returns
    -------
    tuple
        The model and what the fit did.

    Examples
    --------
    >>> facts = Facts.from_triples([("a", "r", "b"), ("b", "r", "c"), ("a", "s", "c")])
    >>> model, report = fit_distribution(facts, epochs=1)
    >>> model.num_relations
    2
    """
    epochs = planned_epochs(facts) if epochs is None else epochs
    model = FactDistribution(facts.num_entities, facts.num_relations, dropout=0.2, seed=seed)
    warm_start(model, facts, seed=seed)
    model.to(device)
    one = len(facts) < 2 and not isinstance(held_out, Facts)  # nothing can be held out of it
    report = fit(
        model,
        facts,
        epochs=epochs,
        seed=seed,
        callback=callback,
        batch_size=_BATCH,
        weight_decay=3.0,
        held_out=None if one else held_out,
        patience=None if one else 2,
    )
    return model, report
