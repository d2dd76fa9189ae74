"""Norms, dropout and parallel transport of points."""

from __future__ import annotations

import copy
import math
import pickle

import geoopt
import pytest
import torch
from torch import Tensor, nn

from lorentz import Lorentz, boost
from lorentz import math as lm
from lorentz.check import residual
from lorentz.normalization import LorentzBatchNorm, LorentzDropout, LorentzLayerNorm, LorentzRMSNorm
from lorentz.transport import transport, transport_from_origin, transport_to_origin

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NORMS = (LorentzLayerNorm, LorentzRMSNorm, LorentzBatchNorm)


def points(n: int, dim: int, *, k: float = 1.0, seed: int = 0, size: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return lm.lift(size * torch.randn(n, dim - 1, dtype=torch.float64, generator=g), k=k)


def tangent(x: Tensor, *, k: float = 1.0, seed: int = 7) -> Tensor:
    v = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return v + lm.minkowski(x, v, keepdim=True) * x / k


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0])
def test_transport_is_geoopts_an_isometry_and_has_an_inverse(k: float, size: float) -> None:
    x, y = points(30, 6, k=k, size=size), points(30, 6, k=k, seed=1, size=size)
    v, w = tangent(x, k=k), tangent(x, k=k, seed=8)
    moved = transport(x, y, v, k=k)
    scale = moved.abs().max() * y.abs().max()
    close = {"rtol": 1e-9, "atol": 1e-12 * float(scale)}
    assert torch.allclose(moved, geoopt.Lorentz(k=torch.tensor(k, dtype=torch.float64)).transp(x, y, v), **close)
    assert torch.allclose(lm.minkowski(moved, y), torch.zeros(30, dtype=torch.float64), **close)
    before, after = lm.minkowski(v, w), lm.minkowski(moved, transport(x, y, w, k=k))
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-12 * float(moved.abs().max() ** 2))
    assert torch.allclose(transport(y, x, moved, k=k), v, **close)
    origin = Lorentz(k).origin(30, 6, dtype=torch.float64)
    assert torch.allclose(transport_to_origin(x, v, k=k), transport(x, origin, v, k=k), **close)
    u = transport_to_origin(x, v, k=k)
    assert torch.equal(u[:, 0], torch.zeros(30, dtype=torch.float64))
    assert torch.allclose(transport_from_origin(x, u, k=k), v, **close)
    assert torch.allclose(transport_from_origin(x, u, k=k), transport(origin, x, u, k=k), **close)
    assert torch.allclose(transport(x, x, v, k=k), v, **close)


def test_transport_along_a_geodesic_carries_its_velocity() -> None:
    x, y = points(30, 6), points(30, 6, seed=1)
    assert torch.allclose(transport(x, y, lm.logmap(x, y)), -lm.logmap(y, x), rtol=1e-9, atol=1e-12)


def test_transport_has_both_derivatives() -> None:
    s = [torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def run(a: Tensor, b: Tensor, u: Tensor, k: Tensor) -> Tensor:
        x, y = lm.lift(a, k=k), lm.lift(b, k=k)
        v = torch.nn.functional.pad(u, (1, 0))
        return transport(x, y, v, k=k) + transport_to_origin(x, v, k=k) * transport_from_origin(y, v, k=k)

    assert torch.autograd.gradcheck(run, (*s, k))
    assert torch.autograd.gradgradcheck(run, (*s, k))


@pytest.mark.parametrize(("made", "flat"), [(LorentzLayerNorm, nn.LayerNorm), (LorentzRMSNorm, nn.RMSNorm)])
def test_space_norms_are_torchs_on_the_space_part(made: type, flat: type) -> None:
    norm, other = made(9, manifold=Lorentz(2.0)).double(), flat(8, eps=1e-5).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(dict(norm.named_parameters()))
    x = points(5, 9, k=2.0)
    y, want = norm(x), lm.lift(other(x[:, 1:]), k=2.0)
    assert torch.equal(y[:, 1:], want[:, 1:])
    torch.testing.assert_close(y[:, 0], want[:, 0], rtol=4e-16, atol=0)  # one rounding of a sum
    zeros = norm(norm.manifold.origin(2, 9, dtype=torch.float64))
    assert torch.isfinite(zeros).all()


@pytest.mark.parametrize("k", CURVATURES)
def test_batch_norm_centres_and_scales(k: float) -> None:
    manifold = Lorentz(k)
    norm = LorentzBatchNorm(6, manifold=manifold, eps=1e-12).double()
    norm.weight.data.fill_(0.8)
    x = lm.expmap(points(1, 6, k=k, seed=4), 0.2 * tangent(points(1, 6, k=k, seed=4).expand(40, 6), k=k), k=k)
    y = norm(x)
    origin = manifold.origin(6, dtype=torch.float64)
    assert torch.allclose(manifold.dist(y, origin).square().mean().sqrt(), torch.tensor(0.8, dtype=torch.float64))
    # Distances from the centre are scaled by one factor, angles at it are kept.
    mu = lm.centroid(x, k=k)
    ratio = manifold.dist(y, origin) / manifold.dist(x, mu)
    assert torch.allclose(ratio, ratio[0].expand(40), rtol=1e-9)
    u, v = lm.logmap(mu, x, k=k), lm.logmap0(y, k=k)
    gram = lm.minkowski(u[:, None], u[None]) * ratio[0] ** 2
    assert torch.allclose(v[:, 1:] @ v[:, 1:].T, gram, rtol=1e-8, atol=1e-10)
    # The learned point, by the formula: everything is carried there without being turned or stretched.
    norm.bias.data.normal_()
    b = lm.lift(norm.bias, k=k)
    z = norm(x)
    assert torch.allclose(z, lm.expmap(b, transport_from_origin(b, v, k=k), k=k), rtol=1e-9, atol=1e-10)
    assert torch.allclose(manifold.dist(z, b), manifold.dist(y, origin), rtol=1e-8)
    assert torch.allclose(manifold.dist(z[:-1], z[1:]), manifold.dist(y[:-1], y[1:]), rtol=1e-8)


def test_batch_norm_is_the_flat_one_for_large_k() -> None:
    norm = LorentzBatchNorm(4, manifold=Lorentz(1e10)).double()
    x = points(50, 4, k=1e10)
    s = x[:, 1:] - x[:, 1:].mean(0)
    want = s / (s.square().sum(1).mean() + 1e-5).sqrt()
    assert torch.allclose(norm(x)[:, 1:], want, rtol=1e-6, atol=1e-8)


def test_batch_norm_keeps_running_values() -> None:
    manifold = Lorentz(0.5)
    norm = LorentzBatchNorm(4, manifold=manifold, momentum=0.3).double()
    x = points(30, 4, k=0.5) + 0
    x = lm.lift(x[:, 1:] + 1, k=0.5)
    for _ in range(60):
        norm(x.view(5, 6, 4))
    mu = lm.centroid(x, k=0.5)
    assert int(norm.num_batches_tracked) == 60
    assert torch.allclose(norm.running_mean, mu[1:], rtol=1e-6)
    assert torch.allclose(norm.running_var, manifold.dist(x, mu).square().sum() / 29, rtol=1e-6)
    trained = norm(x)
    norm.eval()
    first = manifold.origin(4, dtype=torch.float64)
    ratio = manifold.dist(norm(x), first) / manifold.dist(trained, first)
    assert torch.allclose(ratio, torch.full_like(ratio, (29 / 30) ** 0.5), rtol=1e-4)
    state = copy.deepcopy(norm.state_dict())
    norm(x)
    assert all(torch.equal(v, state[n]) for n, v in norm.state_dict().items())
    once = LorentzBatchNorm(4, manifold=manifold, momentum=1.0).double()
    once(x)
    assert torch.allclose(once.running_mean, mu[1:], rtol=1e-9)


def test_batch_norm_of_one_point_and_of_none() -> None:
    norm = LorentzBatchNorm(4, manifold=Lorentz())
    with pytest.raises(ValueError, match=r"1 point; give a batch of at least 2, or call eval\(\)"):
        norm(Lorentz().origin(1, 4))
    assert norm(Lorentz().origin(0, 4)).shape == (0, 4)
    assert int(norm.num_batches_tracked) == 0
    assert norm.eval()(Lorentz().origin(4)).shape == (4,)
    same = norm.train()(Lorentz().origin(3, 4))
    assert torch.equal(same, Lorentz().origin(3, 4))
    same.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in norm.parameters())


@pytest.mark.parametrize("made", NORMS)
@pytest.mark.parametrize("training", [True, False])
def test_norms_have_both_derivatives(made: type, training: bool) -> None:
    torch.manual_seed(0)
    norm = made(4, manifold=Lorentz(0.5, learnable=True)).double().train(training)
    names, values = zip(*norm.named_parameters(), strict=True)
    space = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def run(space: Tensor, *parameters: Tensor) -> Tensor:
        x = lm.lift(space, k=0.5)
        given = dict(zip(names, parameters, strict=True))
        given.update({n: b.clone() for n, b in norm.named_buffers()})
        return torch.func.functional_call(norm, given, (x,))

    assert torch.autograd.gradcheck(run, (space, *values))
    assert torch.autograd.gradgradcheck(run, (space, *values))


@pytest.mark.parametrize("k", CURVATURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_on_the_manifold_with_finite_gradients(k: float, dtype: torch.dtype) -> None:
    manifold = Lorentz(k)
    x = points(24, 9, k=k).to(dtype).view(2, 3, 4, 9)
    x[0, 0] = manifold.origin(4, 9, dtype=dtype)
    limit = 1e-5 if dtype in (torch.float64, torch.float32) else 4 * torch.finfo(dtype).eps
    for layer in [made(9, manifold=manifold).to(dtype) for made in NORMS] + [LorentzDropout(0.3, manifold=manifold)]:
        y = layer(x)
        assert y.dtype == dtype and y.shape == x.shape
        assert residual(y, k=k) <= limit
        y.float().sum().backward() if y.requires_grad else None
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
        assert layer.eval()(x[:0]).shape == (0, 3, 4, 9)
        assert torch.allclose(layer(x[0, 0, 0]), layer(x)[0, 0, 0], atol=1e-2)


def test_dropout_zeroes_space_coordinates_and_nothing_in_evaluation() -> None:
    x = points(500, 9)
    drop = LorentzDropout(0.25, manifold=Lorentz())
    torch.manual_seed(0)
    y = drop(x)
    gone = y[:, 1:] == 0
    assert 0.22 < gone.double().mean() < 0.28
    assert torch.allclose(y[:, 1:][~gone], x[:, 1:][~gone] / 0.75)
    assert torch.equal(drop.eval()(x), x)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        LorentzDropout(1.5, manifold=Lorentz())


@pytest.mark.parametrize("made", NORMS)
def test_copies_saved_states_and_errors(made: type) -> None:
    norm = made(5, manifold=Lorentz(2.0))
    x = points(6, 5, k=2.0).float()
    norm(x)
    other = made(5, manifold=Lorentz(2.0))
    other.load_state_dict(norm.state_dict())
    for copied in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm)), other):
        assert torch.equal(copied.eval()(x), norm.eval()(x))
        if made is LorentzBatchNorm:
            assert copied.bias.manifold is copied.manifold
    with pytest.raises(ValueError, match=r"expects points of 5 coordinates, time first, and got 4.*manifold.lift"):
        norm(x[:, 1:])
    with pytest.raises(ValueError, match="got dim=1"):
        made(1, manifold=Lorentz())


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", NORMS)
@pytest.mark.parametrize("training", [True, False])
def test_norms_compile_in_one_graph_and_export(made: type, training: bool) -> None:
    norm = made(5, manifold=Lorentz(2.0, learnable=True)).double().train(training)
    x = points(6, 5, k=2.0)
    parameters = [p for p in norm.parameters()]
    eager = norm(x)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")(x)
    if not training:
        assert torch.allclose(torch.export.export(norm, (x,)).module()(x), eager, rtol=1e-14)
    assert torch.allclose(compiled, eager, rtol=1e-14, atol=1e-14)
    for got, want in zip(
        torch.autograd.grad(compiled.sin().sum(), parameters),
        torch.autograd.grad(eager.sin().sum(), parameters),
        strict=True,
    ):
        eps = 8 * torch.finfo(want.dtype).eps
        assert torch.allclose(got, want, rtol=eps, atol=eps * float(want.abs().max()))


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
def test_dropout_compiles() -> None:
    drop, x = LorentzDropout(0.5, manifold=Lorentz()), points(6, 5)
    y = torch.compile(drop, fullgraph=True, backend="aot_eager")(x)
    assert residual(y) < 1e-14


@pytest.mark.parametrize("radius", [19.0, 24.0])
def test_batch_norm_of_points_far_out_is_that_of_the_same_cloud_at_the_origin(radius: float) -> None:
    """It moves the centroid to b, by an isometry, so a cloud that was carried out there comes back."""
    g = torch.Generator().manual_seed(0)
    spread = torch.randn(40, 4, generator=g, dtype=torch.float64) * 0.3
    cloud = lm.lift(torch.cat([spread, -spread]))  # about the origin, its centroid
    rapidity = torch.tensor([radius - 3, 0, 0, 0], dtype=torch.float64)
    layer = LorentzBatchNorm(5, manifold=Lorentz()).double()
    want, got = layer(cloud), layer(boost(cloud, rapidity))
    assert float(lm.dist(got, want).detach().max()) < 1e-15 * math.exp(radius)
