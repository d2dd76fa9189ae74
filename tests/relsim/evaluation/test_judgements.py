"""Ratings of pairs of relations: the reader, the correlations against scipy and closed forms, the bootstrap."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from relsim.evaluation.judgements import (
    Ratings,
    agreement,
    ceiling,
    partial_correlation,
    pearson,
    read_ratings,
    spearman,
)
from relsim.ingest.report import IngestError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ratings.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_found_by_name_or_by_place_and_pairs_have_no_direction(tmp_path: Path) -> None:
    plain = read_ratings(write(tmp_path, "b\ta\tann\t4\na\tb\tbob\t2.5\nc\td\tann\t0\n"))
    assert plain.pairs == [("a", "b"), ("c", "d")] and plain.raters == ["ann", "bob"]
    assert np.array_equal(plain.grades, [[4.0, 2.5], [0.0, np.nan]], equal_nan=True)
    assert plain.mean.tolist() == [3.25, 0.0]
    head = "# a comment\n# another\ngrade\tnote\trelation_b\trater\trelation_a\n"
    named = read_ratings(write(tmp_path, head + "4\t!\ta\tann\tb\n2.5\t?\tb\tbob\ta\n0\t\td\tann\tc\n\n"))
    assert named.pairs == plain.pairs and np.array_equal(named.grades, plain.grades, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no ratings"),
        ("# only a comment\n", "holds no ratings"),
        ("relation_a\trelation_b\trater\tgrade\n", "head line and no ratings"),
        ("a\tb\tann\t4\na\tb\tann\n", "line 2: expected relation_a"),
        ("# c\na\tb\tann\tfive\n", "line 2: the grade is 'five'"),
        ("a\tb\tann\t4.5\n", "line 1: the grade is '4.5'"),
        ("a\tb\tann\tnan\n", "the grade is 'nan'"),
        ("a\ta\tann\t4\n", "'a' is compared with itself"),
        (
            "relation_a\trelation_b\trater\tgrade\na\tb\tann\t4\nb\ta\tann\t3\n",
            "line 3: rater 'ann' grades 'b' and 'a' twice",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=message) as caught:
        read_ratings(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="cannot be read: No such file"):
        read_ratings(tmp_path / "none.tsv")
    (tmp_path / "binary.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IngestError, match="not UTF-8"):
        read_ratings(tmp_path / "binary.tsv")


def test_correlations_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    x = np.round(generator.normal(size=80), 1)  # with ties
    y = np.round(x + generator.normal(size=80), 1)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert np.isnan(spearman(x, np.ones(80)))


def test_a_partial_correlation_is_the_textbook_form_for_one_control() -> None:
    generator = np.random.default_rng(1)
    z = generator.normal(size=4000)
    x, y = z + generator.normal(size=4000), z + generator.normal(size=4000)
    xy, xz, yz = (stats.pearsonr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_correlation(x, y, z[:, None], ranks=False) == pytest.approx(expected, abs=1e-12)
    assert xy > 0.4 and abs(expected) < 0.08  # all of the association comes from z
    rank = stats.rankdata(z)[:, None]
    rx, ry = stats.rankdata(x), stats.rankdata(y)
    assert partial_correlation(x, y, rank) == pytest.approx(partial_correlation(rx, ry, rank, ranks=False), abs=1e-12)
    assert np.isnan(partial_correlation(z, y, z[:, None], ranks=False))
    with pytest.raises(ValueError, match="4000, 4000 and 3 rows"):
        partial_correlation(x, y, z[:3, None])


def test_a_sample_holds_a_pair_as_often_as_both_its_relations_were_drawn() -> None:
    pairs = list(combinations("abcd", 2))
    seen: list[np.ndarray] = []
    agreement(pairs, lambda rows: float(seen.append(np.bincount(rows, minlength=6)) or 0.0), samples=50)
    for times in seen[:-1]:  # the last call is on the pairs themselves
        ab, ac, ad, bc, bd, cd = times
        assert ab * cd == ac * bd == ad * bc  # products of one number a relation
    assert seen[-1].tolist() == [1] * 6
    with pytest.raises(ValueError, match="2 pairs, expected at least 3"):
        agreement(pairs[:2], lambda rows: 0.0)


def test_resampling_relations_covers_where_resampling_pairs_does_not() -> None:
    generator, names = np.random.default_rng(2), [f"r{i}" for i in range(25)]
    place, pairs = np.array(list(combinations(range(25), 2))), list(combinations(names, 2))
    covered, covered_by_pairs, trials = 0, 0, 40
    for trial in range(trials):
        # Independent scores in which every relation has an effect of its own: the true correlation is 0.
        x, y = (generator.normal(size=25)[place].sum(1) + 0.1 * generator.normal(size=300) for _ in range(2))
        found = agreement(pairs, lambda rows, x=x, y=y: pearson(x[rows], y[rows]), samples=200, seed=trial)
        covered += found.low <= 0 <= found.high
        naive = [pearson(x[k], y[k]) for k in generator.integers(300, size=(200, 300))]
        covered_by_pairs += np.quantile(naive, 0.025) <= 0 <= np.quantile(naive, 0.975)
    assert covered >= 0.85 * trials
    assert covered_by_pairs <= 0.6 * trials


def test_the_ceiling_compares_each_rater_with_the_mean_of_the_others() -> None:
    grades = np.array([[0, 1, 0], [1, 0, 2], [2, 4, 2], [3, 3, np.nan], [4, 2, 4]], dtype=float)
    ratings = Ratings([(f"a{i}", f"b{i}") for i in range(5)], ["x", "y", "z"], grades)
    others = [
        (grades[:, 0], [0.5, 1.0, 3.0, 3.0, 3.0]),
        (grades[:, 1], [0.0, 1.5, 2.0, 3.0, 4.0]),
        (grades[[0, 1, 2, 4], 2], [0.5, 0.5, 3.0, 3.0]),
    ]
    assert ceiling(ratings) == pytest.approx(np.mean([stats.spearmanr(a, b).statistic for a, b in others]), abs=1e-12)
    with pytest.raises(ValueError, match="1 rater, expected at least 2"):
        ceiling(Ratings(ratings.pairs, ["x"], grades[:, :1]))
    with pytest.raises(ValueError, match="shares 1 pairs with others"):
        ceiling(
            Ratings(ratings.pairs, ["x", "y"], np.array([[1, 1], [1, np.nan], [np.nan, 2], [1, np.nan], [1, np.nan]]))
        )
