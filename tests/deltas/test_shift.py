"""AdapterBias and HypLoRA against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import deltas
from deltas import AdapterBias, DeltaError, HypLoRA, LoRA
from lorentz import Lorentz

from .backbones import backbone, nudge
from .layers import One, with_time


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("kind", ["flat", "lorentz"])
def test_adapter_bias(kind: str) -> None:
    """``z + alpha(z) v``."""
    one = One(kind, AdapterBias(roles=("q",)))
    p, z = one.numbers(), one.plain()
    alpha = with_time(kind, z) @ p["weight"].T + p["bias"]
    close(one(), z + alpha * p["shift"])


@pytest.mark.parametrize(("name", "time"), [("bert", 0), ("lorentz", 1)])
def test_count(name: str, time: int) -> None:
    """L(2d + 1), and one weight more for the time."""
    assert deltas.plan(backbone(name), AdapterBias()).parameters == 2 * (2 * 32 + 1 + time)


@pytest.mark.parametrize("k", [0.5, 1.0, 7.0])
@pytest.mark.parametrize("alpha", [None, 6.0])
def test_hyplora(k: float, alpha: float | None) -> None:
    """Through the exponential map, the lift and the logarithm of the manifold itself."""
    one = One("flat", HypLoRA(roles=("q",), rank=3, k=k, alpha=alpha))
    p, manifold = one.numbers(), Lorentz(k=k)
    zero = torch.zeros(5, 3, 1, dtype=torch.float64)
    point = manifold.expmap0(torch.cat([zero, one.u], -1))
    image = manifold.lift(point[..., 1:] @ p["A"].T @ p["B"].T)
    change = manifold.logmap0(image)[..., 1:]
    close(one(), one.plain() + (1.0 if alpha is None else 2.0) * change)


def test_hyplora_of_no_curvature_is_lora() -> None:
    spec = HypLoRA(roles=("q",), rank=3, k=1e12)
    one = One("flat", spec)
    p = one.numbers()
    torch.testing.assert_close(one(), one.plain(one.weight + p["B"] @ p["A"]), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("length", "of_gradient"), [(80.0, True), (340.0, False)])
def test_hyplora_is_finite_far_out(length: float, of_gradient: bool) -> None:
    """Features whose exponentials overflow float32 have a finite change; up to a length of 85 a finite gradient too."""
    layer = torch.nn.ModuleDict({"q": torch.nn.Linear(8, 8)})
    handle = deltas.attach(layer, HypLoRA(roles=("q",), rank=2), host={"q": "q"})
    x = torch.full((2, 8), length / 8**0.5)
    torch.testing.assert_close(layer["q"](x), torch.nn.functional.linear(x, layer["q"].weight, layer["q"].bias))
    layer["q"](x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in handle.parameters()) == of_gradient
    nudge(handle, std=0.1)
    change = layer["q"](x) - torch.nn.functional.linear(x, layer["q"].weight, layer["q"].bias)
    assert torch.isfinite(change).all()
    assert (change.norm(dim=-1) > 0.9 * length).all()  # the logarithm gives the length back, up to that of B A


def test_hyplora_counts_as_lora() -> None:
    model = backbone("bert")
    assert (
        deltas.plan(model, HypLoRA(rank=3)).parameters == deltas.plan(model, LoRA(rank=3)).parameters == 2 * 2 * 3 * 64
    )


def test_refusals() -> None:
    with pytest.raises(DeltaError, match=r"sees points already: use LoRA\(rank=8\)"):
        deltas.plan(backbone("lorentz"), HypLoRA())
    with pytest.raises(DeltaError, match="k > 0"):
        HypLoRA(k=0.0)
