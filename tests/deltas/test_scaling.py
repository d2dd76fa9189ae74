"""IA3: factors of results and of inputs, and what of them merges."""

from __future__ import annotations

import pytest
import torch

import deltas
from deltas import IA3, DeltaError

from .backbones import backbone, nudge, result
from .layers import KINDS, One, with_time

kinds = pytest.mark.parametrize("kind", KINDS)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@kinds
def test_results(kind: str) -> None:
    """``l (W h + b)``, in the layer or in weight and bias."""
    one = One(kind, IA3(roles=("q",), inputs=()))
    factor = one.numbers()["factor"]
    want = one.plain() * factor
    close(one(), want)
    one.handle.merge()
    close(one(), want)
    close(one.q.bias.detach(), one.bias * factor)
    one.handle.unmerge()
    assert torch.equal(one.q.bias, one.bias)


@kinds
def test_inputs(kind: str) -> None:
    """``W lift(l h) + b``: in flat space a scaling of columns, on the hyperboloid of no matrix."""
    one = One(kind, IA3(roles=(), inputs=("q",)))
    factor = one.numbers()["factor"]
    u = one.u * factor
    seen = with_time(kind, u) if kind != "lorentz-uncentred" else one.q.manifold.lift(u)
    want = seen @ one.weight.T + one.bias
    close(one(), want)
    if kind == "flat":
        one.handle.merge()
        close(one(), want)
        close(one.q.weight.detach(), one.weight * factor)
        return
    with pytest.raises(DeltaError, match=r"derived after its space coordinates are\s+scaled"):
        one.handle.merge()
    close(one(), want)
    assert torch.equal(one.q.weight, one.weight)


@pytest.mark.parametrize("name", ["bert", "lorentz"])
def test_count(name: str) -> None:
    """L(2d + f)."""
    assert deltas.plan(backbone(name), IA3()).parameters == 2 * (2 * 32 + 64)


def test_fused_layer() -> None:
    """In GPT-2 keys and values are rows of one layer: queries stay what they are, merged or not."""
    model = backbone("gpt2")
    layer = model.transformer.h[0].attn.c_attn
    x = torch.randn(3, 32)
    plain = layer(x)
    handle = deltas.attach(model, IA3(inputs=()))
    nudge(handle, std=0.5)
    key, value = (site.part.factor for site in handle.sites if site.module is layer)
    want = plain * torch.cat([torch.ones(32), key, value])
    torch.testing.assert_close(layer(x), want)
    handle.merge()
    torch.testing.assert_close(layer(x), want)
    assert torch.equal(layer.weight[:, :32], backbone("gpt2").transformer.h[0].attn.c_attn.weight[:, :32])


def test_flat_twin_merges_where_its_lorentz_model_does_not() -> None:
    flat, curved = (deltas.attach(backbone(name), IA3()) for name in ("flat", "lorentz"))
    nudge(flat)
    want = result(flat.model, "flat")
    flat.merge()
    torch.testing.assert_close(result(flat.model, "flat"), want, atol=1e-5, rtol=1e-5)
    before = {path: p.clone() for path, p in curved.model.named_parameters()}
    with pytest.raises(DeltaError, match=r"IA3\(inputs=\(\)\) can be merged"):
        curved.merge()
    assert not curved.merged
    assert all(torch.equal(before[path], p) for path, p in curved.model.named_parameters())


def test_refusals() -> None:
    with pytest.raises(DeltaError, match="in roles and in inputs"):
        IA3(roles=("ffn.down",))
    with pytest.raises(DeltaError, match="is fused"):
        deltas.attach(backbone("gpt2"), IA3(roles=(), inputs=("attention.key",)))


def test_a_group_of_roles_is_multiplied_where_it_is_said() -> None:
    """``inputs=("mlp",)`` means the inputs of all its layers, also beside a group in roles that has one of them."""
    model = torch.nn.ModuleDict({"down": torch.nn.Linear(4, 3), "q": torch.nn.Linear(4, 4)})
    host = {"mlp.down": "down", "mlp.up": "q"}
    for roles, factors in ((("mlp.up",), {"down": 4, "q": 4}), ((), {"down": 4, "q": 4})):
        inputs = ("mlp.down",) if roles else ("mlp",)
        handle = deltas.attach(model, IA3(roles=roles, inputs=inputs), host=host)
        assert {site.path: site.part.factor.numel() for site in handle.sites if site.part} == factors
        handle.detach()
    handle = deltas.attach(model, IA3(roles=("mlp",), inputs=("mlp.down",)), host=host)
    assert sorted((site.path, site.purpose) for site in handle.sites) == [("down", "input"), ("q", "")]
