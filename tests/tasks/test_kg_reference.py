"""The plain loop that speed is compared with computes what the scorer and the ranking compute."""

from __future__ import annotations

import geoopt
import torch

from benchmarks.kg_rapidity import krackhardt
from benchmarks.reference import hybonet_loop as plain
from tasks.kg.config import ModelConfig
from tasks.kg.ranking import rank
from tasks.kg.scorers import HyboNet

from .graphs import graph


def test_plain_scores_and_ranks_are_ours() -> None:
    data = graph()
    torch.manual_seed(0)
    ours = HyboNet(12, 3, ModelConfig(dim=6)).double()
    for parameter in (ours.head_bias, ours.tail_bias, ours.relation.bias):
        torch.nn.init.normal_(parameter)
    loop = plain.PlainHyboNet(12, 3, 6).double()
    with torch.no_grad():
        loop.entity.copy_(ours.embed(None))
        loop.weight.copy_(ours.relation.weight), loop.bias.copy_(ours.relation.bias)
        loop.head_bias.copy_(ours.head_bias), loop.tail_bias.copy_(ours.tail_bias)
    h, r, t = data.with_inverses("test").unbind(1)
    torch.testing.assert_close(loop(h, r, t[:, None])[:, 0], ours.score(h, r, t))
    answers: dict[tuple[int, int], set[int]] = {}
    for split in ("train", "valid", "test"):
        for head, relation, tail in data.with_inverses(split).tolist():
            answers.setdefault((head, relation), set()).add(tail)
    queries = data.with_inverses("test")
    assert plain.rank_queries(loop, queries, answers) == rank(ours, queries, data.known("all"))[1].tolist()


def test_the_plain_loop_learns() -> None:
    data = graph()
    torch.manual_seed(0)
    loop = plain.PlainHyboNet(12, 3, 6)
    optimizer = geoopt.optim.RiemannianAdam(loop.parameters(), lr=plain.RATE, stabilize=1)
    losses = [plain.train_batch(loop, optimizer, b) for epoch in range(30) for b in plain.epoch_batches(data, 0, epoch)]
    assert losses[-1] < 0.8 * losses[0]


def test_krackhardt_by_hand() -> None:
    def score(*edges: tuple[int, int]) -> float:
        head, tail = torch.tensor(edges).unbind(1)
        return krackhardt(head.numpy(), tail.numpy())

    assert score((0, 1), (1, 2), (7, 2)) == 1.0  # no way back
    assert score((0, 1), (1, 0)) == 0.0
    assert score((0, 1), (1, 0), (1, 2)) == 2 / 4  # 0 and 1 both reach 2, and each other
    assert score((0, 1), (1, 2), (2, 0), (2, 3), (3, 4)) == 7 / 13  # a ring of 3 above a chain of 2
