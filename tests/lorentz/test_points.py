"""Parameters that are points: they keep their mark, and layers built without memory start as others do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import lorentz.math
from lorentz import (
    FermiDirac,
    Lorentz,
    LorentzBatchNorm,
    LorentzClassifier,
    LorentzEmbedding,
    LorentzGraphAttention,
    LorentzLayerNorm,
    LorentzLinear,
    LorentzRMSNorm,
)

MARKED = {
    "embedding": (lambda m: LorentzEmbedding(4, 5, manifold=m), "weight"),
    "prototype": (lambda m: LorentzClassifier(5, 3, manifold=m), "weight"),
    "batch norm": (lambda m: LorentzBatchNorm(5, manifold=m), "bias"),
}
MADE: dict[str, Callable[[Lorentz], nn.Module]] = {
    **{name: build for name, (build, _) in MARKED.items()},
    "linear": lambda m: LorentzLinear(5, 4, manifold=m, scale=3.0),
    "layer norm": lambda m: LorentzLayerNorm(5, manifold=m),
    "rms norm": lambda m: LorentzRMSNorm(5, manifold=m),
    "graph attention": lambda m: LorentzGraphAttention(5, 5, 2, manifold=m),
    "decoder": lambda m: FermiDirac(1.5, 0.5, manifold=m),
    "learned decoder": lambda m: FermiDirac(1.5, 0.5, manifold=m, learnable=True),
}


@pytest.mark.parametrize("name", MARKED)
def test_a_parameter_of_points_keeps_its_mark(name: str) -> None:
    build, parameter = MARKED[name]
    layer = build(Lorentz(2.0))

    def marked(layer: nn.Module) -> bool:
        return getattr(getattr(layer, parameter), "manifold", None) is layer.manifold

    assert marked(layer) and marked(copy.deepcopy(layer)) and marked(layer.double())
    layer.load_state_dict({n: t.clone() for n, t in layer.state_dict().items()}, assign=True)
    assert marked(layer)
    with torch.device("meta"):
        empty = build(Lorentz(2.0))
    assert marked(empty.to_empty(device="cpu"))


@pytest.mark.parametrize("name", MADE)
def test_layers_without_memory_start_as_others_do(name: str) -> None:
    torch.manual_seed(0)
    want = MADE[name](Lorentz(2.0)).state_dict()
    with torch.device("meta"):
        layer = MADE[name](Lorentz(2.0))
    layer.to_empty(device="cpu")
    for tensor in layer.state_dict().values():
        tensor.fill_(77)
    torch.manual_seed(0)
    for module in layer.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    got = layer.state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[n], t) for n, t in want.items()), name


def test_a_reset_takes_back_what_training_did_to_the_scale() -> None:
    layer = LorentzLinear(5, 5, manifold=Lorentz(), scale=3.0)
    with torch.no_grad():
        layer.log_scale.fill_(7.0)
    layer.reset_parameters()
    assert float(layer.log_scale.detach().exp()) == pytest.approx(3.0)


def test_a_star_import_leaves_the_standard_math_alone() -> None:
    names: dict[str, object] = {}
    exec("import math\nfrom lorentz import *\nimport lorentz.math", names)
    assert names["math"] is math and names["Lorentz"] is Lorentz
    assert lorentz.math.lift(torch.tensor([0.0, 0.0])).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", MARKED)
def test_points_that_were_made_of_others_are_marked_when_they_are_points_again(name: str) -> None:
    build, attribute = MARKED[name]
    manifold = Lorentz()
    layer = build(manifold)
    if getattr(layer, attribute).ndim > 1:
        nn.utils.parametrizations.weight_norm(layer, attribute)
        nn.utils.parametrize.remove_parametrizations(layer, attribute)
    else:
        kept = getattr(layer, attribute)
        delattr(layer, attribute)
        layer.register_parameter(attribute, nn.Parameter(kept.detach()))
    assert getattr(layer, attribute).manifold is manifold
