"""What is held is held once, counted as torch would hold it, and nothing is rounded that has no bound."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltas import DeltaError
from deltas.activations import ActivationCompressor, Policy


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def error(model: nn.Module, loss: Callable[[], Tensor], bits: int = 4) -> float:
    """Relative error of the gradient."""

    def gradient(inside: bool) -> Tensor:
        model.zero_grad()
        if inside:
            with ActivationCompressor(model, bits=bits, policy=Policy(min_numel=64)):
                value = loss()
        else:
            value = loss()
        value.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    want = gradient(False)
    return float((gradient(True) - want).norm() / want.norm())


@pytest.mark.parametrize("shape", [(512, 64), (8, 64, 64), (4, 2, 64, 64)])
def test_what_relu_returns_and_a_linear_map_reads_is_held_once(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    compressor = ActivationCompressor(model, bits=4)
    x = drawn(*shape)
    with compressor:
        loss = model(x).square().sum()
    lines = compressor.stats().lines
    assert lines["4 bits and a sign"].entries == 1
    count = x.numel()
    assert lines["4 bits and a sign"].held == pytest.approx(count * 5.5 / 8, abs=16)  # codes, ranges of 64, signs
    loss.backward()


def real(saved: list[Tensor]) -> int:
    """Bytes of different storages."""
    return sum({x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in saved}.values())


@pytest.mark.parametrize(
    "function",
    [
        lambda h: ((h[1] / h[0]) + h[1] * h[0]).sum(),
        lambda h: (h[0].clamp(-1, 1) @ drawn(128, 128)).sum() + (h[0] @ h[1]).sum(),
        lambda h: sum((h[0].flatten()[i:-9] * h[1].flatten()[: -9 - i]).sum() for i in range(8)),
        lambda h: (F.relu(h[0]).flatten() * h[1].flatten()).sum(),
    ],
)
def test_plain_bytes_are_those_that_torch_holds(function: Callable[[list[Tensor]], Tensor]) -> None:
    leaf = drawn(2, 128, 128).requires_grad_()

    def made() -> list[Tensor]:
        return [leaf[i].exp() + 2.0 for i in (0, 1)]

    saved: list[Tensor] = []
    h = made()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        function(h)
    h, compressor = made(), ActivationCompressor(None, policy=Policy(min_numel=64))
    with compressor:
        function(h)
    own = compressor.stats()
    assert own.plain == real([x for x in saved if not (x.is_leaf and x.requires_grad)])


def test_a_tensor_that_is_held_exactly_is_not_packed_beside_it() -> None:
    leaf = drawn(128, 128).requires_grad_()
    h = leaf * 1.5
    compressor = ActivationCompressor(None, policy=Policy(min_numel=64))
    with compressor:
        loss = h.clamp(-1.0, 1.0).sum() + (h @ h).sum()
    assert "4 bits" not in compressor.stats().lines
    loss.backward()


@pytest.mark.parametrize("layer", [nn.RMSNorm(32, elementwise_affine=True), nn.LayerNorm(64)])
def test_norms_of_rows_that_are_zero(layer: nn.Module) -> None:
    width = 32 if isinstance(layer, nn.RMSNorm) else 64
    model = nn.Sequential(nn.Linear(width, width, bias=False), layer, nn.Linear(width, width))
    x = drawn(8192, width)
    x[::50] = 0.0
    keep = (x != 0).any(-1, keepdim=True)
    assert error(model, lambda: (model(x) * keep).square().sum(), bits=8) < 0.05


def test_functions_that_torch_composes_inside() -> None:
    image, grid = nn.Parameter(drawn(1, 3, 64, 64)), nn.Parameter(drawn(1, 64, 64, 2) * 0.4)
    model = nn.ParameterList([image, grid])
    sampled = lambda: F.grid_sample(image.exp(), grid.sin(), align_corners=True).square().sum()  # noqa: E731
    assert error(model, sampled, bits=8) < 0.05
    logits, target = nn.Parameter(drawn(256, 64)), nn.Parameter(4 * drawn(256, 64).flip(0))
    model = nn.ParameterList([logits, target])
    divergence = lambda: F.kl_div(logits.log_softmax(-1), target.softmax(-1), reduction="sum")  # noqa: E731
    assert error(model, divergence, bits=8) < 0.05


def test_weights_made_of_parameters_stay_exact_under_autocast() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(128, 128))
    x = drawn(64, 128)
    compressor = ActivationCompressor(model, policy=Policy(min_numel=64))
    with compressor, torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(x.requires_grad_()).square().sum()
    assert compressor.stats().lines["exact: weight or leaf"].held >= 128 * 128 * 2
    loss.backward()


@pytest.mark.parametrize("bits", [4, 2])
def test_a_backward_pass_inside_rounds_attention_once(bits: int) -> None:
    qkv = nn.Parameter(8 * drawn(3, 2, 4, 32, 16))

    def gradient(inside: bool) -> Tensor:
        qkv.grad = None
        with ActivationCompressor(None, bits=bits, policy=Policy(min_numel=64)):
            loss = F.scaled_dot_product_attention(*(qkv * 1.0).unbind()).square().sum()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        assert qkv.grad is not None
        return qkv.grad

    assert torch.equal(gradient(True), gradient(False))


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype:UserWarning")
def test_tensors_of_other_kinds_stay_as_they_are() -> None:
    layer = nn.Linear(16, 16)
    nested = torch.nested.nested_tensor([drawn(5, 16), drawn(7, 16)])
    with ActivationCompressor(layer, policy=Policy(min_numel=8)):
        out = layer(nested)
    torch.nested.to_padded_tensor(out, 0.0).sum().backward()
    w = torch.complex(drawn(64, 64), drawn(64, 64).flip(0)).requires_grad_()

    def loss() -> Tensor:
        z = w * (1 + 0.5j)
        return (z.imag * z.real).sum() + (z.conj().imag * z.real).sum()  # whose imaginary part is negated on reading

    loss().backward()
    want, w.grad = w.grad, None
    with ActivationCompressor(None, bits=8, policy=Policy(min_numel=64)):
        value = loss()
    value.backward()
    assert want is not None and w.grad is not None
    assert float((w.grad - want).abs().max()) < 0.1


def test_calibrating_a_model_with_an_expanded_buffer_and_a_loss_that_is_not_finite() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.register_buffer("mask", torch.ones(1, 1).expand(64, 64))
            self.register_buffer("graph", torch.eye(64).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.graph, Tensor)
            return self.second(torch.sparse.mm(self.graph, self.first(x).tanh()) * self.mask)

    model, x = Masked(), drawn(64, 64)
    compressor = ActivationCompressor(model, policy=Policy(min_numel=64))
    assert compressor.calibrate(lambda: model(x).square().sum()).levels
    compressor.levels = {}
    with pytest.raises(DeltaError, match="is not finite: nothing can be compared"):
        compressor.calibrate(lambda: model(x).square().sum() * float("inf"))
    assert compressor.levels == {}


@pytest.mark.compiled
def test_skip_is_no_text() -> None:
    with pytest.raises(DeltaError, match=r"give names in a tuple, \('encoder',\)"):
        Policy(skip="encoder")  # type: ignore[arg-type]
