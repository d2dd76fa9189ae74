"""Parquet tables with a column for each part of a triple."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relsim.ingest.report import IngestError
from relsim.readers.base import Argument, Aside, Extraction, Item, Reader, Sample
from relsim.readers.columns import role

__all__ = ["READER"]

_ROLES = ("head", "relation", "tail", "confidence", "count", "head_type", "tail_type")
_NUMBERS = ("confidence", "count")
_BATCH = 50_000
_MAGIC = b"PAR1"
_NESTED = re.compile(r"\]$|^(STRUCT|MAP|UNION)\b")


def _sniff(sample: Sample) -> str | None:
    return "the first bytes of a Parquet file" if sample.start.startswith(_MAGIC) else None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """A connection, and SQL for the column of each role; a weight is a count or a confidence as in a TSV."""
    import duckdb

    _check_start(path)
    with duckdb.connect() as db:
        try:
            table = db.read_parquet(_only(path))
            found = {key: (name, str(kind)) for name, kind in _last_first(table) if (key := role(name))}
            if missing := [key for key in _ROLES[:3] if key not in found]:
                raise IngestError(
                    f"{path}: columns {', '.join(table.columns)} name no {' and no '.join(missing)}; rename them to arg1, "
                    "rel, arg2 or use Facts.from_frame"
                )
            if nested := [told for told in found.values() if _NESTED.search(told[1])]:
                name, kind = nested[0]
                raise IngestError(f"{path}: column {name} holds {kind}, expected one text or number a row")
            columns = {key: _cast(key, *told) for key, told in found.items() if key != "number"}
            if "number" in found and columns.keys().isdisjoint(_NUMBERS):
                x = _cast("count", *found["number"])
                whole = db.execute(
                    f"SELECT bool_and({x} = floor({x}) AND {x} > 0) AND max({x}) > 1 FROM read_parquet($1)",
                    [_only(path)],
                ).fetchone()
                columns["count" if whole == (True,) else "confidence"] = x
            yield db, columns
        except duckdb.Error as error:
            text = " ".join(str(error).split())[:160]
            raise IngestError(f"{path}: the Parquet file is damaged ({text}); fetch it again") from None


def _last_first(table: Any) -> list[tuple[str, Any]]:
    """Name and type of every column from the last, so that the first of two for one role is kept."""
    return list(zip(table.columns, table.types, strict=True))[::-1]


def _check_start(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith(b"\x1f\x8b"):
        raise IngestError(f"{path}: a Parquet file inside gzip, which is not read; unpack it first (gunzip)")
    if start != _MAGIC:
        raise IngestError(f"{path}: no Parquet file, it begins with {start!r}; leave format at auto")


def _only(path: Path) -> str:
    """The path with what DuckDB would take for a pattern escaped."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))


def _has_confidence(path: Path) -> bool:
    with _opened(path) as (_, columns):
        return "confidence" in columns


def _read(path: Path) -> Iterator[Item]:
    """Items of the rows; columns are found by name (head or arg1 or subject, ...)."""
    with _opened(path) as (db, columns):
        select = ", ".join(columns.get(key, "NULL") for key in _ROLES)
        cursor = db.execute(f"SELECT {select} FROM read_parquet($1)", [_only(path)])
        number = 0
        while rows := cursor.fetchmany(_BATCH):
            for row in rows:
                number += 1
                head, relation, tail, confidence, count, head_type, tail_type = map(_text, row)
                unknown = [
                    key for key, x in zip(_NUMBERS, (confidence, count), strict=True) if x is None and key in columns
                ]
                if head is None or relation is None or tail is None:
                    yield Aside(number, "bad", "no text for a part of the triple", str(row[:3]))
                elif unknown:
                    yield Aside(number, "bad", f"{unknown[0]} is not a number", str(row[:3]))
                elif count is not None and not count > 0:
                    yield Aside(number, "bad", "count is not above 0", str(count))
                else:
                    yield Extraction(
                        number, head, relation, [Argument(tail)], confidence, False, head_type, tail_type, count or 1.0
                    )


def _text(value: Any) -> Any:
    """Bytes as the UTF-8 text that they are in files without that mark; None for other bytes."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _cast(key: str, name: str, kind: str) -> str:
    column = '"' + name.replace('"', '""') + '"'
    if kind == "BLOB" and key not in _NUMBERS:
        return column
    return f"TRY_CAST({column} AS {'DOUBLE' if key in ('number', *_NUMBERS) else 'VARCHAR'})"


READER = Reader(
    "a Parquet table with columns arg1, rel, arg2 by any common name",
    _sniff,
    records=_read,
    level="any",
    confidence=_has_confidence,
)
