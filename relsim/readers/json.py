"""JSON: the lines of CESI, and the list of ComBO."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relsim.ingest.report import IngestError
from relsim.ingest.textfiles import text_chunks
from relsim.readers.base import Argument, Aside, Extraction, Item, Layout, Options, Reader, Sample

__all__ = ["CESI", "COMBO", "objects"]

_LONGEST = 64 << 20


def _sniff_cesi(sample: Sample) -> str | None:
    def good(line: str) -> bool:
        try:
            value = json.loads(line)
        except ValueError:
            return False
        return isinstance(value, dict) and "triple" in value

    found = sample.mostly(good)
    return f"JSON objects with a triple in {found}" if found else None


def _cesi(sample: Sample, options: Options) -> Layout:
    """``triple`` as it stands (its relations are lemmas), or ``triple_norm`` on request."""
    options.no_columns("cesi")
    own = options.normalise == "extractor"
    normal = "'$.triple_norm[0]', '$.triple_norm[1]', '$.triple_norm[2]'"
    raw = "'$.triple[0]', '$.triple[1]', '$.triple[2]'"
    first = "coalesce(f[4], f[1])", "coalesce(f[5], f[2])", "coalesce(f[6], f[3])"
    head, relation, tail = first if own else ("f[1]", "f[2]", "f[3]")
    return Layout(
        description=f"cesi ({'triple_norm' if own else 'triple'})",
        cells=f"CASE WHEN json_valid(line) THEN json_extract_string(line, [{raw}{', ' + normal if own else ''}]) END",
        shape="CASE WHEN f IS NULL THEN 'not a JSON object' WHEN f[3] IS NULL THEN 'no triple of three texts' END",
        head=head,
        relation=relation,
        tail=tail,
        escapes=True,
        level="names" if own else "lemma",
    )


def _sniff_combo(sample: Sample) -> str | None:
    start = sample.start.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    if start.startswith("[") and all(f'"{key}"' in start for key in ("h", "r", "t", "name")):
        return "a JSON list of objects with h, r, t and their names"
    return None


def objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of every element of a JSON list, holding one element and a block of text at a time.

    Raises
    ------
    IngestError
        For text that is no JSON list, ends early, or holds an element beyond 64 MiB.
    """
    decoder, buffer, number, began = json.JSONDecoder(), "", 0, False
    for chunk in text_chunks(path):
        buffer += chunk
        while True:
            buffer = buffer.lstrip(" \r\n\t" if not began or number == 0 else " \r\n\t,")
            if not began:
                if buffer and buffer[0] != "[":
                    raise IngestError(f"{path}: begins with {buffer[:20]!r}, expected a JSON list")
                began, buffer = bool(buffer), buffer[1:].lstrip()
            if buffer.startswith("]"):
                return
            try:
                value, end = decoder.raw_decode(buffer)
            except ValueError:
                # Not whole yet, or broken: more text tells.
                if len(buffer) > _LONGEST:
                    raise IngestError(f"{path}: element {number + 1} of the JSON list is broken or too long") from None
                break
            number += 1
            yield number, value
            buffer = buffer[end:]
    raise IngestError(f"{path}: the JSON list breaks off or is broken after {number} elements: {buffer[:60]!r}")


def _combo(path: Path) -> Iterator[Item]:
    """Items of a ComBO file; the first ``instance`` of an argument is its type, a linked id is not used as its name."""
    for number, value in objects(path):
        try:
            head, relation, tail = (" ".join(value[key]["name"]) for key in "hrt")
            types = [next(iter(value[key].get("instance") or []), None) for key in "ht"]
        except (KeyError, TypeError, AttributeError):
            yield Aside(number, "bad", "no h, r and t with a list of words as name", json.dumps(value)[:200])
            continue
        yield Extraction(number, head, relation, [Argument(tail)], head_type=types[0], tail_type=types[1])


CESI = Reader("JSON lines with triple and triple_norm", _sniff_cesi, layout=_cesi)
COMBO = Reader("a JSON list of h, r, t with names and types, as ComBO", _sniff_combo, records=_combo, confidence=False)
