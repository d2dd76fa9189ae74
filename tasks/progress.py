"""What a person sees while a run is under way: one live line on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

__all__ = ["Progress"]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Progress:
    """Progress of one run. `quiet` shows nothing.

    Parameters
    ----------
    title : str, the run's name
    total : int, steps of the whole run
    """

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self.title, self.total, self.quiet = title, total, quiet
        self.live: Any = None
        self.last = time.monotonic()
        self.note = ""

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            console = Console(stderr=True)
            self.live = Bar(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console)
            self.live.start()
            self.bar = self.live.add_task(self.title, total=self.total, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        if self.live is not None:
            self.live.console.print(line, highlight=False, markup=False)
        elif not self.quiet:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 (this is the one place that talks)

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Report a training step; on a terminal at most ten times a second, piped twice a minute."""
        if self.quiet:
            return
        now = time.monotonic()
        if now - self.last < (0.1 if self.live is not None else 30):
            return
        self.last = now
        shown = "  ".join(f"{key} {_number(value)}" for key, value in scalars.items())
        if self.live is not None:
            self.live.update(self.bar, completed=step, note=f"{shown}  {self.note}")
        else:
            self.say(f"{self.title}: step {step}/{self.total}  {shown}")

    def evaluated(self, step: int, split: str, metrics: Mapping[str, Any], residual: float | None) -> None:
        """Report an evaluation, with the worst off-manifold residual of the model's layers."""
        shown = "  ".join(f"{key} {_number(value)}" for key, value in metrics.items())
        self.note = shown + ("" if residual is None else f"  off-manifold {residual:.1e}")
        self.say(f"{self.title}: step {step}/{self.total}  {split}: {self.note}")
