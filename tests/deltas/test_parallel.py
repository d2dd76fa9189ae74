"""Adapters beside a block: what they compute, and that the beginning of a block finds its end."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import deltas
from deltas import BitFit, DeltaError, KronA, LoRA, ParallelAdapter
from lorentz import Lorentz, LorentzLinear

from .backbones import backbone, nudge, result
from .layers import K, above, with_time


class Block(nn.Module):
    """Two maps with gelu between them, and a third that is no part of it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind, manifold = kind, Lorentz(k=K)
        options = {"manifold": manifold, "variant": "unbounded", "centred": True}
        if kind == "flat":
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 7)
        else:
            self.up = LorentzLinear(7, 11, **options)
            self.down = LorentzLinear(11, 8, activation=F.gelu, **options)
        self.double()
        self.u = torch.randn(4, 6, dtype=torch.float64)
        self.x = self.u if kind == "flat" else manifold.lift(self.u)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        return self.down(F.gelu(h) if self.kind == "flat" else h)

    def plain(self) -> Tensor:
        """Pre-activation of the block's end, written out."""
        hidden = F.gelu(with_time(self.kind, self.u) @ self.up.weight.T + self.up.bias)
        return with_time(self.kind, hidden) @ self.down.weight.T + self.down.bias


HOST = {"ffn.up": "up", "ffn.down": "down"}


def attached(kind: str, spec: Any) -> tuple[Block, Any, dict[str, Tensor]]:
    block = Block(kind)
    handle = deltas.attach(block, spec, host=HOST)
    nudge(handle, std=0.3)
    return block, handle, {key.rpartition(":inner.")[2]: t.detach() for key, t in handle.parts().items()}


def check(block: Block, want: Tensor) -> None:
    y = block(block.x)
    if block.kind == "lorentz":
        torch.testing.assert_close(y[..., :1], above(y[..., 1:]) + K**0.5)
        y = y[..., 1:]
    torch.testing.assert_close(y, want, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("kind", ["flat", "lorentz"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_formula(kind: str, scale: float) -> None:
    block, handle, p = attached(kind, ParallelAdapter(bottleneck=3, scale=scale))
    hidden = F.relu(with_time(kind, block.u) @ p["down"].T + p["down_bias"])
    check(block, block.plain() + scale * (with_time(kind, hidden) @ p["up"].T + p["up_bias"]))
    time = int(kind == "lorentz")
    assert handle.count() == 3 * (6 + time) + 3 + 7 * (3 + time) + 7


@pytest.mark.parametrize("kind", ["flat", "lorentz"])
def test_krona_beside_the_block(kind: str) -> None:
    block, _, p = attached(kind, KronA(to="ffn", left=(7, 3), scale=0.5))
    dense = torch.kron(p["product.A"], p["product.B"])
    change = dense if kind == "flat" else torch.cat([p["product.time"][:, None], dense], 1)
    check(block, block.plain() + 0.5 * with_time(kind, block.u) @ change.T)
    with pytest.raises(DeltaError, match="as many coordinates"):
        deltas.attach(Block(kind), KronA(to="ffn", residual=True), host=HOST)


def test_krona_residual() -> None:
    """``s_res x`` of a square block, at the start 0."""
    block = Block("flat")
    block.down = nn.Linear(10, 6).double()
    handle = deltas.attach(block, KronA(to="ffn", residual=True), host=HOST)
    plain = block(block.x)
    with torch.no_grad():
        next(p for key, p in handle.named_parameters() if key.endswith("residual")).fill_(0.25)
    torch.testing.assert_close(block(block.x), plain + 0.25 * block.x)


def test_count_of_a_backbone() -> None:
    """L(2dr + r + d) for one site a layer."""
    d, r = 32, 5
    assert deltas.plan(backbone("bert"), ParallelAdapter(bottleneck=r)).parameters == 2 * (2 * d * r + r + d)
    both = ParallelAdapter(bottleneck=r, roles=("attention.out", "ffn.down"))
    assert deltas.plan(backbone("bert"), both).parameters == 4 * (2 * d * r + r + d)


@pytest.mark.parametrize("kind", ["flat", "lorentz"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(kind: str, reentrant: bool) -> None:
    """A recomputed block reads its input anew: the gradients are those without recomputation."""
    block, handle, _ = attached(kind, ParallelAdapter(bottleneck=3))
    parameters = list(handle.parameters())
    other = block.x.detach().flip(0).requires_grad_(True)
    found = []
    for recompute in (False, True):
        x = block.x.detach().requires_grad_(True)
        run = partial(checkpoint, block, use_reentrant=reentrant) if recompute else block
        y = run(x) * run(other).sin()  # twice, so that the second is the last that was read before backward
        for tensor in (x, other, *parameters):
            tensor.grad = None
        y.sum().backward()
        found.append([tensor.grad.clone() for tensor in (x, other, *parameters)])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_a_copy_between_beginning_and_end() -> None:
    """A copy made while a block is half done holds no activation of it."""
    block, _, _ = attached("flat", ParallelAdapter(bottleneck=3))
    want = block(block.x)
    block.up(block.x.requires_grad_(True))
    copy = deepcopy(block)
    with pytest.raises(DeltaError, match="not called before"):
        copy.down(torch.zeros(4, 10, dtype=torch.float64))
    torch.testing.assert_close(copy(block.x), want)


def test_an_end_without_beginning() -> None:
    block, _, _ = attached("flat", ParallelAdapter(bottleneck=3))
    block(block.x)
    with pytest.raises(DeltaError, match="up was not called before the end of its block"):
        block.down(torch.zeros(4, 10, dtype=torch.float64))


def test_beside_others_in_the_same_layers() -> None:
    """Two adapters, LoRA in the layer that reads, and one of them off: the changes of one linear layer add up."""
    block = Block("flat")
    plain = block(block.x)
    first = deltas.attach(block, ParallelAdapter(bottleneck=3), name="first", host=HOST)
    nudge(first, std=0.3)
    alone = block(block.x)
    both_kinds = ParallelAdapter(bottleneck=2) + LoRA(rank=1, roles=("ffn.down",))
    second = deltas.attach(block, both_kinds, name="second", host=HOST)
    torch.testing.assert_close(block(block.x), alone)
    nudge(second, std=0.3, seed=1)
    both = block(block.x)
    with first.disable():
        other = block(block.x)
    torch.testing.assert_close(both - plain, (alone - plain) + (other - plain))
    first.detach()
    torch.testing.assert_close(block(block.x), other)


def test_chosen_roles() -> None:
    """Roles of one's own, and layers."""
    model = backbone("t5")
    spec = ParallelAdapter(bottleneck=2, roles=("cross.out",), layers=(1,))
    handle = deltas.attach(model, spec)
    assert [site.path for site in handle.sites] == [
        "decoder.block.1.layer.1.EncDecAttention.q",
        "decoder.block.1.layer.1.EncDecAttention.o",
    ]
    nudge(handle)
    assert torch.isfinite(result(model, "t5")).all()
    own = ParallelAdapter(bottleneck=2, roles=("norms",), reads=("ffn.up",))
    assert own.reads == ("ffn.up",)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ParallelAdapter(roles=("ffn.up",)), "what reads the input .*'ffn.up'"),
        (lambda: ParallelAdapter(reads=("a", "b")), "one role for each"),
        (lambda: ParallelAdapter(bottleneck=0), "bottleneck >= 1"),
        (lambda: ParallelAdapter(activation="gleu"), "gelu"),
        (lambda: deltas.plan(backbone("bert"), ParallelAdapter(roles=("ffn.down",), reads=("embeddings",))), "linear"),
        (lambda: deltas.plan(backbone("bert"), ParallelAdapter(roles=("cross.out",))), "no module"),
    ],
)
def test_refusals(make: Any, words: str) -> None:
    with pytest.raises(DeltaError, match=words):
        make()


def test_combines_with_methods_of_parameters() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, ParallelAdapter(bottleneck=2) + BitFit(roles=("ffn.down",)))
    assert handle.count() == 2 * (2 * 32 * 2 + 2 + 32) + 2 * 32
