"""``check`` catches what it says: one planted defect for every property."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltas
from deltas import Adapter, BitFit, Delta, DeltaError, LoRA, PrefixTuning
from deltas.linear import LinearPart

from .backbones import backbone, inputs, state


@pytest.mark.parametrize("spec", [LoRA(rank=2), Adapter(bottleneck=3) + BitFit(), PrefixTuning(length=2)])
@pytest.mark.parametrize("name", ["bert", "lorentz"])
def test_sound_methods_pass_and_the_model_is_left(spec: Any, name: str) -> None:
    model = backbone(name)
    before = state(model)
    report = deltas.check(model, spec, inputs(name))
    assert report, str(report)
    assert all(torch.equal(before[k], v) for k, v in state(model).items())
    assert not deltas.handles(model)


@dataclass(frozen=True, kw_only=True)
class Broken(Delta):
    """A method with a defect."""

    defect: str = ""

    def sites(self, host: deltas.Host) -> list[deltas.Site]:
        """Queries."""
        return self.at(host, "attention.query")

    def build(self, site: deltas.Site, space: Any, shared: nn.Module | None = None) -> nn.Module:
        """A part with the defect."""
        return _Part(site.out_features, self.defect)


class _Part(LinearPart):
    def __init__(self, n: int, defect: str) -> None:
        super().__init__()
        self.defect = defect
        self.v = nn.Parameter(torch.zeros(n))
        self.idle = nn.Parameter(torch.zeros(n)) if defect == "idle" else None
        alias = self.v
        self.closure = lambda: alias  # what a deep copy does not reach

    def after(self, host: nn.Module, h: Tensor, z: Tensor) -> Tensor:
        """z and v, but for the defect."""
        v = self.closure() if self.defect == "shared" else self.v
        if self.defect == "leak":
            host.weight.requires_grad_(True)
        z = z + v + (0.1 if self.defect == "moved" else 0)
        return z.float() if self.defect == "wide" else z


@pytest.mark.parametrize(
    ("defect", "failing"),
    [
        ("moved", {"unchanged at step 0"}),
        ("idle", {"gradients"}),
        ("leak", {"gradients"}),
        ("shared", {"deep copy has a delta of its own"}),
    ],
)
def test_defects(defect: str, failing: set[str]) -> None:
    report = deltas.check(backbone("bert"), Broken(defect=defect), inputs("bert"))
    assert {c.name for c in report.failures} == failing, str(report)
    with pytest.raises(DeltaError, match="|".join(failing)):
        deltas.check(backbone("bert"), Broken(defect=defect), inputs("bert"), raises=True)


def test_shifted_positions() -> None:
    """Tokens that are embedded at positions 2, 3, ... instead of 0, 1, ... are noticed."""
    model = backbone("bert")
    embeddings: Any = model.bert.embeddings
    original = type(embeddings).forward

    class Shifted(type(embeddings)):  # type: ignore[misc]
        """Shifts while a delta is attached."""

        def forward(self, input_ids: Tensor, **options: Any) -> Any:
            if deltas.handles(owner[0]):
                options["position_ids"] = torch.arange(2, 2 + input_ids.shape[1])[None]
            return original(self, input_ids=input_ids, **options)

    owner = [model]
    embeddings.__class__ = Shifted
    import copy

    real = copy.deepcopy

    def remember(value: Any, *rest: Any) -> Any:
        made = real(value, *rest)
        owner[0] = made
        return made

    copy.deepcopy = remember
    try:
        report = deltas.check(model, BitFit(), inputs("bert"))
    finally:
        copy.deepcopy = real
    assert "positions" in {c.name for c in report.failures}, str(report)


def test_a_model_with_deltas_is_refused() -> None:
    model = backbone("bert")
    deltas.attach(model, LoRA(rank=1))
    with pytest.raises(DeltaError, match="detach"):
        deltas.check(model, LoRA(), inputs("bert"))


def test_it_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    deltas.check(backbone("bert"), LoRA(rank=2), inputs("bert"))
    assert torch.equal(torch.get_rng_state(), state)
