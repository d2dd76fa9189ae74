"""Benchmark layouts, one tuple a line with its sentence: OIE2016, CaRB and LSOIE gold, and scored system output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample, is_number

__all__ = ["CARB", "OIE2016", "TABBED"]


def _in_sentence(words: str, sentence: str) -> bool:
    """Whether a part comes from the sentence: at least one of its words stands there, and the sentence is longer."""
    parts, whole = set(words.lower().split()), sentence.lower().split()
    return bool(parts) and len(whole) > 3 and len(whole) > len(words.split()) and bool(parts & set(whole))


def _gold(line: str, skip: int) -> bool:
    """Whether a line reads sentence, ``skip`` columns of another kind, predicate, argument."""
    cells = line.split("\t")
    if len(cells) < 3 + skip:
        return False
    sentence, predicate, argument = cells[0], cells[1 + skip], cells[2 + skip]
    return _in_sentence(predicate, sentence) and _in_sentence(argument, sentence)


def _headed(line: str) -> bool:
    """Whether columns 2 and 3 are a predicate's head word and the predicate."""
    cells = line.split("\t")
    return len(cells) > 3 and len(cells[1].split()) == 1 and cells[1].lower() in cells[2].lower().split()


def _second(line: str) -> str:
    return (line.split("\t", 2)[1:] or [""])[0]


def _sniff_carb(sample: Sample) -> str | None:
    if sample.mostly(_headed):
        return None
    found = sample.mostly(lambda line: not is_number(_second(line)) and _gold(line, 0), 0.6)
    return f"sentence, predicate, arguments, the words of the sentence, in {found}" if found else None


def _sniff_oie2016(sample: Sample) -> str | None:
    found = sample.mostly(lambda line: _headed(line) and _gold(line, 1))
    return f"sentence, head of the predicate, predicate, arguments in {found}" if found else None


def _sniff_tabbed(sample: Sample) -> str | None:
    found = sample.mostly(lambda line: is_number(_second(line)) and _gold(line, 1))
    return f"sentence, score, predicate, arguments in {found}" if found else None


def _reader(place: int, score: int | None) -> Callable[[Lines, Path], Iterator[Item]]:
    """Rows whose predicate is the cell at ``place``, followed by the arguments."""

    def rows(lines: Lines, path: Path) -> Iterator[Item]:
        for number, line in lines:
            cells = line.split("\t")
            if len(cells) <= place:
                yield Aside(number, "bad", f"{len(cells)} columns, expected {place + 3} or more", line)
            elif score is not None and not is_number(cells[score]):
                yield Aside(number, "bad", "score is not a number", line)
            elif len(cells) == place + 1:
                yield Aside(number, "left", "no argument")
            else:
                confidence = None if score is None else float(cells[score])
                tails = [Argument(text) for text in cells[place + 2 :] if text.strip()]
                yield Extraction(number, cells[place + 1], cells[place], tails, confidence)

    return rows


CARB = Reader(
    "sentence, predicate, arg1, arg2, ...: gold of CaRB and LSOIE", _sniff_carb, rows=_reader(1, None), confidence=False
)
OIE2016 = Reader(
    "sentence, head of the predicate, predicate, arg1, ...: gold of OIE2016",
    _sniff_oie2016,
    rows=_reader(2, None),
    confidence=False,
)
TABBED = Reader(
    "sentence, score, predicate, arg1, arg2, ...: RnnOIE and other scored outputs", _sniff_tabbed, rows=_reader(2, 1)
)
