"""Optimisers and schedules that a configuration can name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import cos, pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lorentz.optim import RiemannianAdam, RiemannianSGD

from .config import TrainConfig
from .errors import UsageError
from .registry import did_you_mean, lookup

__all__ = ["OPTIMIZERS", "SCHEDULES", "build_optimizers", "cap_norms", "clip_sparse", "decay_groups", "schedule_factor"]


def _adam(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return torch.optim.Adam(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _adamw(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _adagrad(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return torch.optim.Adagrad(groups, lr=config.lr, weight_decay=config.weight_decay)


def _sgd(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, weight_decay=config.weight_decay, momentum=0.9)


def _sparse_adam(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return torch.optim.SparseAdam(groups, lr=config.lr)


def _riemannian_adam(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return RiemannianAdam(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _riemannian_sgd(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return RiemannianSGD(groups, lr=config.lr, weight_decay=config.weight_decay, momentum=0.9)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig], Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "adagrad": _adagrad,
    "riemannian_adam": _riemannian_adam,
    "riemannian_sgd": _riemannian_sgd,
    "sgd": _sgd,
}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda p: max(1 - p, 0.01),
    "cosine": lambda p: 0.01 + 0.99 * (1 + cos(pi * p)) / 2,
    "hold": lambda p: 1.0 if p < 0.5 else max(2 * (1 - p), 0.01),
}


def schedule_factor(config: TrainConfig, step: int, total: int) -> float:
    """Multiple of the peak learning rate at `step` (from 0) of `total`: a function of the step alone, so it resumes."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "noam":
        start = max(config.warmup, 1)
        return min((step + 1) / start, sqrt(start / (step + 1)))
    if config.schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule {config.schedule!r}. {did_you_mean(config.schedule, [*SCHEDULES, 'noam'])}")
    return warm * SCHEDULES[config.schedule](step / max(total, 1))


def build_optimizers(groups: Iterable[Mapping[str, Any]], config: TrainConfig) -> list[Optimizer]:
    """One optimiser for each kind named by the groups' ``optimizer`` (the configuration's by default).

    A group may also set ``lr`` (its own peak), ``weight_decay``, ``max_norm`` (see :func:`cap_norms`) and ``sparse``, where
    all its gradients are: Adam then moves their rows alone, as the Riemannian optimisers do of themselves.
    """
    kinds: dict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        rest = {key: value for key, value in group.items() if key not in ("optimizer", "sparse")}
        rest["params"] = list(rest["params"])
        rest.setdefault("lr", config.lr)
        rest["peak_lr"] = rest["lr"]
        kinds[group.get("optimizer", config.optimizer), group.get("sparse", False)].append(rest)
    return [
        (_sparse_adam if sparse and kind == "adam" else lookup(OPTIMIZERS, kind, kind="optimizer"))(members, config)
        for (kind, sparse), members in kinds.items()
    ]


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices with the weight decay of the configuration; vectors, scalars and the points of tokens without.

    `model` is one of transformers, which knows its input embeddings.
    """
    points = {id(p) for p in model.get_input_embeddings().parameters()}  # type: ignore[operator]
    decayed = [p for p in model.parameters() if p.ndim > 1 and id(p) not in points]
    chosen = {id(p) for p in decayed}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def clip_sparse(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """``clip_grad_norm_`` for gradients of which some are sparse, which torch's refuses. Returns the norm before."""
    values = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
        if p.grad is not None:
            values.append(p.grad._values() if p.grad.is_sparse else p.grad)  # of a coalesced gradient, not a copy
    norm = torch.nn.utils.get_total_norm(values)
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
    return norm


@torch.no_grad()
def cap_norms(optimizers: Iterable[Optimizer]) -> None:
    """Scale rows of parameters whose group has ``max_norm`` back to that Euclidean norm (the space norm of points)."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            limit = group.get("max_norm")
            if limit is None:
                continue
            for parameter in group["params"]:
                norm = torch.linalg.vector_norm(parameter, dim=-1, keepdim=True)
                parameter.mul_((limit / norm).clamp_(max=1.0))
