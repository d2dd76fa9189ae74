"""Sparse adapters: what is kept, by which score, and that nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deltas
from deltas import IA3, Adapter, BitFit, Compacter, DeltaError, LoRA, PrefixTuning, SparseAdapter, prune
from deltas.methods.sparse import PROBE, _Mask

from .backbones import backbone, nudge, result


def masks(handle: Any) -> dict[str, _Mask]:
    return {
        f"{site.path}:{name}": module
        for site in handle.sites
        for name, module in site.part.named_modules()
        if isinstance(module, _Mask)
    }


def test_kept_numbers() -> None:
    """Three of four numbers of a matrix are 0 and stay 0; those kept move, and vectors move whole."""
    model = backbone("bert")
    handle = deltas.attach(model, SparseAdapter(inner=Adapter(bottleneck=8), sparsity=0.75, score="magnitude"))
    part = handle.sites[0].part.bottleneck
    before = (part.down != 0).clone()
    assert before.sum() == 64
    assert part.up.shape == (32, 8)
    assert not part.up.any()
    nudge(handle)
    assert torch.equal(part.down != 0, before)
    assert (part.up != 0).sum() == 64
    assert part.down_bias.all()


def test_gradient_of_kept_numbers() -> None:
    """That of the dense matrix, at the places that are kept."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"q": nn.Linear(6, 4)}).double()
    spec = SparseAdapter(inner=LoRA(rank=3, roles=("q",)), score="random")
    handle = deltas.attach(model, spec, host={"q": "q"})
    nudge(handle, std=0.5)
    part, x = handle.sites[0].part, torch.randn(5, 6, dtype=torch.float64)
    A, B = (t.detach().clone().requires_grad_(True) for t in (part.A, part.B))
    dense = torch.autograd.grad((x @ (model["q"].weight + 2 * B @ A).T + model["q"].bias).sin().sum(), (A, B))
    named = dict(handle.named_parameters())
    values = [named[f"q:parametrizations.{name}.original"] for name in "AB"]
    sparse = torch.autograd.grad(model["q"](x).sin().sum(), values)
    for want, got, name in zip(dense, sparse, "AB", strict=True):
        torch.testing.assert_close(got, want.flatten()[part.parametrizations[name][0].index])


def test_magnitude() -> None:
    """The largest of a matrix that is drawn the same."""
    torch.manual_seed(3)
    dense = deltas.attach(backbone("bert"), LoRA(rank=4, layers=(0,), roles=("attention.query",)))
    torch.manual_seed(3)
    spec = SparseAdapter(inner=LoRA(rank=4, layers=(0,), roles=("attention.query",)), score="magnitude")
    sparse = deltas.attach(backbone("bert"), spec)
    A, pruned = dense.sites[0].part.A, sparse.sites[0].part.A
    border = A.abs().flatten().sort(descending=True).values[A.numel() // 2 - 1]
    assert torch.equal(pruned, torch.where(A.abs() >= border, A, 0))


def test_snip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The highest |theta dL/dtheta|, the gradient by a second computation: a dense adapter with the same numbers."""
    torch.manual_seed(0)
    model = backbone("bert")
    handle = deltas.attach(model, SparseAdapter(inner=Adapter(bottleneck=8, activation="tanh"), batches=2))
    starts = {key: mask.start.clone() for key, mask in masks(handle).items()}
    drawn: list[torch.Tensor] = []

    def noise(x: torch.Tensor) -> torch.Tensor:
        drawn.append(torch.sin(torch.arange(float(x.numel()))).view_as(x))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn_like", noise)
    calls = []
    prune(handle, lambda: calls.append(0) or result(model, "bert").square().sum())
    assert len(calls) == 2
    assert all(p.grad is None for p in model.parameters())

    other = backbone("bert")
    dense = deltas.attach(other, Adapter(bottleneck=8, activation="tanh"))
    tensors = dense.parts()
    ups = iter(drawn)
    with torch.no_grad():
        for key, start in starts.items():
            path, _, name = key.partition(":")
            target = tensors[f"{path}:bottleneck.{name.split('.')[2]}"]
            target.copy_(start if start.any() else next(ups) * PROBE)
    result(other, "bert").square().sum().backward()
    for key, mask in masks(handle).items():
        path, _, name = key.partition(":")
        tensor = tensors[f"{path}:bottleneck.{name.split('.')[2]}"]
        score = (tensor * tensor.grad).abs().flatten()
        assert score[mask.index].min() >= score.kthvalue(score.numel() - mask.kept + 1).values * (1 - 1e-4)
        assert len(mask.index.unique()) == mask.kept == score.numel() // 2


def test_snip_does_not_depend_on_the_size_of_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    plain = torch.randn_like
    for size in (1.0, 0.1):
        torch.manual_seed(0)
        model = backbone("bert")
        handle = deltas.attach(model, SparseAdapter(inner=LoRA(rank=4)))
        torch.manual_seed(1)
        monkeypatch.setattr(torch, "randn_like", lambda x, size=size: plain(x) * size)
        prune(handle, lambda model=model: result(model, "bert").square().sum())
        monkeypatch.undo()
        found.append({key: set(mask.index.tolist()) for key, mask in masks(handle).items()})
    same = sum(len(found[0][key] & found[1][key]) for key in found[0])
    assert same >= 0.98 * sum(map(len, found[0].values()))


def test_after_snip_the_model_is_unchanged_and_the_vector_starts_anew() -> None:
    model = backbone("bert")
    want = result(model, "bert")
    handle = deltas.attach(model, SparseAdapter(inner=Adapter(bottleneck=4)))
    prune(handle, lambda: result(model, "bert").square().sum())
    torch.testing.assert_close(result(model, "bert"), want, atol=1e-6, rtol=1e-6)
    assert not handle.flatten().any()
    assert all(mask.start is None for mask in masks(handle).values())
    with pytest.raises(DeltaError, match="chosen already"):
        prune(handle, lambda: result(model, "bert").sum())


def test_training_before_snip_is_refused(tmp_path: Path) -> None:
    model = backbone("bert").train()
    handle = deltas.attach(model, SparseAdapter(inner=Adapter(bottleneck=4)))
    with pytest.raises(DeltaError, match=r"deltas.prune\(handle, loss\)"):
        result(model, "bert")
    prune(handle, lambda: result(model, "bert").square().sum())
    result(model, "bert").sum().backward()
    nudge(handle)
    handle.save(tmp_path)
    other = backbone("bert")
    again = deltas.load(other, tmp_path)
    assert all(
        torch.equal(a.index, b.index) for a, b in zip(*(masks(h).values() for h in (handle, again)), strict=True)
    )
    torch.testing.assert_close(result(other, "bert"), result(model.eval(), "bert"))
    result(other.train(), "bert")


@pytest.mark.parametrize("name", ["bert", "lorentz"])
def test_counts(name: str) -> None:
    """(1 - s) of the matrices; Large-Sparse as many as the dense delta of the size named."""
    model = backbone(name)

    def count(spec: Any) -> int:
        return deltas.plan(model, spec).parameters

    dense = count(LoRA(rank=4))
    assert count(SparseAdapter(inner=LoRA(rank=4), sparsity=0.75, score="random")) == dense // 4
    assert count(SparseAdapter(inner=LoRA(rank=4), sparsity=0.75, score="random", large=True)) == dense
    assert SparseAdapter(inner=Adapter(bottleneck=48), sparsity=0.6, large=True).dense == Adapter(bottleneck=120)
    assert SparseAdapter(inner=PrefixTuning(length=4), large=True).dense == PrefixTuning(length=8)


def test_file_has_the_kept_numbers_alone(tmp_path: Path) -> None:
    model = backbone("bert")
    spec = SparseAdapter(inner=Adapter(bottleneck=16), sparsity=0.5, score="random")
    deltas.attach(model, spec).save(tmp_path)
    _, tensors = deltas.storage.read(tmp_path)
    sizes = {key: t.numel() for key, t in tensors.items() if "bottleneck" in key and t.is_floating_point()}
    assert sum(sizes.values()) == deltas.plan(backbone("bert"), spec).parameters


def test_shared_matrix_is_pruned_once() -> None:
    handle = deltas.attach(backbone("bert"), SparseAdapter(inner=Compacter(bottleneck=8), score="random"))
    rules = [key for key in handle.parts() if "rule" in key and key.endswith("original")]
    assert len(rules) == 1
    assert handle.parts()[rules[0]].numel() == 32


@pytest.mark.parametrize(
    "inner", ["Adapter", {"method": "Adapter", "config": {"bottleneck": 5, "roles": ["ffn.down"]}}]
)
def test_inner_by_name(inner: Any) -> None:
    spec = deltas.parse("SparseAdapter", {"inner": inner, "sparsity": 0.25})
    assert isinstance(spec, SparseAdapter)
    assert spec.inner == (Adapter() if inner == "Adapter" else Adapter(bottleneck=5, roles=("ffn.down",)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SparseAdapter(sparsity=1.0), r"sparsity in \[0, 1\)"),
        (lambda: SparseAdapter(score="snap"), "Did you mean 'snip'"),
        (lambda: SparseAdapter(inner=SparseAdapter()), "sparse already"),
        (lambda: SparseAdapter(inner=IA3(), large=True), "bottleneck, rank, length"),
        (lambda: SparseAdapter(inner=3), "inner is one delta"),
        (lambda: SparseAdapter(inner="LoRA+Adapter"), "inner is one delta"),
        (lambda: SparseAdapter(inner="LoAR"), "LoRA"),
        (lambda: SparseAdapter(inner=LoRA(layers=(0,)), layers=(1,)), "layers are given twice"),
        (lambda: deltas.plan(backbone("bert"), SparseAdapter(inner=BitFit())), "nothing to prune"),
        (lambda: prune(deltas.attach(backbone("bert"), LoRA()), lambda: None), "attach a SparseAdapter"),
        (lambda: prune(deltas.attach(backbone("bert"), SparseAdapter(score="random")), lambda: None), "chosen already"),
    ],
)
def test_refusals(make: Any, words: str) -> None:
    with pytest.raises(DeltaError, match=words):
        make()
