"""Graph convolution and attention against dense formulas in float64, prepared graphs, isolated nodes, and memory."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from lorentz import (
    Lorentz,
    LorentzGraphAttention,
    LorentzGraphConv,
    LorentzMultiheadAttention,
    SparseMatrix,
    neighbourhood,
)
from lorentz.math import centroid, lift, sqdist

F64 = torch.float64
K = 0.7
EDGES = torch.tensor([[0, 1, 2, 3, 0, 3, 1, 1], [1, 0, 1, 2, 3, 3, 2, 2]])  # a loop at 3, 1 -> 2 twice; node 4 has none
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5, 1.0, 0.25, 0.0], dtype=F64)


def points(n: int = 5, dim: int = 4, *, seed: int = 0) -> Tensor:
    return lift(torch.randn(n, dim - 1, dtype=F64, generator=torch.Generator().manual_seed(seed)), k=K)


def dense(weight: Tensor | None, *, loops: bool) -> Tensor:
    """Adjacency matrix [target, source]."""
    a = torch.zeros(5, 5, dtype=F64)
    for (source, target), w in zip(EDGES.T.tolist(), torch.ones(8) if weight is None else weight, strict=True):
        a[target, source] += w
    return a + torch.eye(5, dtype=F64) if loops else a


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["ones", "weights"])
@pytest.mark.parametrize("normalisation", ["symmetric", "row"])
@pytest.mark.parametrize("variant", ["paper", "unbounded"])
def test_convolution_is_the_centroid_of_the_neighbours(
    variant: str, normalisation: str, weight: Tensor | None, loops: bool
) -> None:
    torch.manual_seed(0)
    options = {"normalisation": normalisation, "self_loops": loops}
    layer = LorentzGraphConv(4, 3, manifold=Lorentz(K), variant=variant, **options).double()  # type: ignore[arg-type]
    x = points()
    h, a = layer.linear(x), dense(weight, loops=loops)
    degree = a.sum(1)
    if normalisation == "symmetric":
        root = torch.where(degree > 0, degree, torch.inf).rsqrt()
        a = root[:, None] * a * root
    want = torch.stack([centroid(h, row, k=K) if row.any() else lift(torch.zeros(2, dtype=F64), k=K) for row in a])
    torch.testing.assert_close(layer(x, EDGES, weight), want, rtol=1e-12, atol=1e-13)
    prepared = neighbourhood(EDGES, 5, weight, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x, prepared), want, rtol=1e-12, atol=1e-13)
    batch = torch.stack([x, points(seed=1)])
    torch.testing.assert_close(layer(batch, prepared), layer(batch, EDGES, weight), rtol=1e-12, atol=1e-13)


def test_a_node_without_edges_keeps_itself_by_its_loop_and_is_the_origin_without() -> None:
    torch.manual_seed(0)
    x, manifold = points(), Lorentz(K)
    conv = LorentzGraphConv(4, 3, manifold=manifold).double()
    torch.testing.assert_close(conv(x, EDGES)[4], conv.linear(x)[4], rtol=1e-13, atol=0)
    attend = LorentzGraphAttention(4, 3, manifold=manifold).double()
    torch.testing.assert_close(attend(x, EDGES)[4], attend.value(x)[4, 0], rtol=1e-13, atol=0)
    for layer in (
        LorentzGraphConv(4, 3, manifold=manifold, self_loops=False).double(),
        LorentzGraphAttention(4, 3, manifold=manifold, self_loops=False).double(),
    ):
        y = x.requires_grad_()
        out = layer(y, EDGES)
        assert torch.equal(out[4], manifold.origin(3, dtype=F64))
        (slope,) = torch.autograd.grad(out.sin().sum(), y)
        assert torch.isfinite(slope).all() and not slope[4].any()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["ones", "weights"])
def test_attention_is_the_centroid_by_a_softmax_over_edges(weight: Tensor | None, loops: bool, heads: int) -> None:
    torch.manual_seed(0)
    layer = LorentzGraphAttention(4, 5, heads, manifold=Lorentz(K), self_loops=loops).double()
    with torch.no_grad():
        layer.log_scale += 0.3
    x = points()
    q, k, v = (m(x).detach() for m in (layer.query, layer.key, layer.value))
    a = dense(weight, loops=loops)
    spaces = []
    for head in range(heads):
        logits = -sqdist(q[:, None, head], k[None, :, head], k=K) / layer.log_scale.exp()
        w = torch.where(a > 0, a * logits.exp(), 0)
        rows = [centroid(v[:, head], row, k=K)[1:] if row.any() else torch.zeros(4 // heads, dtype=F64) for row in w]
        spaces.append(torch.stack(rows))
    want = lift(torch.cat(spaces, 1), k=K)
    torch.testing.assert_close(layer(x, EDGES, weight), want, rtol=1e-12, atol=1e-13)


def test_on_a_complete_graph_attention_is_multihead_attention_without_its_output_map() -> None:
    torch.manual_seed(0)
    full = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    mine = LorentzGraphAttention(5, 5, 2, manifold=Lorentz(K), self_loops=False).double()
    other = LorentzMultiheadAttention(5, 2, manifold=Lorentz(K)).double()
    other.load_state_dict(mine.state_dict(), strict=False)
    with torch.no_grad():  # the identity on space
        other.out.weight.copy_(torch.eye(5, dtype=F64)[1:])
    x = points(6, 5)
    torch.testing.assert_close(mine(x, full), other(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1.0, 1e4, 1e8])
def test_attention_in_float32_keeps_its_digits_at_every_k(k: float) -> None:
    torch.manual_seed(0)
    layer = LorentzGraphAttention(9, 9, 2, manifold=Lorentz(k))
    with torch.no_grad():
        for linear in (layer.query, layer.key, layer.value):
            linear.weight.mul_(3)[:, 0] = 0
    space = torch.randn(6, 8)
    with torch.no_grad():
        got = layer(lift(space, k=k), EDGES)[:, 1:]
        want = layer.double()(lift(space.double(), k=k), EDGES)[:, 1:]
    assert float((got - want).norm() / want.norm()) < 2e-6


def test_extreme_logits_neither_overflow_nor_lose_the_nearest() -> None:
    torch.manual_seed(0)
    layer = LorentzGraphAttention(4, 4, manifold=Lorentz(K)).double()
    with torch.no_grad():
        layer.log_scale.fill_(-8.0)
    x = lift(20 * points()[:, 1:], k=K).requires_grad_()
    y = layer(x, EDGES)
    assert torch.isfinite(y).all() and torch.isfinite(torch.autograd.grad(y.sin().sum(), x)[0]).all()


@pytest.mark.parametrize(
    ("edges", "weight", "message"),
    [
        (EDGES.T, None, r"shape \(2, M\).*\(8, 2\); transpose it"),
        (EDGES.int(), None, "int64.*int32"),
        (EDGES + 2, None, "nodes from 2 to 5.*0 to 4"),
        (EDGES - 1, None, "nodes from -1"),
        (EDGES, WEIGHTS[:3], r"8 edges.*\(3,\)"),
    ],
)
def test_what_is_no_edge_list_is_refused(edges: Tensor, weight: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neighbourhood(edges, 5, weight)
    with pytest.raises(ValueError, match=message):
        LorentzGraphConv(4, 3, manifold=Lorentz(K)).double()(points(), edges, weight)


def test_other_wrong_arguments_are_refused() -> None:
    layer = LorentzGraphConv(4, 3, manifold=Lorentz(K)).double()
    with pytest.raises(ValueError, match="5 nodes, the prepared graph has 6"):
        layer(points(), neighbourhood(EDGES, 6))
    with pytest.raises(ValueError, match="give it there"):
        layer(points(), neighbourhood(EDGES, 5), WEIGHTS)
    with pytest.raises(ValueError, match="'symmetric', 'row'; got 'col'"):
        LorentzGraphConv(4, 3, manifold=Lorentz(K), normalisation="col")
    with pytest.raises(ValueError, match="next out_features that fits is 7"):
        LorentzGraphAttention(4, 6, 2, manifold=Lorentz(K))


def test_a_negative_weight_gives_nan_at_the_nodes_it_reaches() -> None:
    weight = torch.where(torch.arange(8) == 4, -1.0, 1.0)  # 0 -> 3
    for layer in (
        LorentzGraphConv(4, 3, manifold=Lorentz(K), normalisation="row").double(),
        LorentzGraphAttention(4, 3, manifold=Lorentz(K)).double(),
    ):
        y = layer(points(), EDGES, weight.double())
        assert y.isnan().any(1).tolist() == [False, False, False, True, False]


def test_a_sparse_matrix_multiplies_as_the_dense_one_with_two_derivatives() -> None:
    matrix = SparseMatrix(EDGES, WEIGHTS, (4, 5))
    full = torch.zeros(4, 5, dtype=F64).index_put(tuple(EDGES), WEIGHTS, accumulate=True)
    x = torch.randn(2, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(matrix @ x, full @ x)
    assert torch.autograd.gradcheck(lambda v: (matrix @ v).sin(), x)
    assert torch.autograd.gradgradcheck(lambda v: (matrix @ v).sin(), x)
    torch.testing.assert_close(torch.vmap(lambda v: matrix @ v, in_dims=1)(x.movedim(0, 1)), full @ x)
    assert (matrix @ x[0].detach().float()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"multiplies \(..., 5, d\), got shape \(4, 3\)"):
        matrix @ x[0, :4]
    with pytest.raises(ValueError, match="matrix of size"):
        SparseMatrix(EDGES, None, (3, 5))


def test_a_sparse_matrix_that_was_used_can_be_copied() -> None:
    matrix, x = SparseMatrix(EDGES, WEIGHTS, (4, 5)), torch.randn(5, 3, dtype=F64)
    want = matrix @ x
    module = nn.Module()
    module.graph = matrix
    for other in (copy.deepcopy(module).graph, copy.copy(matrix), pickle.loads(pickle.dumps(matrix))):
        assert torch.equal(other @ x, want) and repr(other) == repr(matrix)
    assert copy.deepcopy(matrix).value.data_ptr() != matrix.value.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sparse_matrix_multiplies_in_low_precision(dtype: torch.dtype) -> None:
    matrix = SparseMatrix(EDGES, WEIGHTS, (4, 5))
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    y = matrix @ x
    want = (matrix @ x.double()).to(dtype)
    assert y.dtype == dtype and float((y - want).abs().max().detach()) <= 2 * torch.finfo(dtype).eps * 4
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.dtype == dtype and torch.isfinite(slope).all()


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_no_tensor_of_nodes_by_nodes_is_made(kind: str) -> None:
    """Every result of every operator, backward too, is smaller than a hundredth of N x N."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                largest = max(largest, t.numel() if isinstance(t, Tensor) else 0)
            return out

    n = 4000
    edges = torch.randint(n, (2, 2 * n), generator=torch.Generator().manual_seed(0))
    layer = (LorentzGraphConv if kind == "conv" else LorentzGraphAttention)(5, 5, manifold=Lorentz())
    x = lift(torch.randn(n, 4)).requires_grad_()
    with Largest():
        layer(x, edges).sin().sum().backward()
    assert largest < n * n / 100
