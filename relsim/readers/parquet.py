"""Parquet tables with a column for each part of a triple."""

from __future__ import annotations

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


def _sniff(sample: Sample) -> str | None:
    return "the first bytes of a Parquet file" if sample.start.startswith(b"PAR1") else None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """A connection, and the name of the column of each role; a weight is a count or a confidence as in a TSV."""
    import duckdb

    with duckdb.connect() as db:
        try:
            table = db.read_parquet(str(path))
            columns = {key: name for name in reversed(table.columns) if (key := role(name))}
            if missing := [key for key in _ROLES[:3] if key not in columns]:
                raise IngestError(
                    f"{path}: columns {', '.join(table.columns)} name no {' and no '.join(missing)}; rename them to arg1, "
                    "rel, arg2 or use Facts.from_frame"
                )
            number = columns.pop("number", None)
            if number is not None and columns.keys().isdisjoint(_NUMBERS):
                x = _cast("count", number)
                found = db.execute(
                    f"SELECT bool_and({x} = floor({x}) AND {x} > 0) AND max({x}) > 1 FROM read_parquet($1)", [str(path)]
                ).fetchone()
                columns["count" if found == (True,) else "confidence"] = number
            yield db, columns
        except duckdb.Error as error:
            text = " ".join(str(error).split())[:160]
            raise IngestError(f"{path}: the Parquet file is damaged ({text}); fetch it again") from None


def _has_confidence(path: Path) -> bool:
    with _opened(path) as (_, columns):
        return "confidence" in columns


def _read(path: Path) -> Iterator[Item]:
    """Items of the rows; columns are found by name (head or arg1 or subject, ...)."""
    with _opened(path) as (db, columns):
        select = ", ".join(_cast(key, columns.get(key)) for key in _ROLES)
        cursor = db.execute(f"SELECT {select} FROM read_parquet($1)", [str(path)])
        number = 0
        while rows := cursor.fetchmany(_BATCH):
            for head, relation, tail, confidence, count, head_type, tail_type in rows:
                number += 1
                unknown = [
                    key for key, x in zip(_NUMBERS, (confidence, count), strict=True) if x is None and key in columns
                ]
                if head is None or relation is None or tail is None:
                    yield Aside(number, "bad", "no value for a part of the triple", str((head, relation, tail)))
                elif unknown:
                    yield Aside(number, "bad", f"{unknown[0]} is not a number", str((head, relation, tail)))
                elif count is not None and not count > 0:
                    yield Aside(number, "bad", "count is not above 0", str(count))
                else:
                    yield Extraction(
                        number, head, relation, [Argument(tail)], confidence, False, head_type, tail_type, count or 1.0
                    )


def _cast(key: str, name: str | None) -> str:
    if name is None:
        return "NULL"
    kind = "DOUBLE" if key in _NUMBERS else "VARCHAR"
    return f'TRY_CAST("{name.replace(chr(34), chr(34) * 2)}" AS {kind})'


READER = Reader(
    "a Parquet table with columns arg1, rel, arg2 by any common name",
    _sniff,
    records=_read,
    level="any",
    confidence=_has_confidence,
)
