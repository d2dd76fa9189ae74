"""Parts under torch.compile, in one graph: forward and gradient are those of eager mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import deltas
from deltas import (
    IA3,
    Adapter,
    AdapterBias,
    Compacter,
    Delta,
    HypLoRA,
    KAdaptation,
    KronA,
    LoRA,
    LowRankAdapter,
    ParallelAdapter,
    RationalActivation,
    SparseAdapter,
)
from lorentz import Lorentz, LorentzLinear

from .backbones import nudge

pytestmark = pytest.mark.compiled

UP, DOWN = ("ffn.up",), ("ffn.down",)
SPECS: list[Delta] = [
    LoRA(rank=2, roles=UP),
    Adapter(bottleneck=4, roles=DOWN),
    ParallelAdapter(bottleneck=4),
    LowRankAdapter(bottleneck=4, roles=UP),
    Compacter(bottleneck=4, roles=DOWN),
    IA3(roles=UP),
    KronA(roles=UP),
    KronA(to="ffn", residual=True),
    KAdaptation(roles=UP),
    AdapterBias(),
    RationalActivation(),
    SparseAdapter(inner=ParallelAdapter(bottleneck=4), score="random"),
    HypLoRA(rank=2, roles=UP),
]


class Block(nn.Module):
    def __init__(self, curved: bool) -> None:
        super().__init__()
        if curved:
            options = {"manifold": Lorentz(k=1.0), "variant": "unbounded", "centred": True}
            self.up = LorentzLinear(9, 9, **options)
            self.down = LorentzLinear(9, 9, activation=nn.GELU(), **options)
        else:
            self.up, self.act, self.down = nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        return self.down(self.act(h) if hasattr(self, "act") else h)


@pytest.mark.parametrize("curved", [False, True], ids=["flat", "lorentz"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_one_graph(spec: Delta, curved: bool) -> None:
    if curved and isinstance(spec, HypLoRA):
        pytest.skip("refuses Lorentz layers")
    torch.manual_seed(0)
    torch._dynamo.reset()
    block = Block(curved)
    act = "ffn.down.activation" if curved else "ffn.act"
    host = {"ffn.up": "ffn.up", "ffn.down": "ffn.down", "ffn.activation": act}
    handle = deltas.attach(nn.ModuleDict({"ffn": block}), spec, host=host)
    nudge(handle, std=0.2)
    x = torch.randn(3, 8)
    x = Lorentz(k=1.0).lift(x) if curved else x
    parameters = list(handle.parameters())
    want = block(x)
    gradients = torch.autograd.grad(want.sin().sum(), parameters)
    got = torch.compile(block, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got.sin().sum(), parameters), gradients, strict=True):
        torch.testing.assert_close(a, b)
