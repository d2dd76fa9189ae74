"""DoRA: no gradient passes the length of the changed weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deltas
from deltas import IA3, Delta, KAdaptation, KronA, LoRA

from .backbones import nudge


def test_the_length_takes_no_gradient() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"q": nn.Linear(5, 4)}).double()
    handle = deltas.attach(
        model, LoRA(rank=2, directed=True, roles=("attention.query",)), host={"attention.query": "q"}
    )
    nudge(handle, 0.5)
    part: Any = handle.sites[0].part
    x, layer = torch.randn(3, 5).double(), model["q"]
    weight = torch.randn(3, 4).double()
    found = torch.autograd.grad((layer(x) * weight).sum(), [part.A, part.B, part.magnitude])
    changed = layer.weight + part.scale * part.B @ part.A
    for published in (True, False):
        length = changed.norm(dim=1, keepdim=True)
        new = part.magnitude[:, None] * changed / (length.detach() if published else length)
        want = torch.autograd.grad(
            (F.linear(x, new, layer.bias) * weight).sum(), [part.A, part.B, part.magnitude], retain_graph=True
        )
        close = [torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(found, want, strict=True)]
        assert close == ([True] * 3 if published else [False, False, True])


@pytest.mark.parametrize(
    "other",
    [KronA(roles=("q",)), KAdaptation(roles=("q",)), IA3(roles=("q",), inputs=()), IA3(roles=(), inputs=("q",))],
)
@pytest.mark.parametrize("later", [True, False])
def test_it_acts_before_what_others_do_to_the_result_and_merges_to_the_same(other: Delta, later: bool) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"q": nn.Linear(8, 4)}).double()
    directed = LoRA(rank=2, directed=True, roles=("q",))
    handle = deltas.attach(model, directed + other if later else other + directed, host={"q": "q"})
    nudge(handle, 0.5)
    x = torch.randn(3, 8).double()
    expected = model["q"](x)
    handle.merge()
    torch.testing.assert_close(model["q"](x), expected)
    handle.unmerge()
    assert torch.equal(model["q"](x), expected)
