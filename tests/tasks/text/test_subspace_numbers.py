"""Numbers of a subspace study: relative performance, differences, the ledger, and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import UsageError
from tasks.subspace.cells import Cell, best_guess, difference, relative, solvable
from tasks.subspace.command import study_subspace
from tasks.subspace.ledger import Ledger


def cell(**more: Any) -> Cell:
    own = {"seed": 0, "kind": "joint", "dim": 4, "task": "a", "via": "L", "to": "L", "score": 0.7, "full": 0.9}
    return Cell(**{**own, "chance": 0.5, "rows": 400, **more})


def test_relative_performance() -> None:
    assert cell().corrected == pytest.approx(0.5)
    assert cell().plain == pytest.approx(7 / 9)
    assert relative([cell(), cell(score=0.9)]) == pytest.approx(0.75)
    assert relative([]) is None
    weak = cell(task="b", full=0.54)  # .04 above chance, with a standard error of .025
    kept, remarks = solvable([cell(), weak, cell(task="b", via="L", to="A"), cell(task="c", rows=100_000, full=0.54)])
    assert [c.task for c in kept] == ["a", "c"]
    assert remarks == ["b with L, seed 0: the whole delta is not above chance, left out"]


def test_a_correlation_has_the_error_of_one() -> None:
    draw = np.random.default_rng(0)
    label = np.arange(500) % 2
    from sklearn.metrics import matthews_corrcoef

    null = np.std([matthews_corrcoef(label, draw.integers(2, size=500)) for _ in range(400)])
    assert not cell(metric="mcc", chance=0.0, full=1.7 * float(null), rows=500).above_chance
    assert cell(metric="mcc", chance=0.0, full=2.4 * float(null), rows=500).above_chance
    assert not cell(metric="mcc", chance=0.0, full=-0.2, rows=500).above_chance


def test_the_best_guess_is_one_class() -> None:
    label = np.array([0] * 35 + [1] * 65)
    assert best_guess(label, 2, "accuracy") == pytest.approx(0.65)
    assert best_guess(label, 2, "f1") == pytest.approx(2 * 0.65 / 1.65)  # all positive: precision .65, recall 1
    assert best_guess(label, 2, "mcc") == 0.0
    assert best_guess(np.array([2, 2, 0, 1]), 3, "accuracy") == 0.5


def test_differences_are_over_seeds_and_tasks() -> None:
    from scipy.stats import ttest_rel

    joint, other = [0.7, 0.8, 0.75, 0.66], [0.6, 0.78, 0.7, 0.68]
    cells = [
        cell(kind=kind, seed=i // 2, task="ab"[i % 2], via=via, to=via, score=score + shift)
        for kind, scores in (("joint", joint), ("random", other))
        for i, score in enumerate(scores)
        for via, shift in (("L", 0.01), ("A", -0.01))
    ]
    found = difference(cells, "random")
    assert found is not None and found.half is not None
    a, b = (np.array([(s - 0.5) / 0.4 for s in scores]).reshape(2, 2) for scores in (joint, other))
    intervals = [
        ttest_rel(a.mean(axis), b.mean(axis)).confidence_interval() for axis in (0, 1)
    ]  # over tasks, over seeds
    wider = max(intervals, key=lambda interval: interval.high - interval.low)
    assert (found.value - found.half, found.value + found.half) == pytest.approx((wider.low, wider.high))
    assert found.pairs == 4
    one = difference([c for c in cells if c.task == "a"], "random")  # of one task the seeds are all there is
    interval = ttest_rel(a[:, 0], b[:, 0]).confidence_interval()
    assert one is not None and one.half == pytest.approx((interval.high - interval.low) / 2)
    single = difference([c for c in cells if c.task == "a" and c.seed == 0], "random")
    assert single is not None and single.half is None
    assert difference(cells, "pca") is None


def test_a_ledger_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "a" / "measured.jsonl"
    assert Ledger(path).get("x", lambda: [1, 2]) == [1, 2]
    assert Ledger(path).get("x", lambda: pytest.fail("measured again")) == [1, 2]
    assert Ledger(path).get("x", lambda: pytest.fail("an older value says nothing"), of="a") == [1, 2]
    assert Ledger(path).get("y", lambda: 1, of="a") == 1
    assert Ledger(path).get("y", lambda: pytest.fail("measured again"), of="a") == 1
    assert Ledger(path).get("y", lambda: 2, of="b") == 2
    assert Ledger(path).get("y", lambda: pytest.fail("measured again"), of="b") == 2
    path.write_text("no json\n")
    with pytest.raises(UsageError, match="line 1"):
        Ledger(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"controls": "randm"}, "random"),
        ({"dims": "4,x"}, "whole numbers above 0"),
        ({"dims": "2.7"}, "whole numbers above 0"),
        ({"dims": "4,4"}, "each once"),
        ({"dims": "0"}, "above 0"),
        ({"point_lr": "0.1,inf"}, "numbers above 0"),
        ({"own_projectors": "LoRA"}, "METHOD=KIND"),
        ({"own_projectors": "LoRA=blok"}, "block"),
        ({"data": "CR,CR"}, "twice"),
        ({"data": "CR", "unseen": "CR"}, "both name CR"),
        ({"head": "trained"}, "words"),
        ({"projector": "dnse"}, "dense"),
    ],
)
def test_options_are_checked(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        study_subspace(runs=tmp_path, **more)
