"""JSON: the lines of CESI, and the list of ComBO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relsim.ingest.report import IngestError
from relsim.ingest.textfiles import text_chunks
from relsim.readers.base import Argument, Aside, Extraction, Item, Layout, Options, Reader, Sample

__all__ = ["CESI", "COMBO", "objects"]

_LONGEST = 64 << 20
_AFTER_NUMBER = tuple(" \r\n\t,]")
_SPACE, _BETWEEN = re.compile(r"[ \r\n\t]*"), re.compile(r"[ \r\n\t,]*")


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
    """Number and value of every element of a JSON list, or of several one after another, holding a block of text at a time.

    Raises
    ------
    IngestError
        For text that is no JSON list or goes on otherwise after one, ends early, or holds an element beyond 64 MiB.
    """
    decoder, buffer, at, number = json.JSONDecoder(), "", 0, 0
    inside = closed = False
    for chunk in text_chunks(path):
        buffer, at = buffer[at:] + chunk, 0
        while (at := _gap(buffer, at, commas=inside and number > 0)) < len(buffer):
            if not inside:
                if buffer[at] != "[":
                    shown = repr(buffer[at : at + 20])
                    after = f"goes on with {shown} after a JSON list" if closed else f"begins with {shown}"
                    raise IngestError(f"{path}: {after}, expected {'another' if closed else 'a JSON'} list")
                inside, at = True, at + 1
            elif buffer[at] == "]":
                inside, closed, at = False, True, at + 1
            else:
                try:
                    value, end = decoder.raw_decode(buffer, at)
                except ValueError:
                    # Not whole yet, or broken: more text tells.
                    if len(buffer) - at > _LONGEST:
                        raise IngestError(
                            f"{path}: element {number + 1} of the JSON list is broken or too long"
                        ) from None
                    break
                if isinstance(value, int | float) and buffer[end : end + 1] not in _AFTER_NUMBER:
                    break  # it goes on in the next block
                number, at = number + 1, end
                yield number, value
    if inside or not closed:
        shown = repr(buffer[at : at + 60])
        raise IngestError(f"{path}: the JSON list breaks off or is broken after {number} elements: {shown}")


def _gap(text: str, at: int, *, commas: bool) -> int:
    """Where the next character after spaces, and between elements commas, is."""
    found = (_BETWEEN if commas else _SPACE).match(text, at)
    assert found is not None
    return found.end()


def _combo(path: Path) -> Iterator[Item]:
    """Items of a ComBO file; the first ``instance`` of an argument is its type, a linked id is not used as its name."""
    for number, value in objects(path):
        try:
            head, relation, tail = (_name(value[key]["name"]) for key in "hrt")
            types = [next(iter(value[key].get("instance") or []), None) for key in "ht"]
        except (KeyError, TypeError, AttributeError):
            yield Aside(number, "bad", "no h, r and t with words as name", json.dumps(value)[:200])
            continue
        yield Extraction(number, head, relation, [Argument(tail)], head_type=types[0], tail_type=types[1])


def _name(words: Any) -> str:
    """A name as ComBO has it, a list of words, or as one text.

    Raises
    ------
    TypeError
        For anything else.
    """
    if not isinstance(words, str | list):
        raise TypeError(type(words).__name__)
    return words if isinstance(words, str) else " ".join(words)


CESI = Reader("JSON lines with triple and triple_norm", _sniff_cesi, layout=_cesi)
COMBO = Reader("a JSON list of h, r, t with names and types, as ComBO", _sniff_combo, records=_combo, confidence=False)
