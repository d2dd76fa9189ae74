"""Classifiers and the edge decoder, against their definitions."""

from __future__ import annotations

import copy
import math
import pickle

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz import Lorentz
from lorentz import math as lm
from lorentz.heads import KINDS, FermiDirac, LorentzClassifier

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def points(n: int, dim: int, *, k: float = 1.0, seed: int = 0, size: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return lm.lift(size * torch.randn(n, dim - 1, dtype=torch.float64, generator=g), k=k)


def classifier(kind: str, k: float = 1.0, *, dim: int = 5, classes: int = 4, bias: bool = True) -> LorentzClassifier:
    torch.manual_seed(2)
    head = LorentzClassifier(dim, classes, manifold=Lorentz(k), kind=kind, bias=bias).double()
    if bias:
        torch.nn.init.normal_(head.bias)
    return head


@pytest.mark.parametrize("k", CURVATURES)
def test_prototype_logits_are_squared_distances(k: float) -> None:
    head, x = classifier("prototype", k), points(20, 5, k=k)
    want = head.bias - lm.sqdist(x[:, None], lm.lift(head.weight, k=k)[None], k=k)
    assert torch.allclose(head(x), want, rtol=1e-11, atol=1e-11)
    assert torch.allclose(classifier("prototype", k, bias=False)(x), want - head.bias, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("k", "radius"), [(1.0, 1.0), (1.0, 8.0), (1.0, 10.0), (100.0, 30.0), (1e6, 1.0), (1e8, 1.0)])
@pytest.mark.parametrize("autocast", [False, True])
def test_prototype_logits_in_float32_are_those_of_the_points_far_out_and_for_every_k(
    k: float, radius: float, autocast: bool
) -> None:
    manifold, head = Lorentz(k), LorentzClassifier(9, 20, manifold=Lorentz(k), bias=False)
    g = torch.Generator().manual_seed(0)
    way = F.normalize(torch.randn(1, 8, dtype=torch.float64, generator=g)) * radius
    centre = manifold.expmap0(F.pad(way, (1, 0)))
    x = manifold.random_normal(50, 9, mean=centre, std=0.3, dtype=torch.float64, generator=g)[:, 1:].float()
    with torch.no_grad():
        head.weight.copy_(manifold.random_normal(20, 9, mean=centre, std=0.3, dtype=torch.float64, generator=g)[:, 1:])
    want = -lm.sqdist(lm.lift(x.double(), k=k)[:, None], lm.lift(head.weight.double(), k=k)[None], k=k).detach()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = head(lm.lift(x, k=k)).detach()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=k * 1e-15 * math.exp(2 * radius / k**0.5))


@pytest.mark.parametrize("k", CURVATURES)
def test_regression_is_the_signed_distance_to_a_hyperplane(k: float) -> None:
    """The hyperplane is perpendicular, at exp_o(a z / |z|), to the geodesic along z; found by minimising distances."""
    head, x = classifier("mlr", k), points(12, 5, k=k)
    manifold = Lorentz(k)
    for c in range(4):
        z, a = head.weight[c].detach(), head.bias[c].detach()
        v = torch.cat([torch.zeros(1, dtype=torch.float64), z / z.norm() * a])
        foot = manifold.expmap0(v)
        # Unit normal at the foot: the geodesic's velocity there.
        ahead = manifold.expmap0(torch.cat([torch.zeros(1, dtype=torch.float64), z / z.norm() * (a + 1)]))
        normal = manifold.logmap(foot, ahead)
        normal = normal / lm.minkowski(normal, normal).sqrt()
        side = lm.minkowski(x, normal)
        # Nearest point of {y: <y, normal> = 0}: remove the normal component and return to the hyperboloid.
        nearest = x - side[:, None] * normal
        nearest = nearest * (k / -lm.minkowski(nearest, nearest, keepdim=True)).sqrt()
        assert lm.minkowski(nearest, normal.expand_as(nearest)).abs().max() < 1e-10
        want = side.sign() * manifold.dist(x, lm.lift(nearest[:, 1:], k=k)) * z.norm()
        assert torch.allclose(head(x)[:, c], want, rtol=1e-8, atol=1e-9)
        # No point of the hyperplane is nearer.
        for seed in range(3):
            other = lm.lift(nearest[:, 1:] + 0.05 * torch.randn(12, 4, dtype=torch.float64), k=k)
            other = other - lm.minkowski(other, normal.expand_as(other), keepdim=True) * normal
            other = other * (k / -lm.minkowski(other, other, keepdim=True)).sqrt()
            away = manifold.dist(x, lm.lift(other[:, 1:], k=k))
            assert (away >= manifold.dist(x, lm.lift(nearest[:, 1:], k=k)) - 1e-9).all(), seed


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("offset", [0.0, 1e-6, 1.0, -30.0, 1000.0, -1e5])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_regression_against_60_digits(k: float, offset: float, size: float) -> None:
    head, x = classifier("mlr", k, classes=2), points(5, 5, k=k, size=size)
    head.bias.data.fill_(offset)
    got = head(x).detach()
    with mpmath.workdps(200):
        root = mpmath.sqrt(mpmath.mpf(k))
        # e^(a / sqrt k) with |a| = 1e5 has 137,000 digits before the point: mpf keeps its exponent exactly.
        for i, row in enumerate(x[:, 1:].tolist()):
            s = [mpmath.mpf(v) for v in row]
            time = mpmath.sqrt(mpmath.mpf(k) + sum(v * v for v in s))
            for c, zs in enumerate(head.weight.tolist()):
                z = [mpmath.mpf(v) for v in zs]
                norm = mpmath.sqrt(sum(v * v for v in z))
                dot = sum(u * v for u, v in zip(z, s, strict=True))
                alpha = mpmath.mpf(offset) / root
                argument = (mpmath.cosh(alpha) * dot - mpmath.sinh(alpha) * norm * time) / (root * norm)
                want = float(root * norm * mpmath.asinh(argument))
                assert abs(float(got[i, c]) - want) <= 1e-9 * abs(want) + 1e-12


def test_regression_is_flat_for_large_k_and_calm_at_a_zero_normal() -> None:
    k = 1e12
    head, x = classifier("mlr", k), points(9, 5, k=k)
    want = x[:, 1:] @ head.weight.T - head.bias * head.weight.norm(dim=1)
    assert torch.allclose(head(x), want, rtol=1e-8, atol=1e-8)
    head, x = classifier("mlr"), points(9, 5)
    for size in (1e-300, 1e-30, 1e-8, 0.0):
        head.weight.data[1] = size / 2
        logits = head(x)
        assert (logits[:, 1].abs() <= 20 * size).all()
        grads = torch.autograd.grad(logits.square().sum() + logits.sum(), list(head.parameters()))
        assert all(torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_low_precision_logits_are_near_float64(kind: str, k: float, dtype: torch.dtype) -> None:
    head = classifier(kind, k).to(dtype)
    x = points(6, 5, k=k).to(dtype)
    exact = copy.deepcopy(head).double()(x.double())
    got = head(x)
    assert got.dtype == dtype
    assert (
        (got.double() - exact).abs() <= 4 * torch.finfo(dtype).eps * (k + exact.abs() + x[:, :1].double() ** 2)
    ).all()
    got.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@pytest.mark.parametrize("kind", [*KINDS, "edges"])
def test_heads_have_both_derivatives(kind: str) -> None:
    manifold = Lorentz(0.5, learnable=True)
    torch.manual_seed(0)
    if kind == "edges":
        head = FermiDirac(1.0, 0.5, manifold=manifold, learnable=True).double()
    else:
        head = LorentzClassifier(4, 3, manifold=manifold, kind=kind).double()
        torch.nn.init.normal_(head.bias, 0, 2.0)
    names, values = zip(*head.named_parameters(), strict=True)
    space = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def run(space: Tensor, *parameters: Tensor) -> Tensor:
        x = lm.lift(space, k=0.5)
        arguments = (x, x.flip(0)) if kind == "edges" else (x,)  # the middle point meets itself
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), arguments)

    assert torch.autograd.gradcheck(run, (space, *values))
    assert torch.autograd.gradgradcheck(run, (space, *values))


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch_rank_copies_and_errors(kind: str) -> None:
    head, x = classifier(kind, 2.0), points(6, 5, k=2.0)
    want = head(x)
    assert torch.allclose(head(x.view(2, 3, 5)), want.view(2, 3, 4), rtol=1e-12)
    assert torch.allclose(head(x[0]), want[0], rtol=1e-12)
    assert head(x[:0]).shape == (0, 4)
    other = LorentzClassifier(5, 4, manifold=Lorentz(2.0), kind=kind).double()
    other.load_state_dict(head.state_dict())
    for made in (copy.deepcopy(head), pickle.loads(pickle.dumps(head)), other):
        assert torch.equal(made(x), want)
        if kind in ("prototype", "relative"):  # learned points
            assert made.weight.manifold is made.manifold
        else:
            assert not hasattr(made.weight, "manifold")
    with pytest.raises(ValueError, match=r"expects points of 5 coordinates, time first, and got 4.*manifold.lift"):
        head(x[:, 1:])
    with pytest.raises(ValueError, match="dim=5, num_classes=0"):
        LorentzClassifier(5, 0, manifold=Lorentz())
    with pytest.raises(ValueError, match="one of 'prototype', 'relative', 'mlr'; got 'mrl'"):
        LorentzClassifier(5, 2, manifold=Lorentz(), kind="mrl")


@pytest.mark.parametrize("k", CURVATURES)
def test_edges_follow_the_fermi_dirac_distribution(k: float) -> None:
    manifold = Lorentz(k)
    decoder = FermiDirac(1.7, 0.3, manifold=manifold).double()
    x, y = points(20, 5, k=k), points(20, 5, k=k, seed=1)
    energy = manifold.dist(x, y).square()
    r, t = decoder.r, decoder.log_t.exp()
    assert torch.allclose(decoder.probability(x, y), 1 / (((energy - r) / t).exp() + 1), rtol=1e-9)
    assert torch.allclose(decoder(x, y), (r - energy) / t, rtol=1e-10, atol=1e-10)
    assert decoder(x[:, None], y[None]).shape == (20, 20)
    assert torch.allclose(decoder(x, x), (r / t).expand(20), rtol=1e-12)
    assert decoder(x.bfloat16(), y.bfloat16()).dtype == torch.bfloat16
    assert not list(decoder.parameters()) and set(decoder.state_dict()) == {"r", "log_t", "manifold._extra_state"}
    assert torch.equal(pickle.loads(pickle.dumps(decoder))(x, y), decoder(x, y))
    with pytest.raises(ValueError, match="must be positive, got 0"):
        FermiDirac(1.0, 0.0, manifold=manifold)


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*KINDS, "edges"])
def test_heads_compile_in_one_graph_and_export(kind: str) -> None:
    manifold = Lorentz(2.0, learnable=True)
    x = points(6, 5, k=2.0)
    if kind == "edges":
        head, arguments = FermiDirac(1.0, 0.5, manifold=manifold, learnable=True).double(), (x, x.flip(0) + 0)
    else:
        head, arguments = LorentzClassifier(5, 3, manifold=manifold, kind=kind).double(), (x,)
    parameters = list(head.parameters())
    eager = head(*arguments)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")(*arguments)
    assert torch.allclose(compiled, eager, rtol=1e-14, atol=1e-14)
    assert torch.allclose(torch.export.export(head, arguments).module()(*arguments), eager, rtol=1e-14, atol=1e-14)
    for got, want in zip(
        torch.autograd.grad(compiled.sin().sum(), parameters),
        torch.autograd.grad(eager.sin().sum(), parameters),
        strict=True,
    ):
        eps = 8 * torch.finfo(want.dtype).eps
        assert torch.allclose(got, want, rtol=eps, atol=eps * float(want.abs().max()))
