"""What holds for every layer when it is compiled or exported; run without the shape-check hook, which breaks tracing."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorentz import math as lm

from .registry import CASES, Case

pytestmark = [
    pytest.mark.compiled,
    # torch.export calls what torch itself has deprecated, and the ONNX exporter reports names that it does not use.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:# The axis name:UserWarning"),
    pytest.mark.filterwarnings("ignore:# ONNX model has different number of inputs:UserWarning"),
]
DTYPE = torch.float32
ROWS = torch.export.Dim("rows", min=2, max=1024)

every = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield


def close(got: Tensor, want: Tensor, dtype: torch.dtype = DTYPE, *, whole: float = 0.0) -> None:
    """Within 8 eps of the dtype of the computation, which is not that of k and of its gradient.

    The gradient of a single number is a sum over everything, whose parts cancel: that of the scale of attention is in eager
    80 eps from float64. It is within 8 eps of the largest entry `whole` of all gradients.
    """
    eps = 8 * torch.finfo(dtype).eps
    largest = float(want.detach().abs().max())
    torch.testing.assert_close(got, want, rtol=eps, atol=eps * (max(whole, largest) if want.numel() == 1 else largest))


def result_and_gradients(
    case: Case, layer: nn.Module, function: Callable[..., Tensor], inputs: dict[str, Tensor]
) -> list[Tensor]:
    given = {name: x.clone().requires_grad_(x.is_floating_point()) for name, x in inputs.items()}
    y = case.call(function, given)
    wanted = [*layer.parameters(), *(x for x in given.values() if x.requires_grad)]
    return [y, *(torch.autograd.grad(y.sin().sum(), wanted) if wanted else ())]


def compiles(case: Case, backend: str) -> None:
    layer = case.layer(0.7, learnable=backend == "aot_eager", dtype=DTYPE)
    inputs = case.draw(layer, dtype=DTYPE)
    want = result_and_gradients(case, layer, layer, inputs)
    got = result_and_gradients(case, layer, torch.compile(layer, fullgraph=True, backend=backend), inputs)
    if backend == "inductor":
        # It sums in another order, so entries that cancel to a small part of the gradient differ by the rounding of the
        # whole: those of queries and keys, in which eager itself is 30 eps from float64.
        got, want = ([y, torch.cat([g.to(DTYPE).flatten() for g in slopes])] for y, *slopes in (got, want))
    whole = max((float(slope.abs().max()) for slope in want[1:]), default=0.0)
    for a, b in zip(got, want, strict=True):
        close(a, b, whole=whole)


@every
def test_one_graph_equals_eager_with_its_gradients(case: Case) -> None:
    compiles(case, "aot_eager")


def families() -> list[Case]:
    """The first case of every module of layers whose results do not depend on who draws the random numbers."""
    first: dict[str, Case] = {}
    for case in CASES:
        if not case.random:
            first.setdefault(type(case.layer()).__module__, case)
    return list(first.values())


@pytest.mark.parametrize("case", families(), ids=str)
def test_inductor_equals_eager_with_its_gradients(case: Case) -> None:
    compiles(case, "inductor")


@pytest.mark.parametrize("name", ["dist", "logmap", "expmap"])
def test_functions_compile_in_one_graph(name: str) -> None:
    function = getattr(lm, name)
    x, y = lm.lift(torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).unbind()
    close(torch.compile(function, fullgraph=True, backend="aot_eager")(x, y), function(x, y), x.dtype)


def dynamic(case: Case, inputs: dict[str, Tensor]) -> dict[str, Any]:
    return {**case.batched(dict.fromkeys(inputs), lambda _: {0: ROWS}), **dict.fromkeys(case.options)}


@every
def test_an_exported_program_survives_saving_and_takes_any_batch(case: Case) -> None:
    layer = case.layer(0.7, dtype=DTYPE)
    inputs = case.draw(layer, batch=(5,), dtype=DTYPE)
    state = copy.deepcopy(layer.state_dict())
    program = torch.export.export(layer, (), {**inputs, **case.options}, dynamic_shapes=dynamic(case, inputs))
    assert all(torch.equal(a, b) for a, b in zip(state.values(), layer.state_dict().values(), strict=True))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for batch in ((3,), (7,)):
        other = case.draw(layer, batch=batch, dtype=DTYPE)
        close(case.call(loaded, other), case.call(layer, other))


@pytest.mark.parametrize("case", [c for c in CASES if c.exports_onnx and not (c.random and c.train)], ids=str)
def test_onnx_equals_eager(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs the dev extra: onnx, onnxscript, onnxruntime")
    runtime = pytest.importorskip(
        "onnxruntime", reason="ONNX export needs the dev extra: onnx, onnxscript, onnxruntime"
    )
    layer = case.layer(0.7, dtype=DTYPE).eval()
    inputs = case.draw(layer, batch=(5,), dtype=DTYPE)
    path = tmp_path / "layer.onnx"
    torch.onnx.export(
        layer,
        (),
        path,
        kwargs={**inputs, **case.options},
        dynamo=True,
        dynamic_shapes=dynamic(case, inputs),
        verbose=False,
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in ((3,), (7,)):
        other = case.draw(layer, batch=batch, dtype=DTYPE)
        (got,) = session.run(None, {name: x.numpy() for name, x in other.items()})
        torch.testing.assert_close(torch.from_numpy(got), case.call(layer, other).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if not c.exports_onnx], ids=str)
def test_what_onnx_has_no_operator_for_says_so(case: Case) -> None:
    layer = case.layer(0.7, dtype=DTYPE).eval()
    inputs = case.draw(layer, dtype=DTYPE)
    with pytest.raises(torch.onnx.errors.OnnxExporterError):
        torch.onnx.export(layer, (), None, kwargs=inputs, dynamo=True, verbose=False)
