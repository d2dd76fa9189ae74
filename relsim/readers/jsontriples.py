"""JSON of triples: objects with named parts, lists of three, and the documents of Stanford CoreNLP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from relsim.ingest.report import IngestError
from relsim.ingest.textfiles import numbered_lines, peek, text_chunks
from relsim.readers.base import Argument, Aside, Extraction, Item, Reader, Sample
from relsim.readers.columns import role
from relsim.readers.json import COMBO, objects

__all__ = ["READER"]

_PARTS = ("head", "relation", "tail")
_NUMBERS = ("confidence", "count")
_LOOKED_AT = 1000


def _roles(value: dict[str, Any]) -> dict[str, Any]:
    """Values by role; the first of several names for one role."""
    return {key: value[name] for name in reversed(value) if (key := role(name)) is not None}


def _sniff(sample: Sample) -> str | None:
    start = sample.start.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    if not start.startswith(("{", "[")) or COMBO.sniff(sample):
        return None
    if '"sentences"' in start and '"openie"' in start:
        return "a JSON document with sentences and their openie, as of CoreNLP"
    listed = start.startswith("[") and not _is_triple_line(sample.lines[0])
    try:
        first, _ = json.JSONDecoder().raw_decode(start[1:].lstrip() if listed else start)
    except ValueError:
        return None
    if not _is_triple(first):
        return None
    return f"a JSON {'list' if listed else 'value a line'} of triples, the first {json.dumps(first, ensure_ascii=False)[:60]}"


def _is_triple(value: Any) -> bool:
    if isinstance(value, dict):
        return set(_PARTS) <= _roles(value).keys()
    return isinstance(value, list) and len(value) == 3 and all(isinstance(cell, str) for cell in value)


def _is_triple_line(line: str) -> bool:
    """Whether a line is a whole triple, and so not the beginning of a list of them."""
    try:
        return _is_triple(json.loads(line))
    except ValueError:
        return False


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of what a file holds: a value a line, the elements of a list, or one document."""
    _, lines = peek(path)
    first = lines[0].lstrip("\ufeff \t") if lines else ""
    whole = len(lines) > 1 and not _parses(first)
    if first.startswith("[") and not _is_triple_line(first):
        yield from objects(path)
    elif whole:
        try:
            yield 1, json.loads("".join(text_chunks(path)))
        except ValueError as error:
            raise IngestError(f"{path}: neither a JSON value a line nor one JSON document ({error})") from None
    else:
        for number, line in numbered_lines(path):
            try:
                yield number, json.loads(line)
            except ValueError:
                yield number, line


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _triples(path: Path) -> Iterator[tuple[int, Any]]:
    """Number of each triple and its value; those of a document with sentences one by one."""
    number = 0
    for _, value in _values(path):
        document = isinstance(value, dict) and "sentences" in value
        for triple in _openie(path, value["sentences"]) if document else [value]:
            number += 1
            yield number, triple


def _openie(path: Path, sentences: Any) -> list[Any]:
    """Triples of a document of CoreNLP."""
    parts = sentences if isinstance(sentences, list) else [sentences]
    found = [sentence.get("openie") or [] if isinstance(sentence, dict) else None for sentence in parts]
    if not all(isinstance(triples, list) for triples in found):
        raise IngestError(f"{path}: sentences is {json.dumps(sentences)[:60]}, expected a list of objects with openie")
    return [triple for triples in found for triple in triples or []]


def _numbers(path: Path) -> dict[str, str]:
    """Role of "confidence" and "count" to the name of the role it is read from, as the first triples have them.

    A weight is a count if all of them are whole, above 0 and not all 1, as in a TSV.
    """
    seen = [_roles(value) for _, value in islice(_triples(path), _LOOKED_AT) if isinstance(value, dict)]
    named = {key: key for key in _NUMBERS if any(key in roles for roles in seen)}
    if named or not any("number" in roles for roles in seen):
        return named
    values = [_number(_roles(value).get("number")) for _, value in _triples(path) if isinstance(value, dict)]
    known = [x for x in values if x is not None]
    counts = all(x > 0 and x == int(x) for x in known) and max(known, default=0.0) > 1
    return {"count" if counts else "confidence": "number"}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number - number == 0 else None


def _has_confidence(path: Path) -> bool:
    return "confidence" in _numbers(path)


def _read(path: Path) -> Iterator[Item]:
    """Items of the triples."""
    numbers = _numbers(path)
    names = {key: key for key in _NUMBERS} | numbers
    for number, value in _triples(path):
        roles = _roles(value) if isinstance(value, dict) else {}
        if isinstance(value, list) and len(value) == len(_PARTS):
            roles = dict(zip(_PARTS, value, strict=True))
        parts = [roles.get(key) for key in _PARTS]
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if not all(isinstance(part, str | int | float) for part in parts):
            yield Aside(number, "bad", "no text for head, relation and tail", shown)
            continue
        # A file may leave out a count of 1, and so have the first one anywhere; a confidence has no such default.
        found = {
            key: _number(roles.get(name))
            for key, name in names.items()
            if name in roles or (key == "confidence" and key in numbers)
        }
        if unknown := [key for key, x in found.items() if x is None]:
            yield Aside(number, "bad", f"{unknown[0]} is not a number", shown)
        elif (count := found.get("count")) is not None and not count > 0:
            yield Aside(number, "bad", "count is not above 0", shown)
        else:
            head, relation, tail = map(str, parts)
            one, two = (x if isinstance(x := roles.get(key), str) else None for key in ("head_type", "tail_type"))
            weight = 1.0 if count is None else count
            yield Extraction(number, head, relation, [Argument(tail)], found.get("confidence"), False, one, two, weight)


READER = Reader(
    'JSON of triples: {"subject": ..., "relation": ..., "object": ...} by any common names, ["a", "rel", "b"], a line '
    "each or in one list, or CoreNLP's sentences with openie",
    _sniff,
    records=_read,
    level="any",
    confidence=_has_confidence,
)
