"""Convolutions against the direct concatenation of points, patch by patch in float64, and against torch where it is flat."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz import Lorentz, LorentzConv1d, LorentzConv2d
from lorentz.math import lift

F64 = torch.float64
K = 1.7


def points(*shape: int, k: float = K) -> Tensor:
    return lift(torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(0)), k=k)


def concatenate(patch: list[Tensor]) -> Tensor:
    time = (sum((p[0] ** 2 for p in patch), torch.zeros((), dtype=F64)) - (len(patch) - 1) * K).sqrt()
    return torch.cat([time[None], *(p[1:] for p in patch)])


@pytest.mark.parametrize("variant", ["paper", "unbounded"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 2, "dilation": 3, "padding": 2},
        {"kernel_size": 1},
    ],
    ids=str,
)
def test_a_sequence_is_mapped_patch_by_patch(options: dict[str, int], variant: str) -> None:
    torch.manual_seed(0)
    layer = LorentzConv1d(4, 6, manifold=Lorentz(K), variant=variant, **options).double()
    x = points(7, 3)
    kernel, stride, padding, dilation = (
        options.get(name, default)
        for name, default in (("kernel_size", 0), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    origin = lift(torch.zeros(3, dtype=F64), k=K)
    padded = [*[origin] * padding, *x, *[origin] * padding]
    starts = range(0, len(padded) - dilation * (kernel - 1), stride)
    want = torch.stack([layer.linear(concatenate([padded[s + i * dilation] for i in range(kernel)])) for s in starts])
    torch.testing.assert_close(layer(x), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("variant", ["paper", "unbounded"])
def test_an_image_is_mapped_patch_by_patch(variant: str) -> None:
    torch.manual_seed(0)
    layer = LorentzConv2d(
        4, 6, (2, 3), manifold=Lorentz(K), variant=variant, stride=(1, 2), padding=(1, 2), dilation=(2, 1)
    ).double()
    x = points(5, 4, 3)
    origin = lift(torch.zeros(3, dtype=F64), k=K)

    def at(i: int, j: int) -> Tensor:
        return x[i, j] if 0 <= i < 5 and 0 <= j < 4 else origin

    want = torch.stack(
        [
            torch.stack(
                [
                    layer.linear(concatenate([at(i + 2 * a, j + b) for a, b in product(range(2), range(3))]))
                    for j in range(-2, 4 + 2 - 2, 2)
                ]
            )
            for i in range(-1, 5 + 1 - 2)
        ]
    )
    torch.testing.assert_close(layer(x), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("padding", [0, 1])
def test_without_weights_on_time_it_is_the_convolution_of_the_space_parts(padding: int) -> None:
    torch.manual_seed(0)
    layer = LorentzConv2d(4, 6, 3, manifold=Lorentz(K), padding=padding, stride=2).double()
    with torch.no_grad():
        layer.linear.weight[:, 0] = 0
    x = points(2, 7, 6, 3)
    weight = layer.linear.weight[:, 1:].view(5, 3, 3, 3).permute(0, 3, 1, 2)  # (out, height, width, in), channels last
    want = F.conv2d(x[..., 1:].permute(0, 3, 1, 2), weight, layer.linear.bias, stride=2, padding=padding)
    torch.testing.assert_close(layer(x)[..., 1:], want.permute(0, 2, 3, 1), rtol=1e-12, atol=1e-13)


def test_activation_acts_on_the_input_and_padding_stays_the_origin() -> None:
    torch.manual_seed(0)
    layer = LorentzConv1d(4, 6, 3, manifold=Lorentz(K), padding=1, activation=torch.exp).double()
    x = points(5, 3)
    plain = LorentzConv1d(4, 6, 3, manifold=Lorentz(K), padding=1).double()
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), plain(lift(x[..., 1:].exp(), k=K)), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 0}, "kernel_size is a whole number or 2 of them, at least 1; got 0"),
        ({"kernel_size": 3, "stride": (1, 2, 3)}, "stride is"),
        ({"kernel_size": 3, "padding": -1}, "padding is .* at least 0"),
        ({"kernel_size": 3, "dropout": 1.0}, r"probability in \[0, 1\), got 1.0"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LorentzConv2d(4, 6, manifold=Lorentz(K), **options)


def test_an_input_smaller_than_the_kernel_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match="spans 5 points and the padded input has 4"):
        LorentzConv1d(4, 6, 3, manifold=Lorentz(K), dilation=2).double()(points(4, 3))
