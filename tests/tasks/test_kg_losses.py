"""Losses and batches of knowledge-graph completion against loops over single triples."""

from __future__ import annotations

from math import exp, inf, log, log1p

import pytest
import torch
from torch import Tensor

from tasks.data.kg import KnownTails
from tasks.kg.batches import Batches
from tasks.kg.config import KGConfig, LossConfig, ModelConfig, NegativesConfig, RegularizationConfig
from tasks.kg.losses import contrast, multi_label
from tasks.kg.task import KnowledgeGraphCompletion

from .graphs import graph

WEIGHT = 5.0


def softplus(x: float) -> float:
    return 0.0 if x == -inf else max(x, 0.0) + log1p(exp(-abs(x)))


def scores(*, filtered: bool) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(4, generator=g).double(), torch.randn(4, 3, generator=g).double()
    if filtered:
        negative[0, 1] = negative[2, 0] = -inf
        negative[3] = -inf  # nothing is left for a triple whose answers are all of the drawn
    return positive, negative


def binary(x: float, label: float) -> float:
    """Cross entropy of a sigmoid."""
    return 0.0 if x == -inf else label * softplus(-x) + (1 - label) * softplus(x)


def expected(config: LossConfig, positive: list[float], negative: list[list[float]]) -> float:
    total, e = 0.0, config.smoothing
    for s, row in zip(positive, negative, strict=True):
        left = [n for n in row if n > -inf]
        if config.kind == "logistic":
            wrong = sum(binary(n, e) for n in left) / len(row)
            total += (binary(s, 1 - e) + WEIGHT * wrong) / (1 + WEIGHT)
        elif config.kind == "self_adversarial":
            mass = sum(exp(config.temperature * n) for n in left)
            total += (softplus(-s) + sum(exp(config.temperature * n) / mass * softplus(n) for n in left)) / 2
        elif config.kind == "cross_entropy":
            norm = log(exp(s) + sum(map(exp, left)))
            logs = [n - norm for n in [s, *left]]
            total -= (1 - e) * logs[0] + e * sum(logs) / len(logs)
        else:
            total += sum(max(0.0, config.margin - s + n) for n in left) / len(row)
    return total / len(positive)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(smoothing=0.1),
        LossConfig(kind="self_adversarial", temperature=0.7),
        LossConfig(kind="cross_entropy"),
        LossConfig(kind="cross_entropy", smoothing=0.2),
        LossConfig(kind="margin", margin=0.5),
    ],
    ids=str,
)
def test_losses_are_those_of_a_loop_and_their_gradients_finite(config: LossConfig, filtered: bool) -> None:
    positive, negative = (x.requires_grad_() for x in scores(filtered=filtered))
    loss = contrast(positive, negative, config, weight=WEIGHT)
    assert float(loss.detach()) == pytest.approx(expected(config, positive.tolist(), negative.tolist()))
    for gradient in torch.autograd.grad(loss, (positive, negative)):
        assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().sum()) > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_multi_label_is_a_binary_decision_on_every_entity(smoothing: float) -> None:
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    row, column = torch.tensor([0, 0, 2]), torch.tensor([1, 4, 3])
    target = torch.zeros(3, 5, dtype=torch.float64)
    target[row, column] = 1
    target = target * (1 - smoothing) + (1 - target) * smoothing
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x, target)
    torch.testing.assert_close(multi_label(x, row, column, smoothing=smoothing), loss)


def true_places(data, which: str, batch: dict[str, Tensor], candidates: Tensor) -> set[tuple[int, int]]:  # type: ignore[no-untyped-def]
    splits = {"train": ["train"], "all": ["train", "valid", "test"], "none": []}[which]
    known = {tuple(row) for split in splits for row in data.with_inverses(split).tolist()}
    pairs = list(zip(batch["head"].tolist(), batch["relation"].tolist(), strict=True))
    return {
        (i, j)
        for i, (h, r) in enumerate(pairs)
        for j, e in enumerate(candidates[i].tolist())
        if (h, r, e) in known or (which == "none" and e == int(batch["tail"][i]))
    }


@pytest.mark.parametrize("which", ["train", "all", "none"])
@pytest.mark.parametrize("sharing", ["triple", "all"])
def test_known_answers_among_candidates_are_marked(sharing: str, which: str) -> None:
    data = graph()
    options = {} if sharing == "all" else {"count": 20}
    config = KGConfig(
        model=ModelConfig(dim=4),
        negatives=NegativesConfig(sharing=sharing, filter=which, **options),
        loss=LossConfig(kind="cross_entropy"),
    )
    task = KnowledgeGraphCompletion(config)
    batch = task.train_batch(data, 0, 0, seed=3)
    candidates = batch["negatives"] if sharing == "triple" else torch.arange(12).expand(len(batch["head"]), 12)
    empty = torch.zeros(0, dtype=torch.int64)
    places = batch.get("true_row", empty).tolist(), batch.get("true_column", empty).tolist()
    marked = set(zip(*places, strict=True))
    wanted = true_places(data, which, batch, candidates)
    if sharing == "triple" and which == "none":
        wanted = set()  # drawn as they come
    assert marked == wanted
    model = task.build(config, data)
    positive = model.score(batch["head"], batch["relation"], batch["tail"])
    rows = []
    for i, entities in enumerate(candidates):
        n = len(entities)
        row = model.score(batch["head"][i].expand(n), batch["relation"][i].expand(n), entities)
        rows.append(torch.tensor([-inf if (i, j) in marked else float(s) for j, s in enumerate(row.detach())]))
    loss = expected(config.loss, positive.tolist(), [row.tolist() for row in rows])
    assert float(task.step(model, batch)[0].detach()) == pytest.approx(loss, rel=1e-4)


def test_multi_label_batches_cover_every_pair_once_with_all_its_training_tails() -> None:
    data = graph()
    config = KGConfig(
        model=ModelConfig(dim=4),
        negatives=NegativesConfig(sharing="all"),
        loss=LossConfig(multi_label=True),
        train=KGConfig().train.__class__(batch_size=7),
    )
    batches = Batches(config)
    seen = []
    for index in range(batches.count(data)):
        batch = batches.draw(data, 1, index, seed=0)
        for row, column in zip(batch["true_row"].tolist(), batch["true_column"].tolist(), strict=True):
            seen.append((int(batch["head"][row]), int(batch["relation"][row]), column))
    assert sorted(seen) == sorted(set(map(tuple, data.with_inverses("train").tolist())))
    task = KnowledgeGraphCompletion(config)
    model = task.build(config, data)
    x = model.score_tails(batch["head"], batch["relation"])
    assert torch.equal(task.step(model, batch)[0], multi_label(x, batch["true_row"], batch["true_column"]))


def test_known_tails_among_entities_equal_the_lookup() -> None:
    data = graph(seed=4)
    known = data.known("all")
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        head, relation = torch.randint(12, (30,), generator=g), torch.randint(6, (30,), generator=g)
        entities = torch.randperm(14, generator=g)[:6]  # 12 and 13 are no entities of the graph
        row, tail = known.lookup(head, relation)
        column = {int(e): i for i, e in enumerate(entities)}
        pairs = zip(row.tolist(), tail.tolist(), strict=True)
        wanted = {(i, column[t]) for i, t in pairs if t in column}
        found = list(zip(*(x.tolist() for x in known.among(head, relation, entities)), strict=True))
        assert set(found) == wanted and len(found) == len(wanted)
    assert isinstance(known, KnownTails)


def test_n3_joins_the_loss() -> None:
    data = graph()
    options = {"model": ModelConfig(scorer="complex", dim=5), "negatives": NegativesConfig(count=4)}
    plain = KnowledgeGraphCompletion(KGConfig(**options))
    strict = KnowledgeGraphCompletion(KGConfig(**options, regularization=RegularizationConfig(n3=0.1)))
    batch, model = plain.train_batch(data, 0, 0, seed=0), plain.build(plain.config, data)
    more = strict.step(model, batch)[0] - plain.step(model, batch)[0]
    torch.testing.assert_close(more, 0.1 * model.n3(batch["head"], batch["relation"], batch["tail"]))
