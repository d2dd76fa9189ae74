"""Batched rotations against one matrix at a time, complex numbers and group laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorentz import Lorentz, Rotation
from lorentz.rotations import PARAMETRISATIONS, givens, rotation_matrix

F64 = torch.float64


def parameters(parametrisation: str, *batch: int, n: int = 5, seed: int = 0) -> Tensor:
    shape = (n, n - n % 2) if parametrisation == "householder" else (n * (n - 1) // 2,)
    return torch.randn(*batch, *shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_each_matrix_of_a_batch_is_that_of_the_layer(parametrisation: str, batch: tuple[int, ...]) -> None:
    raw = parameters(parametrisation, *batch)
    matrices = rotation_matrix(raw, parametrisation=parametrisation)
    assert matrices.shape == (*batch, 5, 5)
    layer = Rotation(6, manifold=Lorentz(), parametrisation=parametrisation).double()
    flat = raw.reshape(-1, *parameters(parametrisation).shape)
    for one, matrix in zip(flat, matrices.reshape(-1, 5, 5), strict=True):
        layer.raw.data = one
        torch.testing.assert_close(layer.matrix(), matrix)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(5, dtype=F64), rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.linalg.det(matrix), torch.tensor(1.0, dtype=F64))


def test_the_exponential_is_its_series() -> None:
    raw = parameters("matrix_exp", 4, n=3) / 4
    skew = torch.zeros(4, 3, 3, dtype=F64)
    for b in range(4):
        skew[b, 1, 0], skew[b, 2, 0], skew[b, 2, 1] = raw[b]
    skew = skew - skew.mT
    series, term = torch.eye(3, dtype=F64).expand(4, 3, 3).clone(), torch.eye(3, dtype=F64).expand(4, 3, 3)
    for i in range(1, 25):
        term = term @ skew / i
        series = series + term
    torch.testing.assert_close(rotation_matrix(raw), series, rtol=0, atol=1e-14)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_gradients_of_a_batch(parametrisation: str) -> None:
    raw = parameters(parametrisation, 2, n=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: rotation_matrix(p, parametrisation=parametrisation), raw)
    per_row = torch.vmap(lambda p: rotation_matrix(p, parametrisation=parametrisation))(raw)
    torch.testing.assert_close(per_row, rotation_matrix(raw, parametrisation=parametrisation))


@pytest.mark.parametrize("n", [2, 6, 7])
def test_givens_is_multiplication_by_a_unit_complex_number(n: int) -> None:
    x, phi = torch.randn(3, n, dtype=F64), torch.randn(3, n // 2, dtype=F64)
    z = torch.complex(x[:, : n // 2], x[:, n // 2 : n - n % 2]) * torch.polar(torch.ones_like(phi), phi)
    y = givens(x, phi)
    torch.testing.assert_close(y, torch.cat([z.real, z.imag, x[:, n - n % 2 :]], 1))
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(givens(y, -phi), x)


def test_givens_of_low_precision_keeps_its_dtype_and_is_rounded_once() -> None:
    x, phi = torch.randn(4, 6).bfloat16(), torch.randn(4, 3)
    assert torch.equal(givens(x, phi), givens(x.float(), phi).bfloat16())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n \(n - 1\) / 2 parameters .* got 4"):
        rotation_matrix(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="parametrisation is one of"):
        rotation_matrix(torch.zeros(3), parametrisation="euler")
    with pytest.raises(ValueError, match="5 coordinates take an angle for each of their 2 pairs, at least one; got 3"):
        givens(torch.zeros(1, 5), torch.zeros(1, 3))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_a_rotation_without_memory_starts_as_others_do(parametrisation: str) -> None:
    with torch.device("meta"):
        layer = Rotation(6, manifold=Lorentz(2.0), parametrisation=parametrisation)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    torch.testing.assert_close(layer.matrix(), torch.eye(5))
