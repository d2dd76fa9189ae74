"""The methods of a comparison: names, options under a budget, and learning rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import deltas
from tasks.errors import UsageError
from tasks.text.backbone import load_backbone
from tasks.text.config import BASELINES, ModelConfig

from .config import CONTROLS, CompareConfig

__all__ = ["Method", "methods"]

# What works for most methods in some hundred steps, and the exceptions.
USUAL_LR, LRS = 1e-3, {"full": 1e-4, "head": 1e-2, "FullFineTuning": 1e-4, "PrefixTuning": 3e-3, "PromptTuning": 1e-2}


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes
    ----------
    name : as it is shown
    parameters : trained besides the head; None for baselines
    options : of the delta
    note : how far from the budget, and why
    """

    name: str
    parameters: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def lr(self) -> float:
        """Usual learning rate."""
        return LRS.get(self.name.split("+")[0], USUAL_LR)

    def overrides(self, model: str) -> dict[str, Any]:
        """What the task text is told."""
        if self.name in ("majority", "tfidf"):
            return {"model": {"name": self.name}}
        if self.name in ("full", "head"):
            return {"model": {"name": model}, "tuning": self.name}
        return {"model": {"name": model}, "delta": {"name": self.name, "options": self.options}}


def methods(config: CompareConfig, model: str) -> list[Method]:
    """Methods of a comparison on a backbone, controls first; those that it cannot take are left out with a note.

    Raises
    ------
    UsageError : a name that is unknown, or a method that the only backbone cannot take, or a baseline in place of a backbone.
    """
    words = [word.strip() for word in config.deltas.split(",")]
    names = (
        [name for name in deltas.DELTAS if name not in ("FullFineTuning", "HeadOnly")] if words == ["all"] else words
    )
    names = [name for name in names if name not in CONTROLS]
    if model in BASELINES:
        raise UsageError(f"--model {model}: it stands in every comparison; name backbones, minilm for example")
    backbone = load_backbone(ModelConfig(name=model))
    total = sum(p.numel() for p in backbone.parameters())
    found = [Method("majority"), Method("tfidf"), Method("head", 0), Method("full", total)]
    for name in names:
        known = all(part.strip() in deltas.DELTAS for part in name.split("+"))
        try:
            found.append(_sized(backbone, name, config.budget))
        except deltas.DeltaError as error:
            if words != ["all"] and not (known and len(config.models) > 1):
                raise UsageError(f"--deltas {name} on {model}: {error}") from None
            found.append(Method(name, None, note=f"left out: {error}"))
    return found


def _sized(backbone: Any, name: str, budget: int | None) -> Method:
    if budget is None:
        return Method(name, deltas.plan(backbone, deltas.parse(name), heads=()).parameters)
    fitted = deltas.fit_budget(backbone, name, budget)
    count = deltas.plan(backbone, deltas.parse(name, fitted), heads=()).parameters
    off = count / budget - 1
    note = "" if abs(off) <= 0.01 else f"{off:+.1%} of the budget" + ("" if fitted else ": it has no size to choose")
    return Method(name, count, fitted, note)
