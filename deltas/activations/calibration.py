"""Bits for every saved tensor by the sensitivity of the gradient to it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import DeltaError
from .entries import Content
from .groups import BITS

if TYPE_CHECKING:
    from .compressor import ActivationCompressor

__all__ = ["Calibration", "allocate", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """Bits of every tensor, and what they cost.

    Attributes
    ----------
    levels : bits by name
    average : bits a number
    error : norm of the change of the gradient, relative to the exact gradient's, measured with these bits
    uniform : the same with the most bits that all tensors can have within the budget
    sensitivity : squared change of the gradient by one tensor alone, times ``(2^bits - 1)^2``, by name
    passes : backward passes that it took
    """

    levels: Mapping[str, int]
    average: float
    error: float
    uniform: float
    sensitivity: Mapping[str, float]
    passes: int


class _Probe:
    """A saved tensor as it is, that can be read with the rounding of some bits."""

    def __init__(self, compressor: ActivationCompressor, values: Tensor, name: str) -> None:
        self.compressor, self.values, self.name = compressor, values, name
        self.bits: int | None = None

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def restore(self) -> Tensor:
        if self.bits is None:
            return self.values
        found = self.compressor.quantised(self.values, self.name, self.bits)
        return self.values if found is None else found.restore()


def allocate(
    sizes: Mapping[str, int], sensitivity: Mapping[str, float], *, budget: float, levels: Sequence[int]
) -> dict[str, int]:
    """Bits that make ``sum_l C_l / (2^b_l - 1)^2`` small with ``sum_l b_l n_l <= budget * sum_l n_l``.

    Everything begins at the most bits; the step down that adds least for every bit it saves is taken until the budget holds.
    The greedy allocation of GACT (Liu et al., ICML 2022).
    """
    steps = sorted(levels, reverse=True)

    def price(name: str, place: int) -> float:
        high, low = steps[place], steps[place + 1]
        added = sensitivity[name] * (1 / ((1 << low) - 1) ** 2 - 1 / ((1 << high) - 1) ** 2)
        return added / (sizes[name] * (high - low))

    places = dict.fromkeys(sizes, 0)
    queue = [(price(name, 0), name) for name in sizes if len(steps) > 1]
    heapq.heapify(queue)
    spare = sum(sizes.values()) * (budget - steps[0])
    while spare < 0 and queue:
        _, name = heapq.heappop(queue)
        place = places[name] = places[name] + 1
        spare += sizes[name] * (steps[place - 1] - steps[place])
        if place + 1 < len(steps):
            heapq.heappush(queue, (price(name, place), name))
    return {name: steps[place] for name, place in places.items()}


class _Gradients:
    """Gradients of one forward pass, read with chosen roundings."""

    def __init__(self, loss: Tensor, wanted: Sequence[nn.Parameter], probes: Mapping[str, list[_Probe]]) -> None:
        self.loss, self.wanted, self.probes = loss, wanted, probes
        self.passes = 0
        self.exact = self.of({})
        self.norm = float(sum((g.double() ** 2).sum() for g in self.exact)) ** 0.5
        if not isfinite(self.norm):
            raise DeltaError(
                f"the gradient of the loss, {float(loss.detach()):g}, is not finite: nothing can be compared"
            )

    def of(self, bits: Mapping[str, int]) -> list[Tensor]:
        """Gradients with the rounding of `bits`, others exact."""
        for name, probes in self.probes.items():
            for probe in probes:
                probe.bits = bits.get(name)
        self.passes += 1
        found = torch.autograd.grad(self.loss, self.wanted, retain_graph=True, allow_unused=True)
        return [torch.zeros(()) if g is None else g.detach() for g in found]

    def error(self, bits: Mapping[str, int]) -> float:
        """Squared norm of the change; a huge number where it is not finite."""
        change = float(sum(((g - e).double() ** 2).sum() for g, e in zip(self.of(bits), self.exact, strict=True)))
        return change if change < float("inf") else 1e30  # also of NaN


def calibrate(
    compressor: ActivationCompressor, loss: Callable[[], Tensor], *, budget: float, levels: Sequence[int]
) -> Calibration:
    """Bits of every tensor under a budget.

    One forward pass keeps the tensors as they are; a backward pass for each reads it alone at the bits of the compressor,
    ``C_l = |g(l) - g|^2 (2^bits - 1)^2``. The forward pass being exact, this needs L + 3 backward passes where GACT runs 3 L
    whole steps. An allocation that is measured to be worse than equal bits for all is not taken.
    """
    if compressor.model is None:
        raise DeltaError("calibrating needs the model, for its gradient: ActivationCompressor(model, ...)")
    levels = sorted(set(levels), reverse=True)
    if not levels or any(level not in BITS for level in levels):
        raise DeltaError(f"levels are {levels}; give some of {', '.join(map(str, BITS))}")
    if budget < levels[-1]:
        raise DeltaError(f"a budget of {budget:g} bits is below the least level, {levels[-1]}")
    wanted = [p for p in compressor.model.parameters() if p.requires_grad]
    if not wanted:
        raise DeltaError("no parameter of the model gets a gradient")
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in compressor.model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    report = compressor.report
    try:
        return _chosen(compressor, _forward(compressor, loss, wanted), budget, levels)
    finally:
        with torch.no_grad():
            for module, name, buffer, kept in buffers:  # after the last backward pass, which reads some of them
                # A constant may be expanded, and cannot be written; sparse tensors cannot be compared.
                if buffer.layout is not torch.strided or not torch.equal(buffer, kept):
                    buffer.copy_(kept)
                if module._buffers.get(name) is not buffer:
                    setattr(module, name, buffer)
        compressor.report = report


def _chosen(
    compressor: ActivationCompressor, gradients: _Gradients, budget: float, levels: Sequence[int]
) -> Calibration:
    probes = gradients.probes
    if not probes:
        raise DeltaError("nothing is quantised in this pass: every saved tensor is small, exact or has no gradient")
    sizes = {name: sum(len(probe.values) for probe in found) for name, found in probes.items()}
    scale = ((1 << compressor.bits) - 1) ** 2
    sensitivity = {name: gradients.error({name: compressor.bits}) * scale for name in probes}
    chosen = allocate(sizes, sensitivity, budget=budget, levels=levels)
    uniform = dict.fromkeys(probes, next(level for level in levels if level <= budget))
    errors = gradients.error(chosen), gradients.error(uniform)
    if errors[1] < errors[0]:
        chosen = uniform
    compressor.levels = chosen
    norm = gradients.norm or 1.0
    return Calibration(
        chosen,
        sum(chosen[name] * size for name, size in sizes.items()) / sum(sizes.values()),
        min(errors) ** 0.5 / norm,
        errors[1] ** 0.5 / norm,
        sensitivity,
        gradients.passes,
    )


def _forward(
    compressor: ActivationCompressor, loss: Callable[[], Tensor], wanted: Sequence[nn.Parameter]
) -> _Gradients:
    """One pass with probes; generators and the compressor are as they were."""
    probes = dict[str, list[_Probe]]()

    def make(values: Tensor, name: str) -> Content:
        probes.setdefault(name, []).append(_Probe(compressor, values, name))
        return probes[name][-1]

    before, plain = compressor.forwards, compressor.make
    devices = {p.device.index or 0 for p in wanted if p.device.type == "cuda"}
    try:
        compressor.make = make
        with torch.random.fork_rng(sorted(devices)), compressor, torch.enable_grad():
            value = loss()
    finally:
        compressor.make, compressor.forwards = plain, before
    return _Gradients(value, wanted, probes)
