from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import relsim
from relsim import Facts, read_openie, redundancy
from relsim.calibration import Calibration, fit_logistic, load_calibration
from relsim.clusters import complete_linkage
from relsim.counts import Counts
from relsim.features import count_features
from relsim.redundant import COLUMNS, KINDS
from relsim.result import RelationSimilarity
from relsim.scoring import keep_best
from relsim.tables import PairTable, cell, write_tsv


def planted() -> Facts:
    """Two synonyms and their inverse, a negation, an unrelated phrase, and a phrase like no other."""
    pairs = [(f"author{i % 9}", f"book{i}") for i in range(24)]
    rows = [(h, "wrote", t) for h, t in pairs[:20]] + [(h, "penned", t) for h, t in pairs[4:]]
    rows += [(t, "was written by", h) for h, t in pairs[2:22]]
    rows += [(h, "never wrote", t) for h, t in pairs[:20]]
    rows += [(f"city{i}", "lies in", f"land{i % 4}") for i in range(15)]
    rows += [("x", "tastes like", "y"), ("z", "tastes like", "u")]
    return Facts.from_triples(rows)


@pytest.fixture(scope="module")
def result() -> relsim.RedundancyResult:
    return redundancy(planted())


def row_of(result: relsim.RedundancyResult, a: str, b: str) -> dict[str, object]:
    return next(row for row in result.pairs if {row["rel_a"], row["rel_b"]} == {a, b})


def made_up(kl: list[list[float]]) -> RelationSimilarity:
    value = torch.tensor(kl, dtype=torch.float64)
    size = len(value)
    ess, df = torch.full((size,), 40.0, dtype=torch.float64), torch.full((size,), 30.0, dtype=torch.float64)
    error = torch.full_like(value, 0.1).fill_diagonal_(0.0)
    return RelationSimilarity(value, error, ess, df, value, torch.zeros_like(value), "pooled", 40, 1, ("a warning",))


def test_synonyms_inverses_and_negations_are_told_apart(result: relsim.RedundancyResult) -> None:
    assert result.pairs.columns == COLUMNS
    assert set(result.pairs["kind"]) <= set(KINDS)
    same, inverse = row_of(result, "wrote", "penned"), row_of(result, "wrote", "was written by")
    assert (same["kind"], same["shared_pairs"], same["agreement"]) == ("equivalent", 16, pytest.approx(1.0, abs=0.3))
    assert same["decided_by"] == "count KL + tokens"
    assert (inverse["kind"], inverse["shared_pairs"]) == ("inverse", 18)
    assert "swapped" in str(inverse["decided_by"])
    denied = row_of(result, "wrote", "never wrote")
    assert (denied["kind"], denied["p_redundant"], denied["decided_by"]) == ("different", 0.0, "polarity")
    assert row_of(result, "lies in", "wrote")["kind"] == "different"
    assert row_of(result, "tastes like", "wrote")["kind"] == "not enough evidence"
    assert [cluster.members for cluster in result.clusters] == [("penned", "wrote")]
    assert result.canonical_map["wrote"][0] == "penned"
    assert result.canonical_map["was written by"][0] == "was written by"
    assert set(result.canonical_map) == set(result.facts.relations)


def test_rows_are_ranked_and_consistent(result: relsim.RedundancyResult) -> None:
    p = result.pairs["p_redundant"]
    assert (np.diff(p) <= 0).all()
    assert (p >= 0).all()
    assert (p <= 1).all()
    assert result.pairs_examined == len(result.pairs) == 6 * 5 // 2
    worst = np.maximum(result.pairs["kl_ab"], result.pairs["kl_ba"])
    np.testing.assert_allclose(result.pairs["similarity"], np.exp(-worst))
    assert (result.pairs["ci_low"] <= worst).all()
    assert (worst <= result.pairs["ci_high"]).all()
    assert all(len(scores) == len(result.pairs) for scores in result.baselines.values())
    again = redundancy(planted())
    assert str(again.pairs.to_dict()) == str(result.pairs.to_dict())


def test_the_probability_is_that_of_the_stored_model(result: relsim.RedundancyResult) -> None:
    facts = result.facts
    model = load_calibration("count")
    row = row_of(result, "lies in", "wrote")
    i, j = (np.array([facts.relations.index(str(row[key]))]) for key in ("rel_a", "rel_b"))
    features = count_features(Counts(facts), (i, j))
    log_odds = model.intercept + sum(
        weight * float(features[name][0]) for name, weight in zip(model.features, model.weights, strict=True)
    )
    assert row["p_redundant"] == pytest.approx(1 / (1 + np.exp(-log_odds)), rel=1e-9)


def test_weights_have_the_sign_of_their_meaning() -> None:
    weights = dict(zip(load_calibration("count").features, load_calibration("count").weights, strict=True))
    assert weights["log_kl"] < 0 < min(weights["tfidf"], weights["root_pairs"], weights["tokens"])
    rich = dict(zip(load_calibration("rich").features, load_calibration("rich").weights, strict=True))
    assert rich["log_kl"] < 0 < rich["root_pairs"]
    neural = load_calibration("neural")
    kl = np.array([0.0, 0.1, 1.0, 5.0, 50.0])
    from relsim.features import neural_features

    assert (np.diff(neural.probability(neural_features(kl, kl))) < 0).all()
    for regime in ("count", "rich", "neural"):
        assert load_calibration(regime).provenance["held_out"]
    with pytest.raises(ValueError, match="no calibration for regime 'x'"):
        load_calibration("x")


def test_evidence_shows_shared_and_own_facts(result: relsim.RedundancyResult) -> None:
    found = result.evidence("wrote", "penned", top=3)
    assert (found.num_shared, len(found.shared), found.swapped) == (16, 3, False)
    assert ("author0", "book0", 1.0) in found.only_a
    assert all(fact not in found.only_a for fact in found.shared)
    swapped = result.evidence("was written by", "wrote")
    assert swapped.swapped
    assert swapped.num_shared == 18
    assert swapped.shared[0][0].startswith("book")
    with pytest.raises(ValueError, match="'read' was not compared"):
        result.evidence("wrote", "read")


def test_enough_facts_and_a_similarity_let_neural_kl_decide() -> None:
    rows = [(f"h{i}", f"q{r}", f"t{(i * (r // 2 + 1)) % 30}") for r in range(4) for i in range(60)]
    rows += [(f"h{i}", "few", f"t{i}") for i in range(20)]
    facts = Facts.from_triples(rows)
    low, high = 0.05, 40.0
    kl = [[0.0, high, high, high, high], [high, 0.0, low, high, high], [high, 3.0, 0.0, high, high]]
    kl += [[high, high, high, 0.0, low], [high, high, high, low, 0.0]]
    result = redundancy(facts, made_up(kl))
    pair = row_of(result, "q0", "q1")
    assert pair["decided_by"] == "neural KL"
    assert (pair["kl_ab"], pair["kl_ba"], pair["stderr"], pair["ess"]) == (low, 3.0, 0.1, 40.0)
    assert pair["ci_high"] == pytest.approx(3.0 + 2.042 * 0.1, abs=1e-3)
    few = [row for row in result.pairs if "few" in (row["rel_a"], row["rel_b"])]
    assert len(few) == 4
    assert all(row["decided_by"] != "neural KL" for row in few)
    twins = row_of(result, "q2", "q3")
    assert twins["kind"] == "equivalent"
    assert result.warnings == ("a warning",)
    never = redundancy(facts, made_up(kl), neural="never")
    assert "neural KL" not in set(never.pairs["decided_by"])
    assert "not used" in never.warnings[0]
    with pytest.raises(ValueError, match="covers 2 relations, facts have 5"):
        redundancy(facts, made_up([[0.0, 1.0], [1.0, 0.0]]))


def repeated() -> Facts:
    rng = np.random.default_rng(0)
    rows = [(f"h{a}", r, f"t{b}") for r in ("one", "two") for a, b in rng.integers(0, 12, (160, 2))]
    return Facts.from_triples([*rows, *((f"u{a}", "three", f"v{b}") for a, b in rng.integers(0, 12, (160, 2)))])


def test_a_fit_happens_in_memory_when_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relsim.neural.LEAST_FACTS_TO_FIT", 100)
    seen: list[tuple[str, int, int]] = []
    result = redundancy(repeated(), epochs=3, progress=lambda *state: seen.append(state))
    assert set(result.pairs["decided_by"]) == {"neural KL"}
    assert ("fit", 3, 3) in seen
    assert seen[-1] == ("pairs", 3, 3)
    assert result.similarity is not None
    assert {result.pairs["rel_a"][0], result.pairs["rel_b"][0]} == {"one", "two"}


def test_too_few_facts_for_a_fit_are_decided_by_counts_and_said() -> None:
    result = redundancy(repeated())
    assert set(result.pairs["decided_by"]) == {"count KL"}
    assert "neural KL is not used" in result.warnings[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neural": "yes"}, "neural is 'yes'"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"min_facts": 0}, "min_facts is 0"),
        ({"top": 0}, "top is 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        redundancy(planted(), **options)  # type: ignore[arg-type]


def test_nothing_to_compare_is_a_result(tmp_path: Path) -> None:
    path = tmp_path / "once.tsv"
    path.write_text("a\tsaw\tb\nc\theard\td\n")
    result = redundancy(read_openie(path))
    assert (len(result.pairs), result.clusters) == (0, ())
    assert result.not_enough_evidence == (("heard", 1), ("saw", 1))
    assert any("not enough evidence" in line for line in result.summary())
    result.save(tmp_path / "out")
    assert (tmp_path / "out/canonical_map.tsv").read_text().splitlines() == [
        "phrase\tcanonical\tcluster\tp_redundant",
        "heard\theard\t\t",
        "saw\tsaw\t\t",
    ]
    one = redundancy(Facts.from_triples([("a", "saw", "b")]))
    assert len(one.pairs) == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 9), st.floats(0.05, 0.95), st.data())
def test_every_pair_of_a_cluster_reaches_the_threshold(size: int, threshold: float, data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(size), 2))
    p = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(pairs), max_size=len(pairs))))
    known = np.array(data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs))))
    i, j = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in (0, 1))
    clusters = complete_linkage(i[known], j[known], p[known], size=size, threshold=threshold)
    value = {pair: float(x) for pair, x, k in zip(pairs, p, known, strict=True) if k}
    members = [member for ids, _ in clusters for member in ids]
    assert len(members) == len(set(members))
    for ids, matrix in clusters:
        assert len(ids) > 1
        for a, b in itertools.combinations(range(len(ids)), 2):
            assert value[ids[a], ids[b]] >= threshold
            assert matrix[a, b] == value[ids[a], ids[b]]
    # Complete: two lone things whose pair reaches the threshold would have been joined.
    alone = [x for x in range(size) if x not in members]
    assert all(value.get(pair, 0.0) < threshold for pair in itertools.combinations(alone, 2))


def test_a_chain_is_not_a_cluster() -> None:
    i, j = np.array([0, 1, 2]), np.array([1, 2, 3])
    clusters = complete_linkage(i, j, np.array([0.9, 0.8, 0.9]), size=4, threshold=0.5)
    assert [ids for ids, _ in clusters] == [[0, 1], [2, 3]]


def test_best_partners_are_kept_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    facts = Facts.from_triples([(f"h{a}", f"r {r}", f"t{b}") for r, a, b in rng.integers(0, 15, (400, 3))])
    counts = Counts(facts)
    every = keep_best(counts, top=100)
    assert len(every.i) == every.examined == facts.num_relations * (facts.num_relations - 1) // 2
    monkeypatch.setattr("relsim.scoring._BLOCK_CELLS", 40)
    few = keep_best(counts, top=2)
    best = np.full((facts.num_relations,) * 2, -1.0)
    best[every.i, every.j] = best[every.j, every.i] = np.maximum(every.straight, every.swapped)
    kept = set(zip(few.i.tolist(), few.j.tolist(), strict=True))
    for relation, scores in enumerate(best):
        for partner in np.argsort(-scores)[:2].tolist():
            assert (min(relation, partner), max(relation, partner)) in kept
    assert len(kept) <= 2 * facts.num_relations


def test_logistic_fit_finds_the_weights_it_was_made_from() -> None:
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=40000), "b": 5 * rng.normal(size=40000) + 3}
    truth = Calibration(("a", "b"), (1.5, -0.4), 0.7)
    label = (rng.random(40000) < truth.probability(x)).astype(float)
    found = fit_logistic(x, label)
    np.testing.assert_allclose(found.weights, truth.weights, atol=0.08)
    assert found.intercept == pytest.approx(0.7, abs=0.1)
    sklearn = pytest.importorskip("sklearn.linear_model")
    standard = np.stack([(v - v.mean()) / v.std() for v in x.values()], 1)
    other = sklearn.LogisticRegression(C=1.0, tol=1e-10).fit(standard, label)
    np.testing.assert_allclose(other.predict_proba(standard)[:, 1], found.probability(x), atol=1e-5)
    with pytest.raises(ValueError, match="all equal"):
        fit_logistic(x, np.ones(40000))


def test_probabilities_do_not_overflow() -> None:
    model = Calibration(("a",), (1.0,), 0.0)
    got = model.probability({"a": np.array([-1e6, -800.0, 0.0, 800.0, 1e6])})
    np.testing.assert_array_equal(got, [0.0, 0.0, 0.5, 1.0, 1.0])


NASTY = "=HYPERLINK(1)", "+1", "-1", "@x", " =x", "a\tb", "a\nb", "a\r\nb", "back\\slash", 'quo"te', "plain"


def test_saved_cells_neither_run_nor_break_a_row(tmp_path: Path) -> None:
    facts = Facts.from_triples([(f"h{i}", phrase, f"t{i}") for phrase in NASTY for i in range(3)])
    paths = redundancy(facts).save(tmp_path / "out")
    assert [path.name for path in paths] == ["pairs.tsv", "clusters.tsv", "canonical_map.tsv"]
    for path in paths:
        text = path.read_bytes().decode()
        assert "\r" not in text
        rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
        assert {len(row) for row in rows} == {len(rows[0])}
        for value in itertools.chain(*rows):
            number = value.replace(".", "").replace("e", "").replace("-", "").isdigit()
            assert number or not value.lstrip().startswith(("=", "+", "-", "@")), value
    with paths[0].open(encoding="utf-8", newline="") as stream:
        table = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert tuple(table[0][: len(COLUMNS)]) == COLUMNS
    assert len(table) - 1 == len(NASTY) * (len(NASTY) - 1) // 2


def test_escapes_can_be_undone() -> None:
    for text in NASTY:
        shown = cell(text)
        assert "\t" not in shown
        assert "\n" not in shown
        plain = shown.removeprefix("'") if text.lstrip()[0] in "=+-@" else shown
        assert json.loads('"' + plain.replace('"', '\\"') + '"') == text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    write_tsv(path, ["a"], [["1"]])

    def rows() -> object:
        yield ["2"]
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_tsv(path, ["a"], rows())  # type: ignore[arg-type]
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_pair_table() -> None:
    table = PairTable({"a": np.array([1, 2]), "b": np.array(["x", "y"])})
    assert list(table) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert table.rows(1) == [{"a": 1, "b": "x"}]
    assert table.take(table["a"] == 2).to_dict() == {"a": [2], "b": ["y"]}
    with pytest.raises(ValueError, match="unequal lengths"):
        PairTable({"a": np.array([1]), "b": np.array(["x", "y"])})


def test_real_extractions(data_dir: Path) -> None:
    result = redundancy(read_openie(data_dir / "openie/cesi/base"))
    assert any(set(cluster.members) >= {"be from", "come from"} for cluster in result.clusters)
    assert len(result.not_enough_evidence) > 3000
