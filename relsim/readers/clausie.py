"""ClausIE, and the extractions of other systems in its layout: a sentence, then number, quoted parts, score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample, is_number

__all__ = ["READER"]

_ROW = re.compile(r'\w+\t"[^\t]*"\t"')


def _sniff(sample: Sample) -> str | None:
    found = sample.mostly(lambda line: bool(_ROW.match(line)), 0.3)
    return f'number TAB "arg1" TAB "relation" in {found}' if found else None


def _read(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of quoted rows. The last column is the score, or in labelled files the label, read as confidence."""
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) == 1:
            yield Aside(number, "aside", "a sentence or note")
            continue
        quoted = [cell.strip() for cell in cells[1:]]
        score = quoted.pop() if not quoted[-1].endswith('"') else None
        if not quoted or not all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in quoted):
            yield Aside(number, "bad", 'expected number, "arg1", "relation", "arg2", score', line)
        elif score is not None and not is_number(score):
            yield Aside(number, "bad", "score is not a number", line)
        else:
            head, relation, *rest = (cell[1:-1] for cell in [*quoted, '""'][: max(2, len(quoted))])
            confidence = None if score is None else float(score)
            yield Extraction(number, head, relation, [Argument(text) for text in rest], confidence)


READER = Reader('sentence lines and rows: number, "arg1", "relation", "arg2", score', _sniff, rows=_read)
