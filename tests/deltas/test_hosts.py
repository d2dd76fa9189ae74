"""Role maps: every family finds what it names, and a miss says what exists."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    FNetConfig,
    FNetForMaskedLM,
    FNetForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

import deltas
from deltas import IA3, DeltaError, FullFineTuning, HeadOnly, LoRA, PrefixTuning
from deltas.hosts import HOSTS, Host, host_of

from .backbones import backbone, nudge
from .models import batch, build

# backbone of the tests -> role -> number of modules that play it, counted from the architecture
COUNTS = {
    "bert": {"attention": 2, "attention.query": 2, "attention.out": 2, "ffn.up": 2, "ffn.down": 2, "norm.attention": 2,
             "norm.ffn": 2, "norm.embeddings": 1, "embeddings": 1, "encoder": 1, "ffn.activation": 2},
    "gpt2": {"attention": 2, "attention.qkv": 2, "attention.value": 2, "ffn.down": 2, "norm.final": 1, "embeddings": 1},
    "t5": {"attention": 4, "attention.query": 4, "cross": 2, "cross.value": 2, "ffn.up": 4, "norm.layer": 10,
           "norm.final": 2},
    "vit": {"attention": 2, "attention.query": 2, "ffn.up": 2, "norm.final": 1},
    "lorentz": {"attention": 2, "attention.key": 2, "ffn.up": 2, "ffn.activation": 2, "norm.layer": 4, "norm.final": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_families(name: str) -> None:
    host = host_of(backbone(name))
    assert {role: len(host.places(role)) for role in COUNTS[name]} == COUNTS[name]


def test_encoder_and_decoder_are_two_stacks() -> None:
    places = host_of(backbone("t5")).places("attention.query")
    assert [(p.stack, p.layer) for p in places] == [("decoder", 0), ("decoder", 1), ("encoder", 0), ("encoder", 1)]


def test_layers() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA(rank=1, layers=(1,)))
    assert {site.place.layer for site in handle.sites} == {1}
    handle.detach()
    full = deltas.attach(model, FullFineTuning(layers=(0,)), heads=[])
    layer = model.bert.encoder.layer[0]
    assert {id(p) for p in full.parameters()} == {id(p) for p in layer.parameters()}
    with pytest.raises(DeltaError, match="leave layers out"):
        HeadOnly(layers=(0,))
    with pytest.raises(DeltaError, match=r"layers \[7\] do not exist; this host has layers \[0, 1\]"):
        deltas.plan(model, LoRA(layers=(7,)))


def test_a_role_that_nothing_plays() -> None:
    with pytest.raises(DeltaError, match=r"Did you mean 'attention.query'"):
        deltas.plan(backbone("bert"), LoRA(roles=("attention.querry",)))


def test_an_unknown_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(DeltaError, match=r"Pass a map of yours.*its modules: 0"):
        deltas.plan(model, LoRA())
    with pytest.raises(DeltaError, match=r"unknown host 'brt'. Did you mean 'bert'"):
        host_of(model, "brt")
    with pytest.raises(DeltaError, match="plays a role of the host 'explicit'"):
        host_of(model, {"attention.query": "nowhere.*.q"})


def test_a_host_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltas.hosts.HOSTS", dict(HOSTS))
    deltas.register_host("mine", {"attention.query": "*.q"})
    with pytest.raises(DeltaError, match="exists"):
        deltas.register_host("mine", {})
    model = nn.ModuleList([nn.ModuleDict({"q": nn.Linear(2, 3)}) for _ in range(3)])
    assert deltas.plan(model, LoRA(rank=1, roles=("attention.query",)), host="mine").parameters == 3 * (2 + 3)


def test_rows_of_a_fused_layer() -> None:
    """LoRA on the values of GPT-2 changes the last third of what the fused layer returns."""
    model = backbone("gpt2")
    handle = deltas.attach(model, LoRA(rank=2, roles=("attention.value",)))
    module = model.get_submodule(handle.sites[0].path)
    x = torch.randn(1, 3, 32)
    before = module(x)
    torch.nn.init.ones_(handle.sites[0].part.B)  # type: ignore[union-attr,arg-type]
    change = module(x) - before
    assert not change[..., :64].any() and change[..., 64:].abs().min() > 0


def test_a_wrapped_backbone_is_found() -> None:
    """The configuration of a child counts, and paths begin at the outer model."""
    outer = nn.Module()
    outer.body = backbone("bert")
    assert host_of(outer).places("attention.query")[0].path.startswith("body.bert.encoder")
    assert isinstance(host_of(outer), Host)


def test_a_host_of_another_model_gives_its_map() -> None:
    first, second = (nn.ModuleDict({"q": nn.Linear(4, 4)}) for _ in range(2))
    host = host_of(first, {"attention.query": "q"})
    handle = deltas.attach(second, LoRA(rank=1, roles=("attention.query",)), host=host)
    assert handle.sites[0].module is second["q"]
    assert "deltas" not in first["q"]._modules


class _Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.q = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Queries."""
        found: torch.Tensor = self.q(self.table(words))
        return found


def test_a_check_takes_the_host_that_attach_takes() -> None:
    model, wanted = _Words(), LoRA(rank=1, roles=("attention.query",))
    host = host_of(model, {"attention.query": "q"})
    assert deltas.check(model, wanted, {"words": torch.ones(2, 3, dtype=torch.long)}, host=host)


def test_tokens_need_an_argument_that_they_can_join() -> None:
    model = _Words()
    with pytest.raises(DeltaError, match="_Words takes words: give its argument that name"):
        deltas.attach(model, deltas.PromptTuning(length=2), host={"embeddings": "table"})
    assert "deltas" not in model._modules


def test_wrong_kinds_are_named() -> None:
    """Of what the type checks of these tests would refuse first, in a process without them."""
    code = """
import torch, deltas
from torch import nn
model = nn.ModuleDict({"a": nn.LayerNorm(2)})
for call in (
    lambda: deltas.host_of(model, {"norm": ["a", "b"]}),
    lambda: deltas.register_host("mine", {"norm": None}),
    lambda: deltas.check(nn.Linear(2, 2), deltas.BitFit(), torch.ones(1, 2), host={"norm": ""}),
):
    try:
        call()
    except deltas.DeltaError as error:
        print(error)
print("mine" in deltas.HOSTS)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "the path of the role 'norm' is text, other places behind a |" in said[0]
    assert "got None" in said[1]
    assert "by name" in said[2] and "got a Tensor" in said[2]
    assert said[3] == "False"


def test_a_model_of_no_family_takes_what_needs_no_roles() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    for spec in (deltas.BitFit(), FullFineTuning(), LoRA(rank=1, roles=("0", "2"))):
        assert deltas.check(model, spec, {"input": torch.ones(3, 4)})
    with pytest.raises(
        DeltaError, match=r"no role map for this Sequential, so no module plays the role 'attention\.query'"
    ):
        deltas.attach(model, LoRA(rank=1))
    with pytest.raises(DeltaError, match=r"unknown host 'bertt'\. Did you mean 'bert'"):
        host_of(backbone("bert"), "bertt")


def fused(rows: int, **heads: int) -> Any:
    model = nn.ModuleDict({"0": nn.ModuleDict({"qkv": nn.Linear(8, rows)})})
    if heads:
        model.config = SimpleNamespace(**heads)
    return model


def test_thirds_of_a_layer_that_has_none_are_refused() -> None:
    roles = {"attention.value": "*.qkv:value"}
    spec = LoRA(rank=1, roles=("attention.value",))
    with pytest.raises(DeltaError, match=r"16 rows, which are no three equal parts"):
        deltas.attach(fused(16), spec, host=roles)
    with pytest.raises(DeltaError, match=r"4 heads of queries and 1 of keys: name the rows, '\*\.qkv:0-32'"):
        deltas.attach(fused(24, num_attention_heads=4, num_key_value_heads=1), spec, host=roles)
    for model in (fused(24), fused(24, num_attention_heads=4, num_key_value_heads=4)):
        assert deltas.attach(model, spec, host=roles).sites[0].rows == slice(16, 24)


def test_rows_by_their_numbers() -> None:
    model, spec = fused(16), LoRA(rank=1, roles=("attention.value",))
    handle = deltas.attach(model, spec, host={"attention.value": "*.qkv:12-16"})
    nudge(handle, 0.5)
    layer, x = model["0"]["qkv"], torch.randn(3, 8)
    changed = (layer(x) - nn.functional.linear(x, layer.weight, layer.bias)).abs().amax(0) > 0
    assert changed.nonzero().flatten().tolist() == [12, 13, 14, 15]
    handle.merge()
    handle.unmerge()
    for path, message in (
        ("*.qkv:12-17", "has the rows 0-16"),
        ("*.qkv:12", "rows of a fused layer are"),
        ("*.qkv:v", "rows"),
    ):
        with pytest.raises(DeltaError, match=message):
            deltas.attach(fused(16), spec, host={"attention.value": path})


def test_all_linear_layers_of_a_model_of_no_family() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
    model = FNetForSequenceClassification(FNetConfig(**sizes, max_position_embeddings=16)).eval()
    assert not host_of(model).roles
    handle = deltas.attach(model, LoRA(rank=2, roles=("all",)))
    paths = {site.path for site in handle.sites}
    assert paths == {name for name, m in model.fnet.named_modules(prefix="fnet") if isinstance(m, nn.Linear)}
    language = FNetForMaskedLM(model.config)
    assert "cls.predictions.decoder" not in {
        row.path for row in deltas.plan(language, LoRA(rank=2, roles=("all",))).rows
    }


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_cross_attention_of_a_decoder_is_among_all(family: str) -> None:
    sizes = {"bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
             "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}}  # fmt: skip
    if family == "bert":
        model: Any = BertLMHeadModel(
            BertConfig(vocab_size=20, is_decoder=True, add_cross_attention=True, **sizes["bert"])
        )
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=20, add_cross_attention=True, **sizes["gpt2"]))
    handle = deltas.attach(model, LoRA(rank=2, roles=("all",)))
    inside = [
        n for n, m in model.named_modules() if ".crossattention." in n and type(m).__name__ in ("Linear", "Conv1D")
    ]
    assert inside and set(inside) <= {site.path for site in handle.sites}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_ia3_and_prefixes_reach_cross_attention(family: str) -> None:
    model = build(family)
    layers, d, f = 2, 32, 64
    assert deltas.plan(model, IA3(), heads=()).parameters == layers * (2 * d + f) + layers * (4 * d + f)
    assert deltas.plan(model, IA3(roles=("attention.key", "attention.value"))).parameters == 2 * layers * (2 * d + f)
    assert deltas.plan(model, PrefixTuning(length=5), heads=()).parameters == 3 * layers * 2 * 5 * d
    for spec in (IA3(), PrefixTuning(length=5), PrefixTuning(length=5, hidden=8)):
        assert deltas.check(model, spec, batch(family))
