"""Input that is nearly right: read as what it says, or refused with what is wrong, never with a fact lost in silence."""

from __future__ import annotations

import gzip
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from relsim import Facts, IngestError, read_openie
from relsim.ingest import textfiles
from relsim.readers.json import objects

from .test_readers import read


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


ROW = '{"subject": "A", "relation": "ran to", "object": "%s"}'


@pytest.mark.parametrize("between", ["\n", "\n\n ", ""])
def test_lists_one_after_another_are_all_read(between: str, tmp_path: Path) -> None:
    lists = [f"[\n{ROW % 'B'},\n{ROW % 'C'}\n]", f"[{ROW % 'D'}]", "[]"]
    facts, report = read(write(tmp_path / "in.json", between.join(lists)))
    assert {tail for _, _, tail in facts} == {"B", "C", "D"} and report.bad == 0


@pytest.mark.parametrize("after", ["and so on", '{"a": 1}', "]"])
def test_text_after_a_list_is_refused(after: str, tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"goes on with .* after a JSON list, expected another list"):
        read(write(tmp_path / "in.json", f"[\n{ROW % 'B'}\n] {after}"))


def test_a_list_is_the_same_however_the_text_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [12345, -0.5, "a ] b", {"x": [1, {"y": "[,]"}]}, None, 7]
    path = write(tmp_path / "in.json", json.dumps(values[:4]) + " " + json.dumps(values[4:], indent=1))
    for size in range(1, 12):
        monkeypatch.setattr(textfiles, "BLOCK", size)
        assert [value for _, value in objects(path)] == values


def test_reading_a_list_takes_the_time_of_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements are decoded where they stand: the text of a block is copied once, and not once an element."""
    decoded = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            decoded.append((id(s), len(s)))
            return super().raw_decode(s, idx)

    monkeypatch.setattr(json, "JSONDecoder", Counting)
    path = write(tmp_path / "in.json", json.dumps([["a", "r", str(i)] for i in range(2000)]))
    assert len(list(objects(path))) == 2000
    assert len(set(decoded)) == 1  # one text for all of them


@pytest.mark.parametrize(("name", "fact"), [("Paris", "Paris"), (["New", "York"], "New York")])
def test_names_of_combo_are_a_text_or_words(name: Any, fact: str, tmp_path: Path) -> None:
    row = {"h": {"name": name}, "r": {"name": "lies in"}, "t": {"name": ["France"]}}
    bad = {**row, "h": {"name": 3}}
    facts, report = read(write(tmp_path / "in.json", json.dumps([row, bad])))
    assert set(facts) == {(fact, "lies in", "France")}
    assert dict(report.bad_reasons) == {"no h, r and t with words as name": 1}


def test_a_count_that_is_left_out_where_it_is_1(tmp_path: Path) -> None:
    rows = [{"subject": f"s{i}", "relation": "ran to", "object": f"o{i}"} for i in range(1205)]
    for row in rows[1200:]:
        row["count"] = 500  # type: ignore[assignment]
    path = write(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    facts, _ = read(path)
    assert sum(facts.values()) == 1200 + 5 * 500
    path = write(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in reversed(rows)))
    assert read(path)[0] == facts


def test_documents_whose_sentences_are_none(tmp_path: Path) -> None:
    good = '{"sentences": [{"openie": [{"subject": "A", "relation": "ran", "object": "B"}]}]}'
    path = write(tmp_path / "in.json", good + '\n{"sentences": null}\n')
    with pytest.raises(IngestError, match="sentences is null, expected a list of objects with openie"):
        read(path)


@pytest.mark.parametrize("name", ["u[1].parquet", "u?.parquet", "u*.parquet"])
def test_the_name_of_a_file_is_no_pattern(name: str, tmp_path: Path) -> None:
    import duckdb

    for file, tail in (("u1.parquet", "other"), (name, "own")):
        duckdb.sql(f"SELECT 'A' AS arg1, 'ran to' AS rel, '{tail}' AS arg2").write_parquet(str(tmp_path / file))
    assert set(read(tmp_path / name)[0]) == {("A", "ran to", "own")}


def test_bytes_are_text(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "in.parquet"
    rows = "('München'::VARCHAR, 'lies in', 'Bavaria'), ('Ulm', 'lies in', 'Württemberg')"
    duckdb.sql(
        f"SELECT encode(a) AS arg1, encode(r) AS rel, encode(t) AS arg2 FROM (VALUES {rows}) v(a, r, t) UNION ALL "
        "SELECT '\\xFF'::BLOB, encode('lies in'), encode('x')"
    ).write_parquet(str(path))
    facts, report = read(path)
    assert set(facts) == {("München", "lies in", "Bavaria"), ("Ulm", "lies in", "Württemberg")}
    assert dict(report.bad_reasons) == {"no text for a part of the triple": 1}
    frame = {"head": ["München".encode()], "relation": [b"lies in"], "tail": [bytearray(b"Bavaria")]}
    assert Facts.from_frame(frame).entities == ["Bavaria", "München"]
    with pytest.raises(ValueError, match="'head' holds bytes that are not UTF-8 in row 0"):
        Facts.from_frame(frame | {"head": [b"\xff"]})


def test_nested_columns_are_refused_by_name(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "in.parquet"
    duckdb.sql("SELECT ['New', 'York'] AS arg1, 'r' AS rel, {'a': 1} AS arg2").write_parquet(str(path))
    with pytest.raises(IngestError, match=r"column arg\d holds .*, expected one text or number a row"):
        read(path)
    with pytest.raises(ValueError, match="column 'head' holds a list in row 0"):
        Facts.from_frame({"head": [["New", "York"]], "relation": ["r"], "tail": ["x"]})


def test_binary_files_say_what_they_are(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "in.parquet"
    duckdb.sql("SELECT 'A' AS arg1, 'ran' AS rel, 'B' AS arg2").write_parquet(str(path))
    zipped = tmp_path / "in.parquet.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(IngestError, match="a Parquet file inside gzip, which is not read; unpack it first"):
        read(zipped)
    for format in ("tsv", "csv"):
        with pytest.raises(IngestError, match=f"no text, so no {format}"):
            read(path, format=format)
    text = write(tmp_path / "in.tsv", "A\tran\tB\n")
    with pytest.raises(IngestError, match="no Parquet file, it begins with"):
        read(text, format="parquet")
    with pytest.raises(IngestError, match="no Avro file, it begins with"):
        read(text, format="opiec")


def avro(path: Path, codec: str) -> None:
    """A record whose tokens are texts."""
    fastavro = pytest.importorskip("fastavro")
    part = {"type": "array", "items": "string"}
    names = ("subject", "relation", "object")
    schema = {"type": "record", "name": "x", "fields": [{"name": name, "type": part} for name in names]}
    with path.open("wb") as stream:
        fastavro.writer(stream, schema, [{"subject": ["A"], "relation": ["ran"], "object": ["B"]}], codec=codec)


def test_avro_whose_tokens_are_texts(tmp_path: Path) -> None:
    avro(tmp_path / "in.avro", "null")
    with pytest.raises(IngestError, match="no subject, relation and object of tokens"):
        read(tmp_path / "in.avro")


@pytest.mark.skipif(find_spec("backports") is not None or sys.version_info >= (3, 14), reason="zstandard is there")
def test_a_codec_of_avro_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.avro"
    avro(path, "deflate")
    path.write_bytes(path.read_bytes().replace(b"\x0edeflate", b"\x12zstandard"))
    with pytest.raises(IngestError, match="install one of the following libraries"):
        read(path)


def test_a_line_beyond_what_csv_reads_hides_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "mix"
    folder.mkdir()
    write(folder / "a.tsv", "A\tran to\tB\n")
    write(folder / "b.txt", "<p>" + "x, " * 100_000 + "\n" + "y\n")
    facts, report = read(folder)
    assert set(facts) == {("A", "ran to", "B")} and len(report.skipped) == 1


def test_named_columns_leave_a_header_row_out(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tsv", "subject\trel\tobject\nA\tran to\tB\n")
    facts, report = read(path, columns=("head", "relation", "tail"))
    assert set(facts) == {("A", "ran to", "B")} and report.header == 1


@pytest.mark.parametrize("header", ["head\trelation\ttail\tcount\n", "head\trelation\ttail\tconfidence\tcount\n"])
def test_a_count_that_float32_cannot_hold_is_a_bad_line(header: str, tmp_path: Path) -> None:
    more = "0.5\t" if "confidence" in header else ""
    path = write(tmp_path / "in.tsv", f"{header}A\tran to\tB\t{more}2\nA\tran to\tC\t{more}1e-50\n")
    facts, report = read(path)
    assert facts == {("A", "ran to", "B"): 2} and dict(report.bad_reasons) == {"count is below 1e-30": 1}


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tsv", "A\tran to\tB\t0.5\n")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="min_confidence is"):
            read_openie(path, min_confidence=value)
    with pytest.raises(ValueError, match="which is no folder"):
        read_openie(path, temp_folder=tmp_path / "nowhere")


def test_too_little_memory_is_said_in_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "in.tsv", "".join(f"some head {i}\tran to\tsome tail {i}\n" for i in range(60_000)))
    with pytest.raises(IngestError, match="memory_limit is 12MB, which is too little"):
        read_openie(path, memory_limit="12MB", threads=2)
