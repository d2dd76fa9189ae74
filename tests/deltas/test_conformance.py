"""What holds for every method on every backbone: one suite over the registry."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deltas
from deltas import (
    DELTAS,
    IA3,
    VPT,
    Adapter,
    Compacter,
    Delta,
    DeltaError,
    KAdaptation,
    KronA,
    LLaMAAdapter,
    LNTuning,
    LoKr,
    LoRA,
    LowRankAdapter,
    ParallelAdapter,
    Pfeiffer,
    PrefixTuning,
    PromptTuning,
    SparseAdapter,
    UniPELT,
    mam,
)
from lorentz import check_manifold

from .backbones import BACKBONES, backbone, inputs, nudge, result, state

# Methods with options that a small backbone takes; a method of the registry that is not named has its defaults.
CASES: dict[str, Any] = {
    "LoRA": LoRA(rank=3),
    "LoRA-all": LoRA(rank=2, roles=("all",), stabilised=True),
    "LoRA-directed": LoRA(rank=2, directed=True),
    "Adapter": Adapter(bottleneck=5),
    "Pfeiffer": Pfeiffer(bottleneck=5, activation="silu"),
    "LNTuning": LNTuning(scalars=True),
    "ParallelAdapter": ParallelAdapter(bottleneck=5, scale=4.0),
    "ParallelAdapter-attention": ParallelAdapter(bottleneck=5, roles=("attention.out", "ffn.down")),
    "LowRankAdapter": LowRankAdapter(bottleneck=6, factor_rank=2),
    "Compacter": Compacter(bottleneck=8, terms=4),
    "Compacter++": Compacter(bottleneck=8, terms=2, roles=("ffn.down",), factor_rank=2),
    "IA3-results": IA3(inputs=()),
    "KronA-all": KronA(roles=("all",), left=(4, 8), scale=2.0),
    "KronA-ffn": KronA(to="ffn", residual=True),
    "KAdaptation-all": KAdaptation(terms=2, rank=2, roles=("all",)),
    "SparseAdapter": SparseAdapter(inner=Adapter(bottleneck=8), score="magnitude"),
    "SparseAdapter-snip": SparseAdapter(inner=ParallelAdapter(bottleneck=4), large=True),
    "SparseAdapter-LoRA": SparseAdapter(inner=LoRA(rank=4), sparsity=0.75, score="random"),
    "SparseAdapter-Compacter": SparseAdapter(inner=Compacter(bottleneck=8), score="random"),
    "SparseAdapter-PrefixTuning": SparseAdapter(inner=PrefixTuning(length=4), score="random"),
    "ParallelAdapter+KronA": ParallelAdapter(bottleneck=4) + KronA(to="ffn"),
    "LoKr-all": LoKr(roles=("all",), rank=2, alpha=3.0, factor=4, decompose_both=True),
    "VPT-shallow": VPT(length=2, deep=False),
    "LLaMAAdapter-depth": LLaMAAdapter(length=3, depth=1),
    "UniPELT-two": UniPELT(bottleneck=None, length=3, rank=2),
    "PromptTuning+LLaMAAdapter": PromptTuning(length=2) + LLaMAAdapter(length=3),
    "mam": mam(length=3, bottleneck=4),
    "PrefixTuning": PrefixTuning(length=3),
    "PrefixTuning-table": PrefixTuning(length=3, hidden=4),
    "Adapter+LNTuning": Adapter(bottleneck=4) + LNTuning(),
}
CASES |= {name: cls() for name, cls in DELTAS.items() if name not in CASES}

# (case, backbone) -> why the pair does not exist; attaching must refuse it.
REFUSED = {
    ("BitFit", "t5"): "T5 has no biases",
    ("HypLoRA", "lorentz"): "its layers see points already",
}
# (check, case, backbone) -> why the check says nothing there.
SKIP = {
    ("gradients", "HeadOnly", "t5"): "no head, so nothing is trained",
}
# Cases that train parameters of the backbone itself: merged as they are.
NO_PARTS = {"FullFineTuning", "HeadOnly", "BitFit", "LNTuning"}
# Cases that merge into the weights; all others must refuse, and these on a backbone in NOT_MERGED.
MERGES = {
    "LoRA",
    "LoRA-all",
    "LoRA-directed",
    "SparseAdapter-LoRA",
    "IA3",
    "IA3-results",
    "KronA",
    "KronA-all",
    "KAdaptation",
    "KAdaptation-all",
    "LoKr",
    "LoKr-all",
}
NOT_MERGED = {("IA3", "lorentz"): "the time is derived after the space coordinates are scaled"}

FEW = ("bert", "lorentz")  # backbones of cases that vary another, "LoRA-all", or combine two
PAIRS = [
    (case, name) for case in CASES for name in (BACKBONES if case in DELTAS else FEW) if (case, name) not in REFUSED
]
every = pytest.mark.parametrize(("case", "name"), PAIRS)
few = pytest.mark.parametrize(
    ("case", "name"), [pair for pair in PAIRS if pair[1] in FEW]
)  # of what no backbone changes


def close(a: Tensor, b: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


def methods(case: str) -> tuple[Delta, ...]:
    spec = CASES[case]
    return tuple(spec) if isinstance(spec, deltas.Combination) else (spec,)


def attached(case: str, name: str, *, seed: int = 0) -> tuple[Any, Any]:
    model = backbone(name)
    torch.manual_seed(seed)
    return model, deltas.attach(model, CASES[case])


@pytest.mark.parametrize(("case", "name"), REFUSED)
def test_refused(case: str, name: str) -> None:
    model = backbone(name)
    before = state(model)
    with pytest.raises(DeltaError):
        deltas.attach(model, CASES[case])
    assert all(torch.equal(before[path], tensor) for path, tensor in state(model).items())
    assert not deltas.handles(model)


@every
def test_step_0(case: str, name: str) -> None:
    """The model is what it was where the method says so; deltas and heads train, nothing else."""
    want = result(backbone(name), name)
    model, handle = attached(case, name)
    got = result(model, name)
    assert torch.isfinite(got).all()
    if all(method.exact for method in methods(case)):
        close(got, want)
    mine = {id(p) for p in handle.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == mine
    assert all(p.requires_grad for p in handle.parameters())


@every
def test_gradients(case: str, name: str) -> None:
    """Away from the zeros of the start every trained tensor has a gradient, and the backbone has none."""
    if reason := SKIP.get(("gradients", case, name)):
        pytest.skip(reason)
    model, handle = attached(case, name)
    nudge(handle)
    y = result(model, name)
    (y * torch.sin(torch.arange(float(y.numel()))).view_as(y)).sum().backward()
    dead = [path for path, p in handle.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
    mine = {id(p) for p in handle.parameters()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in mine)
    assert all(torch.isfinite(p.grad).all() for p in handle.parameters() if p.grad is not None)


@few
def test_counts(case: str, name: str) -> None:
    """The plan's numbers are those that are trained; planning changes nothing."""
    model = backbone(name)
    before, random = list(model.state_dict()), torch.get_rng_state()
    plan = deltas.plan(model, CASES[case])
    assert list(model.state_dict()) == before
    assert torch.equal(torch.get_rng_state(), random)
    handle = deltas.attach(model, CASES[case])
    assert plan.parameters == handle.count()
    assert plan.head_parameters == sum(p.numel() for p in handle.head_parameters().values())
    assert plan.bytes == 4 * plan.parameters
    if case in NO_PARTS:
        return
    assert len(plan.rows) == len(handle.sites)
    shared = plan.parameters - sum(site.method.count(site) for site in handle.sites)
    host = deltas.host_of(backbone(name))
    common = [method.shared(host, method.sites(host)) for method in methods(case)]
    assert shared == sum(p.numel() for module in common if module is not None for p in module.parameters())


@few
def test_storage(case: str, name: str, tmp_path: Path) -> None:
    """A stored delta gives the same results on a fresh copy of the backbone."""
    model, handle = attached(case, name)
    nudge(handle)
    handle.save(tmp_path)
    other = backbone(name)
    torch.manual_seed(1)
    again = deltas.load(other, tmp_path)
    close(result(other, name), result(model, name), 1e-7)
    assert again.spec == handle.spec


@every
def test_detach(case: str, name: str) -> None:
    """Out, the backbone has its bits and gradient flags; in again, the tuned model is there."""
    model = backbone(name)
    before, flags = state(model), {}
    for i, (path, parameter) in enumerate(model.named_parameters()):
        parameter.requires_grad_(bool(i % 2))
        flags[path] = bool(i % 2)
    plain = result(model, name)
    handle = deltas.attach(model, CASES[case])
    nudge(handle)
    tuned = result(model, name)
    with handle.disable():
        close(result(model, name), plain)
    close(result(model, name), tuned)
    handle.detach()
    after = state(model)
    assert list(after) == list(before)
    assert all(torch.equal(before[path], after[path]) for path in before)
    assert {path: p.requires_grad for path, p in model.named_parameters()} == flags
    close(result(model, name), plain)
    handle.attach()
    close(result(model, name), tuned)


@every
def test_merge(case: str, name: str) -> None:
    """Merged, the results are the same and nothing is left beside the weights; unmerged, the weights have their bits."""
    model, handle = attached(case, name)
    nudge(handle)
    want, before = result(model, name), state(model)
    if case in NO_PARTS or (case in MERGES and (case, name) not in NOT_MERGED):
        handle.merge()
        close(result(model, name), want, 1e-5)
        handle.unmerge()
    else:
        with pytest.raises(DeltaError, match="cannot be merged"):
            handle.merge()
    after = state(model)
    assert all(torch.equal(before[path], after[path]) for path in before)
    close(result(model, name), want)


@few
def test_deepcopy(case: str, name: str) -> None:
    """A copy has a delta of its own."""
    model, handle = attached(case, name)
    want = result(model, name)
    copy = deepcopy(model)
    close(result(copy, name), want)
    theirs = deltas.handles(copy)["default"]
    nudge(theirs, std=0.2)
    close(result(model, name), want)
    if handle.count():
        assert not torch.allclose(result(copy, name), want, atol=1e-5)
    assert not {id(p) for p in theirs.parameters()} & {id(p) for p in handle.parameters()}


@few
def test_bfloat16(case: str, name: str) -> None:
    """Parts are float32 beside layers of 16 bits, or what is asked for; under autocast float32 parts work too."""
    for asked in (None, torch.bfloat16):
        model = backbone(name).to(torch.bfloat16)
        before = result(model, name)
        handle = deltas.attach(model, CASES[case], dtype=asked)
        if all(method.exact for method in methods(case)):
            assert torch.equal(result(model, name), before)
        nudge(handle, std=0.01)
        y = result(model, name)
        assert y.dtype == torch.bfloat16
        assert torch.isfinite(y).all()
        want = asked or torch.float32
        assert all(t.dtype == want for t in handle.parts().values() if t.is_floating_point())
        y.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in handle.parameters())
    model, handle = attached(case, name)
    nudge(handle)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(result(model, name)).all()


@pytest.mark.parametrize("case", CASES)
def test_points(case: str) -> None:
    """On a Lorentz backbone every layer still returns points."""
    if reason := REFUSED.get((case, "lorentz")):
        pytest.skip(reason)
    model, handle = attached(case, "lorentz")
    nudge(handle, std=0.2)
    report = check_manifold(model, **inputs("lorentz"), on_failure="report")
    assert report.layers
    assert not report.failures


@few
def test_vector(case: str, name: str) -> None:
    """One vector holds the whole change: 0 at the start, and enough to make it again."""
    model, handle = attached(case, name)
    assert not handle.flatten().any()
    nudge(handle)
    vector, want = handle.flatten(), result(model, name)
    assert vector.numel() == handle.count()
    heads = {path: p.detach().clone() for path, p in handle.head_parameters().items()}
    other, fresh = attached(case, name)
    fresh.unflatten(vector)
    with torch.no_grad():
        for path, parameter in fresh.head_parameters().items():
            parameter.copy_(heads[path])
    close(result(other, name), want, 1e-5)
