"""Every measure against a loop over entities in plain Python floats."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim import Facts, baselines
from relsim.evidence.counts import Counts
from relsim.phrases.text import negated, stem, tokens

Row = tuple[str, str, str]
FACTS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["wrote", "is by", "was writing"]), st.sampled_from("abcdef")),
    min_size=3,
    max_size=40,
)


def facts_of(rows: list[Row]) -> Facts:
    return Facts.from_triples([*rows, ("a", "wrote", "b"), ("c", "is by", "a")])


def table(facts: Facts, relation: int, swapped: bool) -> Counter[tuple[int, int]]:
    out: Counter[tuple[int, int]] = Counter()
    rows = zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), facts.count.tolist(), strict=True)
    for h, r, t, n in rows:
        if r == relation:
            out[(t, h) if swapped else (h, t)] += n
    return out


def side(pairs: Counter[tuple[int, int]], which: int) -> Counter[int]:
    out: Counter[int] = Counter()
    for pair, n in pairs.items():
        out[pair[which]] += n
    return out


def jaccard(a: set[object], b: set[object]) -> float:
    return len(a & b) / len(a | b)


def background(facts: Facts, which: int, swapped: bool) -> list[float]:
    total: Counter[int] = Counter()
    for r in range(facts.num_relations):
        for chosen in (0, 1) if swapped else (which,):
            total += side(table(facts, r, False), chosen)
    mass = sum(total.values())
    return [total[e] / mass for e in range(facts.num_entities)]


def kl_loop(facts: Facts, i: int, j: int, a: float, swapped: bool) -> float:
    value = 0.0
    for which in (0, 1):
        prior = background(facts, which, swapped)
        p, q = side(table(facts, i, False), which), side(table(facts, j, swapped), which)
        n, m = sum(p.values()), sum(q.values())
        for e, b in enumerate(prior):
            x, y = (p[e] + a * b) / (n + a), (q[e] + a * b) / (m + a)
            if x:
                value += x * math.log(x / y)
    return value


def js_loop(facts: Facts, i: int, j: int, swapped: bool) -> float:
    value = 0.0
    for which in (0, 1):
        p, q = side(table(facts, i, False), which), side(table(facts, j, swapped), which)
        for e in set(p) | set(q):
            x, y = p[e] / sum(p.values()), q[e] / sum(q.values())
            value += sum(0.5 * z * math.log(2 * z / (x + y)) for z in (x, y) if z)
    return value


def cosine_loop(facts: Facts, i: int, j: int, swapped: bool, tfidf: bool) -> float:
    dots, norms = 0.0, [0.0, 0.0]
    for which in (0, 1):
        df: Counter[int] = Counter()
        for r in range(facts.num_relations):
            pairs = table(facts, r, False)
            df.update(set(side(pairs, 0)) | set(side(pairs, 1)) if swapped else set(side(pairs, which)))
        p, q = side(table(facts, i, False), which), side(table(facts, j, swapped), which)

        def weigh(n: float, e: int, df: Counter[int] = df) -> float:
            return math.log1p(n) * math.log1p(facts.num_relations / df[e]) if tfidf else n

        dots += sum(weigh(p[e], e) * weigh(q[e], e) for e in set(p) & set(q))
        norms[0] += sum(weigh(n, e) ** 2 for e, n in p.items())
        norms[1] += sum(weigh(n, e) ** 2 for e, n in q.items())
    return dots / math.sqrt(norms[0] * norms[1])


@settings(max_examples=15, deadline=None)
@given(FACTS, st.booleans(), st.sampled_from([0.3, 5.0, 30.0]))
def test_measures_equal_their_definition(rows: list[Row], swapped: bool, a: float) -> None:
    facts = facts_of(rows)
    size = facts.num_relations
    got = {name: measure(facts, swapped=swapped) for name, measure in baselines.MEASURES.items()}
    kl = baselines.count_kl(facts, smoothing=a, swapped=swapped)
    back = baselines.count_kl(facts, smoothing=a, swapped=swapped, reverse=True)
    for i in range(size):
        for j in range(size):
            p, q = table(facts, i, False), table(facts, j, swapped)
            near = {"abs": 1e-10, "rel": 1e-10}
            assert got["pair_jaccard"][i, j] == pytest.approx(jaccard(set(p), set(q)), **near)
            both = [jaccard(set(side(p, k)), set(side(q, k))) for k in (0, 1)]
            assert got["argument_jaccard"][i, j] == pytest.approx(sum(both) / 2, **near)
            assert got["count_cosine"][i, j] == pytest.approx(cosine_loop(facts, i, j, swapped, False), **near)
            assert got["tfidf_cosine"][i, j] == pytest.approx(cosine_loop(facts, i, j, swapped, True), **near)
            assert got["jensen_shannon"][i, j] == pytest.approx(-js_loop(facts, i, j, swapped), **near)
            assert kl[i, j] == pytest.approx(kl_loop(facts, i, j, a, swapped), **near)
            if not swapped:
                assert back[i, j] == pytest.approx(kl_loop(facts, j, i, a, False), **near)


@settings(max_examples=10, deadline=None)
@given(FACTS)
def test_swapped_and_reversed_kl_agree_with_exchanging_the_roles(rows: list[Row]) -> None:
    facts = facts_of(rows)
    # KL(P_j swapped || P_i) == KL(P_j || P_i swapped): exchanging head and tail of both changes nothing.
    forward = baselines.count_kl(facts, swapped=True)
    backward = baselines.count_kl(facts, swapped=True, reverse=True)
    np.testing.assert_allclose(backward, forward.T, atol=1e-10)
    parts = [baselines.count_kl(facts, side=name) for name in ("head", "tail")]
    np.testing.assert_allclose(parts[0] + parts[1], baselines.count_kl(facts), atol=1e-12)
    np.testing.assert_allclose(baselines.count_kl(facts, reverse=True), baselines.count_kl(facts).T, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(FACTS, st.booleans())
def test_rows_and_pairs_give_the_entries_of_the_matrix(rows: list[Row], swapped: bool) -> None:
    counts = Counts(facts_of(rows))
    size = counts.facts.num_relations
    i, j = np.indices((size, size)).reshape(2, -1)
    some = np.arange(size)[::-1].copy()
    for measure in baselines.MEASURES.values():
        full = measure(counts, swapped=swapped)
        np.testing.assert_allclose(measure(counts, (i, j), swapped=swapped), full.reshape(-1), atol=1e-12)
        np.testing.assert_allclose(measure(counts, some, swapped=swapped), full[some], atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(FACTS)
def test_ranges_and_symmetry(rows: list[Row]) -> None:
    facts = facts_of(rows)
    for name, measure in baselines.MEASURES.items():
        values = measure(facts)
        np.testing.assert_allclose(values, values.T, atol=1e-12)
        best = 0.0 if name in ("count_kl", "jensen_shannon") else 1.0
        np.testing.assert_allclose(np.diag(values), best, atol=1e-9)
        assert values.max() <= best + 1e-9
    assert baselines.count_kl(facts).min() >= 0.0


def test_copies_are_at_divergence_zero_and_an_inverse_only_when_swapped() -> None:
    pairs = [(f"p{i}", f"q{i % 3}") for i in range(12)]
    rows = [(h, r, t) for h, t in pairs for r in ("parent of", "mother or father of")]
    facts = Facts.from_triples([*rows, *((t, "child of", h) for h, t in pairs)])
    child, copy, parent = (facts.relations.index(r) for r in ("child of", "mother or father of", "parent of"))
    assert baselines.count_kl(facts)[parent, copy] == pytest.approx(0.0, abs=1e-12)
    assert baselines.count_kl(facts, smoothing=1.0)[parent, child] > 1.0
    assert baselines.count_kl(facts, swapped=True)[parent, child] == pytest.approx(0.0, abs=1e-12)
    assert baselines.pair_jaccard(facts, swapped=True)[child, parent] == 1.0
    assert baselines.pair_jaccard(facts)[child, parent] == 0.0


def test_mistakes_are_refused() -> None:
    facts = facts_of([])
    with pytest.raises(ValueError, match="smoothing is 0"):
        baselines.count_kl(facts, smoothing=0.0)
    with pytest.raises(ValueError, match="side is 'left'"):
        baselines.count_kl(facts, side="left")


def test_cosine_of_vectors() -> None:
    got = baselines.cosine(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(got, [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("was directed by", ["direct", "by"]),
        ("directs", ["direct"]),
        ("/film/film/directed_by", ["film", "film", "direct", "by"]),
        ("countryOfOrigin", ["country", "of", "origin"]),
        ("have been", ["have", "been"]),
        ("is the capital of", ["capital", "of"]),
        ("is not", ["not"]),
        ("", []),
    ],
)
def test_tokens(phrase: str, expected: list[str]) -> None:
    assert tokens(phrase) == expected


@pytest.mark.parametrize(
    "forms",
    [
        ("decide", "decides", "decided", "deciding"),
        ("stop", "stops", "stopped", "stopping"),
        ("carry", "carries", "carried"),
        ("watch", "watches", "watched", "watching"),
        ("city", "cities"),
    ],
)
def test_inflections_share_a_stem(forms: tuple[str, ...]) -> None:
    assert len({stem(form) for form in forms}) == 1, [stem(form) for form in forms]


def test_short_words_are_not_stripped_bare() -> None:
    assert [stem(word) for word in ("red", "sing", "bus", "is", "king", "bed")] == [
        "red",
        "sing",
        "bus",
        "is",
        "king",
        "bed",
    ]


@pytest.mark.parametrize(
    ("phrase", "denied"),
    [
        *(("is", False), ("is not", True), ("isn't", True), ("isn’t", True), ("is never not", False), ("noted", False)),
        *(("is not only in", False), ("is not just", False), ("is ranked No. 1 in", False), ("is no 1 in", False)),
        *(("is no longer in", True), ("didnt join", True), ("cant win", True), ("Cannot win", True)),
        ("/x/not_in", True),
    ],
)
def test_negation(phrase: str, denied: bool) -> None:
    assert negated(phrase) is denied


def test_token_overlap_weighs_rare_words() -> None:
    facts = Facts.from_triples([("a", r, "b") for r in ("born in", "died in", "was born at", "lies in")])
    relation = {name: i for i, name in enumerate(facts.relations)}
    overlap = baselines.token_overlap(facts)
    weight = {"born": math.log1p(2), "in": math.log1p(4 / 3), "at": math.log1p(4)}
    expected = weight["born"] / (weight["born"] + weight["in"] + weight["at"])
    assert overlap[relation["born in"], relation["was born at"]] == pytest.approx(expected)
    assert overlap[relation["born in"], relation["died in"]] < overlap[relation["born in"], relation["was born at"]]


def test_count_kl_does_not_depend_on_the_unit_of_the_counts_prior() -> None:
    """The background is a distribution, also where all counts together are below 1."""
    rows = [(f"h{i % 7}", r, f"t{i % 5}", c) for i in range(40) for r, c in (("a", 0.001), ("b", 0.001))]
    facts = Facts.from_triples([row[:3] for row in rows])
    small = dataclasses.replace(facts, count=facts.count * 1e-3)
    counts = Counts(small)
    pair = (np.array([0]), np.array([1]))
    smoothing = 1.0
    found = baselines.count_kl(counts, pair, smoothing=smoothing)
    total = 0.0
    for matrix in (counts.head, counts.tail):
        dense = np.asarray(matrix.todense(), dtype=np.float64)
        background = dense.sum(0) / dense.sum()
        a, b = ((row + smoothing * background) / (row.sum() + smoothing) for row in dense[:2])
        some = background > 0
        total += float((a[some] * np.log(a[some] / b[some])).sum())
    assert found[0] == pytest.approx(total, rel=1e-9)
