from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import relsim
from relsim import Facts, read_openie, redundancy
from relsim.evidence.calibration import load_calibration
from relsim.evidence.contradiction import contradiction
from relsim.evidence.counts import Counts
from relsim.evidence.features import fact_features, text_features
from relsim.evidence.profiles import Profiles
from relsim.evidence.scoring import keep_best
from relsim.kl.result import RelationSimilarity
from relsim.merge.result import COLUMNS, KINDS


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
    assert same["decided_by"] == "shared facts"
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
    # Counts have a bias that resampled mentions do not show, so there is no interval.
    assert np.isnan(result.pairs["ci_low"]).all() and np.isnan(result.pairs["ci_high"]).all()
    assert (result.pairs["stderr"] >= 0.0).all()
    assert all(len(scores) == len(result.pairs) for scores in result.baselines.values())
    again = redundancy(planted())
    assert str(again.pairs.to_dict()) == str(result.pairs.to_dict())


def test_the_probability_is_that_of_the_stored_model(result: relsim.RedundancyResult) -> None:
    facts = result.facts
    for regime, (a, b) in {"facts": ("penned", "wrote"), "text": ("lies in", "wrote")}.items():
        row = row_of(result, a, b)
        at = tuple(np.array([facts.relations.index(str(row[key]))]) for key in ("rel_a", "rel_b"))
        counts = Counts(facts)
        if regime == "facts":
            features = fact_features(counts, at, contradiction(counts, at))
        else:
            features = text_features(counts, at, Profiles(facts))
        model = load_calibration(regime)
        log_odds = model.intercept + sum(
            weight * float(features[name][0]) for name, weight in zip(model.features, model.weights, strict=True)
        )
        assert row["p_redundant"] == pytest.approx(1 / (1 + np.exp(-log_odds)), rel=1e-9)


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
    monkeypatch.setattr("relsim.evidence.neural.LEAST_FACTS_TO_FIT", 100)
    seen: list[tuple[str, int, int]] = []
    result = redundancy(repeated(), epochs=3, progress=lambda *state: seen.append(state))
    assert set(result.pairs["decided_by"]) == {"neural KL"}
    assert ("fit", 3, 3) in seen
    assert seen[-1] == ("pairs", 3, 3)
    assert result.similarity is not None
    assert {result.pairs["rel_a"][0], result.pairs["rel_b"][0]} == {"one", "two"}


def test_too_few_facts_for_a_fit_are_decided_by_counts_and_said() -> None:
    result = redundancy(repeated())
    assert set(result.pairs["decided_by"]) <= {"shared facts", "phrases and arguments"}
    assert "neural KL is not used" in result.warnings[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neural": "yes"}, "neural is 'yes'"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"precision": 1.5}, "precision is 1.5"),
        ({"precision": 0.9, "threshold": 0.5}, "expected one"),
        ({"types": "guessed"}, "types is 'guessed'"),
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


def test_best_partners_are_kept_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    facts = Facts.from_triples([(f"h{a}", f"r {r}", f"t{b}") for r, a, b in rng.integers(0, 15, (400, 3))])
    counts = Counts(facts)
    every = keep_best(counts, top=100)
    assert len(every.i) == every.examined == facts.num_relations * (facts.num_relations - 1) // 2
    monkeypatch.setattr("relsim.evidence.scoring._BLOCK_CELLS", 40)
    few = keep_best(counts, top=2)
    best = np.full((facts.num_relations,) * 2, -1.0)
    best[every.i, every.j] = best[every.j, every.i] = np.maximum(every.straight, every.swapped)
    kept = set(zip(few.i.tolist(), few.j.tolist(), strict=True))
    for relation, scores in enumerate(best):
        for partner in np.argsort(-scores)[:2].tolist():
            assert (min(relation, partner), max(relation, partner)) in kept
    assert len(kept) <= 2 * facts.num_relations


def test_real_extractions(data_dir: Path) -> None:
    result = redundancy(read_openie(data_dir / "openie/cesi/base"))
    assert any(set(cluster.members) >= {"be from", "come from"} for cluster in result.clusters)
    assert len(result.not_enough_evidence) > 3000


def test_a_passive_is_the_inverse_of_its_verb() -> None:
    rows = [(f"a{i}", "own", f"b{i % 3}") for i in range(12)] + [
        (f"b{i % 4}", "be owned by", f"c{i}") for i in range(12)
    ]
    row = row_of(redundancy(Facts.from_triples(rows)), "own", "be owned by")
    assert (row["kind"], row["decided_by"]) == ("inverse", "voice, arguments swapped")


def test_a_stated_precision_sets_the_threshold(result: relsim.RedundancyResult) -> None:
    found = redundancy(planted(), precision=0.9)
    p = found.pairs["p_redundant"]
    assert float(p[p >= found.threshold].mean()) >= 0.9
    assert found.threshold >= 0.5 == result.threshold


def test_a_structured_part_is_narrower_and_a_random_part_is_not() -> None:
    rng = np.random.default_rng(0)
    cities = [(f"city {c} {k}", f"land {c}") for c in range(60) for k in range(4)]
    rows = [(h, "is a city in", t) for h, t in cities if rng.random() < 0.7]
    rows += [(h, "is the capital of", t) for h, t in cities[::4] if rng.random() < 0.9]
    some = rng.choice(len(cities), 54, replace=False)
    rows += [(cities[k][0], "is a town in", cities[k][1]) for k in some.tolist()]
    found = redundancy(Facts.from_triples(rows))
    row = row_of(found, "is the capital of", "is a city in")
    assert row["kind"] == ("narrower" if row["rel_a"] == "is the capital of" else "broader")
    assert row_of(found, "is a town in", "is a city in")["kind"] == "equivalent"


def test_degenerate_tails_are_flagged() -> None:
    rows = [(f"film {i}", f"has its {what} in", "dollars") for i in range(30) for what in ("budget", "gross")]
    rows += [(f"film {i}", r, f"person {i}") for i in range(30) for r in ("was made by", "is a work of")]
    found = redundancy(Facts.from_triples(rows))
    flag = {
        frozenset(pair): bool(f)
        for *pair, f in zip(found.pairs["rel_a"], found.pairs["rel_b"], found.details["degenerate"], strict=True)
    }
    assert flag[frozenset(("has its budget in", "has its gross in"))]
    assert not flag[frozenset(("was made by", "is a work of"))]
    assert any("degenerate" in line for line in found.summary())


def test_an_encoder_and_types_are_evidence() -> None:
    rows = [(f"a{i}", "began", f"b{i}") for i in range(6)] + [(f"c{i}", "started", f"d{i}") for i in range(6)]
    rows += [(f"e{i}", "ended", f"f{i}") for i in range(6)]
    facts = Facts.from_triples(rows)
    seen: list[str] = []

    def encoder(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([[1.0, 0.0, 0.1] if ("began" in t or "started" in t) else [0.0, 1.0, 0.1] for t in texts])

    plain, sensed = redundancy(facts), redundancy(facts, encoder=encoder)
    assert "began" in seen
    assert row_of(sensed, "began", "started")["p_redundant"] > row_of(plain, "began", "started")["p_redundant"]
    typed = {f"{letter}{i}": ["person" if letter in "ac" else "thing"] for letter in "abcd" for i in range(6)}
    told = redundancy(facts, types=typed)
    assert row_of(told, "began", "started")["p_redundant"] > row_of(told, "began", "ended")["p_redundant"]
    assert redundancy(facts, types="induced").provenance["calibration"].keys() == {"text+types"}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the encoder returned shape"):
        redundancy(facts, encoder=lambda texts: np.zeros(3))


@pytest.mark.parametrize("phrases", [("wrote", "is the author of"), ("wrote", "has written"), ("bought", "acquired")])
@pytest.mark.parametrize("facts", [5, 9, 30])
def test_two_phrases_of_the_same_facts_are_equivalent_with_and_without_others(
    phrases: tuple[str, str], facts: int
) -> None:
    rows = [(f"author {i}", phrase, f"book {i}") for i in range(facts) for phrase in phrases]
    more = [(f"city {i % 5}", f"verb{i % 4} with", f"river {i}") for i in range(40)]
    for given in (rows, rows + more):
        result = relsim.redundancy(Facts.from_triples(given))
        pairs = result.pairs
        (place,) = [n for n in range(len(pairs["rel_a"])) if {pairs["rel_a"][n], pairs["rel_b"][n]} == set(phrases)]
        assert pairs["kind"][place] == "equivalent" and pairs["p_redundant"][place] > 0.9


@pytest.mark.parametrize("facts", [1, 5, 9, 20])
def test_two_phrases_of_other_facts_are_different(facts: int) -> None:
    rows = [(f"author {i}", "wrote", f"book {i}") for i in range(facts)]
    rows += [(f"author {i}", "lives in", f"city {i}") for i in range(facts)]
    assert list(redundancy(Facts.from_triples(rows)).pairs["kind"]) in ([], ["different"])


def test_options_of_a_wrong_type_are_named() -> None:
    plain = inspect.unwrap(redundancy)  # without the shape checks of the tests, which users do not have
    with pytest.raises(TypeError, match="encoder is 'all-MiniLM-L6-v2', expected a function from texts to vectors"):
        plain(planted(), encoder="all-MiniLM-L6-v2")
    with pytest.raises(TypeError, match="types is a list, expected 'induced' or a mapping"):
        plain(planted(), types=["x"])


def owned() -> Facts:
    """A passive phrase whose facts are those of a part of the heads of the active one."""
    rows = [(f"firm{i}", "owns", f"brand{i}x{k}") for i in range(200) for k in range(3)]
    rows += [(tail, "is owned by", head) for head, _, tail in rows[:120]]
    rng = np.random.default_rng(0)
    rows += [(f"p{i}", r, f"t{rng.integers(9)}") for i in range(80) for r in ("was born in", "lives in")]
    return Facts.from_triples(rows)


def test_a_passive_phrase_that_is_a_part_of_the_active_one_is_its_inverse_and_never_merged() -> None:
    result = redundancy(owned(), neural="never")
    (row,) = [row for row in result.pairs.rows() if {row["rel_a"], row["rel_b"]} == {"owns", "is owned by"}]
    assert row["kind"] == "inverse" and row["decided_by"] == "voice, arguments swapped"
    assert not [c for c in result.clusters if {"owns", "is owned by"} <= set(c.members)]
    assert result.evidence("owns", "is owned by").num_shared == 120


def test_the_evidence_of_a_narrower_inverse_is_read_the_other_way_round() -> None:
    rows = [(f"p{i}", "has child", f"c{i}x{k}") for i in range(400) for k in range(3)]
    rows += [(tail, "is offspring of", head) for head, _, tail in rows[:400]]
    result = redundancy(Facts.from_triples(rows), neural="never")
    (row,) = result.pairs.rows()
    assert row["decided_by"].endswith("arguments swapped") and row["kind"] != "equivalent"
    assert result.evidence("has child", "is offspring of").num_shared == row["shared_pairs"] == 400


@pytest.mark.parametrize("common", [1, 2])
def test_two_phrases_alone_with_few_facts_in_common_are_not_sure_of_anything(common: int) -> None:
    rows = [(f"p{i}", "was born in", f"c{i}") for i in range(5 if common == 2 else 1)]
    rows += [(f"p{i}", "died in", f"c{i}" if i < common else f"d{i}") for i in range(5 if common == 2 else 1)]
    (row,) = redundancy(Facts.from_triples(rows)).pairs.rows()
    assert row["p_redundant"] <= 0.9


def test_the_interval_of_a_pair_is_that_of_the_similarity() -> None:
    rng = np.random.default_rng(1)
    rows = [
        (f"p{rng.integers(30)}", r, f"c{rng.integers(30)}") for r in ("a one", "b two", "c three") for _ in range(150)
    ]
    facts = Facts.from_triples(rows)
    model, _ = relsim.fit_distribution(facts, epochs=3)
    similarity = relsim.similarity(model, method="pooled")
    result = redundancy(facts, similarity=similarity, min_facts=20)
    low, high = similarity.interval(of="max")
    place = {name: k for k, name in enumerate(facts.relations)}
    seen = 0
    for row in result.pairs.rows():
        if row["decided_by"] == "neural KL":
            a, b = place[row["rel_a"]], place[row["rel_b"]]
            assert row["ci_low"] == pytest.approx(max(float(low[a, b]), 0.0))
            assert row["ci_high"] == pytest.approx(float(high[a, b]))
            seen += 1
    assert seen
