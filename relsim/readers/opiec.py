"""OPIEC: MinIE's triples over Wikipedia, in Avro."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relsim.ingest.report import IngestError
from relsim.readers.base import Argument, Aside, Extraction, Item, Reader, Sample

__all__ = ["READER"]

_MAGIC = b"Obj\x01"


def _sniff(sample: Sample) -> str | None:
    return "the first bytes of an Avro file" if sample.start.startswith(_MAGIC) else None


def _words(tokens: list[dict[str, Any]], quantities: dict[str, str]) -> str:
    """Words of an argument or relation; a placeholder such as QUANT_S_1 is replaced by the quantity it stands for."""
    words = (str(token.get("word") or "") for token in tokens)
    return " ".join(quantities.get(word, word) for word in words)


def _link(tokens: list[dict[str, Any]]) -> str:
    """Title of the article that every token of an argument links to, or an empty text."""
    links = {((token.get("w_link") or {}).get("wiki_link") or "").replace("_", " ") for token in tokens}
    return links.pop() if len(links) == 1 else ""


def _type(tokens: list[dict[str, Any]]) -> str | None:
    """Most frequent named-entity tag of an argument, if it has one."""
    tags = Counter(tag for token in tokens if (tag := token.get("ner")) not in (None, "", "O"))
    return min(tags, key=lambda tag: (-tags[tag], tag)) if tags else None


def _read(path: Path) -> Iterator[Item]:
    """Items of an OPIEC file.

    An argument whose words all link to one article is named by its title. Negative polarity negates the relation;
    modality and attribution are not kept.
    """
    try:
        import fastavro
    except ImportError:
        raise IngestError(f"{path}: Avro needs fastavro; install it with: pip install 'hyrel[openie]'") from None
    with path.open("rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        number = 0
        stream: Any = gzip.GzipFile(fileobj=raw) if gzipped else raw
        try:
            if (start := stream.read(len(_MAGIC))) != _MAGIC:
                raise IngestError(f"{path}: no Avro file, it begins with {start!r}; leave format at auto")
            stream.seek(0)
            for number, record in enumerate(fastavro.reader(stream), 1):
                yield _item(number, record)
        except (EOFError, ValueError, IndexError, KeyError, TypeError, OSError, zlib.error) as error:
            text = " ".join(str(error).split())[:120] or type(error).__name__
            if "install" in text:  # a codec of the file needs another library, which fastavro names
                raise IngestError(f"{path}: {text}") from None
            raise IngestError(
                f"{path}: the Avro file is damaged or cut short after record {number} ({text}); fetch it again"
            ) from None


def _item(number: int, record: Any) -> Item:
    if not isinstance(record, dict) or not all(_tokens(record.get(key)) for key in _PARTS):
        shown = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        return Aside(number, "bad", "no subject, relation and object of tokens", shown[:200])
    quantities = record.get("quantities") or {}
    head, relation, tail = (record[key] for key in _PARTS)
    return Extraction(
        number,
        _link(head) or _words(head, quantities),
        _words(relation, quantities),
        [Argument(_link(tail) or _words(tail, quantities))],
        record.get("confidence_score"),
        negative=str(record.get("polarity") or "").upper() == "NEGATIVE",
        head_type=_type(head),
        tail_type=_type(tail),
    )


def _tokens(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(token, dict) for token in value)


_PARTS = ("subject", "relation", "object")
READER = Reader("Avro records with subject, relation and object of tokens, as OPIEC", _sniff, records=_read)
