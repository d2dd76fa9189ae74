"""KronA and KAdaptation against torch.kron."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import deltas
from deltas import Compacter, DeltaError, KAdaptation, KronA, LowRankAdapter
from deltas.methods.kronecker import divisor_near, kronecker_linear, kronecker_sum

from .backbones import backbone
from .layers import KINDS, One, with_time

kinds = pytest.mark.parametrize("kind", KINDS)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def timed(kind: str, time: Tensor | None, dense: Tensor) -> Tensor:
    return dense if kind == "flat" else torch.cat([time[:, None], dense], 1)


def kron_sum(A: Tensor, B: Tensor) -> Tensor:
    return sum(torch.kron(a, b) for a, b in zip(A, B, strict=True))


@pytest.mark.parametrize(("n", "a", "b", "c", "d", "r"), [(3, 2, 4, 5, 3, 2), (1, 1, 1, 4, 2, 1), (4, 4, 4, 2, 2, 1)])
def test_products_without_the_matrix(n: int, a: int, b: int, c: int, d: int, r: int) -> None:
    torch.manual_seed(0)
    A = torch.randn(n, a, b, dtype=torch.float64)
    left, right = torch.randn(n, c, r, dtype=torch.float64), torch.randn(n, d, r, dtype=torch.float64)
    dense = kron_sum(A, left @ right.mT)
    close(kronecker_sum(A, left @ right.mT), dense)
    x = torch.randn(2, 7, b * d, dtype=torch.float64)
    close(kronecker_linear(x, A, left, right), x @ dense.T)


@kinds
@pytest.mark.parametrize("left", [None, (2, 4), (12, 8), (5, 3)])
def test_krona(kind: str, left: tuple[int, int] | None) -> None:
    one = One(kind, KronA(roles=("q",), left=left, scale=0.7))
    p = one.numbers()
    change = timed(kind, p.get("product.time"), torch.kron(p["product.A"], p["product.B"]))
    want = one.plain(one.weight + 0.7 * change)
    close(one(), want)
    one.handle.merge()
    close(one(), want)
    close(one.q.weight.detach(), one.weight + 0.7 * change)


def test_krona_sizes() -> None:
    """The divisors nearest to those asked for; by default nearest to the roots."""
    shapes = {left: One("flat", KronA(roles=("q",), left=left)).numbers() for left in (None, (5, 3))}
    assert shapes[None]["product.A"].shape == (3, 2)
    assert shapes[5, 3]["product.A"].shape == (4, 2)
    assert divisor_near(385, 385**0.5) == 11
    assert divisor_near(257, 16.0) == 1


@kinds
@pytest.mark.parametrize("rank", [1, 3])
def test_kadaptation(kind: str, rank: int) -> None:
    one = One(kind, KAdaptation(roles=("q",), terms=4, rank=rank))
    p = one.numbers()
    dense = kron_sum(p["product.rule.A"], p["product.left"] @ p["product.right"].mT)
    want = one.plain(one.weight + timed(kind, p.get("product.time"), dense))
    close(one(), want)
    one.handle.merge()
    close(one(), want)


@pytest.mark.parametrize(("name", "time"), [("bert", 0), ("lorentz", 1)])
def test_counts(name: str, time: int) -> None:
    """Closed forms: d = 32, f = 64 free coordinates, two layers, queries and values; m more a matrix for the time column."""
    d, layers = 32, 2
    model = backbone(name)

    def count(spec: deltas.Delta) -> int:
        return deltas.plan(model, spec).parameters

    assert count(KronA(left=(4, 8))) == 2 * layers * (4 * 8 + (d // 4) * (d // 8) + time * d)
    assert count(KronA(to="ffn", left=(8, 4))) == layers * (8 * 4 + (d // 8) * (d // 4) + time * d)
    assert count(KronA(to="ffn", left=(8, 4), residual=True)) == layers * (64 + time * d + 1)
    assert count(KAdaptation(terms=4, rank=2)) == 2 * layers * (2 * (d + d) + time * d) + 4**3
    r, n = 8, 4
    assert count(Compacter(bottleneck=r, terms=n)) == 2 * layers * (2 * (d + r) + r + d + time * (r + d)) + n**3
    assert count(LowRankAdapter(bottleneck=r, factor_rank=3)) == 2 * layers * ((2 * (d + r + time) * 3) + r + d)


@pytest.mark.parametrize("kind", ["flat", "lorentz"])
@pytest.mark.parametrize("rank", [1, 2])
def test_compacter(kind: str, rank: int) -> None:
    one = One(kind, Compacter(roles=("q",), bottleneck=8, terms=4, factor_rank=rank))
    p = {key.removeprefix("bottleneck."): t for key, t in one.numbers().items()}
    rule = p["down.rule.A"]
    down = timed(kind, p.get("down.time"), kron_sum(rule, p["down.left"] @ p["down.right"].mT))
    up = timed(kind, p.get("up.time"), kron_sum(rule, p["up.left"] @ p["up.right"].mT))
    z = one.plain()
    hidden = F.gelu(with_time(kind, z) @ down.T + p["down_bias"])
    close(one(), z + with_time(kind, hidden) @ up.T + p["up_bias"])


@pytest.mark.parametrize("kind", ["flat", "lorentz"])
def test_low_rank_adapter(kind: str) -> None:
    one = One(kind, LowRankAdapter(roles=("q",), bottleneck=5, factor_rank=2, activation="silu"))
    p = {key.removeprefix("bottleneck."): t for key, t in one.numbers().items()}
    down, up = (p[f"{name}.left"] @ p[f"{name}.right"].T for name in ("down", "up"))
    assert torch.linalg.matrix_rank(down) == torch.linalg.matrix_rank(up) == 2
    z = one.plain()
    hidden = F.silu(with_time(kind, z) @ down.T + p["down_bias"])
    close(one(), z + with_time(kind, hidden) @ up.T + p["up_bias"])


def test_shared_by_all_layers() -> None:
    """Compacter's and KAdaptation's A is one tensor, and stays one in a stored delta and in a copy."""
    for spec in (Compacter(bottleneck=8), KAdaptation()):
        handle = deltas.attach(backbone("bert"), spec)
        rules = {id(p) for site in handle.sites for key, p in site.part.named_parameters() if key.endswith("rule.A")}
        assert len(rules) == 1
        assert sum(key.endswith("rule.A") for key in handle.parts()) == 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (lambda: Compacter(bottleneck=10, terms=4), "bottleneck = 10 .*terms=5"),
        (lambda: deltas.plan(backbone("bert"), Compacter(bottleneck=9, terms=3)), "coordinates = 32 .*terms=1"),
        (lambda: deltas.plan(backbone("bert"), KAdaptation(terms=6)), "inputs = 32 .*terms=4"),
        (lambda: KronA(to="attention"), "to 'weight' or to 'ffn'"),
        (lambda: KronA(residual=True), "to='ffn'"),
        (lambda: KronA(left=(0, 2)), "sizes >= 1"),
        (lambda: KAdaptation(rank=0), "rank >= 1"),
        (lambda: LowRankAdapter(factor_rank=0), "factor_rank >= 1"),
    ],
)
def test_refusals(spec: object, words: str) -> None:
    with pytest.raises(DeltaError, match=words):
        spec()  # type: ignore[operator]
