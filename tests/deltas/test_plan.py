"""Plans: trees, bytes, and names and options of the command line."""

from __future__ import annotations

import pytest
import torch

import deltas
from deltas import Adapter, BitFit, Combination, DeltaError, LoRA, PrefixTuning, parse
from deltas.spec import from_config, to_config

from .backbones import backbone


def test_tree() -> None:
    plan = deltas.plan(backbone("bert"), LoRA(rank=2) + PrefixTuning(length=3))
    text = str(plan)
    assert "0-1" in text and "LoRA 2 x 128" in text and "PrefixTuning 2 x 192" in text and "\x1b" not in text
    assert f"{plan.parameters:,} trained" in text.splitlines()[0]
    assert "\x1b" in plan.tree(color=True)


def test_bytes_beside_layers_of_half_precision() -> None:
    model = backbone("bert").to(torch.bfloat16)
    plan = deltas.plan(model, Adapter(bottleneck=4))
    handle = deltas.attach(model, Adapter(bottleneck=4))
    parts = list(handle.parts().values())
    assert plan.bytes == sum(t.numel() * t.element_size() for t in parts) == 4 * plan.parameters


@pytest.mark.parametrize(
    "spec", [LoRA(layers=()), Adapter(layers=()), PrefixTuning(layers=()), LoRA() + BitFit(layers=())]
)
def test_a_plan_refuses_what_attaching_does(spec: deltas.Delta) -> None:
    """No layers are no sites."""
    messages = []
    for function in (deltas.plan, deltas.attach):
        with pytest.raises(DeltaError) as caught:
            function(backbone("bert"), spec)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_parse() -> None:
    assert parse("LoRA", {"rank": 3}) == LoRA(rank=3)
    both = parse("Adapter+BitFit", {"bottleneck": 7, "Adapter.activation": "relu"})
    assert both == Combination((Adapter(bottleneck=7, activation="relu"), BitFit()))
    assert parse("LoRA", {"roles": ["attention.key"]}) == LoRA(roles=("attention.key",))
    with pytest.raises(DeltaError, match=r"unknown delta 'lora'. Did you mean 'LoRA'"):
        parse("lora")
    with pytest.raises(DeltaError, match=r"no option 'rnk'. Did you mean 'rank'"):
        parse("LoRA", {"rnk": 3})
    with pytest.raises(DeltaError, match=r"no option 'BitFit.rank'"):
        parse("LoRA+BitFit", {"BitFit.rank": 3})


@pytest.mark.parametrize("spec", [LoRA(rank=3, layers=(0, 1)), Adapter() + BitFit(roles=("ffn",))])
def test_config_round_trip(spec: deltas.Delta | Combination) -> None:
    assert from_config(to_config(spec)) == spec


def test_wrong_options() -> None:
    with pytest.raises(DeltaError, match="rank >= 1"):
        LoRA(rank=0)
    with pytest.raises(DeltaError, match="Did you mean 'gelu'"):
        Adapter(activation="gelo")
    with pytest.raises(DeltaError, match="length"):
        PrefixTuning(length=0)
