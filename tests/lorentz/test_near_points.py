"""Points that nearly coincide: distances in float64 at every k, and derivatives of centroids, whose norm rounding decides."""

from __future__ import annotations

from typing import Any

import mpmath
import pytest
import torch
import torch.nn.functional as F
from mpmath import mpf
from torch import Tensor

from lorentz import Lorentz, LorentzGraphConv, LorentzMultiheadAttention
from lorentz import math as lm
from lorentz.fused_heads import merge_heads

F64 = torch.float64


def near(radius: float, apart: float, k: float, *, n: int = 2, size: int = 4, seed: int = 0) -> Tensor:
    """Space parts (n, size) of points about one another, at a radius in units of sqrt(k)."""
    generator = torch.Generator().manual_seed(seed)
    base = F.normalize(torch.randn(1, size, dtype=F64, generator=generator)) * torch.sinh(
        torch.tensor(radius, dtype=F64)
    )
    return k**0.5 * (base + apart * torch.randn(n, size, dtype=F64, generator=generator))


@pytest.mark.parametrize("k", [1.0, 2.0, 3.0, 10.0])
@pytest.mark.parametrize(("radius", "apart"), [(1.0, 1e-9), (4.0, 1e-6), (8.0, 1e-9), (8.0, 1e-3)])
def test_distances_of_near_points_keep_their_digits_at_every_k(radius: float, apart: float, k: float) -> None:
    """The difference is taken before the division by sqrt(k), which rounds."""
    x, y = near(radius, apart, k)
    with mpmath.workdps(60):
        a, b = ([mpf(v) for v in s.tolist()] for s in (x, y))
        times = [mpmath.sqrt(mpf(k) + sum(v * v for v in s)) for s in (a, b)]
        product = sum(p * q for p, q in zip(a, b, strict=True)) - times[0] * times[1]
        sqdist = -2 * mpf(k) - 2 * product
        dist = mpmath.sqrt(mpf(k)) * mpmath.acosh(-product / mpf(k))
    found = {f: float(getattr(lm, f)(lm.lift(x, k=k), lm.lift(y, k=k), k=k)) for f in ("sqdist", "dist", "dist2")}
    want = {"sqdist": float(sqdist), "dist": float(dist), "dist2": float(dist * dist)}
    assert found == pytest.approx(want, rel=1e-13)
    there = lm.logmap(lm.lift(x, k=k), lm.lift(y, k=k), k=k)
    length = (
        there[1:].square().sum() * k + (torch.outer(x, there[1:]) - torch.outer(there[1:], x)).square().sum() / 2
    ) / (k + x.square().sum())  # |v|^2 of a tangent vector as a sum of squares
    assert float(length.sqrt()) == pytest.approx(float(dist), rel=1e-12)


def gradient(points: Tensor, weight: Tensor, along: Tensor, dtype: torch.dtype, bound: bool = True) -> Tensor:
    """Of merged centroids with respect to the space parts; without the bound in float64, as the reference."""
    v = points.to(dtype).requires_grad_()
    manifold = Lorentz(1.0)
    a = (weight.to(dtype) @ manifold.lift(v))[None, None]
    if bound:
        space = merge_heads(a, k=manifold.k)[0, :, 1:]
    else:
        norm = a[..., :1] ** 2 - a[..., 1:].square().sum(-1, keepdim=True)
        space = (a[..., 1:] / norm.sqrt())[0, 0]
    (found,) = torch.autograd.grad((space * along.to(dtype)).sum(), v)
    return found.double()


@pytest.mark.parametrize(("radius", "apart"), [(1.0, 1e-3), (3.0, 1e-3), (4.0, 1e-3), (5.0, 1e-2), (5.0, 1e-4)])
def test_the_gradient_of_a_centroid_of_near_points_is_as_good_as_its_norm(radius: float, apart: float) -> None:
    """Rounding puts the norm under its bound about half of the time; its derivative is not that of a constant."""
    worst = 0.0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        points = near(radius, apart, 1.0, n=6, size=8, seed=seed).float()
        weight = torch.randn(6, 6, generator=generator).softmax(-1)
        along = torch.randn(6, 8, generator=generator)
        exact = gradient(points, weight, along, F64, bound=False)
        worst = max(worst, float((gradient(points, weight, along, torch.float32) - exact).norm() / exact.norm()))
    time = float(torch.cosh(torch.tensor(radius)))
    assert worst < 4 * torch.finfo(torch.float32).eps * time**2 + 1e-6


@pytest.mark.parametrize("radius", [9.0, 12.0, 15.0])
def test_a_gradient_that_rounding_has_eaten_does_not_explode(radius: float) -> None:
    for seed in range(5):
        points = near(radius, 1.0, 1.0, n=6, size=8, seed=seed).float()
        weight, along = torch.full((6, 6), 1 / 6), torch.ones(6, 8)
        found, exact = (gradient(points, weight, along, dtype) for dtype in (torch.float32, F64))
        assert found.isfinite().all() and found.norm() < 3 * exact.norm()


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
def test_many_centroids_have_the_gradient_of_one(apart: float) -> None:
    """The form for one does not cancel, to radius 30."""
    for seed in range(5):
        points = near(12.0, apart, 1.0, n=5, seed=seed)
        weight = torch.rand(5, dtype=F64, generator=torch.Generator().manual_seed(seed))
        found = []
        for w in (weight, weight[None]):
            v = points.clone().requires_grad_()
            found.append(torch.autograd.grad(lm.centroid(lm.lift(v), w).reshape(-1)[1:].sum(), v)[0])
        assert (found[1] - found[0]).norm() < 1e-4 * found[0].norm()


def layers() -> list[Any]:
    manifold = Lorentz(1.0)
    edges = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
    attention = LorentzMultiheadAttention(4, 1, manifold=manifold).double()
    conv = LorentzGraphConv(4, 4, manifold=manifold, variant="unbounded").double()
    return [attention, lambda x: conv(x, edges)]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("apart", [0.0, 1e-9, 0.1])
def test_second_derivatives_where_all_tokens_are_equal(number: int, apart: float) -> None:
    """Against differences of first derivatives, which do not see on which side of the bound rounding has put the norm."""
    torch.manual_seed(0)
    layer, manifold = layers()[number], Lorentz(1.0)
    start = torch.randn(1, 3, dtype=F64).expand(3, 3) + apart * torch.randn(3, 3, dtype=F64)
    along = torch.randn(3, 4, dtype=F64)

    def loss(s: Tensor) -> Tensor:
        out: Tensor = (layer(manifold.lift(s)) * along).sum()
        return out

    hessian = torch.autograd.functional.hessian(loss, start).reshape(9, 9)
    rows = []
    for i in range(9):
        step = torch.zeros(9, dtype=F64)
        step[i] = 1e-4
        up, down = (torch.autograd.functional.jacobian(loss, start + sign * step.view(3, 3)) for sign in (1, -1))
        rows.append((up - down).flatten() / 2e-4)
    torch.testing.assert_close(hessian, torch.stack(rows), rtol=1e-4, atol=1e-5)
