"""Maximum-likelihood training of a fact distribution, in memory, over its public loss."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relsim.batches import FactBatches
from relsim.distribution import FactDistribution
from relsim.facts import Facts

__all__ = ["FitReport", "fit", "held_out_nll", "split_facts"]


@dataclass(frozen=True)
class FitReport:
    """What a fit did.

    Parameters
    ----------
    epochs
        Epochs run.
    best_epoch
        Number, from 1, of the epoch whose parameters the model has now.
    held_out_head, held_out_tail
        Mean ``-log P(h | r)`` and ``-log P(t | h, r)`` of the held-out facts in nats; NaN when none were held out.
    train_loss
        Mean training loss of every epoch, in nats a fact.
    history
        ``(head, tail)`` held-out values of every epoch; empty when none were held out.
    seconds
        Wall time, held-out evaluation included.
    """

    epochs: int
    best_epoch: int
    held_out_head: float
    held_out_tail: float
    train_loss: tuple[float, ...]
    history: tuple[tuple[float, float], ...]
    seconds: float


def split_facts(facts: Facts, fraction: float, *, seed: int) -> tuple[Facts, Facts]:
    """Split facts at random into two sets over the same vocabularies: the rest, and ``round(fraction N)`` of them."""
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"held_out is {fraction}, expected Facts, None, or a fraction between 0 and 1")
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    cut = max(1, round(fraction * len(facts)))
    return _subset(facts, order[cut:].sort().values), _subset(facts, order[:cut].sort().values)


def _subset(facts: Facts, rows: Tensor) -> Facts:
    columns = {
        name: value[rows]
        for name in ("head", "relation", "tail", "count", "head_type", "tail_type")
        if (value := getattr(facts, name)) is not None
    }
    return replace(facts, **columns)


@torch.no_grad()
def held_out_nll(model: FactDistribution, facts: Facts, *, block: int = 1024) -> tuple[float, float]:
    """Mean head and tail terms of the exact negative log-likelihood of facts, in nats a fact (by count).

    Parameters
    ----------
    model
        The distribution.
    facts
        At least one fact, with ids of the model.
    block
        Facts evaluated at a time; memory is block x E.
    """
    if len(facts) == 0:
        raise ValueError("facts is empty: there is no likelihood to evaluate")
    head = tail = 0.0
    for rows in torch.split(torch.argsort(facts.relation * facts.num_entities + facts.head), block):
        terms = model.nll({name: getattr(facts, name)[rows] for name in ("head", "relation", "tail", "count")})
        head, tail = head + float(terms[0]), tail + float(terms[1])
    total = float(facts.count.double().sum())
    return head / total, tail / total


def fit(
    model: FactDistribution,
    facts: Facts,
    *,
    epochs: int,
    seed: int,
    callback: Callable[[int, dict[str, float]], None] | None = None,
    lr: float = 5e-3,
    batch_size: int = 512,
    negatives: int | None = None,
    held_out: Facts | float | None = None,
    patience: int | None = None,
) -> FitReport:
    """Fit a model to facts by Adam with a learning rate that falls linearly to zero.

    The result is the same to the bit for equal arguments at a fixed number of threads.

    Parameters
    ----------
    model
        Changed in place.
    facts
        Training facts, at least one, over the model's entities and relations.
    epochs
        Passes over the facts, at least 1; the learning rate is planned for this many.
    seed
        Seed of the batches, the negatives and the split of held-out facts.
    callback
        Called after every epoch with its number from 1 and ``{"loss": ..., "held_out_head": ..., "held_out_tail": ...}``
        (the latter two only with held-out facts).
    lr
        Initial learning rate.
    batch_size
        Groups of facts with one (head, relation) a step.
    negatives
        Draws a step for sampled normalisers, 0 for exact ones; by default by entity count (see
        :class:`relsim.batches.FactBatches`).
    held_out
        Facts to watch, or the fraction of ``facts`` to hold out; None watches nothing.
    patience
        With held-out facts: the parameters of the best epoch by head plus tail are restored at the end, and training
        stops after this many epochs without a better one. None runs all epochs and keeps the last parameters.

    Raises
    ------
    ValueError
        For empty facts, facts of other sizes than the model's, or ``patience`` without held-out facts.
    FloatingPointError
        When the loss is not finite; the model then has the parameters before that step.

    Examples
    --------
    >>> facts = Facts.from_triples([("a", "r", "b"), ("b", "r", "c"), ("a", "s", "c")])
    >>> report = fit(FactDistribution(3, 2, dim=4, hidden=8), facts, epochs=2, seed=0)
    >>> report.epochs
    2
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}, expected at least 1")
    if patience is not None and (held_out is None or patience < 1):
        raise ValueError(f"patience={patience} needs held_out facts, and must be at least 1")
    sizes, expected = (facts.num_entities, facts.num_relations), (model.num_entities, model.num_relations)
    if sizes != expected:
        raise ValueError(
            f"facts have (entities, relations) = {sizes}, the model has {expected}: build it from these facts"
        )
    if isinstance(held_out, float) and len(facts) > 1:
        facts, held_out = split_facts(facts, held_out, seed=seed)
    watched = held_out if isinstance(held_out, Facts) else None
    started = time.perf_counter()
    batches = FactBatches(facts, batch_size=batch_size, negatives=negatives)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    steps = epochs * len(batches)
    losses: list[float] = []
    history: list[tuple[float, float]] = []
    best, best_epoch, kept = float("inf"), 0, None
    for epoch in range(epochs):
        total = 0.0
        for index in range(len(batches)):
            optimizer.param_groups[0]["lr"] = lr * (1.0 - (epoch * len(batches) + index) / steps)
            loss = model.loss(batches.batch(epoch, index, seed))
            value = float(loss.detach())
            if not torch.isfinite(loss.detach()):
                raise FloatingPointError(f"loss is {value} at step {index} of epoch {epoch + 1}: try lr below {lr}")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += value
        losses.append(total / len(batches))
        scalars = {"loss": losses[-1]}
        if watched is not None:
            history.append(held_out_nll(model, watched))
            scalars |= {"held_out_head": history[-1][0], "held_out_tail": history[-1][1]}
        if callback is not None:
            callback(epoch + 1, scalars)
        if patience is not None:
            if sum(history[-1]) < best:
                best, best_epoch = sum(history[-1]), epoch + 1
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            elif epoch + 1 - best_epoch >= patience:
                break
    if kept is not None:
        model.load_state_dict(kept)
    else:
        best_epoch = len(losses)
    head, tail = history[best_epoch - 1] if history else (float("nan"), float("nan"))
    return FitReport(len(losses), best_epoch, head, tail, tuple(losses), tuple(history), time.perf_counter() - started)
