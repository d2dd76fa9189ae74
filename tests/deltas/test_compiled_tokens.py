"""Tokens under torch.compile, a whole backbone in one graph: forward and gradient are those of eager mode."""

from __future__ import annotations

import pytest
import torch

import deltas

from .backbones import nudge
from .models import batch, build

pytestmark = pytest.mark.compiled

SPECS = [
    deltas.PrefixTuning(length=3),
    deltas.PromptTuning(length=3),
    deltas.VPT(length=3),
    deltas.LLaMAAdapter(length=3),
    deltas.UniPELT(bottleneck=4, length=3, rank=2),
]
PAIRS = [(spec, "bert") for spec in SPECS] + [(spec, "lorentz") for spec in SPECS[:4]]


@pytest.mark.parametrize(("spec", "family"), PAIRS, ids=lambda one: getattr(one, "name", one))
def test_one_graph(spec: deltas.Delta, family: str) -> None:
    torch._dynamo.reset()
    model, inputs = build(family), batch(family, padded=True)
    handle = deltas.attach(model, spec)
    nudge(handle, std=0.2)
    parameters = list(handle.parameters())
    want = model(**inputs).logits
    gradients = torch.autograd.grad(want.sin().sum(), parameters)
    got = torch.compile(model, backend="aot_eager", fullgraph=True)(**inputs).logits
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got.sin().sum(), parameters), gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
