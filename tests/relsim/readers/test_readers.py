"""Golden files: a tiny file in every native format, and the facts, counts and reasons that must come out of it."""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from relsim.facts import Facts
from relsim.ingest.report import IngestError, IngestReport
from relsim.openie import read_openie
from relsim.readers import READERS

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Golden(NamedTuple):
    """What must come out of a file: facts with counts, and lines by kind (used, bad, left out, aside)."""

    file: str
    facts: dict[tuple[str, str, str], float]
    counts: tuple[int, int, int, int]
    reasons: tuple[str, ...] = ()


GOLDEN = {
    "reverb": Golden(
        "reverb.tsv",
        {
            ("Curie", "has been awarded", "prize"): 2,
            ("Curie", "was not awarded", "the medal"): 1,
            ("The US", "owns", "12 % of it"): 1,
        },
        (4, 1, 0, 0),
        ("3 columns, expected 18",),
    ),
    "ollie": Golden(
        "ollie.txt",
        {
            ("the tower", "was not built by", "Eiffel"): 1,
            ("Eiffel", "be builder of", "the tower"): 1,
            ("Rossi", "scored in", "1982 (twice)"): 1,
        },
        (3, 1, 0, 4),
        ("the bracket does not end on its line",),
    ),
    "openie4": Golden(
        "openie4.txt",
        {
            ("Ada Lovelace", "wrote", "the first program"): 1,
            ("she", "[is] pioneer [of]", "computing (early)"): 1,
        },
        (2, 1, 1, 0),
        ("the first argument is not written as Name(text,List(...))",),
    ),
    "openie5": Golden(
        "openie5.txt", {("Bradley", "joined", "the railway"): 1, ("They", "met", "Ann; and Bob"): 1}, (2, 0, 0, 0)
    ),
    "openie6": Golden(
        "openie6.txt",
        {
            ("Bell", "makes", "computers"): 1,
            ("Bell", "sells", "computers"): 1,
            ("Bell", "is based", "in Los Angeles"): 1,
            ("Ann", "gave", "Bob"): 1,
        },
        (4, 0, 1, 3),
    ),
    "corenlp": Golden(
        "corenlp.tsv",
        {
            ("Obama", "was born in", "Hawaii"): 1,
            ("Obama", "is", "president"): 1,
            ("He", "is not born in", "Kenya"): 1,
        },
        (3, 1, 0, 0),
        ("1 columns, expected 4",),
    ),
    "clausie": Golden(
        "clausie.txt",
        {("she", "had", 'a "sense"'): 1, ("it", "fell", "hard"): 1},
        (2, 1, 1, 2),
        ('expected number, "arg1", "relation", "arg2", score',),
    ),
    "props": Golden(
        "props.txt",
        {("he", "expressed", "concern for it"): 1, ("The body", "be made of", "carbon fiber"): 1},
        (2, 1, 2, 0),
        ("a label without its argument",),
    ),
    "opiec": Golden(
        "opiec.avro",
        {
            ("Albert Einstein", "was born in", "Ulm"): 1,
            ("Albert Einstein", "not was born in", "Bern"): 1,
            ("Albert Einstein", "had", "two sons"): 1,
        },
        (3, 1, 0, 0),
        ("no subject, relation and object of tokens",),
    ),
    "cesi": Golden(
        "cesi.jsonl",
        {("Van Gogh", "be a painter from", "The Netherlands"): 2, ("Van Gogh", "found", "a school"): 1},
        (3, 1, 0, 0),
        ("no triple of three texts",),
    ),
    "combo": Golden(
        "combo.json",
        {("clara schumann", "played", "piano"): 1, ("yo-yo ma", "played", "the cello"): 1},
        (2, 1, 0, 0),
        ("no h, r and t with words as name",),
    ),
    "json": Golden(
        "triples.jsonl",
        {("Ann", "is born in", "Oslo"): 2},
        (2, 2, 0, 0),
        ("no text for head, relation and tail", "confidence is not a number"),
    ),
    "cuva": Golden(
        "cuva/triples.txt",
        {("guardian", "be weak to", "lightning"): 2, ("bolt", "found", "club"): 1},
        (3, 1, 0, 1),
        ("2 columns, expected 3",),
    ),
    "carb": Golden(
        "carb.tsv",
        {
            ("The board of the bank", "did not approve", "the plan"): 1,
            ("Mary", "is", "an engineer"): 1,
            ("Mary", "has designed", "the bridge"): 1,
        },
        (3, 0, 1, 0),
    ),
    "oie2016": Golden(
        "oie2016.oie",
        {("The board", "might approve", "the plan"): 1, ("Mary", "has designed", "the bridge"): 1},
        (2, 0, 1, 0),
    ),
    "tabbed": Golden(
        "tabbed.txt",
        {("The board", "approve", "the plan"): 1, ("Mary", "designed", "the bridge"): 1},
        (2, 1, 0, 0),
        ("score is not a number",),
    ),
    "openke": Golden(
        "openke/train2id.txt",
        {("Q42", "P19_0", "Q1"): 1, ("Q1", "P19_1", "q42"): 1, ("q42", "P19_0", "Q42"): 1},
        (3, 1, 0, 1),
        ("an entity id without a name",),
    ),
    "ntriples": Golden(
        "ntriples.nt",
        {
            ("http://ex.org/Bohr", "http://ex.org/bornIn", "http://ex.org/K%C3%B8benhavn"): 1,
            ("http://ex.org/Bohr", "http://ex.org/name", 'Niels "Bohr" Ø x@da'): 1,
            ("_:b1", "http://ex.org/year", "1885"): 1,
            ("http://ex.org/Bohr", "http://ex.org/bornIn", "_:b1"): 1,
        },
        (4, 1, 0, 1),
        ("expected <subject> <predicate> object .",),
    ),
    "tsv": Golden("table.tsv", {("A", "ran to", "B"): 4}, (2, 0, 0, 0)),
    "csv": Golden(
        "table.csv",
        {("Smith, J.", 'said "no" to', "the deal"): 1, ("Ann", "agreed with", "Smith, J."): 1},
        (2, 0, 0, 0),
    ),
}
NAMES = sorted(GOLDEN)


def named(facts: Facts) -> dict[tuple[str, str, str], float]:
    rows = zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), facts.count.tolist(), strict=True)
    return {(facts.entities[h], facts.relations[r], facts.entities[t]): n for h, r, t, n in rows}


def read(path: Path, **options: object) -> tuple[dict[tuple[str, str, str], float], IngestReport]:
    facts = read_openie(path, **({"min_support": 1} | options))  # type: ignore[arg-type]
    report = facts.ingest
    assert report is not None
    spent = (report.blank, report.header, report.aside, report.bad, report.left_out, report.below_confidence)
    assert report.lines == sum(spent) + report.used
    return named(facts), report


def need(name: str) -> None:
    if name == "opiec":
        pytest.importorskip("fastavro")


def test_every_reader_has_a_golden_file() -> None:
    assert set(GOLDEN) | {"parquet"} == set(READERS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compress", [False, True])
def test_golden_file(name: str, compress: bool, tmp_path: Path) -> None:
    need(name)
    golden = GOLDEN[name]
    path = FIXTURES / golden.file
    if compress:
        shutil.copytree(path.parent, tmp_path / "in")
        path = tmp_path / "in" / f"{Path(golden.file).name}.gz"
        path.write_bytes(gzip.compress((FIXTURES / golden.file).read_bytes()))
    facts, report = read(path)
    assert facts == golden.facts
    assert (report.used, report.bad, report.left_out, report.aside) == golden.counts
    assert tuple(report.bad_reasons) == golden.reasons
    assert report.formats[str(path)].startswith(f"{name} (")
    assert report.detected[str(path)]
    forced, again = read(path, format=name)
    assert (forced, dict(again.detected)) == (facts, {})


@pytest.mark.parametrize("name", NAMES)
def test_bad_lines_are_named_with_their_place(name: str) -> None:
    need(name)
    path = FIXTURES / GOLDEN[name].file
    _, report = read(path)
    assert [bad.file for bad in report.bad_examples] == [str(path)] * len(report.bad_examples)
    assert len(report.bad_examples) == report.bad
    if report.bad and name not in ("opiec", "combo"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for bad in report.bad_examples:
            assert bad.text == lines[bad.line - 1][:100]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_is_refused_whatever_the_format(name: str, tmp_path: Path) -> None:
    need(name)
    path = tmp_path / "in.txt"
    for content, what in ((b"", "empty"), (b"\n \n", "."), (b"\x00\x01\x02" * 50, ".")):
        path.write_bytes(content)
        with pytest.raises(IngestError, match=what):
            read(path, format=name)


def test_further_arguments_by_policy() -> None:
    path = FIXTURES / "openie5.txt"
    _, first = read(path)
    assert (first.further_arguments, first.extractions, first.nary) == (4, 2, "first")
    facts, each = read(path, nary="each")
    assert facts == {
        ("Bradley", "joined", "the railway"): 1,
        ("Bradley", "joined as", "a clerk"): 1,
        ("Bradley", "joined in", "1941"): 1,
        ("Bradley", "joined @time", "Earlier this year"): 1,
        ("They", "met", "Ann; and Bob"): 1,
        ("They", "met @place", "there"): 1,
    }
    assert (each.used, each.extractions, each.further_arguments) == (2, 6, 0)
    mixed, binary = read(FIXTURES / "openie6.txt", nary="binary")
    assert ("Ann", "gave", "Bob") not in mixed
    assert dict(binary.left_out_reasons) == {"more than two arguments": 1, "no second argument": 1}
    with pytest.raises(IngestError, match="2 left out"):
        read(path, nary="binary")
    with pytest.raises(ValueError, match="nary is 'all', expected 'first', 'each', 'binary'"):
        read(path, nary="all")


def test_a_preposition_moves_into_the_relation_only_when_each_argument_counts() -> None:
    path = FIXTURES / "openie6.txt"
    assert ("Bell", "is based", "in Los Angeles") in read(path)[0]
    facts, _ = read(path, nary="each")
    assert ("Bell", "is based in", "Los Angeles") in facts
    assert ("Ann", "gave on", "Monday") in facts
    assert ("Ann", "gave @3", "a book") in facts


def test_polarity_is_part_of_the_relation() -> None:
    pytest.importorskip("fastavro")
    for name, negative in (("opiec", "not was born in"), ("reverb", "was not awarded"), ("corenlp", "is not born in")):
        facts, report = read(FIXTURES / GOLDEN[name].file)
        assert negative in {relation for _, relation, _ in facts}
        assert report.negated == 1
    # ReVerb's own normalised columns drop "not" and the passive; the first is put back.
    own, _ = read(FIXTURES / "reverb.tsv", normalise="extractor")
    assert own[("curie", "not award", "medal")] == 1
    assert own[("curie", "award", "prize")] == 2
    assert ("us", "own", "# % of it") in own


def test_types_of_arguments_are_kept() -> None:
    facts = read_openie(FIXTURES / "combo.json", min_support=1)
    assert facts.types is not None and facts.head_type is not None and facts.tail_type is not None
    assert [facts.types[i] for i in facts.head_type] == ["Q5", ""]
    assert [facts.types[i] for i in facts.tail_type] == ["Q34379", "Q34379"]
    assert read_openie(FIXTURES / "reverb.tsv", min_support=1).head_type is None


def test_confidence_where_a_format_has_one() -> None:
    facts, report = read(FIXTURES / "openie6.txt", min_confidence=0.98)
    assert set(facts) == {("Bell", "makes", "computers"), ("Bell", "is based", "in Los Angeles")}
    assert report.below_confidence == 2
    with pytest.raises(IngestError, match="has no confidence"):
        read(FIXTURES / "carb.tsv", min_confidence=0.5)


def test_columns_are_refused_where_they_are_fixed() -> None:
    for name in ("reverb", "cesi", "corenlp", "ollie"):
        with pytest.raises(IngestError, match=rf"fields of {name} are fixed"):
            read(FIXTURES / GOLDEN[name].file, columns=("head", "relation", "tail"))


def test_a_row_count_that_does_not_hold_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "triples.txt"
    path.write_text("9\nguardian\tbe weak to\tlightning\nbolt\tmeet with\tclub\n")
    _, report = read(path)
    assert report.notes == (f"{path}: the first line says 9 rows, 2 follow",)
    assert report.notes[0] in str(report)
    assert report.used == 2


def test_tables_of_names_beside_the_triples(tmp_path: Path) -> None:
    for folder in ("openke", "cuva"):
        _, report = read(FIXTURES / folder)
        assert len(report.files) == 1
        assert {why for _, why in report.skipped} == {"names, vectors or gold beside the extractions"}
    shutil.copy(FIXTURES / "openke/train2id.txt", tmp_path)
    with pytest.raises(IngestError, match=r"no entity2id\.txt with their names"):
        read(tmp_path / "train2id.txt")
    (tmp_path / "entity2id.txt").write_text("1\nQ1\tx\nQ2 no number\n")
    with pytest.raises(IngestError, match=r"entity2id\.txt:2: expected name TAB id"):
        read(tmp_path / "train2id.txt")


def test_emnlp_2011_columns() -> None:
    facts, report = read(FIXTURES / "emnlp2011.txt", min_confidence=0.4)
    assert facts == {
        ("The nation", "were required to tell", "the government"): 1,
        ("The yield", "was unchanged at", "5.95 percent"): 1,
    }
    assert report.below_confidence == 1


def test_avro_without_its_library_or_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (FIXTURES / "opiec.avro").read_bytes()
    path = tmp_path / "cut.avro"
    path.write_bytes(data[: len(data) - 40])
    pytest.importorskip("fastavro")
    with pytest.raises(IngestError, match="damaged or cut short after record"):
        read(path)
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(IngestError, match=r"pip install 'hyrel\[openie\]'"):
        read(FIXTURES / "opiec.avro")


REAL = {
    "carb/system_outputs/test/reverb_output.txt.gz": ("reverb", 4176, 0),
    "carb/system_outputs/test/openie4_output.txt.gz": ("openie4", 9236, 0),
    "carb/system_outputs/dev/openie5_output.txt.gz": ("openie5", 1659, 0),
    "carb/system_outputs/test/clausie_output.txt.gz": ("clausie", 13951, 0),
    "carb/system_outputs/test/props_output.txt.gz": ("props", 7842, 0),
    "carb/gold/dev.tsv": ("carb", 2548, 0),
    "carb/gold/test.tsv": ("carb", 2715, 14),
    "carb/expert_annotations/expert_gold.tsv": ("carb", 172, 0),
    "clausie-www13/reverb/extractions-clausie.txt": ("clausie", 2975, 0),
    "reverb-emnlp2011/extractions/reverb.txt": ("tsv", 727, 0),
    "reverb-emnlp2011/labels.txt": ("tsv", 2474, 0),
    "oie2016/dev.oie.gz": ("oie2016", 1673, 0),
    "lsoie/eval.oie.gz": ("carb", 5374, 0),
    "lsoie/systems_output/rnnoie_new_conf.txt.gz": ("tabbed", 8959, 0),
    "combo/revised.val.json.gz": ("combo", 3465, 0),
    "cuva/nell165_canonicalize/test/triples.txt.gz": ("cuva", 16048, 0),
}


@pytest.mark.parametrize("file", REAL)
def test_real_files_are_recognised_and_read_whole(file: str, data_dir: Path) -> None:
    name, extractions, bad = REAL[file]
    _, report = read(data_dir / "openie" / file)
    assert next(iter(report.formats.values())).startswith(f"{name} (")
    assert (report.used + report.left_out + report.bad, report.bad) == (extractions, bad)
    assert report.notes == ()


def test_real_ids(data_dir: Path) -> None:
    _, report = read(data_dir / "kg/wikidata-split")
    assert (report.used, report.bad, report.notes) == (6065 + 6330, 0, ())
