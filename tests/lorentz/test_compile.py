"""torch.compile(fullgraph=True) and torch.export of the layers; run without the shape-check hook, which breaks tracing."""

from __future__ import annotations

import pytest
import torch

from lorentz import Lorentz, LorentzEmbedding, LorentzLinear
from lorentz import math as lm
from lorentz.linear import VARIANTS

pytestmark = [pytest.mark.compiled, pytest.mark.filterwarnings("ignore")]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    eps = 8 * torch.finfo(a.dtype).eps
    assert torch.allclose(a, b, rtol=eps, atol=eps * float(b.abs().max()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("learnable", [False, True])
def test_linear_compiles_in_one_graph_with_equal_gradients(variant: str, learnable: bool) -> None:
    torch.manual_seed(0)
    manifold = Lorentz(2.0, learnable=learnable)
    layer = LorentzLinear(6, 5, manifold=manifold, variant=variant, activation=torch.tanh).double()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = manifold.lift(torch.randn(7, 5, dtype=torch.float64)).detach()
    expected = torch.autograd.grad(layer(x).sin().sum(), list(layer.parameters()))
    close(compiled(x), layer(x))
    for got, want in zip(torch.autograd.grad(compiled(x).sin().sum(), list(layer.parameters())), expected, strict=True):
        close(got, want)


def test_linear_compiles_with_inductor() -> None:
    torch.manual_seed(0)
    layer = LorentzLinear(6, 5, manifold=Lorentz())
    x = lm.lift(torch.randn(7, 5))
    close(torch.compile(layer, fullgraph=True)(x), layer(x))


@pytest.mark.parametrize("name", ["dist", "logmap", "expmap"])
def test_functions_compile_in_one_graph(name: str) -> None:
    function = getattr(lm, name)
    x, y = lm.lift(torch.randn(2, 5, 3, dtype=torch.float64)).unbind()
    close(torch.compile(function, fullgraph=True, backend="aot_eager")(x, y), function(x, y))


def test_layers_export() -> None:
    table = LorentzEmbedding(9, 6, manifold=Lorentz())
    index = torch.tensor([[1, 2], [3, 4]])
    assert torch.equal(torch.export.export(table, (index,)).module()(index), table(index))
    layer = LorentzLinear(6, 5, manifold=table.manifold)
    x = table(index).detach()
    close(torch.export.export(layer, (x,)).module()(x), layer(x))
