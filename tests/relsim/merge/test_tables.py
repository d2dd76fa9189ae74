from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from relsim import Facts, redundancy
from relsim.merge.apply import read_map
from relsim.merge.result import COLUMNS
from relsim.merge.tables import PairTable, cell, plain, write_tsv

NASTY = (
    "=HYPERLINK(1)",
    "'=x",
    "''=x",
    "' @x",
    "+1",
    "-1",
    "@x",
    " =x",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "back\\slash",
    'quo"te',
    "plain",
)


def test_saved_cells_neither_run_nor_break_a_row(tmp_path: Path) -> None:
    facts = Facts.from_triples([(f"h{i}", phrase, f"t{i}") for phrase in NASTY for i in range(3)])
    paths = redundancy(facts).save(tmp_path / "out")
    assert [path.name for path in paths] == ["pairs.tsv", "clusters.tsv", "merges.tsv", "canonical_map.tsv"]
    for path in paths:
        text = path.read_bytes().decode()
        assert "\r" not in text
        rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
        assert {len(row) for row in rows} == {len(rows[0])}
        for value in itertools.chain(*rows):
            number = value.replace(".", "").replace("e", "").replace("-", "").isdigit()
            assert number or not value.lstrip().startswith(("=", "+", "-", "@")), value
    with paths[0].open(encoding="utf-8", newline="") as stream:
        table = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert tuple(table[0][: len(COLUMNS)]) == COLUMNS
    assert len(table) - 1 == len(NASTY) * (len(NASTY) - 1) // 2


def test_escapes_can_be_undone() -> None:
    for text in NASTY:
        shown = cell(text)
        assert "\t" not in shown
        assert "\n" not in shown
        unquoted = shown.removeprefix("'") if text.lstrip("'").lstrip()[0] in "=+-@" else shown
        assert json.loads('"' + unquoted.replace('"', '\\"') + '"') == text
        assert plain(shown) == text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    write_tsv(path, ["a"], [["1"]])

    def rows() -> object:
        yield ["2"]
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_tsv(path, ["a"], rows())  # type: ignore[arg-type]
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_pair_table() -> None:
    table = PairTable({"a": np.array([1, 2]), "b": np.array(["x", "y"])})
    assert list(table) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert table.rows(1) == [{"a": 1, "b": "x"}]
    assert table.take(table["a"] == 2).to_dict() == {"a": [2], "b": ["y"]}
    with pytest.raises(ValueError, match="unequal lengths"):
        PairTable({"a": np.array([1]), "b": np.array(["x", "y"])})


@pytest.mark.parametrize("phrase", ['"x, y"', '"', '""', '"a" and "b"', '"say ""it"""', '\\"x"', '"=1"', "'\"x\"'"])
def test_phrases_in_quotes_come_back_from_our_own_tables(phrase: str, tmp_path: Path) -> None:
    assert plain(cell(phrase)) == phrase
    write_tsv(tmp_path / "t.tsv", ["phrase", "canonical"], [[phrase, "has\ttab"], ["plain", phrase]])
    assert read_map(tmp_path / "t.tsv") == {phrase: "has\ttab", "plain": phrase}
