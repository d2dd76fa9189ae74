"""Rational activations: the fit, exactness at the start, the function that is learned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltas
from deltas import DeltaError, RationalActivation
from deltas.methods.rational import fit_rational, rational

from .backbones import backbone, nudge

BASES = {"gelu": (F.gelu, 4e-3), "silu": (F.silu, 6e-4), "relu": (F.relu, 6e-2), "tanh": (torch.tanh, 1e-4)}


def explicit(x: Tensor, a: list[float], b: list[float]) -> Tensor:
    top = sum(c * x**j for j, c in enumerate(a))
    low = sum(c * x**j for j, c in enumerate(b, start=1))
    return top / (1 + low.abs())


@pytest.mark.parametrize("name", BASES)
def test_fit(name: str) -> None:
    """The stated largest errors on [-5, 5], between the points of the fit too."""
    base, error = BASES[name]
    a, b = fit_rational(base, 5, 4)
    x = torch.linspace(-5, 5, 30011, dtype=torch.float64)
    assert (explicit(x, a, b) - base(x)).abs().max() <= error
    torch.testing.assert_close(rational(x, torch.tensor(a).double(), torch.tensor(b).double()), explicit(x, a, b))


def test_fit_of_a_rational_function() -> None:
    """What the family contains is found."""
    a, b = fit_rational(lambda x: (1 + x - x**3) / (1 + (0.5 * x**2 + 0.1 * x**4).abs()), 5, 4)
    torch.testing.assert_close(
        torch.tensor(a + b), torch.tensor([1, 1, 0, -1, 0, 0, 0, 0.5, 0, 0.1]), atol=1e-4, rtol=0
    )


class Net(nn.Module):
    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.lin, self.act = nn.Linear(3, 4), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


@pytest.mark.parametrize("act", [F.gelu, nn.SiLU(), torch.tanh], ids=["gelu", "silu", "tanh"])
def test_formula(act: Callable[[Tensor], Tensor]) -> None:
    net = Net(act).double()
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    outer = nn.ModuleDict({"ffn": net})
    handle = deltas.attach(outer, RationalActivation(roles=("a",)), host={"a": "ffn.act"})
    assert torch.equal(net(x), act(x))
    start = [t.tolist() for t in handle.parts().values()]
    nudge(handle, std=0.1)
    now = [t.tolist() for t in handle.parts().values()]
    if len(start[0]) == 4:
        start, now = start[::-1], now[::-1]
    torch.testing.assert_close(net(x), act(x) + explicit(x, *now) - explicit(x, *start))
    handle.detach()
    assert net.act is act


@pytest.mark.parametrize("name", ["bert", "t5", "lorentz"])
def test_every_layer_has_its_own(name: str) -> None:
    """10 numbers a layer, that are stored; what is fitted is not."""
    model = backbone(name)
    handle = deltas.attach(model, RationalActivation())
    layers = {"t5": 4}.get(name, 2)
    assert handle.count() == 10 * layers
    assert len(handle.parts()) == 2 * layers
    first = next(iter(handle.parameters()))
    with torch.no_grad():
        first.add_(1.0)
    assert sum(not torch.equal(p, handle.initial[key]) for key, p in handle.parts().items()) == 1


def test_bfloat16_is_exact_too() -> None:
    net = Net(F.gelu).to(torch.bfloat16)
    deltas.attach(nn.ModuleDict({"ffn": net}), RationalActivation(roles=("a",)), host={"a": "ffn.act"})
    x = torch.linspace(-20, 20, 401).to(torch.bfloat16)
    assert torch.equal(net(x), F.gelu(x))


def test_sizes() -> None:
    assert deltas.plan(backbone("bert"), RationalActivation(numerator=3, denominator=2)).parameters == 2 * 6
    with pytest.raises(DeltaError, match="denominator >= 1"):
        RationalActivation(denominator=0)
