"""The training loop of every task."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from lorentz.check import ManifoldReport, watch

from .activations import bytes_held, compressor_of
from .checkpoint import frozen_tensors, load_checkpoint, read_state, restore_rng, rng_state, save_checkpoint
from .config import TrainConfig, config_hash, to_dict
from .errors import RunError, UsageError
from .folder import RunFolder, atomic_write, explain_os_error
from .nonfinite import first_nonfinite
from .optim import build_optimizers, cap_norms, clip_sparse, schedule_factor
from .process import cpu_threads, environment, seed_everything, without_bars
from .progress import Progress
from .sources import changed_inputs, sources_of
from .task import Data, Task
from .team import Follower, Team

__all__ = ["fit"]

SCHEMA = 1


def same_inputs(task: Task, data: Data, folder: RunFolder, sha256: str, sources: Mapping[str, str]) -> None:
    """Refuse to go on with, or to return, a run of other data or of another pretrained model, say, under the same name."""
    if changed := changed_inputs(task, data, sha256, sources):
        verb = "has" if len(changed) == 1 else "have"
        raise UsageError(
            f"{' and '.join(changed)} {verb} changed since {folder.path} was started; start a new run: choose another "
            "--out or --runs, or delete that folder"
        )


class _Run:
    """State of one run: model, optimisers, position, best score. Everything in it is checkpointed."""

    def __init__(self, task: Task, data: Data, folder: RunFolder, *, team: Team, seed: int, progress: Progress) -> None:
        self.task, self.data, self.folder, self.seed, self.progress = task, data, folder, seed, progress
        self.team = team
        self.train: TrainConfig = task.config.train
        seed_everything(seed)
        self.model: nn.Module = task.build(task.config, data).to(team.device)
        team.level(self.model, parameters=True)
        team.start(seed)
        self.frozen = frozen_tensors(task, self.model)
        self.optimizers = build_optimizers(task.param_groups(self.model), self.train)
        schedule_factor(self.train, 0, 1)  # an unknown schedule is refused before anything is written
        self.batches = task.n_batches(data)
        self.total = self.train.steps(self.batches)
        self.compressor = compressor_of(self.model, self.train, seed)
        self.epoch = self.index = self.count = self.misses = 0
        self.sums: dict[str, float] = {}
        self.best: dict[str, Any] | None = None
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        self.metrics_bytes = 0
        self.held: dict[str, Any] | None = None  # what activations took before the run was stopped
        self.warnings: list[str] = list(data.warnings)
        self.saved, self.checkpoint_seconds, self.wished = time.monotonic(), 60.0, False
        for warning in self.warnings:
            progress.say(f"warning: {warning}")

    @property
    def steps(self) -> int:
        return self.epoch * self.batches + self.index

    @property
    def stopped(self) -> bool:
        return self.train.patience is not None and self.misses >= self.train.patience

    def restore(self) -> None:
        """Go back to the newest checkpoint, or to the start."""
        latest = self.folder.latest()
        if latest is None:
            self.folder.cut("metrics.jsonl", 0)
            return
        state = self.load(latest)
        if changed := self.folder.changes(state["config"], to_dict(self.task.config)):
            raise UsageError(
                f"{self.folder.path / 'config.yaml'} was changed since the run was started: {'; '.join(changed)}. "
                "Change it back, or start a new run"
            )
        before = {"processes": 1, **state}
        for name, now in (
            ("torch", torch.__version__),
            ("threads", self.train.threads),
            ("processes", self.team.count),
        ):
            if before[name] != now:
                self.warnings.append(
                    f"resumed with {name} {now}, started with {before[name]}: no longer equal to the bit"
                )
                self.progress.say(f"warning: {self.warnings[-1]}")
        for name in ("epoch", "index", "count", "misses", "sums", "best", "seconds", "metrics_bytes"):
            setattr(self, name, state[name])
        self.held = state.get("activations")
        self.warnings += [warning for warning in state["warnings"] if warning not in self.warnings]
        self.folder.cut("metrics.jsonl", self.metrics_bytes)
        kept = [row for row in self.folder.rows("timing.jsonl") if row["step"] <= self.steps]
        atomic_write(self.folder.path / "timing.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        states = [state["rng"], *state.get("others_rng", [])]
        if self.team.rank < len(states):
            restore_rng(states[self.team.rank])
        self.progress.say(f"resuming {self.folder.path} at step {self.steps} of {self.total}")

    def load(self, latest: Path) -> dict[str, Any]:
        """Load the newest checkpoint, or, where that is damaged, the one before it that is kept; returns its state."""
        damage: RunError | None = None
        for place in [latest, *(older for older in self.folder.checkpoints() if older.name < latest.name)]:
            try:
                state = read_state(place)
                same_inputs(self.task, self.data, self.folder, state["data_sha256"], state.get("sources", {}))
                load_checkpoint(place, self.model, self.optimizers, frozen=self.frozen)
            except RunError as error:
                damage = damage or error
                continue
            if damage is not None:
                self.progress.say(f"warning: {latest} is damaged; going on from the older {place.name}")
            return state
        assert damage is not None
        raise damage

    def checkpoint(self) -> str:
        name = f"step-{self.steps:08d}"
        fields = ("epoch", "index", "count", "misses", "sums", "best", "seconds", "metrics_bytes")
        state: dict[str, Any] = {field: getattr(self, field) for field in fields}
        state |= {"torch": torch.__version__, "threads": self.train.threads, "data_sha256": self.data.sha256}
        state |= {"sources": sources_of(self.task), "activations": bytes_held(self.compressor) or self.held}
        state |= {"config": to_dict(self.task.config), "warnings": self.warnings}
        state["rng"], *others = self.team.gather(rng_state())
        state |= {"processes": self.team.count, "others_rng": others} if others else {}
        self.folder.write_checkpoint(
            name, lambda path: save_checkpoint(path, self.model, self.optimizers, state, self.frozen)
        )
        self.folder.prune({name} | ({self.best["checkpoint"]} if self.best else set()))
        self.saved = time.monotonic()
        return name

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.team.device.type
        if self.compressor is not None:
            self.compressor.forwards = self.steps  # which its rounding depends on
        with (
            torch.autocast(device, torch.bfloat16) if self.train.precision == "bf16" else nullcontext(),
            self.compressor or nullcontext(),
        ):
            return self.task.step(self.model, batch)

    def update(self) -> None:
        """One optimiser step of all processes."""
        factor = schedule_factor(self.train, self.steps, self.total)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad(set_to_none=True)
        batch = self.task.train_batch(self.data, self.epoch, self.index, self.seed)
        part = self.team.part(self.task, batch)
        before = (torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])
        value, weight = 0.0, 0.0
        scalars: dict[str, Tensor] = {}
        if part is not None:
            batch, weight = send_to_device(part[0], self.team.device), part[1]
            loss, scalars = self.forward(batch)
            value = float(loss.detach())
            if self.team.count == 1 and not isfinite(value):
                self.fail(batch, before)
            loss.backward()
        self.wished = time.monotonic() - self.saved >= self.checkpoint_seconds
        if self.team.count > 1:
            own = isfinite(value)
            value, self.wished = self.team.exchange(self.model, value, weight, wish=self.wished)
            if not isfinite(value):
                self.fail(None if own else batch, before)
        if self.train.clip is not None:
            parameters = list(self.model.parameters())
            sparse = any(p.grad is not None and p.grad.is_sparse for p in parameters)
            clip = clip_sparse if sparse else nn.utils.clip_grad_norm_
            norm = clip(parameters, self.train.clip)
            if not isfinite(float(norm)):
                self.fail(batch, before)
        for optimizer in self.optimizers:
            optimizer.step()
        cap_norms(self.optimizers)
        logged = {"loss": value, **{key: float(scalar) for key, scalar in scalars.items()}}
        for key, scalar in logged.items():
            self.sums[key] = self.sums.get(key, 0.0) + scalar
        self.count += 1
        self.index += 1
        if self.index == self.batches:
            self.epoch, self.index = self.epoch + 1, 0
        self.progress.step(self.steps, {"epoch": self.epoch, **logged})

    def fail(self, batch: dict[str, Tensor] | None, before: tuple[Tensor, list[Tensor]]) -> None:
        """Say which module was the first to give what is not finite, by a second pass over the batch if it was this one."""

        def replay() -> Tensor:
            torch.set_rng_state(before[0])
            if before[1]:
                torch.cuda.set_rng_state_all(before[1])
            self.model.zero_grad(set_to_none=True)
            assert batch is not None
            return self.forward(batch)[0]

        cause = "in the batch of another process" if batch is None else first_nonfinite(self.model, replay)
        good = self.folder.latest()
        kept = f"last good checkpoint: {good}" if good else "no checkpoint was written yet"
        raise RunError(
            f"non-finite loss or gradient at step {self.steps} (epoch {self.epoch}, batch {self.index}): "
            f"first bad is {cause}; {kept}. A smaller --train.lr or --train.clip usually helps."
        )

    def measure(self, split: str) -> tuple[dict[str, float], ManifoldReport]:
        start = time.monotonic()
        self.model.eval()
        with torch.no_grad(), watch(self.model) as report:
            metrics = self.task.evaluate(self.model, self.data, split)
        self.model.train()
        self.seconds["evaluate"] += time.monotonic() - start
        values = {key: float(value) for key, value in metrics.items()}
        if bad := [key for key, value in values.items() if not isfinite(value)]:
            raise RunError(
                f"the {split} metrics {', '.join(bad)} are not finite at step {self.steps}; no score is kept"
            )
        return values, report

    def validate(self) -> None:
        """Evaluate on the validation split, log, remember the best, write a checkpoint."""
        self.team.level(self.model)
        metrics, report = self.team.share(lambda: self.measure("valid"))
        name = self.task.monitor.lstrip("-")
        if name not in metrics:
            raise UsageError(f"the metric to monitor, {name!r}, is not one of {', '.join(metrics)}")
        score = -metrics[name] if self.task.monitor.startswith("-") else metrics[name]
        train = {key: value / max(self.count, 1) for key, value in self.sums.items()}
        row: dict[str, Any] = {"step": self.steps, "epoch": self.epoch, "train": train, "valid": metrics}
        if report:
            row["manifold"] = {"residual": report.residual, "radius_p99": report.radius_p99}
        self.metrics_bytes = self.folder.append("metrics.jsonl", row)
        self.folder.append("timing.jsonl", {"step": self.steps, **self.seconds})
        self.sums, self.count = {}, 0
        if self.best is None or score > self.best["score"]:
            self.best = {"score": score, "step": self.steps, "valid": metrics, "checkpoint": f"step-{self.steps:08d}"}
            self.misses = 0
        else:
            self.misses += 1
        self.progress.evaluated(self.steps, "valid", metrics, report.residual if report else None)
        self.checkpoint()

    @property
    def due(self) -> bool:
        """Whether it is time to evaluate."""
        if self.train.eval_steps is not None:
            at = self.steps % self.train.eval_steps == 0
        else:
            at = self.index == 0 and self.epoch % self.train.eval_every == 0
        return at or self.steps == self.total

    def loop(self, checkpoint_seconds: float) -> None:
        self.checkpoint_seconds = checkpoint_seconds
        self.model.train()
        if self.total == 0 and self.best is None:  # a model that was fitted when it was built
            self.validate()
        while self.steps < self.total and not self.stopped:
            start = time.monotonic()
            self.update()
            self.seconds["train"] += time.monotonic() - start
            if self.due:
                self.validate()
            elif self.wished:
                self.checkpoint()

    def result(self) -> dict[str, Any]:
        """Evaluate the best checkpoint and describe the run."""
        assert self.best is not None
        load_checkpoint(self.folder.checkpoint(self.best["checkpoint"]), self.model, [], frozen=self.frozen)
        test, report = self.measure("test")
        for remark in getattr(self.task, "remarks", lambda _: [])(self.model):
            self.warnings.append(remark)
            self.progress.say(f"warning: {remark}")
        parameters = list(self.model.parameters())
        config = to_dict(self.task.config)
        self.progress.evaluated(self.best["step"], "test", test, report.residual if report else None)
        return {
            "schema": SCHEMA,
            "task": self.task.name,
            "data": {"name": self.data.name, "sha256": self.data.sha256, "split": self.data.split},
            "sources": sources_of(self.task),
            "config_hash": config_hash(self.task.name, config),
            "seed": self.seed,
            "metrics": {"valid": self.best["valid"], "test": test},
            "best_step": self.best["step"],
            "params": {
                "total": sum(p.numel() for p in parameters),
                "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            },
            "seconds": {key: round(value, 3) for key, value in self.seconds.items()},
            "threads": self.train.threads,
            **({"processes": self.team.count} if self.team.count > 1 else {}),
            "manifold": {"residual": report.residual, "radius_p99": report.radius_p99} if report else None,
            "activations": bytes_held(self.compressor) or self.held,
            **({"details": self.task.details()} if hasattr(self.task, "details") else {}),
            "warnings": self.warnings,
        }


def fit(
    task: Task, data: Data, folder: RunFolder, *, seed: int, quiet: bool = False, checkpoint_seconds: float = 60.0
) -> dict[str, Any]:
    """Train `task` on `data` in `folder`, or go on where a killed run stopped; returns what ``result.json`` holds.

    A finished run is not run again. A run that was killed at any moment and resumed gives the same parameters and
    ``metrics.jsonl`` to the bit as one that was never killed, at the same number of threads.

    Raises
    ------
    UsageError : the folder holds a run of another configuration, or the data has changed.
    RunError : non-finite loss, full disk, unwritable folder, or another process in the folder.
    """
    config: Mapping[str, Any] = {"task": task.name, **to_dict(task.config)}
    team = Team()
    if team.count > 1 and (why := getattr(task, "alone", None)):
        raise UsageError(f"the task {task.name} works in one process: {why}")
    team.agree(options=config, data=data.sha256, finished=folder.finished)
    if folder.finished:  # nothing is written, so it may be read-only, or read by others at the same time
        folder.require_same(config)
        result = folder.result()
        if result["config_hash"] != config_hash(task.name, to_dict(task.config)):
            raise UsageError(
                f"{folder.path / 'config.yaml'} was changed since the run finished: its result is of other settings. "
                "Change it back, or start a new run in another folder"
            )
        same_inputs(task, data, folder, result["data"]["sha256"], result.get("sources", {}))
        return result
    folder = folder if team.leads else Follower(folder.path)
    title = f"{task.name} {data.name} seed {seed}"
    total = task.config.train.steps(task.n_batches(data))
    with cpu_threads(task.config.train.threads), Progress(title, total, quiet=quiet or not team.leads) as progress:
        run = _Run(task, data, folder, team=team, seed=seed, progress=progress)
        with ExitStack() as held:
            team.share(lambda: held.enter_context(folder.open(config, environment())))
            try:
                run.restore()
                team.agree(checkpoint=(run.steps, run.misses, run.best))
                run.loop(checkpoint_seconds)
                return team.share(lambda: finish(run))
            except OSError as error:
                good = folder.latest()
                kept = f"The run is safe up to {good.name}" if good else "No checkpoint was written yet"
                raise RunError(
                    f"{explain_os_error(error, folder.path)}. {kept}; then go on with: hyrel resume {folder.path}"
                ) from None


def finish(run: _Run) -> dict[str, Any]:
    """Evaluate the best model, write it with what there is to hand over, and last of all the result, which is returned."""
    task, folder, result = run.task, run.folder, run.result()
    save_weights(run, folder)
    if name := getattr(task, "exports", None):
        with without_bars():
            folder.write_folder(name, lambda path: task.export(run.model, run.data, path))  # type: ignore[attr-defined]
    folder.finish(result)
    return result


def save_weights(run: _Run, folder: RunFolder) -> None:
    """Write the best weights as ``model.safetensors`` of the run folder, atomically."""
    assert run.best is not None
    source = folder.checkpoint(run.best["checkpoint"]) / "model.safetensors"
    atomic_write(folder.path / "model.safetensors", source.read_bytes())
