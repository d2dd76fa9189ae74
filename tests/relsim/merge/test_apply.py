from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relsim import Facts, redundancy
from relsim.merge.apply import apply_map, read_map, undo_map

MAP = {"penned": "wrote", "wrote": "wrote", "authored": "wrote", "=odd": "wrote", "saw": "saw"}


def test_lines_are_mapped_counted_and_given_back(tmp_path: Path) -> None:
    text = "Ann\tpenned\tX\t0.9\nBob\twrote\tY\t0.8\r\nEve\tsang\tZ\t1\n\nbad\nJo\t=odd\tQ\t1\nAl\t authored \tW\t1"
    source, mapped, back = tmp_path / "new.tsv", tmp_path / "mapped.tsv", tmp_path / "back.tsv"
    source.write_bytes(text.encode() + b"\xff\tsaw\t\xfe\t1")
    found = apply_map(MAP, source, mapped)
    assert (found.lines, found.rewritten, found.kept, found.unknown, found.bad, found.blank) == (7, 3, 1, 1, 1, 1)
    assert found.unknown_phrases == (("sang", 1),)
    lines = mapped.read_bytes().split(b"\n")
    assert lines[0] == b"Ann\twrote\tX\t0.9\tpenned"
    assert lines[1] == b"Bob\twrote\tY\t0.8\t\r"
    assert undo_map(MAP, mapped, back) == 3
    assert back.read_bytes() == source.read_bytes()


def test_a_header_names_the_column(tmp_path: Path) -> None:
    source, mapped = tmp_path / "new.tsv", tmp_path / "mapped.tsv"
    source.write_text("subject\tnote\trelation\tobject\npenned\tsaw\tpenned\tX\n")
    found = apply_map(MAP, source, mapped)
    assert (found.header, found.rewritten) == (1, 1)
    assert mapped.read_text() == "subject\tnote\trelation\tobject\toriginal_relation\npenned\tsaw\twrote\tX\tpenned\n"
    assert undo_map(MAP, mapped, tmp_path / "back.tsv") == 1
    assert (tmp_path / "back.tsv").read_bytes() == source.read_bytes()


def test_gzip_is_read_and_a_saved_map_is_the_map(tmp_path: Path) -> None:
    pairs = [(f"a{i}", f"b{i}") for i in range(30)]
    facts = Facts.from_triples([(h, r, t) for h, t in pairs for r in ("=wrote", "penned a\ttab")])
    result = redundancy(facts)
    result.save(tmp_path)
    mapping = read_map(tmp_path / "canonical_map.tsv")
    assert mapping == {phrase: where[0] for phrase, where in result.canonical_map.items()}
    source = tmp_path / "new.tsv.gz"
    source.write_bytes(gzip.compress(b"a1\tpenned\tb1\n"))
    assert apply_map(MAP, source, tmp_path / "out.tsv").rewritten == 1


CELL = st.text(st.characters(blacklist_characters="\t\n\r", blacklist_categories=("Cs",)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELL, st.sampled_from([*MAP, "sang", ""]), CELL), min_size=1, max_size=8), st.booleans())
def test_undo_gives_every_file_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], end: bool
) -> None:
    folder = tmp_path_factory.mktemp("apply")
    source = folder / "new.tsv"
    source.write_text("\n".join("\t".join(row) for row in rows) + "\n" * end, encoding="utf-8", newline="")
    found = apply_map(MAP, source, folder / "mapped.tsv", column=2)
    assert found.lines == found.rewritten + found.kept + found.unknown + found.bad + found.header + found.blank
    undo_map(MAP, folder / "mapped.tsv", folder / "back.tsv", column=2)
    assert (folder / "back.tsv").read_bytes() == source.read_bytes()


def test_what_cannot_be_applied_is_said(tmp_path: Path) -> None:
    source = tmp_path / "new.tsv"
    source.write_text("a\tb\tc\n")
    with pytest.raises(ValueError, match="no column holds a phrase of the map"):
        apply_map(MAP, source, tmp_path / "out.tsv")
    with pytest.raises(ValueError, match="is the input itself"):
        apply_map(MAP, source, source)
    with pytest.raises(ValueError, match="expected columns phrase and canonical"):
        read_map(source)
    assert not (tmp_path / "out.tsv").exists()


def test_an_inflection_of_a_phrase_of_the_map_is_found_by_its_key_and_a_negation_is_not(tmp_path: Path) -> None:
    source, target = tmp_path / "new.tsv", tmp_path / "out.tsv"
    rows = ["a\thas written\tb", "a\tdid not write\tb", "a\twas written by\tb", "a\twrote\tb", "a\tsang\tb"]
    source.write_text("\n".join(rows) + "\n")
    # "sings" and "sang" share a key and lead to different phrases: "is singing" must not be guessed, "sang" is known.
    mapping = {"wrote": "is the author of", "sings": "performs", "sang": "performed"}
    done = apply_map(mapping, source, target, column=2)
    assert [line.split("\t")[1] for line in target.read_text().splitlines()] == [
        "is the author of",
        "did not write",
        "was written by",
        "is the author of",
        "performed",
    ]
    assert (done.rewritten, done.unknown) == (3, 2)
    source.write_text("a\tis singing\tb\n")
    assert apply_map(mapping, source, target, column=2).unknown == 1


def test_undo_of_what_was_never_applied_is_refused(tmp_path: Path) -> None:
    source, mapped, back = tmp_path / "new.tsv", tmp_path / "mapped.tsv", tmp_path / "back.tsv"
    source.write_text("Ann\tpenned\tX\t0.9\nBob\twrote\tY\t0.8\n")
    with pytest.raises(ValueError, match=r"new\.tsv:1: the last cell is '0\.9', expected the column that --apply"):
        undo_map(MAP, source, back)
    apply_map(MAP, source, mapped)
    other = {"penned": "drafted", "wrote": "drafted", "drafted": "drafted"}
    with pytest.raises(ValueError, match=r"mapped\.tsv:1: the last cell is 'penned'"):
        undo_map(other, mapped, back, column=2)
    undo_map(MAP, mapped, back)
    with pytest.raises(ValueError, match=r"back\.tsv:1: the last cell"):
        undo_map(MAP, back, tmp_path / "twice.tsv")
    assert not (tmp_path / "twice.tsv").exists()


@pytest.mark.parametrize("text", ["R\tpenned\tp\n", "Ann\tpenned\tphrase\n", "relation\twrote\tX\nAnn\tpenned\tY\n"])
def test_one_cell_that_could_be_a_name_is_no_header(tmp_path: Path, text: str) -> None:
    source, mapped, back = tmp_path / "new.tsv", tmp_path / "mapped.tsv", tmp_path / "back.tsv"
    source.write_text(text)
    found = apply_map(MAP, source, mapped)
    assert (found.header, found.rewritten) == (0, 1)
    undo_map(MAP, mapped, back)
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("header", ["arg1\tverb\targ2", "Subject\tRelation Phrase\tObject", '"head"\t"rel"\t"tail"'])
def test_headers_are_those_of_the_readers_behind_a_byte_order_mark_too(tmp_path: Path, header: str) -> None:
    source, mapped, back = tmp_path / "new.tsv", tmp_path / "mapped.tsv", tmp_path / "back.tsv"
    source.write_bytes(b"\xef\xbb\xbf" + header.encode() + b"\nwrote\tpenned\tX\nwrote\tsang\twrote\n")
    found = apply_map(MAP, source, mapped)
    assert (found.header, found.rewritten, found.unknown) == (1, 1, 1)
    undo_map(MAP, mapped, back)
    assert back.read_bytes() == source.read_bytes()


def test_a_byte_order_mark_hides_no_phrase(tmp_path: Path) -> None:
    source, mapped = tmp_path / "new.tsv", tmp_path / "mapped.tsv"
    source.write_bytes(b"\xef\xbb\xbfpenned\tA\tB\n")
    assert apply_map(MAP, source, mapped).rewritten == 1
    assert mapped.read_bytes() == b"\xef\xbb\xbfwrote\tA\tB\tpenned\n"


def test_a_column_has_a_name_or_a_number(tmp_path: Path) -> None:
    source, mapped = tmp_path / "new.tsv", tmp_path / "mapped.tsv"
    source.write_text("who\tdoes\twhat\nwrote\tpenned\tX\n")
    for column in ("does", "2", 2):
        assert apply_map(MAP, source, mapped, column=column).rewritten == 1
        assert "wrote\twrote\tX\tpenned" in mapped.read_text()
        assert undo_map(MAP, mapped, tmp_path / "back.tsv", column=column) == 1
        assert (tmp_path / "back.tsv").read_bytes() == source.read_bytes()
    with pytest.raises(ValueError, match=r"no column 'done' in the first line \(who, does, what\)"):
        apply_map(MAP, source, mapped, column="done")
    with pytest.raises(ValueError, match="column is 0, expected 1 or more"):
        apply_map(MAP, source, mapped, column="0")


def test_a_map_that_a_spreadsheet_saved_is_the_map(tmp_path: Path) -> None:
    path = tmp_path / "map.tsv"
    path.write_bytes(b'\xef\xbb\xbf"phrase"\t"canonical"\r\n"said ""x"""\t"said"\r\n')
    assert read_map(path) == {'said "x"': "said"}
    path.write_text('phrase\tcanonical\n"said ""x"""\tsaid\n"said"\tsaid\n')
    assert read_map(path) == {'said "x"': "said", '"said"': "said"}
    path.write_text("phrase\tcanonical\na\tb\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"map\.tsv: UTF-16 text, expected UTF-8"):
        read_map(path)
    path.write_bytes(b"phrase\tcanonical\nb\xf6se\tb\n")
    with pytest.raises(ValueError, match=r"map\.tsv:2: not UTF-8"):
        read_map(path)


@pytest.mark.parametrize("row", ["penned", "penned\t", "\twrote"])
def test_a_row_without_a_canonical_phrase_is_refused(row: str, tmp_path: Path) -> None:
    path = tmp_path / "map.tsv"
    path.write_text(f"phrase\tcanonical\nwrote\twrote\n{row}\n")
    with pytest.raises(ValueError, match="row 3"):
        read_map(path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_phrase_that_ends_in_a_carriage_return_is_left_alone(end: bytes, tmp_path: Path) -> None:
    mapping = {"penned": "wrote", "wrote": "wrote"}
    source = tmp_path / "source.tsv"
    source.write_bytes(end.join([b"a\tpenned\r\tb", b"a\tpenned\tb", b"c\twrote\td\r", b""]))
    found = apply_map(mapping, source, tmp_path / "mapped.tsv", column=2)
    assert (found.rewritten, found.unknown, found.kept) == (1, 1, 1)
    undo_map(mapping, tmp_path / "mapped.tsv", tmp_path / "back.tsv", column=2)
    assert (tmp_path / "back.tsv").read_bytes() == source.read_bytes()
