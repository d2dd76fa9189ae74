"""Bracketed text: a sentence, then lines "0.71: (arg1; relation; arg2)". OLLIE, OpenIE 4 and 5 simple, OpenIE 6."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample

__all__ = ["OLLIE", "OPENIE6"]

_ADDED = re.compile(r"\[([^\[\]]*)\]")
_EXTRACTION = re.compile(
    r"\s*(?P<confidence>-?\d*\.?\d+(?:[eE][-+]?\d+)?):?\s+(?:(?P<context>[^\t]*?):)?\((?P<parts>.*)\)\s*"
    r"(?P<extra>(?:\[[^\]]*\]\s*)*)$"
)
# A whole number needs its colon: sentences begin with numbers too.
_BEGINS = re.compile(r"\s*-?(?:\d*\.\d+(?:[eE][-+]?\d+)?:?|\d+:)\s+\(")
_OLLIE = re.compile(r"\)\[(?:enabler|attrib)=|^No extractions found")
_KIND = {"T:": "time", "L:": "place"}


def _sniff(ollie: bool) -> Callable[[Sample], str | None]:
    def sniff(sample: Sample) -> str | None:
        found = sample.mostly(lambda line: bool(_BEGINS.match(line) and _EXTRACTION.match(line)), 0.15)
        marks = sample.count(lambda line: bool(_OLLIE.search(line)))
        if found is None or bool(marks) != ollie:
            return None
        more = f", {marks} with marks of OLLIE" if ollie else ""
        return f"a number and (a; relation; b) in {found}{more}"

    return sniff


def _argument(text: str) -> Argument:
    text = text.strip().removeprefix("[").removesuffix("]").strip()
    for mark, kind in _KIND.items():
        if text.startswith(mark):
            return Argument(text[len(mark) :].strip(), kind=kind)
    return Argument(text)


def read_brackets(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of bracketed lines; all other lines are sentences. Enablers, attributions and contexts are not kept."""
    for number, line in lines:
        found = _EXTRACTION.match(line)
        if not found:
            if _BEGINS.match(line):
                yield Aside(number, "bad", "the bracket does not end on its line", line)
            else:
                yield Aside(number, "aside", "a sentence or note")
            continue
        parts = found["parts"].split(";")
        if len(parts) < 2:
            yield Aside(number, "bad", f"{len(parts)} part in brackets, expected (arg1; relation; arg2)", line)
            continue
        relation = parts[1].strip()
        if relation.startswith("["):  # words that are not in the sentence: [is] president [of]
            relation = _ADDED.sub(r"\1", relation)
        tails = [argument for part in parts[2:] if (argument := _argument(part)).text]
        yield Extraction(number, parts[0], relation, tails, float(found["confidence"]))


OLLIE = Reader(
    "sentence lines and 0.71: (a; rel; b)[attrib=...], as OLLIE prints them", _sniff(True), rows=read_brackets
)
OPENIE6 = Reader(
    "sentence lines and 0.93: (a; rel; b), as OpenIE 6 and the simple format of OpenIE 4 and 5",
    _sniff(False),
    rows=read_brackets,
)
