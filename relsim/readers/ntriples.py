"""N-Triples and N-Quads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from relsim.readers.base import Argument, Aside, Extraction, Item, Lines, Reader, Sample

__all__ = ["READER"]

_TERM = r"<([^<>\s]*)>|(_:\S+)"
_LITERAL = r'"((?:[^"\\]|\\.)*)"(?:@([A-Za-z0-9-]+)|\^\^<[^<>\s]*>)?'
_LINE = re.compile(rf"\s*(?:{_TERM})\s*<([^<>\s]*)>\s*(?:{_TERM}|{_LITERAL})\s*(?:(?:{_TERM})\s*)?\.\s*(?:#.*)?$")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_PLAIN = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}


def _sniff(sample: Sample) -> str | None:
    found = sample.mostly(lambda line: bool(_LINE.match(line)))
    return f"<subject> <predicate> object . in {found}" if found else None


def _plain(text: str) -> str:
    """Text without its escapes; an escape of no character stays as it is written."""

    def character(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        if code is None:
            return _PLAIN.get(found[3], found[3])
        value = int(code, 16)
        return chr(value) if value < 0x110000 and not 0xD800 <= value < 0xE000 else found[0]

    return _ESCAPE.sub(character, text) if "\\" in text else text


def _read(lines: Lines, path: Path) -> Iterator[Item]:
    """Items of triples. IRIs are names as they stand, a literal is its text (with @language); graphs are not kept."""
    for number, line in lines:
        if line.lstrip().startswith("#"):
            yield Aside(number, "aside", "a comment")
            continue
        found = _LINE.match(line)
        if found is None:
            yield Aside(number, "bad", "expected <subject> <predicate> object .", line)
            continue
        literal = found[6]
        tail = found[4] or found[5] if literal is None else literal + (f"@{found[7]}" if found[7] else "")
        yield Extraction(number, _plain(found[1] or found[2]), _plain(found[3]), [Argument(_plain(tail))])


READER = Reader("<s> <p> <o> . of RDF", _sniff, rows=_read, level="names", confidence=False)
