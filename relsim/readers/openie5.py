"""OpenIE 4 and 5, column format: confidence, context, SimpleArgument(...), Relation(...), further arguments, sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample, is_number

__all__ = ["OPENIE4", "OPENIE5"]

_PART = re.compile(r"(\w+)\((.*),List\((?:null|[^()]*(?:\[[^\]]*\)[^()]*)*)\)\)$")
_NEXT = re.compile(r"; (?=(?:Simple|Temporal|Spatial)Argument\()")
_KIND = {"TemporalArgument": "time", "SpatialArgument": "place"}


def _row(line: str) -> bool:
    cells = line.split("\t")
    return len(cells) >= 5 and is_number(cells[0]) and cells[3].startswith("Relation(")


def _sniff(five: bool) -> Callable[[Sample], str | None]:
    def sniff(sample: Sample) -> str | None:
        found = sample.mostly(_row)
        marks = sample.count(lambda line: bool(_NEXT.search(line)) or "List(null)" in line)
        if found is None or bool(marks) != five:
            return None
        return f"SimpleArgument(...) TAB Relation(...) in {found}{f', {marks} only OpenIE 5 writes' if five else ''}"

    return sniff


def _part(cell: str) -> tuple[str, str] | None:
    found = _PART.match(cell.strip())
    return (found[1], found[2]) if found else None


def read_columns(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of the column format. The context ("some people say") is not kept."""
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) < 5:
            yield Aside(number, "bad", f"{len(cells)} columns, expected 6", line)
            continue
        head, relation = _part(cells[2]), _part(cells[3])
        # The last column is the sentence; every column between holds arguments, several joined by "; ".
        found = [
            _part(part) for cell in cells[4 : max(5, len(cells) - 1)] if cell.strip() for part in _NEXT.split(cell)
        ]
        tails = [Argument(part[1], kind=_KIND.get(part[0], "")) for part in found if part is not None]
        if head is None or relation is None or len(tails) < len(found):
            what = "first argument" if head is None else "relation" if relation is None else "argument"
            yield Aside(number, "bad", f"the {what} is not written as Name(text,List(...))", line)
        elif not is_number(cells[0]):
            yield Aside(number, "bad", "confidence is not a number", line)
        else:
            yield Extraction(number, head[1], relation[1], tails, float(cells[0]))


OPENIE4 = Reader(
    "6 TAB columns: confidence, context, SimpleArgument(...), Relation(...), argument, sentence",
    _sniff(False),
    rows=read_columns,
)
OPENIE5 = Reader("the 6 TAB columns of OpenIE 4, with any number of arguments", _sniff(True), rows=read_columns)
