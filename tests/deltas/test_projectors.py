"""Projectors are linear, their transposes are theirs, and Fastfood is the product of its factors."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.linalg
import torch

from deltas import DeltaError
from deltas.subspace import PROJECTORS
from deltas.subspace.projectors import FastfoodProjector, make_projector

CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("dense", 4, 700, {}),
    ("dense", 1, 5, {}),
    ("low-rank", 8, 700, {}),
    ("low-rank", 8, 700, {"rank": 5}),
    ("block", 8, 701, {}),
    ("block", 6, 700, {"blocks": 3}),
    ("fastfood", 4, 700, {}),
    ("fastfood", 300, 701, {}),
    ("fastfood", 4, 700, {"gaussian": "trained"}),
    ("identity", 9, 9, {}),
]
IDS = [f"{kind}-{dim}-{size}-{'-'.join(map(str, own.values()))}" for kind, dim, size, own in CASES]


def build(kind: str, dim: int, size: int, own: dict[str, Any]) -> Any:
    return make_projector(kind, dim, size, generator=torch.Generator().manual_seed(3), **own)


@pytest.mark.parametrize(("kind", "dim", "size", "own"), CASES, ids=IDS)
def test_transpose_is_that_of_the_matrix(kind: str, dim: int, size: int, own: dict[str, Any]) -> None:
    p = build(kind, dim, size, own)
    with torch.no_grad():
        for parameter in p.parameters():  # away from the start, where a mixing is the identity
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    matrix = p.matrix().detach()
    assert matrix.shape == (size, dim)
    points, vectors = torch.randn(3, dim), torch.randn(3, size)
    assert torch.allclose(p(points), points @ matrix.T, atol=1e-5)
    assert torch.allclose(p.transpose(vectors), vectors @ matrix, atol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "low-rank", "block", "fastfood"])
def test_columns_have_length_one(kind: str) -> None:
    matrix = build(kind, 32, 4096, {}).matrix().detach()
    tolerance = 0.2 if kind == "low-rank" else 0.05  # a product of two random factors varies more
    assert float(matrix.norm(dim=0).square().mean()) == pytest.approx(1.0, abs=tolerance)
    if kind in ("dense", "fastfood"):  # and directions are nearly orthogonal
        gram = matrix.T @ matrix
        assert float((gram - torch.diag(gram.diag())).abs().max()) < 0.15


def test_fastfood_is_the_product_of_its_factors() -> None:
    p = build("fastfood", 3, 600, {})
    signs, order, gaussian = (x.double() for x in p._draw(torch.device("cpu")))
    h = torch.from_numpy(scipy.linalg.hadamard(256)).double()
    blocks = []
    for b in range(3):
        permutation = torch.zeros(256, 256, dtype=torch.float64)
        permutation[torch.arange(256), order[b].long()] = 1.0
        assert permutation.sum(0).eq(1).all()
        blocks.append(h @ torch.diag(gaussian[b]) @ permutation @ h @ torch.diag(signs[b]))
    expected = torch.cat(blocks)[:600, :3] / (256 * 3**0.5)
    assert torch.allclose(p.matrix().double(), expected, atol=1e-6)


@pytest.mark.parametrize("gaussian", ["seeded", "trained"])
def test_fastfood_takes_a_hundredth_of_the_memory(gaussian: str) -> None:
    def kept(module: torch.nn.Module) -> int:
        return sum(t.numel() * t.element_size() for t in module.state_dict().values())

    dense, fast = build("dense", 256, 40_000, {}), build("fastfood", 256, 40_000, {"gaussian": gaussian})
    assert kept(dense) == 4 * 256 * 40_000
    assert kept(fast) <= (0.01 if gaussian == "seeded" else 0.02) * kept(dense)


def test_fastfood_is_made_again_from_its_seed() -> None:
    one = build("fastfood", 4, 700, {})
    other = FastfoodProjector(4, 700, generator=torch.Generator().manual_seed(99), **one.config())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.matrix(), other.matrix())


@pytest.mark.parametrize(
    ("kind", "own", "message"),
    [
        ("desne", {}, "dense"),
        ("dense", {"rank": 3}, "rank"),
        ("low-rank", {"rank": 9}, "give 1 to 8"),
        ("block", {"blocks": 3}, "divisor of 8"),
        ("fastfood", {"gaussian": "free"}, "seeded"),
        ("identity", {}, "700 coordinates"),
    ],
)
def test_errors(kind: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(DeltaError, match=message):
        build(kind, 8, 700, own)
    assert kind in PROJECTORS or kind == "desne"


@pytest.mark.parametrize("rank", [1, 2])
def test_a_point_of_a_projector_of_low_rank_is_the_smallest_that_fits(rank: int) -> None:
    """P in float32 has a rank below dim only up to rounding, which must not be divided by."""
    projector = build("low-rank", 6, 400, {"rank": rank})
    vector = torch.randn(400, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.pinv(projector.matrix().double(), rtol=1e-5) @ vector.double()
    torch.testing.assert_close(projector.solve(vector).double(), expected, rtol=1e-3, atol=1e-5)
