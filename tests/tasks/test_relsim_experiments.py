"""The experiments on relation similarity: drawing pairs, near relations, negatives, paired intervals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.paired import half_width, holm, paired_row
from benchmarks.relsim_error_analysis import nearest, shares
from benchmarks.relsim_judged_draw import SIZE, draw, relations
from benchmarks.relsim_negatives import Plan, draw_table, known_relations, predict, train
from tasks.data.judgements import relation_judgements, signatures
from tasks.data.kg import KnowledgeGraph, graph_from_triples


def test_the_draw_gives_the_judged_pairs_again(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYREL_DATA", str(data_dir))
    drawn = draw()
    assert {(min(a, b), max(a, b)) for a, b, _ in drawn} == set(relation_judgements().pairs)
    assert Counter(stratum for *_, stratum in drawn) == SIZE
    kinds = signatures()
    assert set(relations()) == set(kinds)
    same = {"signature": {2}, "one side": {1}, "unrelated": {0}, "related": {0, 1, 2}}
    for a, b, stratum in drawn:
        assert sum(one == two for one, two in zip(kinds[a], kinds[b], strict=True)) in same[stratum]
    assert draw(seed=1) != drawn


def test_a_paired_row_holds_the_t_interval_and_says_when_it_shows_nothing() -> None:
    treated, control = [0.52, 0.55, 0.53, 0.56, 0.54], [0.50, 0.51, 0.52, 0.52, 0.50]
    interval = stats.ttest_rel(treated, control).confidence_interval(0.95)
    found = paired_row("gain", treated, control)
    assert found["interval"] == pytest.approx([interval.low, interval.high], abs=1e-12) and found["what"] == "gain"
    assert half_width([1.0, 2.0]) == pytest.approx(12.7062 * 0.5, rel=1e-5)  # t(0.975, 1) times sd / sqrt 2
    assert paired_row("gain", treated, treated[::-1])["what"] == "gain: no difference shown"
    equal = paired_row("gain", treated, treated)
    assert (equal["value"], equal["p"], equal["what"]) == (0.0, 1.0, "gain: no difference shown")


def test_holm_takes_back_what_one_of_several_questions_would_show_by_chance() -> None:
    rows = [{"what": str(p), "p": p} for p in (0.04, 0.001, 0.03)]
    holm(rows)
    assert [entry["holm_p"] for entry in rows] == pytest.approx([0.06, 0.003, 0.06])
    assert [entry["what"] for entry in rows][1:] == ["0.001", "0.03: no difference shown after Holm"]


def test_nearest_leaves_the_relation_itself_out() -> None:
    divergence = np.array([[0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 5.0, 4.0], [2.0, 5.0, 0.0, 6.0], [3.0, 4.0, 6.0, 0.0]])
    near = nearest(divergence, 2, np.ones(4, dtype=bool))
    assert [set(np.flatnonzero(row).tolist()) for row in near] == [{1, 2}, {0, 3}, {0, 1}, {0, 1}]
    told = np.array([True, False, True, True])
    near = nearest(divergence, 1, told)
    assert [set(np.flatnonzero(row).tolist()) for row in near] == [{2}, {0}, {0}, {0}]


def test_shares_of_mistakes_against_what_frequency_gives() -> None:
    near = np.array([[False, True, False], [True, False, False], [False, True, False]])
    gold, predicted = np.array([0, 0, 0, 1, 1, 2, 2, 0]), np.array([1, 1, 2, 0, 1, 0, 2, 0])
    # mistakes 0->1, 0->1, 0->2, 1->0, 2->0; wrongly predicted 0: 2, 1: 2, 2: 1
    found, expected = shares(gold, predicted, near)
    assert found == pytest.approx(3 / 5)
    assert expected == pytest.approx((3 * (2 / 3) + 2 / 3 + 2 / 4) / 5)
    # Mistakes that follow frequency alone fall on near relations as often as frequency says.
    generator = np.random.default_rng(0)
    gold = generator.integers(6, size=60_000)
    often = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    predicted = generator.choice(6, size=60_000, p=often)
    near = nearest(np.tile(np.arange(6.0), (6, 1)), 2, np.ones(6, dtype=bool))  # the two most frequent
    found, expected = shares(gold, predicted, near)
    assert found == pytest.approx(expected, abs=0.01) and expected > 2 / 5 + 0.1


def graph() -> KnowledgeGraph:
    people, towns = [f"p{i}" for i in range(30)], [f"t{i}" for i in range(6)]
    rows = [(p, "lives in", towns[i % 6]) for i, p in enumerate(people)]
    rows += [(p, "born in", towns[(i + 1) % 6]) for i, p in enumerate(people)]
    rows += [(p, "knows", people[(i + 1) % 30]) for i, p in enumerate(people)]
    rows += [(a, "next to", b) for a, b in zip(towns, [*towns[1:], towns[0]], strict=True)]
    return graph_from_triples("towns", {"train": rows[:-4], "valid": rows[-4:-2], "test": [*rows[-2:], rows[0]]})


def test_negatives_follow_likeness_and_are_never_the_right_relation() -> None:
    kl = np.array([[0.0, 1.0, 5.0], [2.0, 0.0, 6.0], [4.0, 3.0, 0.0]])  # larger direction: 2, 5, 6
    table = draw_table(kl, Plan(0.01, 0.0, share=1.0, temperature=2.0))
    weight = np.exp([-1.0, -2.5])
    assert table[0].tolist() == pytest.approx([0.0, *(weight / weight.sum())], abs=1e-12)
    even = draw_table(kl, Plan(0.01, 0.0))
    assert even.tolist() == [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    mixed = draw_table(kl, Plan(0.01, 0.0, share=0.25, temperature=2.0))
    torch.testing.assert_close(mixed, 0.25 * table + 0.75 * even)


def test_known_relations_and_ranks_leave_other_right_answers_out() -> None:
    data = graph()
    look = known_relations(data, ("train",))
    held = look(data.train[:, 0], data.train[:, 2])
    assert bool(held[torch.arange(len(held)), data.train[:, 1]].all())
    assert not look(data.valid[:, 0], data.valid[:, 2]).any()
    model = train(data, np.zeros((4, 4)), Plan(0.03, 0.01), seed=0)
    rank, best = predict(model, data, "test")
    assert len(rank) == 3 and bool((rank >= 1).all()) and bool((rank <= 4).all())
    assert int(best[2]) == int(data.test[2, 1]) and float(rank[2]) == 1.0  # a training triple
    again = predict(train(data, np.zeros((4, 4)), Plan(0.03, 0.01), seed=0), data, "test")[0]
    assert torch.equal(rank, again)
