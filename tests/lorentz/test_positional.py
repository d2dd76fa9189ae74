"""Positions: learned, sinusoidal and rotary."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from lorentz import Lorentz, LorentzLinear
from lorentz import math as lm
from lorentz.attention import LorentzMultiheadAttention
from lorentz.check import residual
from lorentz.positional import LearnedPositions, SinusoidalPositions, rotary, rotate, shift

CURVATURES = (0.1, 0.5, 1.0, 2.0, 10.0)


def test_learned_positions_are_rows_of_a_table() -> None:
    table = LearnedPositions(10, 5)
    where = torch.tensor([[3, 0, 9], [1, 1, 2]])
    assert torch.equal(table(where), table.weight[where])
    assert 0.01 < table.weight.std() < 0.03
    with pytest.raises(IndexError):
        table(torch.tensor([10]))
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert torch.equal(other(where), table(where))
    with pytest.raises(ValueError, match="got 0 and 5"):
        LearnedPositions(0, 5)


@pytest.mark.parametrize("dim", [2, 8, 9])
def test_sinusoidal_positions_are_the_papers(dim: int) -> None:
    made = SinusoidalPositions(dim, base=100.0, scale=0.5)
    got = made(torch.tensor([[0, 7], [123456, 3]]), dtype=torch.float64)
    pairs = dim // 2
    for place, p in (((0, 0), 0), ((0, 1), 7), ((1, 0), 123456)):
        for i in range(dim - 1):
            angle = p / 100.0 ** ((i // 2) / pairs)
            want = 0.5 * (math.sin(angle) if i % 2 == 0 else math.cos(angle))
            assert abs(float(got[(*place, i)]) - want) < 1e-9
    assert not made.state_dict()
    where = torch.arange(5)
    want = made(where, dtype=torch.float64)
    assert torch.equal(made.to(torch.bfloat16)(where, dtype=torch.float64), want)  # casting a model changes no angle
    assert made(where).dtype == torch.float32
    with pytest.raises(ValueError, match="got dim=1"):
        SinusoidalPositions(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", CURVATURES)
def test_positions_enter_by_the_addend_or_by_a_shift(k: float, dtype: torch.dtype) -> None:
    manifold = Lorentz(k)
    x = manifold.lift(torch.randn(2, 6, 8, dtype=dtype))
    where = torch.arange(6).expand(2, 6)
    linear = LorentzLinear(9, 9, manifold=manifold, variant="unbounded").to(dtype)
    limit = 1e-5 if dtype in (torch.float64, torch.float32) else 4 * torch.finfo(dtype).eps
    for positions in (LearnedPositions(6, 9).to(dtype), SinusoidalPositions(9)):
        addend = positions(where).to(dtype)
        for y in (linear(x, addend=addend), shift(x, addend, k=manifold.k)):
            assert y.dtype == dtype and y.shape == x.shape
            assert residual(y, k=k) <= limit
        assert torch.equal(shift(x, addend, k=k)[..., 1:], x[..., 1:] + addend)
    assert LearnedPositions(6, 9)(where[:0]).shape == (0, 6, 8)


@pytest.mark.parametrize("k", CURVATURES)
def test_rotary_keeps_points_and_sees_differences_of_positions(k: float) -> None:
    q, x = (lm.lift(torch.randn(2, 3, 5, 6, dtype=torch.float64), k=k) for _ in range(2))
    where = torch.tensor([0, 1, 5, 6, 400])
    a, b = rotary(q, x, where)
    assert torch.equal(a[..., 0], q[..., 0])
    assert residual(a, k=k) < 1e-14 and residual(b, k=k) < 1e-14
    products = lm.minkowski(a.unsqueeze(-2), b.unsqueeze(-3))
    c, d = rotary(q, x, where + 1000)
    assert torch.allclose(lm.minkowski(c.unsqueeze(-2), d.unsqueeze(-3)), products, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(lm.minkowski(q.unsqueeze(-2), x.unsqueeze(-3)), products, rtol=1e-2)
    e, f = rotary(q, x, where, key_positions=torch.zeros(5, dtype=torch.int64))
    assert torch.equal(e, a) and torch.equal(f, x)


def test_rotation_of_one_pair_is_a_plane_rotation() -> None:
    s = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    want = torch.tensor([[math.cos(1), math.sin(1)], [math.cos(2), math.sin(2)]], dtype=torch.float64)
    assert torch.allclose(rotate(s, torch.tensor([1, 2])), want)
    space = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: rotate(s, torch.arange(3)), space)
    assert torch.autograd.gradgradcheck(lambda s: rotate(s, torch.arange(3)), space)
    with pytest.raises(ValueError, match="even; got 3"):
        rotate(torch.randn(2, 3), torch.arange(2))


def test_rotation_far_out_is_exact_in_float32() -> None:
    s = torch.randn(1, 8)
    far = rotate(s, torch.tensor([1_000_003]))
    assert torch.allclose(far, rotate(s.double(), torch.tensor([1_000_003])).float(), atol=1e-6)
    assert rotate(s.bfloat16(), torch.tensor([5])).dtype == torch.bfloat16


def test_rotary_attention_sees_differences_of_positions_alone() -> None:
    turned = LorentzMultiheadAttention(9, 2, manifold=Lorentz(), rotary_base=100.0).double()
    plain = LorentzMultiheadAttention(9, 2, manifold=turned.manifold).double()
    plain.load_state_dict(turned.state_dict())
    x = lm.lift(torch.randn(1, 9, 8, dtype=torch.float64))
    weights = turned(x[:, 3:], need_weights=True)[1]
    # The same tokens three places later: tokens before them, masked.
    seen = torch.tensor([[False] * 3 + [True] * 6])
    later = turned(x, key_padding_mask=seen, need_weights=True)[1]
    assert torch.allclose(later[..., 3:, 3:], weights, rtol=1e-10)
    assert not torch.allclose(plain(x[:, 3:], need_weights=True)[1], weights, rtol=1e-3)


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")
def test_positions_compile_in_one_graph_and_export() -> None:
    where = torch.arange(4).expand(2, 4)
    s = torch.randn(2, 4, 6)
    for module, arguments in ((LearnedPositions(5, 7), (where,)), (SinusoidalPositions(7), (where,))):
        want = module(*arguments)
        assert torch.allclose(torch.compile(module, fullgraph=True, backend="aot_eager")(*arguments), want, atol=1e-6)
        assert torch.allclose(torch.export.export(module, arguments).module()(*arguments), want, atol=1e-6)
    assert torch.allclose(
        torch.compile(rotate, fullgraph=True, backend="aot_eager")(s, where), rotate(s, where), atol=1e-6
    )
