"""Parquet tables with a column for each part of a triple."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from relsim.ingest.report import IngestError
from relsim.readers.base import Argument, Aside, Extraction, Item, Reader, Sample
from relsim.readers.columns import role

__all__ = ["READER"]

_ROLES = ("head", "relation", "tail", "confidence", "count", "head_type", "tail_type")
_BATCH = 50_000


def _sniff(sample: Sample) -> str | None:
    return "the first bytes of a Parquet file" if sample.start.startswith(b"PAR1") else None


def _read(path: Path) -> Iterator[Item]:
    """Items of the rows; columns are found by name (head or arg1 or subject, ...)."""
    import duckdb

    with duckdb.connect() as db:
        try:
            table = db.read_parquet(str(path))
        except duckdb.Error as error:
            text = " ".join(str(error).split())[:160]
            raise IngestError(f"{path}: the Parquet file is damaged ({text}); fetch it again") from None
        columns = {key: name for name in reversed(table.columns) if (key := role(name)) in _ROLES}
        if missing := [key for key in _ROLES[:3] if key not in columns]:
            raise IngestError(
                f"{path}: columns {', '.join(table.columns)} name no {' and no '.join(missing)}; rename them to arg1, "
                "rel, arg2 or use Facts.from_frame"
            )
        select = ", ".join(_cast(key, columns.get(key)) for key in _ROLES)
        cursor = db.execute(f"SELECT {select} FROM read_parquet($1)", [str(path)])
        number = 0
        while rows := cursor.fetchmany(_BATCH):
            for head, relation, tail, confidence, count, head_type, tail_type in rows:
                number += 1
                if head is None or relation is None or tail is None:
                    yield Aside(number, "bad", "no value for a part of the triple", str((head, relation, tail)))
                elif count is not None and not count > 0:
                    yield Aside(number, "bad", "count is not above 0", str(count))
                else:
                    yield Extraction(
                        number, head, relation, [Argument(tail)], confidence, False, head_type, tail_type, count or 1.0
                    )


def _cast(key: str, name: str | None) -> str:
    if name is None:
        return "NULL"
    kind = "DOUBLE" if key in ("confidence", "count") else "VARCHAR"
    return f'CAST("{name.replace(chr(34), chr(34) * 2)}" AS {kind})'


READER = Reader("a Parquet table with columns arg1, rel, arg2 by any common name", _sniff, records=_read)
