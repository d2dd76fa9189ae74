"""Maximum-likelihood training of a fact distribution, in memory, over its public loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.model.batches import FactBatches

__all__ = [
    "FitReport",
    "fit",
    "held_out_nll",
    "parameter_groups",
    "refit_head",
    "split_facts",
]


@dataclass(frozen=True)
class FitReport:
    """What a fit did.

    Parameters
    ----------
    epochs
        Epochs run.
    best_epoch
        Number, from 1, of the epoch whose parameters the model has now (those of the head network apart).
    head_epoch
        The epoch from whose head network the one of the model was taken; :func:`refit_head` followed if it is another.
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
    head_epoch: int
    held_out_head: float
    held_out_tail: float
    train_loss: tuple[float, ...]
    history: tuple[tuple[float, float], ...]
    seconds: float


def split_facts(facts: Facts, fraction: float, *, seed: int) -> tuple[Facts, Facts]:
    """Split facts at random into two sets over the same vocabularies: the rest, and ``round(fraction N)`` of them.

    Raises
    ------
    ValueError : a fraction outside of (0, 1).
    """
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
    """Mean head and tail terms of the exact negative log-likelihood of facts, in nats a fact (by count), without dropout.

    Parameters
    ----------
    model
        The distribution.
    facts
        At least one fact, with ids of the model.
    block
        Facts evaluated at a time; memory is block x E.

    Raises
    ------
    ValueError : no facts.
    """
    if len(facts) == 0:
        raise ValueError("facts is empty: there is no likelihood to evaluate")
    head = tail = 0.0
    training = model.training
    model.eval()
    for rows in torch.split(torch.argsort(facts.relation * facts.num_entities + facts.head), block):
        batch = {name: getattr(facts, name)[rows] for name in ("head", "relation", "tail", "count")}
        terms = model.nll(_moved(batch, model.device))
        head, tail = head + float(terms[0]), tail + float(terms[1])
    model.train(training)
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
    weight_decay: float = 0.0,
    negatives: int | None = None,
    held_out: Facts | float | None = None,
    patience: int | None = None,
) -> FitReport:
    """Fit a model to facts by Adam with a learning rate that falls linearly to zero.

    On the CPU the result is the same to the bit for equal arguments at a fixed number of threads.

    Parameters
    ----------
    model
        Changed in place, on the device where it lies; its results differ between devices by rounding and by dropout.
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
    weight_decay
        Decoupled decay of the networks and, a third as strong, of the relation vectors, by ``lr * weight_decay`` a step.
        With some tens of facts a relation, 1 to 3 keep both from learning the facts by heart.
    negatives
        Draws a step for sampled normalisers, 0 for exact ones; by default by entity count (see
        :class:`relsim.model.batches.FactBatches`).
    held_out
        Facts to watch, or the fraction of ``facts`` to hold out; None watches nothing.
    patience
        With held-out facts: training stops once neither the head nor the tail term has improved for this many epochs.
        Head and tail are stopped apart: the model gets the parameters of the best epoch of the tail, with the head
        network of the best epoch of the head, which is then adapted to these features by :func:`refit_head`. None runs
        all epochs and keeps the last parameters.

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
    if weight_decay < 0:
        raise ValueError(f"weight_decay is {weight_decay}, expected at least 0")
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
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, fused=True)
    losses: list[float] = []
    history: list[tuple[float, float]] = []
    head, tail = _Best(), _Best()
    with _own_draws(model.device):  # dropout draws from the global generator
        torch.manual_seed(seed)
        for epoch in range(epochs):
            model.train()
            losses.append(_one_epoch(model, batches, optimizer, epoch, epochs, seed, lr))
            model.eval()
            scalars = {"loss": losses[-1]}
            if watched is not None:
                history.append(held_out_nll(model, watched))
                scalars |= {"held_out_head": history[-1][0], "held_out_tail": history[-1][1]}
            if callback is not None:
                callback(epoch + 1, scalars)
            if patience is not None:
                head.see(history[-1][0], epoch + 1, model.head_network)
                tail.see(history[-1][1], epoch + 1, model)
                if epoch + 1 - max(head.epoch, tail.epoch) >= patience:
                    break
    best = (float("nan"), float("nan")) if not history else history[-1]
    if patience is not None and watched is not None:
        model.load_state_dict(tail.state)
        model.head_network.load_state_dict(head.state)
        if head.epoch != tail.epoch:
            refit_head(model, facts, watched, lr=0.2 * lr)
        best = held_out_nll(model, watched)
    last = len(losses)
    seconds = time.perf_counter() - started
    return FitReport(last, tail.epoch or last, head.epoch or last, *best, tuple(losses), tuple(history), seconds)


def parameter_groups(model: FactDistribution, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimiser with decoupled decay: networks with all of it, relations a third, entities none."""
    networks = [*model.head_network.parameters(), *model.tail_network.parameters()]
    decayed = {id(p) for p in (model.relation, *networks)}
    return [
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
        {"params": [model.relation], "weight_decay": weight_decay / 3.0},
        {"params": networks, "weight_decay": weight_decay},
    ]


def _own_draws(device: torch.device) -> AbstractContextManager[None]:
    """Leave the global generators as they are, also those of all accelerators of a kind, which a seed sets too."""
    kind = device.type if device.type == "xpu" else "cuda"
    return torch.random.fork_rng(devices=range(getattr(torch, kind).device_count()), device_type=kind)


def _moved(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _one_epoch(
    model: FactDistribution,
    batches: FactBatches,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    epochs: int,
    seed: int,
    lr: float,
) -> float:
    """One pass; returns the mean loss of its steps."""
    total = 0.0
    for index in range(len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1.0 - (epoch + index / len(batches)) / epochs)
        loss = model.loss(_moved(batches.batch(epoch, index, seed), model.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"loss is {value} at step {index} of epoch {epoch + 1}: try lr below {lr}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value
    return total / len(batches)


@dataclass
class _Best:
    """The parameters of the epoch with the smallest value so far."""

    value: float = math.inf
    epoch: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def see(self, value: float, epoch: int, module: nn.Module) -> None:
        if value < self.value:
            self.value, self.epoch = value, epoch
            self.state = {name: tensor.clone() for name, tensor in module.state_dict().items()}


def refit_head(
    model: FactDistribution, facts: Facts, held_out: Facts, *, lr: float = 1e-3, steps: int = 60, patience: int = 5
) -> float:
    """Fit the head network alone, everything else held, and keep the step that suits the held-out facts best.

    The head term has R softmax rows in all, so a step over all facts is one ``R x E`` product.

    Parameters
    ----------
    model
        Its head network is changed in place, never to one that is worse on the held-out facts.
    facts, held_out
        Over the model's vocabularies, at least one fact each.
    lr
        Learning rate of Adam.
    steps, patience
        Steps at most, and steps without a better held-out value before it stops.

    Returns
    -------
    float
        Mean held-out ``-log P(h | r)`` in nats.
    """
    features, present = model.features().detach(), torch.unique(torch.cat([facts.relation, held_out.relation]))
    vectors = model.relation.detach()[present.to(model.device)]
    row = [torch.searchsorted(present, part.relation).to(model.device) for part in (facts, held_out)]
    heads = [part.head.to(model.device) for part in (facts, held_out)]
    weight = [part.count.to(features) / float(part.count.sum()) for part in (facts, held_out)]
    optimizer = torch.optim.Adam(model.head_network.parameters(), lr=lr)
    best = _Best()
    for step in range(steps + 1):
        log_prob = torch.log_softmax(model.natural(model.head_network(vectors)) @ features.T, 1)
        best.see(-float(weight[1] @ log_prob.detach()[row[1], heads[1]]), step + 1, model.head_network)
        if step == steps or step + 1 - best.epoch >= patience:
            break
        optimizer.zero_grad()
        (-(weight[0] @ log_prob[row[0], heads[0]])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.head_network.load_state_dict(best.state)
    return best.value
