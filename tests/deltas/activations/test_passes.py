"""Activation compression and graphs of every kind: changed in place, shared, read twice, checkpointed, compiled, dead."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import deltas
from deltas.activations import ActivationCompressor, Policy
from deltas.activations.entries import Kept, Source

from .networks import drawn, error, gradient, made


def test_a_change_in_place_is_an_error_where_torch_has_one_and_harmless_where_a_copy_is_held() -> None:
    x = drawn(64, 64).requires_grad_()
    with ActivationCompressor(policy=Policy(min_numel=10**6)):
        h = x * 1
        y = (h * h).sum()
        h.add_(1)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*saved at version 0 and is at version 1"):
        y.backward()
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        h = x * 1
        y = (h * h).sum()
        h.add_(1)
    y.backward()
    assert x.grad is not None and error(x.grad, 2 * x.detach()) < 0.02


def test_the_same_numbers_after_a_change_are_packed_anew() -> None:
    x = drawn(64, 64).requires_grad_()
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        h = x * 1
        before = (h * h).sum()
        h.mul_(3)
        after = (h * h).sum()
    (got,) = torch.autograd.grad(before + after, x)
    assert error(got, 20 * x.detach()) < 0.02


def test_two_passes_may_share_a_backward_pass_and_gradients_add_up() -> None:
    model, loss = made("convolution")
    model.eval()
    want = gradient(model, loss())
    compressor = ActivationCompressor(model, bits=8, policy=Policy(min_numel=64))
    with compressor:
        total = loss() + loss()
    assert error(gradient(model, total), 2 * want) < 0.02
    for _ in range(2):
        with compressor:
            value = loss()
        value.backward()
    assert error(torch.cat([p.grad.flatten() for p in model.parameters()]), 2 * want) < 0.02  # type: ignore[union-attr]


def test_a_graph_is_read_twice_alike_and_differentiated_twice() -> None:
    model, loss = made("bert")
    model.eval()
    with ActivationCompressor(model, policy=Policy(min_numel=64)):
        value = loss()
    parameters = [p for p in model.parameters() if p.requires_grad]
    once = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    twice = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True) if a is not None)

    x = drawn(32, 64).requires_grad_()
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        twofold = (slope * slope).sum()
    (got,) = torch.autograd.grad(twofold, x)
    assert error(got, 36 * x.detach() ** 3) < 0.05


def test_what_was_packed_dies_with_the_graph() -> None:
    model, loss = made("bert")
    living: list[weakref.ref[Source]] = []
    compressor = ActivationCompressor(model, policy=Policy(min_numel=64))
    plain = compressor._pack

    def watched(x: Tensor) -> Any:
        found = plain(x)
        if isinstance(found, Kept):
            living.append(weakref.ref(found.source))
        return found

    compressor._pack = watched  # type: ignore[method-assign]
    with compressor:
        value = loss()
    assert living and all(reference() is not None for reference in living)
    value.backward()
    del value
    gc.collect()
    assert all(reference() is None for reference in living)


def test_an_error_inside_leaves_nothing_behind() -> None:
    model, loss = made("bert")
    compressor = ActivationCompressor(model)
    with pytest.raises(ZeroDivisionError), compressor:
        loss()
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    packed: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: packed.append(x) or x, lambda x: x):
        drawn(3).requires_grad_().exp()
    assert packed  # our hooks are off again, or these would not have been asked
    with compressor:
        loss()
    copy.deepcopy(model)
    pickle.dumps(model)


def test_a_delta_saves_less_and_compresses_as_well() -> None:
    model, loss = made("bert")
    full = ActivationCompressor(model, bits=8, policy=Policy(min_numel=64))
    with full:
        loss()
    handle = deltas.attach(model, deltas.LoRA(rank=2))
    with torch.no_grad():
        for p in handle.parameters():
            p.add_(0.1)
    model.eval()
    want = gradient(model, loss())
    compressor = ActivationCompressor(model, bits=8, policy=Policy(min_numel=64))
    with compressor:
        value = loss()
    assert error(gradient(model, value), want) < 0.05
    assert compressor.stats().held < full.stats().held


def _stack() -> tuple[nn.Sequential, Tensor, list[nn.Parameter]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    return model, drawn(128, 64), list(model.parameters())


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_combines_with_checkpointing(reentrant: bool) -> None:
    model, x, parameters = _stack()
    want = torch.autograd.grad((model(model(x)) ** 2).sum(), parameters)
    compressor = ActivationCompressor(model, bits=8, policy=Policy(min_numel=64))
    with compressor:
        value = (checkpoint(model, model(x), use_reentrant=reentrant) ** 2).sum()
    value.backward()
    for p, w in zip(parameters, want, strict=True):
        assert p.grad is not None and error(p.grad, w) < 0.02


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_it_combines_with_checkpointing_of_transformers(name: str) -> None:
    model, loss = made(name)
    model.eval()
    want = gradient(model, loss())
    model.train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    model.config.use_cache = False  # type: ignore[union-attr]
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()  # type: ignore[operator]
    with ActivationCompressor(model, bits=8, policy=Policy(min_numel=64)):
        value = loss()
    assert error(gradient(model, value), want) < 0.05


def test_a_checkpoint_that_ends_in_attention_is_recomputed_alike() -> None:
    x = drawn(4, 2, 32, 16).requires_grad_()

    def block(h: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(h, h * 2, h.sin())

    want = torch.autograd.grad((block(x * 1) ** 2).sum(), x)[0]
    with ActivationCompressor(bits=8, policy=Policy(min_numel=64)):
        value = (checkpoint(block, x * 1, use_reentrant=False) ** 2).sum()
    assert error(torch.autograd.grad(value, x)[0], want) < 0.05


def test_scripted_and_lazy_parts_pass() -> None:
    model = nn.Sequential(nn.LazyLinear(8), torch.jit.script(nn.Linear(8, 8)))
    x = drawn(64, 16)
    model(x)  # which gives the lazy layer its size
    want = torch.autograd.grad((model(x) ** 2).sum(), list(model.parameters()))
    with ActivationCompressor(model, bits=8, policy=Policy(min_numel=64)):
        value = (model(x) ** 2).sum()
    for found, exact in zip(torch.autograd.grad(value, list(model.parameters())), want, strict=True):
        assert error(found, exact) < 0.02


def test_two_passes_in_one_context_round_differently() -> None:
    model, x, parameters = _stack()
    with ActivationCompressor(model, policy=Policy(min_numel=64)):
        a, b = (model(x) ** 2).sum(), (model(x) ** 2).sum()
    assert not torch.equal(torch.autograd.grad(a, parameters)[0], torch.autograd.grad(b, parameters)[0])


def test_nothing_restored_outlives_the_backward_pass() -> None:
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
    compressor = ActivationCompressor(layers, policy=Policy(min_numel=64))
    with compressor:
        x = drawn(100, 64).requires_grad_() * 2
        y = sum((layer(x) for layer in layers), torch.zeros(()))
    y.sum().backward()
    del x, y
    gc.collect()
    assert compressor._recent is None


def test_transforms_of_functions_are_refused_by_torch() -> None:
    model, x, _ = _stack()
    with ActivationCompressor(model), pytest.raises(RuntimeError, match="don't yet support saved tensor hooks"):
        torch.func.grad(lambda z: (model(z) ** 2).sum())(x)


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by torch's tracing
def test_a_compiled_model_has_the_same_gradient() -> None:
    model, x, parameters = _stack()
    want = torch.autograd.grad((model(x) ** 2).sum(), parameters)
    with ActivationCompressor(model, bits=8, policy=Policy(min_numel=64)):
        value = (torch.compile(model, backend="aot_eager")(x) ** 2).sum()
    for got, w in zip(torch.autograd.grad(value, parameters), want, strict=True):
        assert error(got, w) < 0.02


@pytest.mark.parametrize("cut", [slice(4, None), slice(None, 20), slice(None, None, 2), slice(0, 4)])
@pytest.mark.parametrize("once", [False, True], ids=["whole", "repeated"])
def test_a_checkpoint_of_a_slice_is_recomputed_alike(cut: slice, once: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(32, 32), drawn(4, 40, 32).requires_grad_()

    def pick() -> Tensor:
        return (x[:1] * 2)[:, cut].expand(3, -1, -1) if once else (x * 2)[:, cut]

    def block(h: Tensor) -> Tensor:
        return (model(h) * model(h)).tanh()

    want = torch.autograd.grad((block(pick()) ** 2).sum(), x)[0]
    with ActivationCompressor(model, bits=8, policy=Policy(min_numel=64)):
        value = (checkpoint(block, pick(), use_reentrant=False) ** 2).sum()
    assert error(torch.autograd.grad(value, x)[0], want) < 0.02
