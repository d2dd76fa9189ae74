"""A merge that fails leaves the model as it was, whatever fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltas
from deltas import DeltaError, LoRA

from .backbones import nudge

HOST = {"attention.query": "q", "attention.value": "v"}


class Packed(nn.Module):
    """A linear layer of int8 numbers, as quantised models have them."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        scale = layer.weight.detach().abs().max() / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (layer.weight.detach() / scale).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale)


def normalised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))


def old_normalised() -> nn.Module:
    return torch.nn.utils.weight_norm(nn.Linear(8, 8))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("second", [normalised, old_normalised, lambda: Packed(nn.Linear(8, 8))])
def test_weights_that_are_no_parameters_are_refused_and_nothing_is_merged(second: Any) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"q": nn.Linear(8, 8), "v": second()})
    handle = deltas.attach(model, LoRA(rank=2), host=HOST)
    nudge(handle, 0.5)
    x = torch.randn(2, 8)
    want = model["q"](x), model["v"](x)
    with pytest.raises(DeltaError, match=r"v\.weight cannot take a change.*Leave the delta beside it"):
        handle.merge()
    assert torch.equal(model["q"](x), want[0]) and torch.equal(model["v"](x), want[1])
    assert not handle.merged


class Broken(deltas.LinearPart):
    def addend(self, host: nn.Module, h: Tensor) -> Tensor | None:
        return None

    def merged(self, host: nn.Module) -> Tensor:
        if host.weight[0, 0] == 1:
            raise KeyboardInterrupt
        return host.weight.detach() + 1  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class Breaks(deltas.Delta):
    def sites(self, host: deltas.Host) -> list[deltas.Site]:
        return self.at(host, "attention.query", "attention.value")

    def build(self, site: deltas.Site, space: Any, shared: nn.Module | None = None) -> nn.Module:
        return Broken()


def test_any_error_on_the_way_unfolds_what_was_folded() -> None:
    model = nn.ModuleDict({"q": nn.Linear(8, 8), "v": nn.Linear(8, 8)})
    with torch.no_grad():
        model["v"].weight[0, 0] = 1
    before = {name: t.clone() for name, t in model.state_dict().items()}
    handle = deltas.attach(model, Breaks(), host=HOST)
    with pytest.raises(KeyboardInterrupt):
        handle.merge()
    assert not handle.merged
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    handle.detach()
