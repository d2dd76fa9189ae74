from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from tasks.data.embedded import common_names, depths, extractions, taxonomy, truth, write_extractions
from tasks.data.embedded.openie import NOISE, phrase_facts
from tasks.data.embedded.tables import facts, read_table
from tasks.data.embedded.taxonomy import ranks

# Predicates in which a subject (or an object) can stand only once.
ONE_OBJECT = ("capital", "continent", "born", "died", "based", "founded_in", "flows_into", "highest", "family")
ONE_OBJECT += ("symbol", "home_ground", "orbits", "exhibited", "landmark")
ONE_SUBJECT = ("capital", "directed", "acquired", "wrote", "highest", "symbol", "olympics", "painted", "composed")


@pytest.fixture(scope="module")
def rows():
    return extractions()


@pytest.fixture(scope="module")
def mentioned(rows):
    """Phrase -> distinct (arg1, arg2)."""
    pairs = defaultdict(set)
    for arg1, rel, arg2, _ in rows:
        pairs[rel].add((arg1, arg2))
    return pairs


def test_tables_hold_no_duplicate_or_damaged_fact():
    assert sum(map(len, facts().values())) >= 600
    for predicate, pairs in facts().items():
        assert len(set(pairs)) == len(pairs), predicate
        for text in {text for pair in pairs for text in pair}:
            assert text and text == " ".join(text.split()), (predicate, text)
            assert not set(text) & set('\t;"|'), (predicate, text)


@pytest.mark.parametrize("predicate", ONE_OBJECT)
def test_no_subject_contradicts_itself(predicate):
    repeated = [subject for subject, n in Counter(s for s, _ in facts()[predicate]).items() if n > 1]
    # The two clubs of San Siro, Nobel laureates and the like are no contradiction; a second capital is.
    assert repeated == (["San Siro"] if predicate == "home_ground" else [])


@pytest.mark.parametrize("predicate", ONE_SUBJECT)
def test_no_object_contradicts_itself(predicate):
    assert [value for value, n in Counter(o for _, o in facts()[predicate]).items() if n > 1] == []


def test_tables_agree_with_each_other():
    place = {c: country for p in ("capital", "other_city") for c, country in facts()[p]}
    assert len(place) == len(facts()["capital"]) + len(facts()["other_city"])  # no city in two countries
    elsewhere = {"Cameroon", "Tanzania"}
    assert {c for _, c in facts()["highest"]} - {row["country"] for row in read_table("countries")} == elsewhere
    assert not set(facts()["highest"]) & set(facts()["other_mountain"])
    assert not set(facts()["starred"]) & set(facts()["support_actor"])
    assert not set(facts()["graduated"]) & set(facts()["attended"])
    borders = facts()["borders"]
    assert len({frozenset(pair) for pair in borders}) == len(borders)  # a border is stated once
    films = {film for _, film in facts()["directed"]}
    for predicate in ("starred", "support_actor", "screenplay"):
        assert {film for _, film in facts()[predicate]} <= films
    assert {book for _, book in facts()["character"]} <= {book for _, book in facts()["wrote"]}
    assert {p for p, _ in facts()["exhibited"]} <= {p for _, p in facts()["painted"]}
    assert {club for _, club in facts()["home_ground"]} & {club for _, club in facts()["played_for"]}
    for person, film in facts()["directed"]:
        assert (person, film) not in facts()["support_actor"]


def test_promised_counts(rows, mentioned):
    assert len({row[:3] for row in rows}) >= 1500
    assert len(mentioned) == len(truth().phrases) >= 60
    support = {phrase: len(pairs) for phrase, pairs in mentioned.items()}
    assert min(support.values()) >= 15
    assert sum(n >= 50 for n in support.values()) >= 10
    assert sum(15 <= n <= 40 for n in support.values()) > 0.7 * len(support)
    assert len(truth().synonym_groups) == 10
    assert all(2 <= len(group) <= 4 for group in truth().synonym_groups)
    assert len(truth().inverse_pairs) == len(truth().narrower_pairs) == 5


def test_truth_is_consistent():
    t = truth()
    for group in t.synonym_groups:
        assert {t.kind(a, b) for a in group for b in group} == {"equivalent"}
    for forward, backward in t.inverse_pairs:
        assert t.kind(forward, backward) == t.kind(backward, forward) == "inverse"
    for narrow, broad in t.narrower_pairs:
        assert (t.kind(narrow, broad), t.kind(broad, narrow)) == ("narrower", "broader")
    turned = {"equivalent": "equivalent", "inverse": "inverse", "narrower": "broader", "broader": "narrower"}
    turned["different"] = "different"
    related = {frozenset(pair[:2]): pair[2] for pair in t.pairs()}
    for a, b in combinations(t.phrases, 2):
        assert t.kind(b, a) == turned[t.kind(a, b)] and related.get(frozenset((a, b)), "different") == t.kind(a, b)
    assert Counter(related.values())["equivalent"] == sum(len(g) * (len(g) - 1) // 2 for g in t.synonym_groups)
    with pytest.raises(KeyError):
        t.kind("wrote", "no such phrase")


def test_kind_is_what_the_facts_say():
    """Equality, reversal and inclusion of the true fact sets decide the kind, without a look at the plan."""
    t = truth()
    sets = {phrase: frozenset(phrase_facts(phrase)) for phrase in t.phrases}
    for a, b in combinations(t.phrases, 2):
        if sets[a] == sets[b]:
            expected = "equivalent"
        elif sets[a] == {(y, x) for x, y in sets[b]}:
            expected = "inverse"
        elif sets[a] < sets[b]:
            expected = "narrower"
        else:
            expected = "broader" if sets[b] < sets[a] else "different"
        assert t.kind(a, b) == expected, (a, b)


def test_extractions_state_facts_but_for_the_stated_noise(rows, mentioned):
    wrong = {p: {pair for pair in pairs if pair not in set(phrase_facts(p))} for p, pairs in mentioned.items()}
    n, total = sum(map(len, wrong.values())), sum(map(len, mentioned.values()))
    assert abs(n - NOISE * total) < 4 * (total * NOISE) ** 0.5 and n > 0
    for phrase, pairs in wrong.items():
        subjects, values = (set(side) for side in zip(*phrase_facts(phrase), strict=True))
        assert all(a in subjects and b in values for a, b in pairs)
    low, high = ([c for a, r, b, c in rows if ((a, b) in wrong[r]) is is_wrong] for is_wrong in (True, False))
    assert sum(low) / len(low) < sum(high) / len(high) - 0.1


def test_inverse_phrases_swap_and_synonyms_overlap_in_part(mentioned):
    t = truth()
    for forward, backward in t.inverse_pairs:
        swapped = {(b, a) for a, b in mentioned[backward]}
        true = set(phrase_facts(forward))
        assert len(swapped & true) >= 0.85 * len(swapped)
        assert 0 < len(swapped & mentioned[forward]) < len(swapped)
    for group in t.synonym_groups:
        for a, b in combinations(group, 2):
            shared = mentioned[a] & mentioned[b]
            assert shared and mentioned[a] - mentioned[b] and mentioned[b] - mentioned[a], (a, b)
    for narrow, broad in t.narrower_pairs:
        assert len(mentioned[narrow] & set(phrase_facts(broad))) >= 0.85 * len(mentioned[narrow])
        assert len(mentioned[broad]) > len(mentioned[narrow])
        assert mentioned[broad] - set(phrase_facts(narrow))


def test_hard_negatives_share_argument_types(mentioned):
    for a, b in [("was born in", "died in"), ("won", "was nominated for"), ("directed", "wrote the screenplay of")]:
        assert truth().kind(a, b) == "different"
        for side in (0, 1):
            assert {pair[side] for pair in mentioned[a]} & {pair[side] for pair in mentioned[b]}


def test_well_known_facts_are_mentioned_more_often(rows):
    n = Counter(row[:3] for row in rows)
    first = [n[(*pair[:1], p, *pair[1:])] for p in truth().phrases for pair in phrase_facts(p)[:10]]
    last = [n[(*pair[:1], p, *pair[1:])] for p in truth().phrases for pair in phrase_facts(p)[-10:]]
    assert sum(first) > 1.5 * sum(last)
    assert max(n.values()) >= 4


def test_same_seed_same_bytes_and_the_real_reader_reads_all(tmp_path):
    start = time.process_time()
    one, two = (write_extractions(tmp_path / name, seed=3) for name in ("one.tsv", "two.tsv"))
    assert time.process_time() - start < 2
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != write_extractions(tmp_path / "three.tsv", seed=4).read_bytes()
    from relsim.openie import read_openie

    rows = extractions(3)
    read = read_openie(one)
    assert read.ingest.bad == 0 and read.ingest.used == len(rows) and read.ingest.below_support == ()
    assert set(read.relations) == set(truth().phrases)
    names = [(read.entities[h], read.relations[r], read.entities[t]) for h, r, t in zip(
        read.head.tolist(), read.relation.tolist(), read.tail.tolist(), strict=True)]  # fmt: skip
    expected = Counter(row[:3] for row in rows)
    assert dict(zip(names, read.count.tolist(), strict=True)) == expected


def test_seed_0_is_pinned():
    """A change of the generator or the tables changes every number made from them: it must be seen."""
    from zlib import crc32

    text = "\n".join("\t".join(map(str, row)) for row in extractions())
    assert (len(extractions()), crc32(text.encode())) == (3793, 2146474040)


def test_taxonomy_splits():
    splits = taxonomy()
    triples = [triple for split in splits.values() for triple in split]
    assert len(set(triples)) == len(triples)
    assert all(h != t for h, _, t in triples)
    seen = {entity for h, _, t in splits["train"] for entity in (h, t)}
    relations = {r for _, r, _ in splits["train"]}
    assert relations == {"is a", "lives in", "native to", "eats"}
    for name in ("valid", "test"):
        assert len(splits[name]) >= 80
        for h, r, t in splits[name]:
            assert h in seen and t in seen and r in relations
    assert taxonomy() == splits


def test_taxonomy_is_the_transitive_closure_of_a_tree():
    parent = {row["taxon"]: row["parent"] for row in read_table("taxonomy")}
    assert 250 <= len(parent) <= 400 and list(parent.values()).count("") == 1
    order = ["domain", "kingdom", "phylum", "class", "order", "family", "genus", "species"]
    splits = taxonomy()
    is_a = {(h, t) for split in splits.values() for h, r, t in split if r == "is a"}
    train, closure = set(splits["train"]), set()
    for taxon, above in parent.items():
        if above:
            assert order.index(ranks()[above]) < order.index(ranks()[taxon]), taxon
            assert depths()[taxon] == depths()[above] + 1
            assert (taxon, "is a", above) in train
        while above:
            closure.add((taxon, above))
            above = parent[above]
    assert is_a == closure
    for split in ("valid", "test"):
        for h, r, t in splits[split]:
            assert r == "is a" and ranks()[h] == "species" and depths()[h] - depths()[t] >= 2


def test_taxonomy_facts_are_whole():
    rows = read_table("taxonomy")
    taxa = {row["taxon"] for row in rows}
    assert len(taxa) == len(rows)
    species = {row["taxon"] for row in rows if row["rank"] == "species"}
    assert all(re.fullmatch(r"[A-Z][a-z]+ [a-z]+", name) for name in species)
    names = [common_names()[name] for name in species]
    assert len(set(names)) == len(names)
    genus = {row["taxon"] for row in rows if row["rank"] == "genus"}
    for row in rows:
        if row["rank"] == "species" and row["parent"] in genus:
            assert row["taxon"].split()[0] == row["parent"]
        assert not row["eats"] or set(row["eats"].split(";")) <= species
    continents = {c for row in rows for c in row["native_to"].split(";") if c}
    assert continents == {"Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America"}
    known = {
        "lion": "Felidae",
        "human": "Hominidae",
        "orca": "Delphinidae",
        "bread wheat": "Poaceae",
        "olive": "Oleaceae",
    }
    above = {common_names()[h]: set() for h in species}
    for split in taxonomy().values():
        for h, r, t in split:
            if r == "is a" and h in species:
                above[common_names()[h]].add(t)
    assert all(family in above[name] for name, family in known.items())
