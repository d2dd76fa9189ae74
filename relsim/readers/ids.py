"""Files that begin with the number of their rows: OpenKE ids, and CUVA's triples of phrases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from relsim.ingest.report import IngestError
from relsim.ingest.textfiles import numbered_lines
from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample, is_integer, is_number

__all__ = ["CUVA", "OPENKE"]

_NAMES = {"entity": ("entity2id", "ent2id"), "relation": ("relation2id", "rel2id")}


def _counted(sample: Sample) -> list[list[str]] | None:
    """Cells of the rows below a first line that is a number alone."""
    if len(sample.lines) < 2 or not is_integer(sample.lines[0]):
        return None
    return [line.split("\t") for line in sample.lines[1:]]


def _sniff_openke(sample: Sample) -> str | None:
    rows = [line.split() for line in sample.lines[1:]]
    if _counted(sample) is None or not all(len(row) == 3 and all(map(is_integer, row)) for row in rows):
        return None
    return f"a number alone on the first line, then three ids, in {len(rows)} of {len(rows)} sampled lines"


def _sniff_cuva(sample: Sample) -> str | None:
    rows = _counted(sample)
    good = sum(len(row) == 3 and not is_number(row[2]) for row in rows or [])
    if rows is None or good <= 0.6 * len(rows):
        return None
    return f"a number alone on the first line, then three phrases, in {good} of {len(rows)} sampled lines"


def _names(path: Path, kind: str) -> dict[str, str]:
    """Id -> name, from the table beside a file of triples."""
    wanted = [f"{stem}.txt{end}" for stem in _NAMES[kind] for end in ("", ".gz")]
    table = next((path.parent / name for name in wanted if (path.parent / name).exists()), None)
    if table is None:
        raise IngestError(f"{path}: holds ids, and {path.parent} has no {wanted[0]} with their names; put it there")
    names: dict[str, str] = {}
    for number, line in numbered_lines(table):
        name, _, number_text = line.rpartition("\t") if "\t" in line else line.rpartition(" ")
        if is_integer(number_text) and name.strip():
            names[number_text.strip()] = name.strip()
        elif number > 1:
            raise IngestError(f"{table}:{number}: expected name TAB id, not {line[:60]!r}")
    return names


def _counted_rows(lines: Lines, path: Path) -> Iterator[tuple[int, str | Aside]]:
    """Rows below the first line, and a note at the end if their number is not the one given there."""
    expected, rows = 0, 0
    for number, line in lines:
        if not expected and not rows and is_integer(line):
            expected = int(line)
            yield number, Aside(number, "aside", "the number of rows")
        else:
            rows += 1
            yield number, line
    if rows != expected:
        yield 0, Aside(0, "note", f"{path}: the first line says {expected:,} rows, {rows:,} follow")


def _openke(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of id triples in OpenKE's order: head, tail, relation."""
    entities, relations = _names(path, "entity"), _names(path, "relation")
    for number, row in _counted_rows(lines, path):
        if isinstance(row, Aside):
            yield row
            continue
        cells = re.split(r"\s+", row.strip())
        if len(cells) != 3:
            yield Aside(number, "bad", f"{len(cells)} ids, expected head, tail, relation", row)
            continue
        head, tail, relation = entities.get(cells[0]), entities.get(cells[1]), relations.get(cells[2])
        if head is None or tail is None or relation is None:
            what = "relation" if relation is None else "entity"
            yield Aside(number, "bad", f"an {what} id without a name".replace("an r", "a r"), row)
        else:
            yield Extraction(number, head, relation, [Argument(tail)])


def _cuva(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of phrase triples: subject, relation, object."""
    for number, row in _counted_rows(lines, path):
        if isinstance(row, Aside):
            yield row
            continue
        cells = row.split("\t")
        if len(cells) != 3:
            yield Aside(number, "bad", f"{len(cells)} columns, expected 3", row)
        else:
            yield Extraction(number, cells[0], cells[1], [Argument(cells[2])])


OPENKE = Reader(
    "a count, then head tail relation as ids, names in entity2id.txt and relation2id.txt beside it",
    _sniff_openke,
    rows=_openke,
    level="names",
    confidence=False,
)
CUVA = Reader("a count, then subject, relation, object", _sniff_cuva, rows=_cuva, level="lemma", confidence=False)
