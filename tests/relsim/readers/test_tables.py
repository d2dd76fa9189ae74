"""Tables and JSON of triples: the same rows are the same facts, whatever holds them and in whatever order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from relsim import IngestError, redundancy
from relsim.openie import read_openie

from .test_readers import FIXTURES, GOLDEN, named, read

ROLES = "head", "relation", "tail"


def tsv(path: Path, rows: list[tuple[Any, ...]], *header: str) -> Path:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ([header] if header else []) + rows))
    return path


def parquet(path: Path, values: str, *header: str) -> Path:
    import duckdb

    names = ", ".join(f'"{name}"' for name in header)
    duckdb.sql(f"SELECT * FROM (VALUES {values}) v({names})").write_parquet(str(path))
    return path


def test_what_is_a_phrase_does_not_depend_on_the_order_of_lines(tmp_path: Path) -> None:
    """The first 250 lines hold one relation of a single word; the rest are phrases."""
    rows: list[tuple[Any, ...]] = [(f"Comp {i}", "acquired", f"Firm {i}") for i in range(250)]
    rows += [(f"Comp {i}", "has acquired", f"Firm {i}") for i in range(300, 330)]
    mixed = random.Random(0).sample(rows, len(rows))
    facts = [read_openie(tsv(tmp_path / f"{k}.tsv", part)) for k, part in enumerate((rows, mixed))]
    assert [(f.relations, f.support.tolist()) for f in facts] == [(["acquired"], [280])] * 2
    parts = [tsv(tmp_path / "a.tsv", rows[:250]), tsv(tmp_path / "b.tsv", rows[250:])]
    assert read_openie(parts).relations == ["acquired"]


def test_parquet_is_read_by_the_rules_of_tsv(tmp_path: Path) -> None:
    kb = [("Q1", "partOf", "q1"), ("q1", "PartOf", "Q1"), ("Us", "partOf", "US")]
    text = tsv(tmp_path / "in.tsv", kb, *ROLES)
    values = ", ".join(str(row) for row in kb)
    assert read(parquet(tmp_path / "in.parquet", values, *ROLES))[0] == read(text)[0]
    assert len(read(text)[0]) == 3


@pytest.mark.parametrize(("weights", "counts"), [((3, 1), [3, 1]), ((1, 1), [1, 1]), ((0.5, 3), [1, 1])])
def test_a_weight_is_a_count_if_it_is_whole(weights: tuple[float, float], counts: list[float], tmp_path: Path) -> None:
    rows = [("a", "likes to", "x", weights[0]), ("b", "likes to", "y", weights[1])]
    header = (*ROLES, "weight")
    lines = [dict(zip(header, row, strict=True)) for row in rows]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = tsv(tmp_path / "in.tsv", rows, *header), tmp_path / "in.jsonl"
    for path in (*files, parquet(tmp_path / "in.parquet", ", ".join(map(str, rows)), *header)):
        assert list(read(path)[0].values()) == counts, path.name
        if counts[0] > 1:
            with pytest.raises(IngestError, match=r"has (counts|no confidence)"):
                read(path, min_confidence=0.5)


def test_a_confidence_that_is_missing_does_not_pass_the_filter(tmp_path: Path) -> None:
    path = parquet(tmp_path / "in.parquet", "('a', 'likes to', 'x', NULL), ('b', 'likes to', 'y', 0.9)", *ROLES, "conf")
    facts, report = read(path, min_confidence=0.5)
    assert list(facts) == [("b", "likes to", "y")]
    assert dict(report.bad_reasons) == {"confidence is not a number": 1}


def test_files_of_a_folder_that_are_no_extractions_are_skipped(tmp_path: Path) -> None:
    tsv(tmp_path / "in.tsv", [("a", "ran to", "b")] * 2)
    (tmp_path / "README.txt").write_text("How these files were made.\nBy hand.\n")
    facts, report = read(tmp_path)
    assert facts == {("a", "ran to", "b"): 2}
    assert [(Path(name).name, why.split(";")[0]) for name, why in report.skipped] == [("README.txt", "no known format")]
    for path in (tmp_path / "README.txt", [tmp_path / "in.tsv", tmp_path / "README.txt"]):
        with pytest.raises(IngestError, match=r"README\.txt: looks like no known format"):
            read_openie(path)
    (tmp_path / "in.tsv").unlink()
    with pytest.raises(IngestError, match=r"README\.txt: looks like no known format"):
        read_openie(tmp_path)


TRIPLES = {("Ann", "was born in", "Oslo"): 1.0, ("Bob", "met", "Ann"): 1.0}
OBJECTS = [{"subject": h, "relation": r, "object": t} for h, r, t in TRIPLES]
CORENLP = {"sentences": [{"index": 0, "openie": [o | {"subjectSpan": [0, 1]}]} for o in OBJECTS] + [{"openie": []}]}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        "\n".join(json.dumps({"arg1": o["subject"], "rel": o["relation"], "arg2": o["object"]}) for o in OBJECTS),
        json.dumps([list(key) for key in TRIPLES]),
        "\n".join(json.dumps(key) for key in TRIPLES),
        json.dumps(CORENLP, indent=2),
        json.dumps(CORENLP),
        "\n".join(json.dumps({"sentences": [{"openie": [o]}]}) for o in OBJECTS),
    ],
)
def test_json_of_triples(text: str, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(text, encoding="utf-8-sig")
    facts, report = read(path)
    assert facts == TRIPLES
    assert report.formats[str(path)].startswith("json (")


def test_json_that_holds_no_triple(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[{"name": "Ann"}]')
    with pytest.raises(IngestError, match="a JSON list whose first element is no triple"):
        read(path)
    path.write_text('{"subject": "a",\n"relation": "b", "object": ]}\n')
    with pytest.raises(IngestError, match="neither a JSON value a line nor one JSON document"):
        read(path, format="json")


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ((1999, 2004), "all from 1,999 to 2,004, like years"),
        ((100, 70000), "all from 100 to 70,000;"),
        ((7, 8), "different for equal triples"),
        ((1, 7), ""),
    ],
)
def test_counts_that_may_be_none_are_warned_of(last: tuple[int, int], why: str, tmp_path: Path) -> None:
    tails = ("b", "b") if "equal" in why else ("b", "c")
    path = tsv(tmp_path / "in.tsv", [("a", "ran to", tail, n) for tail, n in zip(tails, last, strict=True)])
    facts = read_openie(path, min_support=1)
    assert sum(named(facts).values()) == sum(last)
    warnings = redundancy(facts).warnings
    assert facts.ingest is not None
    assert facts.ingest.warnings == warnings == tuple(w for w in warnings if why in w and "--columns" in w)
    assert len(warnings) == bool(why)


def test_a_blank_after_the_comma_is_no_part_of_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('Ann, "met, at last", Bob\nAnn, met, "the ""last"" day"\n')
    assert set(read(path)[0]) == {("Ann", "met, at last", "Bob"), ("Ann", "met", 'the "last" day')}


def test_bracketed_confidences_below_zero_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("A sentence.\n-0.05: (Ann; met; Bob)\n1: (Ann; is in; Oslo)\n2 (or 3) towns.\n1: (broken; off\n")
    facts, report = read(path)
    assert set(facts) == {("Ann", "met", "Bob"), ("Ann", "is in", "Oslo")}
    assert (report.aside, report.bad) == (2, 1)
    assert set(read(path, min_confidence=0.0)[0]) == {("Ann", "is in", "Oslo")}


def test_parquet(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "in.parquet"
    duckdb.sql(
        "SELECT * FROM (VALUES ('A', 'ran to', 'B', 3, 'PER'), ('A', 'runs to', 'B', 1, 'PER'), (NULL, 'ran', 'C', 1, ''),"
        " ('A', 'ran', 'C', 0, '')) v(arg1, rel, arg2, \"count\", arg1_type)"
    ).write_parquet(str(path))
    facts, report = read(path)
    assert facts == {("A", "ran to", "B"): 4}
    assert dict(report.bad_reasons) == {"no text for a part of the triple": 1, "count is not above 0": 1}
    assert [bad.line for bad in report.bad_examples] == [3, 4]
    duckdb.sql("SELECT 1 AS a, 2 AS rel").write_parquet(str(path))
    with pytest.raises(IngestError, match=r"columns a, rel name no head and no tail"):
        read(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(IngestError, match="damaged"):
        read(path)


def test_json_lists_that_break_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relsim.ingest import textfiles

    text = (FIXTURES / "combo.json").read_text()
    path = tmp_path / "in.json"
    path.write_text(text[:-20])
    with pytest.raises(IngestError, match="breaks off or is broken after 2 elements"):
        read(path)
    monkeypatch.setattr(textfiles, "BLOCK", 11)
    assert read(FIXTURES / "combo.json")[0] == GOLDEN["combo"].facts


def test_half_a_surrogate_pair_in_json_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text((FIXTURES / "combo.json").read_text().replace('"cello"', '"cell\\ud83d"'))
    assert ("yo-yo ma", "played", "the cell?") in read(path)[0]


def test_a_table_with_counts_confidences_and_types_keeps_them_all(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    head = "head\thead_type\trelation\ttail\ttail_type\tcount\tconfidence\n"
    path.write_text(
        f"{head}a x\tORG\tis in\tb\tLOC\t7\t0.5\na x\tFRUIT\tis in\tb\tLOC\t3\t0.9\nc\t\tis in\td\t\t2\t0.2\n"
    )
    facts = read_openie(path, min_support=1)
    assert facts.count.tolist() == [10, 2] and facts.types is not None and facts.head_type is not None
    assert [facts.types[k] for k in facts.head_type.tolist()] == ["ORG", ""]
    assert read_openie(path, min_support=1, min_confidence=0.4).count.tolist() == [10]
    path.write_text(f"{head}a x\tORG\tis in\tb\tLOC\tmany\t0.5\nc\tORG\tis in\td\tLOC\t0\t0.5\ne\t\tis in\tf\t\t1\t1\n")
    report = read_openie(path, min_support=1).ingest
    assert report is not None
    assert report.bad_reasons == {"count is not a number": 1, "count is not above 0": 1}


def test_a_count_beyond_float32_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "huge.tsv"
    path.write_text("head\trelation\ttail\tcount\na x\tis in\tb\t1e39\na x\tis in\tc\t2\n")
    report = read_openie(path, min_support=1).ingest
    assert report is not None and report.bad_reasons == {"count is beyond 1e+30": 1}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_the_type_of_a_fact_is_the_one_that_is_stated_most_often(threads: int, turned: bool, tmp_path: Path) -> None:
    rows = [("apple", "ORG")] * 100 + [("apple", "FRUIT")] + [("pear", "Z"), ("pear", "B")] * 3
    lines = [json.dumps({"subject": s, "relation": "is in", "object": "x y", "subject_type": t}) for s, t in rows]
    path = tmp_path / "typed.jsonl"
    path.write_text("\n".join(lines[::-1] if turned else lines))
    facts = read_openie(path, min_support=1, threads=threads)
    assert facts.types is not None and facts.head_type is not None
    assert [facts.types[k] for k in facts.head_type.tolist()] == ["ORG", "B"]


def test_words_that_are_not_in_the_sentence_lose_their_brackets(tmp_path: Path) -> None:
    path = tmp_path / "nominal.txt"
    lines = ["Barack Obama.", "0.88: (Barack Obama; [is] president [of]; United States)", "0.7: (Ada; [wrote]; it)"]
    path.write_text("\n".join(lines * 3))
    assert set(read_openie(path, min_support=1, normalise=False).relations) == {"is president of", "wrote"}
