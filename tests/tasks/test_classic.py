"""Classic scorers against their formulas, one triple at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tasks.kg.config import ModelConfig
from tasks.kg.scorers import SCORERS, Scorer


def complex_of(x: torch.Tensor) -> torch.Tensor:
    return torch.complex(*x.chunk(2))


Formula = Callable[[Scorer, int, int, int], torch.Tensor]

FORMULAS: dict[str, Formula] = {
    "transe": lambda m, h, r, t: -(m.entity[h] + m.relation[r] - m.entity[t]).square().sum(),
    "distmult": lambda m, h, r, t: sum(a * b * c for a, b, c in zip(m.entity[h], m.relation[r], m.entity[t])),  # noqa: B905
    "complex": lambda m, h, r, t: (
        (complex_of(m.entity[h]) * complex_of(m.relation[r]) * complex_of(m.entity[t]).conj()).sum().real
    ),
    "rescal": lambda m, h, r, t: torch.einsum("i,ij,j->", m.entity[h], m.weight[r], m.entity[t]),
}


CLASSIC = list(FORMULAS)


def make(name: str, relations: int = 3) -> Scorer:
    torch.manual_seed(0)
    model: Scorer = SCORERS[name](9, relations, ModelConfig(scorer=name, dim=7, margin=2.0)).double()
    torch.nn.init.normal_(model.head_bias), torch.nn.init.normal_(model.tail_bias)
    return model


@pytest.mark.parametrize("name", CLASSIC)
def test_scores_are_the_formula(name: str) -> None:
    model = make(name)
    h, r, t = torch.tensor([0, 3, 8, 1]), torch.tensor([5, 0, 2, 0]), torch.tensor([4, 4, 8, 0])
    expected = torch.stack([FORMULAS[name](model, *map(int, row)) for row in zip(h, r, t, strict=True)])
    expected = 2.0 + expected + model.head_bias[h] + model.tail_bias[t]
    torch.testing.assert_close(model.score(h, r, t), expected)


@pytest.mark.parametrize("name", CLASSIC)
def test_every_way_of_scoring_agrees(name: str) -> None:
    model = make(name)
    head, relation = torch.tensor([0, 3, 8]), torch.tensor([1, 5, 0])
    everything = model.score_tails(head, relation)
    for e in range(9):
        torch.testing.assert_close(everything[:, e], model.score(head, relation, torch.full((3,), e)))
    some = torch.tensor([5, 0])
    torch.testing.assert_close(model.score_tails(head, relation, some), everything[:, some])
    positive, negative = model.score_batch(head, relation, torch.tensor([2, 2, 4]), some)
    torch.testing.assert_close(negative, everything[:, some])
    torch.testing.assert_close(positive, everything[torch.arange(3), torch.tensor([2, 2, 4])])


@pytest.mark.parametrize(("name", "size"), [("transe", 6), ("distmult", 6), ("complex", 6), ("rescal", 36)])
def test_relation_vectors_leave_the_inverses_out(name: str, size: int) -> None:
    model = make(name)
    vectors = model.relation_vectors()
    assert vectors.shape == (3, size)
    parameter = model.weight if name == "rescal" else model.relation
    assert torch.equal(vectors, parameter[:3].flatten(1)) and len(parameter) == 6


@pytest.mark.parametrize("name", CLASSIC)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = make(name)
    head, relation = torch.arange(6), torch.arange(6)
    positive, negative = model.score_batch(head, relation, torch.tensor([6, 7, 8, 0, 1, 2]), torch.tensor([3, 4, 5]))
    (positive.sum() + negative.square().sum()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
    assert float(model.relation_vectors().detach().abs().min()) > 0
