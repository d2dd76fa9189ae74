"""Every scorer: explicit formulas, one interface, gradients, the flat limit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorentz import Lorentz, boost_matrix, rotation_matrix
from lorentz import math as lm
from tasks.kg.config import ROTATING, ModelConfig
from tasks.kg.scorers import SCORERS, TWINS, LorentzScorer, Scorer
from tasks.kg.scorers.relations import apply_relations

LORENTZ = list(TWINS)
ROTATIONS = [(name, kind) for name in LORENTZ if name != "hybonet" for kind in ("givens", "full")]
ROTATIONS = [(name, kind) for name, kind in ROTATIONS if kind == "givens" or name in ROTATING]


def make(name: str, *, relations: int = 3, **options: object) -> Scorer:
    torch.manual_seed(0)
    model = SCORERS[name](9, relations, ModelConfig(scorer=name, **{"dim": 7, **options}))  # type: ignore[arg-type]
    torch.nn.init.normal_(model.head_bias), torch.nn.init.normal_(model.tail_bias)
    return model


def dense(model: Scorer, relation: int, kind: str) -> Tensor:
    """The relation as one matrix (7, 7) on points."""
    matrix = torch.eye(7, dtype=torch.float64)
    if hasattr(model, "rotation"):
        raw = model.rotation.raw[relation]
        if kind == "full":
            turn = rotation_matrix(raw, parametrisation="cayley")
        else:
            turn = torch.diag(torch.cat([raw.cos(), raw.cos()]))
            for i in range(3):
                turn[i, i + 3], turn[i + 3, i] = -raw[i].sin(), raw[i].sin()
        matrix = torch.block_diag(torch.ones(1, 1, dtype=torch.float64), turn)
    if hasattr(model, "translation"):
        k = float(model.manifold.k) if isinstance(model, LorentzScorer) else 1.0
        matrix = boost_matrix(model.translation[relation] / k**0.5) @ matrix
    return matrix


@pytest.mark.parametrize("k", [0.5, 1.0, 30.0])
@pytest.mark.parametrize(("name", "kind"), ROTATIONS)
def test_isometries_are_their_matrices(name: str, kind: str, k: float) -> None:
    model = make(name, k=k, rotation=kind).double()
    h, r, t = torch.tensor([0, 3, 8, 1]), torch.tensor([5, 0, 2, 0]), torch.tensor([4, 4, 8, 0])
    head, tail = lm.lift(model.entity.weight[h], k=k), lm.lift(model.entity.weight[t], k=k)
    moved = torch.stack([dense(model, int(i), kind) @ x for i, x in zip(r, head, strict=True)])
    expected = 6.0 + 2 * k + 2 * lm.minkowski(moved, tail) + model.head_bias[h] + model.tail_bias[t]
    torch.testing.assert_close(model.score(h, r, t), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["givens", "full"])
@pytest.mark.parametrize("name", ["rotate", "rote"])
def test_euclidean_twins_are_their_matrices(name: str, kind: str) -> None:
    model = make(name, rotation=kind).double()
    h, r, t = torch.tensor([0, 3, 8, 1]), torch.tensor([5, 0, 2, 0]), torch.tensor([4, 4, 8, 0])
    shift = model.translation.detach() if name == "rote" else torch.zeros(6, 6, dtype=torch.float64)
    if name == "rote":
        model.translation.data.zero_()
    moved = torch.stack([dense(model, int(i), kind)[1:, 1:] @ model.entity[j] for i, j in zip(r, h, strict=True)])
    if name == "rote":
        model.translation.data = shift = torch.randn(6, 6, dtype=torch.float64)
    expected = 6.0 - (moved + shift[r] - model.entity[t]).square().sum(1) + model.head_bias[h] + model.tail_bias[t]
    torch.testing.assert_close(model.score(h, r, t), expected)


@pytest.mark.parametrize("name", SCORERS)
def test_own_negatives_are_scored_as_single_triples(name: str) -> None:
    model = make(name).double()
    h, r, t = torch.tensor([0, 3, 8]), torch.tensor([1, 5, 0]), torch.tensor([2, 2, 4])
    negatives = torch.tensor([[5, 0], [1, 1], [8, 7]])
    positive, negative = model.score_batch(h, r, t, negatives)
    torch.testing.assert_close(positive, model.score(h, r, t))
    for j in range(2):
        torch.testing.assert_close(negative[:, j], model.score(h, r, negatives[:, j]))


@pytest.mark.parametrize("name", SCORERS)
def test_gradients_are_finite_and_reach_every_parameter(name: str) -> None:
    model = make(name)
    h = torch.arange(6)
    positive, negative = model.score_batch(h, h, torch.tensor([6, 7, 8, 0, 1, 2]), torch.tensor([3, 4, 5]))
    (positive.sum() + negative.square().sum()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
        assert float(parameter.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", SCORERS)
def test_sparse_gradients_are_the_dense_ones(name: str) -> None:
    grads = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = SCORERS[name](9, 3, ModelConfig(scorer=name, dim=7), sparse=sparse)
        positive, negative = model.score_batch(*torch.tensor([[0, 1], [4, 4], [2, 0]]), torch.tensor([3, 1]))
        (positive.sum() - negative.sum()).backward()
        entity = model.entity.weight if isinstance(model, LorentzScorer) else model.entity
        assert entity.grad is not None and entity.grad.is_sparse == sparse
        grads.append(entity.grad.to_dense())
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", LORENTZ)
@pytest.mark.parametrize("k", [0.3, 1.0, 1e6])
def test_entities_and_moved_heads_are_on_the_hyperboloid(name: str, k: float) -> None:
    model = make(name, k=k)
    points = model.embed(torch.arange(6))
    assert model.manifold.check_point_on_manifold(points)
    assert model.manifold.check_point_on_manifold(model.transform(points, torch.arange(6)))


def same_parameters(lorentz: Scorer, twin: Scorer) -> None:
    state = {key.replace("entity.weight", "entity"): value for key, value in lorentz.state_dict().items()}
    state["relation" if isinstance(twin, SCORERS["transe"]) else "translation"] = state.get("translation")
    twin.load_state_dict({key: state[key] for key in twin.state_dict()})


@pytest.mark.parametrize(("name", "kind"), ROTATIONS)
def test_at_k_1e6_in_float32_scores_and_gradients_are_those_of_the_twin(name: str, kind: str) -> None:
    lorentz, twin = make(name, k=1e6, rotation=kind), make(TWINS[name], rotation=kind)
    same_parameters(lorentz, twin)
    h, r = torch.arange(6), torch.arange(6)
    scores = []
    for model in (lorentz, twin):
        out = model.score_tails(h, r)
        out.sigmoid().sum().backward()
        scores.append(out.detach())
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-4)
    for name_, parameter in twin.named_parameters():
        alias = {"entity": "entity.weight", "relation": "translation"}.get(name_, name_)
        torch.testing.assert_close(lorentz.get_parameter(alias).grad, parameter.grad, rtol=1e-3, atol=1e-4)


def test_hybonet_at_k_1e6_in_float32_is_a_gated_affine_map() -> None:
    model = make("hybonet", k=1e6, bound="space", scale=2.5)
    torch.nn.init.normal_(model.relation.bias)
    wide = make("hybonet", k=1e6, bound="space", scale=2.5).double()
    wide.load_state_dict(model.state_dict())
    h, r, t = torch.arange(6), torch.arange(6), torch.tensor([6, 7, 8, 0, 1, 2])
    entity, weight, bias = wide.entity.weight, wide.relation.weight[r], wide.relation.bias[r]
    z = weight[:, :, 0] + torch.einsum("bij,bj->bi", weight[:, :, 1:], entity[h])
    gate, direction = torch.sigmoid(z[:, 0]), z[:, 1:] + bias
    moved = 2.5 * gate[:, None] * direction / direction.norm(dim=1, keepdim=True)
    expected = 6.0 - (moved - entity[t]).square().sum(1) + wide.head_bias[h] + wide.tail_bias[t]
    torch.testing.assert_close(model.score(h, r, t), expected.float(), rtol=1e-4, atol=1e-4)
    model.score(h, r, t).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_the_rapidity_moves_the_origin_by_the_translation() -> None:
    model = make("lorentz_rote", k=4.0).double()
    assert isinstance(model.manifold, Lorentz)
    origin = model.manifold.origin(3, 7, dtype=torch.float64)
    moved = model.transform(origin, torch.arange(3))
    torch.testing.assert_close(model.manifold.dist0(moved), model.translation[:3].norm(dim=1))
    torch.testing.assert_close(2 * model.rapidity(), model.translation[:3])


@pytest.mark.parametrize("relations", [1, 4, 300])
@pytest.mark.parametrize("transpose", [False, True])
def test_blocks_by_relation_are_one_product_a_row(relations: int, transpose: bool) -> None:
    torch.manual_seed(relations)
    weight = torch.randn(relations, 5, 5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(150, 5, dtype=torch.float64, requires_grad=True)
    relation = torch.randint(relations, (150,))
    expected = torch.einsum("bji,bj->bi" if transpose else "bij,bj->bi", weight[relation], x)
    out = apply_relations(weight, x, relation, transpose=transpose)
    torch.testing.assert_close(out, expected)
    g = torch.randn_like(out)
    for one, other in zip(torch.autograd.grad(out, (weight, x), g), torch.autograd.grad(expected, (weight, x), g)):  # noqa: B905
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["hybonet", "mure"])
def test_dropout_is_of_training_alone_and_stays_on_the_hyperboloid(name: str) -> None:
    torch.manual_seed(0)
    model = SCORERS[name](2000, 1, ModelConfig(scorer=name, dim=7), dropout=0.4)
    points = model.embed(None)
    space = points[:, 1:] if name == "hybonet" else points
    assert 0.38 < float((space == 0).double().mean()) < 0.42
    kept = space != 0
    table = model.entity.weight if name == "hybonet" else model.entity
    torch.testing.assert_close(space[kept], (table / 0.6)[kept])
    if name == "hybonet":
        assert model.manifold.check_point_on_manifold(points)
    assert bool((model.eval().embed(None) != 0).all())


@pytest.mark.parametrize("name", ["distmult", "complex"])
def test_n3_is_the_sum_of_cubed_moduli(name: str) -> None:
    model = make(name).double()
    h, r, t = torch.tensor([[0, 3], [5, 0], [4, 4]])
    total = 0.0
    for row in zip(h.tolist(), r.tolist(), t.tolist(), strict=True):
        for vector in (model.entity[row[0]], model.relation[row[1]], model.entity[row[2]]):
            numbers = vector.tolist() if name == "distmult" else map(complex, vector[:3].tolist(), vector[3:].tolist())
            total += float(sum(abs(number) ** 3 for number in numbers))
    assert float(model.n3(h, r, t).detach()) == pytest.approx(total / 2)


@pytest.mark.parametrize("name", SCORERS)
def test_a_batch_of_nothing_has_no_scores(name: str) -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert make(name).score(none, none, none).shape == (0,)
