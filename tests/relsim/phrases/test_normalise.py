from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relsim.openie import read_openie
from relsim.phrases.normalise import argument_key, relation_key, verb_base
from relsim.phrases.text import negated, voice
from relsim.phrases.verbs import IRREGULAR

# Every group is one verb; no two groups may meet.
VERBS = [
    "hope hopes hoped hoping", "hop hops hopped hopping", "locate locates located locating", "plan plans planned",
    "star stars starred starring", "stare stares stared staring", "agree agrees agreed agreeing", "see sees saw seen seeing",
    "control controls controlled", "install installed installs", "die dies died dying", "carry carries carried carrying",
    "create creates created", "focus focuses focused", "discuss discusses discussed", "found founds founded founding",
    "use uses used using", "succeed succeeds succeeded", "play plays played", "fix fixes fixed fixing", "say says said",
    "call calls called", "quote quotes quoted", "add adds added adding", "free freed", "serve serves served serving",
    "tie tied tying", "refer referred refers", "travel travelled traveled traveling", "win wins won winning",
    "write writes wrote written writing", "need needs needed", "reach reaches reached", "type typed typing",
    "own owns owned owning", "lie lain lying", "lead leads led leading", "bring brings brought bringing",
]  # fmt: skip
# Rows: phrases of one relation. Different rows are different relations.
PHRASES = [
    ["was born in", "is born in", "has been born in", "Was  born in", "were born in", "will be born in"],
    ["won", "wins", "has won", "had won", "is winning", "will win", "won the", "'s won"][:7],
    ["did not win", "didn't win", "doesn't win", "has not won", "hasn’t won", "did n't win"],
    ["is owned by", "was owned by", "has been owned by", "owned by", "are being owned by"],
    ["owns", "owned", "has owned", "is owning"],
    ["is not owned by", "wasn't owned by"],
    ["is the author of", "are authors of", "was an author of", "are the authors of"],
    ["is not the author of", "is n't an author of"],
    ["is the building of"],
    ["is building", "builds", "built"],
    ["is missing from", "was missing from"],
    ["can win"],
    ["can not win", "cannot win", "can't win"],
    ["never won"],
    ["is not only winning"],
    ["does business with"],
    ["works for", "worked for", "has been working for"],
    ["found a"[:5], "finds", "has found"],
    ["founded", "founds"],
]


@pytest.mark.parametrize("group", VERBS)
def test_inflections_of_a_verb_have_one_base(group: str) -> None:
    assert len({verb_base(word) for word in group.split() if word != "found" or group.startswith("find")}) == 1


def test_different_verbs_have_different_bases() -> None:
    bases = [verb_base(group.split()[1]) for group in VERBS]
    assert len(set(bases)) == len(bases)


def test_a_regular_form_is_never_a_form_of_an_irregular_verb_by_spelling() -> None:
    # hopping is of hop, not hope; a base keeps its own key apart from the past of another verb.
    assert verb_base("founded") != verb_base("found")
    assert verb_base("leaves") == verb_base("left")
    assert all(verb_base(base) == verb_base(form) for form, base in IRREGULAR.items())


@pytest.mark.parametrize("phrases", PHRASES)
def test_forms_of_one_relation_share_a_key(phrases: list[str]) -> None:
    assert len({relation_key(phrase) for phrase in phrases}) == 1


def test_different_relations_have_different_keys() -> None:
    for one, two in itertools.combinations(PHRASES, 2):
        assert relation_key(one[0]) != relation_key(two[0])


def test_lemmas_are_left_alone() -> None:
    assert relation_key("found", lemmatised=True) == "found"
    assert relation_key("be a painter from", lemmatised=True) == relation_key("be the Painter from", lemmatised=True)
    assert relation_key("be not from", lemmatised=True) != relation_key("be from", lemmatised=True)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("The Beatles", "BEATLES", True),
        ("The company", "company", True),
        ("The Plague", "plague", False),
        ("“Paris”", "Paris", True),
        ("ﬁne  Art", "Fine art", True),
        ("Zu\u0308rich", "Z\u00fcrich", True),
        ("US", "us", False),
        ("The US", "US", True),
        ("The Who", "who", False),
        ("A 14", "14", False),
        ("A", "a", False),
        ("The", "the", False),
        ("New York", "York", False),
    ],
)
def test_arguments(one: str, two: str, same: bool) -> None:
    assert (argument_key(one) == argument_key(two)) is same


@pytest.mark.parametrize("phrase", ["didn't join", "didnt join", "cant win", "could not win", "is not only in", "won"])
def test_the_key_and_the_guard_agree_on_polarity(phrase: str) -> None:
    assert relation_key(phrase).startswith("not ") is negated(phrase)
    assert relation_key("didnt join") == relation_key("did not join")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        *(("was owned by", "passive"), ("be own by", "passive"), ("is being owned by", "passive")),
        *(("is walking by", "active"), ("passed by", "active"), ("was located in", "active"), ("is using", "active")),
        *(("be use", "no agent"), ("was killed", "no agent")),
    ],
)
def test_voice(phrase: str, expected: str) -> None:
    assert voice(phrase)[1] == expected


@given(st.text(min_size=1).filter(str.strip))
def test_a_key_is_never_empty_and_odd_text_does_not_fail(text: str) -> None:
    assert relation_key(text)
    assert relation_key(text, lemmatised=True)
    assert argument_key(text)


@given(st.text(alphabet="abcdefgh sing", min_size=1, max_size=30).filter(str.strip))
def test_arguments_are_keyed_once_and_for_all(text: str) -> None:
    once = argument_key(text)
    assert argument_key(f"  {text.upper().lower()} ") == once


def test_merges_are_reported_and_can_be_turned_off(tmp_path: Path) -> None:
    rows = [("Ann", "was born in", "The Hague")] * 3 + [
        ("Ann", "is born in", "Hague"),
        ("Bob", "was not born in", "US"),
    ]
    path = tmp_path / "in.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    facts = read_openie(path, min_support=1)
    report = facts.ingest
    assert report is not None and report.phrases is not None and report.arguments is not None
    assert sorted(facts.relations) == ["was born in", "was not born in"]
    assert facts.entities == ["Ann", "Bob", "The Hague", "US"]
    assert sorted(facts.count.tolist()) == [1.0, 4.0]
    assert (report.phrases.forms, report.phrases.names, report.negated) == (3, 2, 1)
    assert (report.arguments.forms, report.arguments.names) == (5, 4)
    assert report.phrases.examples == (("was born in", ("is born in",)),)
    assert "3 phrases read as 2" in str(report)
    raw = read_openie(path, min_support=1, normalise=False)
    assert raw.num_relations == 3
    assert raw.ingest is not None and raw.ingest.phrases is None
    assert "normalisation" not in str(raw.ingest)
    with pytest.raises(ValueError, match="normalise is 'yes'"):
        read_openie(path, normalise="yes")


def test_names_of_a_knowledge_base_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("Q1\tplays\tQ2\nq1\tplayed\tQ2\nThe Q1\tplayed\tQ2\n")
    facts = read_openie(path, min_support=1)
    assert facts.relations == ["played", "plays"]
    assert "Q1" in facts.entities and "q1" in facts.entities and "The Q1" in facts.entities
    assert facts.ingest is not None
    assert "names, not normalised" in str(facts.ingest)


def test_one_spelling_of_two_relations_keeps_two_names(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("Ann\tfound\tit\nAnn\twas born in\tOslo\n")
    (tmp_path / "b.txt").write_text("2\nAnn\tfound\tclub\nAnn\tbe from\tOslo\n")
    facts = read_openie(tmp_path, min_support=1)
    assert {"found [find]", "found [found]"} <= set(facts.relations)
