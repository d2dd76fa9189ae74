"""Models that save tensors of every kind, their losses, and their gradients without and with compression."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltas.activations import ActivationCompressor

from ..backbones import BACKBONES, backbone

__all__ = ["MODELS", "both", "drawn", "error", "gradient", "made"]


class Graph(nn.Module):
    """Two graph convolutions with a sparse matrix and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 64), nn.Linear(64, 5)
        near = torch.eye(120) + torch.diag(torch.ones(119), 1)
        self.register_buffer("near", near.to_sparse_coo())

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(F.relu(torch.sparse.mm(self.near, self.first(x))), 0.5, self.training)
        return self.second(torch.sparse.mm(self.near, h))


class Recurrent(nn.Module):
    """An LSTM, whose kernel saves a workspace of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(24, 40, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x.view(10, 12, 24))[0]


def convolutional() -> nn.Module:
    layers = (nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3))
    return nn.Sequential(*layers, nn.GELU(), nn.Flatten(), nn.LazyLinear(4))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def bert() -> nn.Module:
    return backbone("bert")


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "graph": (Graph, lambda m: m(drawn(120, 24))),
    "lstm": (Recurrent, lambda m: m(drawn(120, 24))),
    "convolution": (convolutional, lambda m: m(drawn(6, 3, 20, 20))),
    "channels last": (convolutional, lambda m: m(drawn(6, 3, 20, 20).contiguous(memory_format=torch.channels_last))),
    **{
        name: (lambda name=name: backbone(name), lambda m, name=name: first(m(**BACKBONES[name].inputs)))  # type: ignore[misc]
        for name in BACKBONES
    },
}  # fmt: skip


def first(output: Any) -> Tensor:
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def made(name: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A model that trains, without chance but for dropout, and its loss."""
    build, call = MODELS[name]
    torch.manual_seed(0)
    model = build().train()
    call(model)  # lazy layers
    weight = drawn(*call(model).shape)
    return model, lambda: (call(model) * weight).sum()


def gradient(model: nn.Module, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def both(name: str, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, ActivationCompressor]:
    """Loss and gradient without and with compression, with the same random numbers."""
    model, loss = made(name)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    torch.manual_seed(1)
    plain = loss()
    want, state = gradient(model, plain), torch.get_rng_state()
    for key, value in model.named_buffers():
        if value.layout is torch.strided:
            value.copy_(buffers[key])
    torch.manual_seed(1)
    compressor = ActivationCompressor(model, **options)
    with compressor:
        packed = loss()
    got = gradient(model, packed)
    assert torch.equal(torch.get_rng_state(), state)
    return plain, want, packed, got, compressor


def error(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())
