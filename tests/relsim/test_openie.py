from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relsim import Facts, IngestError, read_openie
from relsim.ingest import textfiles as text_files

ROWS = [("Paris", "is in", "France", "0.9"), ("Rome", "is in", "Italy", "0.5"), ("Paris", "is in", "France", "0.7")]


def reverb(head: str, relation: str, tail: str, confidence: str, *, norm: str = "n ") -> str:
    start = ["in.txt", "1", head, relation, tail, "0", "1", "1", "2", "2", "3", confidence, "words", "POS", "CHUNK"]
    return "\t".join([*start, norm + head, norm + relation, norm + tail])


def cesi(head: str, relation: str, tail: str, confidence: str) -> str:
    return json.dumps(
        {"_id": 1, "triple": [head, relation, tail], "triple_norm": [f"n {x}" for x in (head, relation, tail)]}
    )


WRITERS: dict[str, Callable[..., str]] = {
    "reverb": reverb,
    "tsv": lambda *row: "\t".join(row),
    "csv": lambda *row: ",".join('"' + x.replace('"', '""') + '"' for x in row),
    "cesi": cesi,
}


def named(facts: Facts) -> dict[tuple[str, str, str], float]:
    rows = zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), facts.count.tolist(), strict=True)
    return {(facts.entities[h], facts.relations[r], facts.entities[t]): n for h, r, t, n in rows}


def write(tmp_path: Path, content: str | bytes, name: str = "in.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options: object) -> Facts:
    return read_openie(path, **({"min_support": 1} | options))  # type: ignore[arg-type]


def adds_up(facts: Facts) -> bool:
    r = facts.ingest
    assert r is not None
    return r.lines == r.blank + r.header + r.bad + r.below_confidence + r.used


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("ending", "compress", "mark"), [("\n", False, b""), ("\r\n", True, b"\xef\xbb\xbf")])
def test_every_format_is_recognised_whatever_its_wrapping(
    name: str, ending: str, compress: bool, mark: bytes, tmp_path: Path
) -> None:
    data = mark + ending.join(WRITERS[name](*row) for row in ROWS).encode() + ending.encode()
    path = write(tmp_path, gzip.compress(data) if compress else data)
    facts = read(path)
    surface = {("Paris", "is in", "France"): 2.0, ("Rome", "is in", "Italy"): 1.0}
    prefixed = {(f"n {h}", f"n {r}", f"n {t}"): n for (h, r, t), n in surface.items()}
    assert named(facts) == surface
    assert named(read(path, normalise="extractor")) == (prefixed if name in ("reverb", "cesi") else surface)
    assert facts.ingest is not None
    assert facts.ingest.used == facts.ingest.lines == 3 + (facts.ingest.blank)
    assert next(iter(facts.ingest.formats.values())).startswith(name)


@pytest.mark.parametrize("name", WRITERS)
def test_surface_text_and_a_forced_format(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(WRITERS[name](*row) for row in ROWS))
    forced = read(path, format=name, normalise=False)
    assert named(forced) == {("Paris", "is in", "France"): 2.0, ("Rome", "is in", "Italy"): 1.0}


@pytest.mark.parametrize("name", WRITERS)
def test_bad_lines_are_counted_and_shown_with_their_number(name: str, tmp_path: Path) -> None:
    good = [WRITERS[name](f"h{i}", "r", f"t{i}", "0.5") for i in range(20)]
    bad = {"reverb": "only\tthree\tcells", "tsv": "one\ttwo", "csv": 'a,b,"open', "cesi": '{"triple": ["a", "b"]}'}
    lines = [*good[:3], bad[name], "", *good[3:], WRITERS[name]("", "r", "t", "0.5").replace("n ", "")]
    facts = read(write(tmp_path, "\n".join(lines)))
    report = facts.ingest
    assert report is not None
    assert (report.used, report.bad, report.blank, report.lines) == (20, 2, 1, 23)
    assert [example.line for example in report.bad_examples] == [4, 23]
    assert report.bad_examples[0].text == bad[name]
    assert sum(report.bad_reasons.values()) == 2
    assert len(facts) == 20
    assert "4: " in str(report)


def test_only_the_first_few_bad_lines_are_kept_and_shortened(tmp_path: Path) -> None:
    lines = ["a\tr\tb"] * 30 + ["x" * 5000] * 9
    report = read(write(tmp_path, "\n".join(lines))).ingest
    assert report is not None
    assert report.bad == 9
    assert len(report.bad_examples) == 5
    assert all(len(example.text) < 120 for example in report.bad_examples)


def test_bare_quotes_are_text_in_tsv_and_quoting_in_csv(tmp_path: Path) -> None:
    tsv = 'the "boss\tsaid "no" to\t"x"\na\tb\tc\n'
    assert ('the "boss', 'said "no" to', '"x"') in named(read(write(tmp_path, tsv)))
    csv = '"Smith, John","said ""no"" to","a\tb"\n,r,t\nx,is,y\n'
    facts = read(write(tmp_path, csv), format="csv")
    assert set(named(facts)) == {("Smith, John", 'said "no" to', "a b"), ("x", "is", "y")}
    assert facts.ingest is not None
    assert facts.ingest.bad_reasons == {"first argument is empty": 1}


def test_white_space_and_unicode_forms_are_made_one(tmp_path: Path) -> None:
    text = "Jos\u00e9\tis  in\tA\u00a0B\nJose\u0301\tis in \tA B\n"
    assert named(read(write(tmp_path, text))) == {("Jos\u00e9", "is in", "A B"): 2.0}
    assert len(read(write(tmp_path, text), normalise=False)) == 2


def test_lines_that_are_not_utf8_are_read_as_latin1_and_counted(tmp_path: Path) -> None:
    data = "Zürich\tis in\tSchweiz\n".encode() + "Köln\tis in\tBRD\n".encode("latin-1")
    facts = read(write(tmp_path, data))
    assert set(named(facts)) == {("Zürich", "is in", "Schweiz"), ("Köln", "is in", "BRD")}
    assert facts.ingest is not None
    assert facts.ingest.latin1_lines == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("subject\tpredicate\tobject\tcount", {("a", "r", "b"): 5.0, ("c", "r", "d"): 1.0}),
        ("count\targ1\trel\targ2", None),
    ],
)
def test_a_header_names_the_columns(header: str, expected: dict[object, float] | None, tmp_path: Path) -> None:
    rows = ["a\tr\tb\t2", "a\tr\tb\t3", "c\tr\td\t1"]
    if expected is None:
        rows = ["2\ta\tr\tb", "3\ta\tr\tb", "1\tc\tr\td"]
    facts = read(write(tmp_path, "\n".join(["", header, *rows])))
    assert named(facts) == {("a", "r", "b"): 5.0, ("c", "r", "d"): 1.0}
    assert facts.ingest is not None
    assert facts.ingest.header == 1
    assert adds_up(facts)


def test_an_unnamed_fourth_column_is_a_count_only_if_all_values_are_whole_and_one_is_above_one(tmp_path: Path) -> None:
    head = "".join(f"a{i}\tr\tb\t1\n" for i in range(5000))
    counts = read(write(tmp_path, head + "a0\tr\tb\t41\n"))
    assert named(counts)["a0", "r", "b"] == 42.0
    for last in ("0.5", "-3"):
        confidences = read(write(tmp_path, head + f"a0\tr\tb\t{last}\n"))
        assert named(confidences)["a0", "r", "b"] == 2.0
    fifth = read(write(tmp_path, "a\tr\tb\t7\tsource one\nc\tr\td\t1\tsource two\n"))
    assert named(fifth) == {("a", "r", "b"): 7.0, ("c", "r", "d"): 1.0}


def test_leading_confidence_and_sentence_number_are_recognised(tmp_path: Path) -> None:
    assert set(named(read(write(tmp_path, "0.91\ta\tr\tb\n1.0\tc\tr\td\n")))) == {("a", "r", "b"), ("c", "r", "d")}
    assert set(named(read(write(tmp_path, "0\ta\tr\tb\t0.3\n1\tc\tr\td\t0.4\n")))) == {("a", "r", "b"), ("c", "r", "d")}


def test_columns_in_any_order_when_named(tmp_path: Path) -> None:
    path = write(tmp_path, "A sentence\tsaid\the\tit\nAnother\tsaw\tshe\tit\n")
    with pytest.raises(IngestError, match=r"4 columns in an order that cannot be told.*columns"):
        read(path)
    facts = read(path, columns=("sentence", "relation", "head", "tail"))
    assert set(named(facts)) == {("he", "said", "it"), ("she", "saw", "it")}
    with pytest.raises(IngestError, match="no tail column"):
        read(path, columns=("-", "relation", "head", "-"))


def test_confidence_filter_counts_what_it_leaves_out(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(reverb(*row) for row in ROWS))
    facts = read(path, min_confidence=0.7)
    assert list(named(facts).values()) == [2.0]
    assert facts.ingest is not None
    assert facts.ingest.below_confidence == 1
    assert adds_up(facts)
    with pytest.raises(IngestError, match="no confidence"):
        read(write(tmp_path, "a\tr\tb\nc\tr\td\n"), min_confidence=0.5)
    with pytest.raises(IngestError, match="counts"):
        read(write(tmp_path, "a\tr\tb\t3\nc\tr\td\t1\n"), min_confidence=0.5)


def test_bad_numbers_are_bad_lines(tmp_path: Path) -> None:
    lines = ["a\tr\tb\t0.1"] * 40 + ["a\tr\tb\tx", "a\tr\tb\tnan", "a\tr\tb\tinf", "a\tr\tb\t"]
    report = read(write(tmp_path, "\n".join(lines))).ingest
    assert report is not None
    assert report.bad_reasons == {"confidence or count is not a number": 4}


def test_phrases_below_the_support_are_named_not_dropped(tmp_path: Path) -> None:
    lines = [f"h{i}\tcommon\tt{i}" for i in range(5)] + ["h1\trare\tt1"] * 9 + ["h1\trarer\tx", "h2\trarer\ty"]
    facts = read(write(tmp_path, "\n".join(lines)), min_support=3)
    report = facts.ingest
    assert report is not None
    assert facts.relations == ["common"]
    assert facts.entities == sorted({f"h{i}" for i in range(5)} | {f"t{i}" for i in range(5)})
    assert report.below_support == (("rarer", 2), ("rare", 1))
    assert (report.distinct_phrases, report.distinct_facts, report.below_support_facts) == (3, 8, 3)
    nothing = read(write(tmp_path, "\n".join(lines)), min_support=100)
    assert (len(nothing), nothing.num_relations) == (0, 0)
    assert nothing.ingest is not None
    assert "not enough evidence: 3 phrases" in str(nothing.ingest)


def test_several_files_and_folders_add_up(tmp_path: Path) -> None:
    write(tmp_path, "a\tr\tb\n", "one.tsv")
    write(tmp_path, gzip.compress(reverb("a", "r", "b", "1", norm="").encode()), "two.txt.gz")
    write(tmp_path, "# notes", "notes.md")
    (tmp_path / "sub").mkdir()
    facts = read(tmp_path)
    assert named(facts) == {("a", "r", "b"): 2.0}
    assert facts.ingest is not None
    assert len(facts.ingest.files) == 2
    assert [Path(name).name for name, _ in facts.ingest.skipped] == ["notes.md", "sub"]
    both = read_openie([tmp_path / "one.tsv", tmp_path / "two.txt.gz"], min_support=1)
    assert named(both) == named(facts)
    with pytest.raises(IngestError, match="given twice"):
        read_openie([tmp_path / "one.tsv", tmp_path / "one.tsv"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n \n", "blank lines only"),
        (b"head\trelation\ttail\n", "no usable line.*1 header"),
        (b"\x00\x01\x02\x03" * 100, "binary data"),
        ("a\tr\tb\n".encode("utf-16"), "UTF-16"),
        (b"PAR1rest", "the Parquet file is damaged"),
        (b"Just a sentence.\nAnd another, or two.\n", "no known format.*--format reverb|tsv|csv|cesi"),
        (b'[{"h": 1}]', "a JSON list"),
        (b"a b c\n" * 5, "1 TAB columns"),
        (gzip.compress(b"a\tr\tb\n" * 100000)[:-20], "cut short after line"),
        (gzip.compress(b"a\tr\tb\n" * 1000)[:40] + b"garbage" * 20, "damaged|cut short"),
        (b"a\tr\t\n" * 3, "no usable line.*second argument is empty"),
    ],
)
def test_unusable_files_say_why_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=message) as raised:
        read(write(tmp_path, content))
    assert "\n" not in str(raised.value)
    assert "in.txt" in str(raised.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "a\tr\tb\n", "triples.tsv")
    with pytest.raises(IngestError, match=r"did you mean triples.tsv"):
        read(tmp_path / "tripels.tsv")
    with pytest.raises(IngestError, match="no file to read"):
        read_openie([])
    with pytest.raises(ValueError, match="did you mean 'reverb'"):
        read(tmp_path / "triples.tsv", format="revreb")
    for options, message in (
        ({"min_support": 0}, "min_support is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"memory_limit": "much"}, "memory_limit is 'much'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "triples.tsv", **options)


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [reverb(f"h{i % 17}", f"r {i % 3}", f"tä{i % 11}", "0.5") for i in range(300)]
    lines[100] = "bad"
    lines[250] = "worse\tand worse"
    path = write(tmp_path, "\n".join(lines) + "\n")
    whole = read(path)
    monkeypatch.setattr(text_files, "BLOCK", 997)
    parts = read(path)
    assert named(parts) == named(whole)
    assert parts.ingest is not None
    assert whole.ingest is not None
    assert parts.ingest.bad_examples == whole.ingest.bad_examples
    assert [bad.line for bad in parts.ingest.bad_examples] == [101, 251]
    assert parts.ingest.lines == 300


def test_a_nul_byte_far_into_a_file_is_a_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK", 64)
    facts = read(write(tmp_path, b"a\tr\tb\n" * 50 + b"a\tr\0\tb\n" + b"a\tr\tb\n"))
    assert facts.ingest is not None
    assert facts.ingest.bad_reasons == {"a NUL byte": 1}
    assert facts.ingest.bad_examples[0].line == 51
    assert named(facts) == {("a", "r", "b"): 51.0}


def test_mixed_encodings_and_a_stray_byte_order_mark(tmp_path: Path) -> None:
    parts = ["Köln\tis in\tBRD".encode("latin-1"), "Köln\tis in\tBRD".encode(), "\ufeffKöln\tis in\tBRD".encode()]
    facts = read(write(tmp_path, b"\n".join(parts)))
    assert facts.ingest is not None
    assert (facts.ingest.latin1_lines, facts.ingest.used) == (1, 3)
    assert named(facts)["Köln", "is in", "BRD"] == 2.0


def test_one_relation_and_a_relation_with_one_fact(tmp_path: Path) -> None:
    one = read(write(tmp_path, "a\tis by\tb\n" * 5 + "c\tis by\td\n"))
    assert (one.relations, one.support.tolist(), one.mentions.tolist()) == (["is by"], [2], [6.0])
    single = read(write(tmp_path, "a\tis by\tb\n"))
    assert named(single) == {("a", "is by", "b"): 1.0}
    kept = read(write(tmp_path, "a\tis by\tb\n"), min_support=2)
    assert kept.ingest is not None
    assert (kept.num_relations, kept.ingest.below_support) == (0, (("is by", 1),))


def test_rows_that_are_all_the_same(tmp_path: Path) -> None:
    facts = read(write(tmp_path, "a\tis by\tb\n" * 20_000))
    assert named(facts) == {("a", "is by", "b"): 20_000.0}
    assert facts.ingest is not None
    assert (facts.ingest.used, facts.ingest.distinct_facts) == (20_000, 1)


@pytest.mark.parametrize("relations", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_as_many_relations_as_rows(relations: int, tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"a{i % 97}\tverb{i} to\tb{i % 89}\n" for i in range(relations)))
    facts = read(path, memory_limit="500MB")
    assert (facts.num_relations, len(facts)) == (relations, relations)
    assert facts.relations == sorted(facts.relations)
    none = read(path, min_support=2)
    assert none.ingest is not None
    assert (len(none), len(none.ingest.below_support), none.ingest.below_support_facts) == (0, relations, relations)
    assert len(str(none.ingest)) < 2000


def test_threads_and_memory_change_nothing(tmp_path: Path) -> None:
    rows = [f"The H{i % 701}\t{'was' if i % 3 else 'is'} made{i % 53} by\tt{i % 907}" for i in range(40_000)]
    path = write(tmp_path, "\n".join(rows))
    one = read(path, threads=1, memory_limit="200MB")
    two = read(path, threads=2)
    assert named(one) == named(two)
    assert (one.entities, one.relations) == (two.entities, two.relations)
    assert one.num_relations == 53


def test_real_files(data_dir: Path) -> None:
    base = read_openie(data_dir / "openie/cesi/base", normalise="extractor")
    assert base.ingest is not None
    assert (base.ingest.lines, base.ingest.distinct_facts, base.ingest.distinct_phrases) == (9039, 4535, 3196)
    native = read_openie(data_dir / "openie/carb/system_outputs/test/reverb_output.txt.gz", min_support=1)
    assert native.ingest is not None
    assert (native.ingest.lines, native.ingest.bad) == (4176, 0)
