"""A thousand random trainings, 20 steps each, in which nothing may turn NaN and no point may leave the hyperboloid.

    python -m benchmarks.lorentz_fuzz [--seeds 0:1000] [--control 0:200] [--workers 1]

A seed is a stack of up to six random layers up to 64 wide with a random task, precision, curvature (learned in three of
ten), optimiser, learning rate (1e-4 to 1) and radius of the inputs (1e-6 to 20 in the manifold's own distance, at most
20 sqrt(k)). Every output, loss, gradient, parameter and buffer is looked at in every step, and every point against the
tolerance of its dtype. ``--seeds 137`` runs one seed alone.

What a user at such rates would do as well: gradient descent clips the gradient of dense parameters at norm 1; curvatures
and rapidities, which are exponents, learn at 0.1 at most; tables start within the radius that the optimiser allows.
float16 is autocast over float32 parameters with a gradient scaler: a gradient that overflows is scaled down and the step
repeated, outputs and loss must be finite as everywhere else. As its matrix products end at 65504, inputs lie within the
radius that it resolves, rates end at 0.01, and there is no batch norm, whose gain has no bound.

Beside it the same trainings with the formulas as they are printed and geoopt's distance and optimisers, with and without
the guards that public code puts under its roots. Its points carry their time, so a learned curvature takes tables off the
hyperboloid. Times are of the processor.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lorentz.check import watch

from . import fuzz_plain
from .common import asked, row, save
from .fuzz_cases import Case, draw
from .fuzz_model import OURS, Model, dtype_of, optimizer_of

STEPS = 20
HALVINGS = 12


@dataclass(frozen=True)
class Outcome:
    """How a training ended: what broke first, or nothing."""

    seed: int
    seconds: float
    not_finite: str
    off_manifold: str
    repeated: int


class NotFinite(Exception):
    """Says what is not finite."""


class Probe:
    """Remembers the first module whose output, and the first whose output's gradient, is not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.output = self.gradient = ""
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(f"{name or 'model'} ({type(module).__name__})"))

    def _hook(self, name: str) -> Any:
        def gradient(grad: Tensor) -> None:
            if not self.gradient and not bool(grad.isfinite().all()):
                self.gradient = name

        def forward(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return
            if not self.output and not bool(output.isfinite().all()):
                self.output = name
            if output.requires_grad:
                output.register_hook(gradient)

        return forward


def _bad(named: Iterable[tuple[str, Tensor | None]]) -> str:
    """Name of the first tensor that is not finite."""
    for name, value in named:
        if value is not None and not bool((value.coalesce().values() if value.is_sparse else value).isfinite().all()):
            return name
    return ""


class Training:
    """One training under watch."""

    def __init__(self, case: Case, kit: SimpleNamespace) -> None:
        torch.manual_seed(case.seed)
        self.model = Model(case, kit).to(dtype_of(case))
        self.model.start()
        self.optimizer, self.probe = optimizer_of(self.model), Probe(self.model)
        self.low = {"autocast": torch.bfloat16, "float16": torch.float16}.get(case.precision)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=self.low == torch.float16)
        self.when, self.off, self.repeated = "start", "", 0

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Loss, every output checked."""
        with watch(self.model) as report, torch.autocast("cpu", self.low, enabled=self.low is not None):
            points = self.model(batch["inputs"], batch["masks"])
            loss = self.model.loss(points, batch["targets"])
        if self.probe.output or not bool(loss.isfinite()):
            raise NotFinite(f"output of {self.probe.output}" if self.probe.output else "loss")
        if report.failures and not self.off:
            self.off = f"{self.when}: {report.failures[0]}"
        return loss

    def backward(self, batch: dict[str, Any]) -> None:
        """Finite gradients; a scaler that overflows may have the step repeated."""
        for left in reversed(range(HALVINGS if self.scaler.is_enabled() else 1)):
            self.optimizer.zero_grad()
            self.scaler.scale(self.forward(batch)).backward()
            self.scaler.unscale_(self.optimizer)
            bad = _bad((name, p.grad) for name, p in self.model.named_parameters())
            if not bad:
                return
            if not left:
                raise NotFinite(f"gradient of {bad}, first of {self.probe.gradient or 'a leaf'}")
            self.probe.gradient = ""
            self.repeated += 1
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def step(self) -> None:
        """One step, after which every parameter and buffer is checked."""
        self.backward(self.model.batch())
        dense = [p for p in self.model.parameters() if p.grad is not None and not p.grad.is_sparse]
        if self.model.case.clip is not None and dense:
            nn.utils.clip_grad_norm_(dense, self.model.case.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        bad = _bad([*self.model.named_parameters(), *self.model.named_buffers()])
        if bad:
            raise NotFinite(f"{bad} after the step")

    def run(self) -> None:
        """All steps, and the forward pass of the evaluation mode."""
        for step in range(STEPS):
            self.when = f"step {step + 1}"
            self.step()
        self.when = "evaluation"
        with torch.no_grad():
            self.model.eval()
            self.forward(self.model.batch())


def train(case: Case, kit: SimpleNamespace = OURS) -> Outcome:
    """Run one training and say what broke first, if anything."""
    started, broken = time.process_time(), ""
    training = Training(case, kit)
    try:
        training.run()
    except NotFinite as error:
        broken = f"{training.when}: {error}"
    return Outcome(case.seed, time.process_time() - started, broken, training.off, training.repeated)


def _one(job: tuple[int, str]) -> Outcome:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return train(draw(job[0]), KITS[job[1]])


KITS = {"ours": OURS, "plain": fuzz_plain.kit(guarded=False), "guarded": fuzz_plain.kit(guarded=True)}


def run(seeds: Iterable[int], kit: str, workers: int) -> Iterator[Outcome]:
    """Outcomes in the order of the seeds."""
    jobs = [(seed, kit) for seed in seeds]
    if workers == 1:
        yield from map(_one, jobs)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_one, jobs)


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    return range(int(first), int(last)) if colon else range(int(first), int(first) + 1)


def _report(kit: str, seeds: range, workers: int) -> list[Outcome]:
    """Run, print every failure (of the controls only their number), and return the outcomes."""
    outcomes: list[Outcome] = []
    for outcome in run(seeds, kit, workers):
        outcomes.append(outcome)
        if kit == "ours" and (outcome.not_finite or outcome.off_manifold):
            what = outcome.not_finite or "off the hyperboloid, " + outcome.off_manifold
            print(f"FAILED {draw(outcome.seed)}\n    {what}", flush=True)
        if len(outcomes) % 50 == 0 or len(outcomes) == len(seeds):
            failed, off = _count(outcomes)
            seconds = sum(o.seconds for o in outcomes)
            print(
                f"{KITS[kit].name}: {len(outcomes)} of {len(seeds)}, {failed} not finite, {off} off the hyperboloid, "
                f"{seconds:.0f} s",
                flush=True,
            )
    return outcomes


def _count(outcomes: list[Outcome]) -> tuple[int, int]:
    """Trainings that turned non-finite, and others that left the hyperboloid."""
    failed = sum(bool(o.not_finite) for o in outcomes)
    return failed, sum(bool(o.off_manifold) and not o.not_finite for o in outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=_seeds, default=range(1000), metavar="FIRST[:END]")
    parser.add_argument("--control", type=_seeds, default=range(200), metavar="FIRST[:END]")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    alone = len(options.seeds) == 1
    if alone:
        print(draw(options.seeds[0]))
    outcomes = {
        kit: _report(kit, options.seeds if kit == "ours" else options.control, options.workers)
        for kit in (["ours"] if alone else KITS)
    }
    if alone:
        return
    rows = []
    for kit, results in outcomes.items():
        for what, value in zip(("not finite", "finite, off the hyperboloid"), _count(results), strict=True):
            goal: dict[str, Any] = {"target": 0, "met": value == 0} if kit == "ours" else {}
            rows.append(row(f"{KITS[kit].name}: trainings {what}", value, "trainings", n=len(results), **goal))
    seconds = sum(o.seconds for o in outcomes["ours"])
    rows.append(row("time of all trainings", seconds, "s", n=len(outcomes["ours"]), target=1800, met=seconds <= 1800))
    repeated = sum(o.repeated for o in outcomes["ours"])
    rows.append(row("float16 steps repeated by the gradient scaler", repeated, "steps", n=len(outcomes["ours"])))
    print(save("lorentz_fuzz", asked("lorentz_fuzz"), rows, threads=1))


if __name__ == "__main__":
    main()
