"""What activation compression did in a forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Line", "Report"]


@dataclass
class Line:
    """Saved tensors of one treatment.

    Attributes
    ----------
    entries : saved tensors, each counted once however often it was saved
    plain, held : bytes without compression, and those held
    """

    entries: int = 0
    plain: int = 0
    held: int = 0


@dataclass
class Report:
    """Bytes that a forward pass holds for the backward pass, without parameters and buffers.

    Attributes
    ----------
    lines : by treatment: ``"4 bits"``, ``"lossless"``, or ``"exact: "`` and the reason
    modules : by the name of the module that saved it first
    saved : tensors that were saved, with repetitions
    """

    lines: dict[str, Line] = field(default_factory=dict)
    modules: dict[str, Line] = field(default_factory=dict)
    saved: int = 0

    @property
    def plain(self) -> int:
        """Bytes without compression: each storage once, all of it, as torch holds it."""
        return sum(line.plain for line in self.lines.values())

    @property
    def held(self) -> int:
        """Bytes held, ranges and masks included."""
        return sum(line.held for line in self.lines.values())

    @property
    def ratio(self) -> float:
        """``plain / held``."""
        return self.plain / self.held if self.held else 1.0

    def add(self, treatment: str, module: str, plain: int, held: int) -> None:
        """Count one tensor."""
        for table, name in ((self.lines, treatment), (self.modules, module)):
            line = table.setdefault(name, Line())
            line.entries += 1
            line.plain += plain
            line.held += held

    def as_dict(self) -> Mapping[str, Any]:
        """Content for a JSON file."""
        return {
            "plain_bytes": self.plain,
            "held_bytes": self.held,
            "ratio": self.ratio,
            "by_treatment": {name: vars(line) for name, line in sorted(self.lines.items())},
        }

    def __str__(self) -> str:
        rows = sorted(self.lines.items(), key=lambda item: -item[1].plain)
        lines = [f"{self.plain:,} bytes held as {self.held:,}, {self.ratio:.2f} times fewer"]
        lines += [f"  {name}: {line.entries} tensors, {line.plain:,} -> {line.held:,}" for name, line in rows]
        return "\n".join(lines)
