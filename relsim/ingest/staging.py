"""Lines of a file -> rows of a DuckDB table, each with the reason if it is none."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from relsim.ingest.nary import Row, expand
from relsim.ingest.report import BadLine
from relsim.readers.base import Item, Layout

__all__ = [
    "LEVELS", "SCHEMA", "Outcome", "Tally", "check_memory_limit", "differing", "settle", "stage_items", "stage_text",
    "text_query",
]  # fmt: skip

_EXAMPLES = 5
_BATCH = 50_000
_LARGEST = 1e30  # of a count: their sums are kept in float32
_SMALLEST = 1e-30
_SPACE = r"[\s\x{00A0}\x{2028}\x{2029}]+"
LEVELS = {"names": 0, "lemma": 1, "text": 2}
SCHEMA = """
    CREATE TABLE raw (head VARCHAR, relation VARCHAR, tail VARCHAR, n DOUBLE, w DOUBLE, head_type VARCHAR,
        tail_type VARCHAR, file INTEGER);
    CREATE TABLE file (id INTEGER, level TINYINT, weighted BOOLEAN)
"""


class Outcome(NamedTuple):
    """What became of some rows: counts by kind, the range of the weights, and whether all are whole and positive."""

    counts: Counter[str]
    smallest: float
    largest: float
    whole: bool


class Tally:
    """Running counts over files."""

    def __init__(self) -> None:
        self.formats: dict[str, str] = {}
        self.detected: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {"bad": Counter(), "left": Counter()}
        self.examples: list[BadLine] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.typed = False


def check_memory_limit(memory_limit: str) -> None:
    """Refuse a memory limit that is no size."""
    if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGT]i?)?B", memory_limit, re.IGNORECASE):
        raise ValueError(f"memory_limit is {memory_limit!r}, expected a size such as 500MB or 4GB")


def _clean(cell: str, normalise: bool) -> str:
    if not normalise:
        return f"regexp_replace({cell}, '^{_SPACE}|{_SPACE}$', '', 'g')"
    # Nearly every line is plain ASCII with single spaces and needs none of it, at a third of the time.
    spaced = f"nfc_normalize(trim(regexp_replace({cell}, '{_SPACE}', ' ', 'g')))"
    return f"CASE WHEN plain THEN trim({cell}) ELSE {spaced} END"


def _judged(source: str, low: str, what: str, min_confidence: float | None) -> str:
    """SQL that fills ``parsed`` from rows with their cells: kind is NULL for a good row, "low" below the confidence."""
    below = "false" if min_confidence is None else f"w < {float(min_confidence)!r}"
    return f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        SELECT number, more, dropped, head, relation, tail, w, n, head_type, tail_type, reason,
            CASE WHEN reason IS NULL THEN NULL WHEN reason = '' THEN 'low' ELSE coalesce(kind, 'bad') END AS kind,
            CASE WHEN reason <> '' THEN left(line, 200) END AS line
        FROM (
            SELECT * EXCLUDE (reason), CASE
                WHEN reason IS NOT NULL THEN reason
                WHEN contains(coalesce(line, head || relation || tail), chr(0)) THEN 'a NUL byte'
                WHEN coalesce(head, '') = '' THEN 'first argument is empty'
                WHEN coalesce(relation, '') = '' THEN 'relation phrase is empty'
                WHEN coalesce(tail, '') = '' THEN 'second argument is empty'
                WHEN w IS NULL OR NOT isfinite(w) THEN '{what} is not a number'
                WHEN n IS NULL OR NOT isfinite(n) THEN 'count is not a number'
                WHEN {low.format(0)} OR n <= 0 THEN 'count is not above 0'
                WHEN {low.format(_SMALLEST)} OR n <= {_SMALLEST!r} THEN 'count is below {_SMALLEST:g}'
                WHEN greatest(abs(w), n) > {_LARGEST!r} THEN '{what} is beyond {_LARGEST:g}'
                WHEN {below} THEN '' END AS reason
            FROM ({source})
        )"""


def text_query(layout: Layout, normalise: bool, min_confidence: float | None) -> str:
    """SQL for a block of lines ($1) whose first line has number $2 + 1."""
    odd = " OR ".join(f"contains(line, {text})" for text in ("'  '", "chr(11)", "chr(12)", "chr(13)"))
    plain = "false" if layout.escapes else f"strlen(line) = length(line) AND NOT ({odd})"
    weight = f"TRY_CAST(trim({layout.weight}) AS DOUBLE)" if layout.weight else "1.0"
    count = f"TRY_CAST(trim({layout.count}) AS DOUBLE)" if layout.count else "1.0"
    types = [f"nullif(trim({cell}), '')" if cell else "NULL::VARCHAR" for cell in (layout.head_type, layout.tail_type)]
    head, relation, tail = (_clean(cell, normalise) for cell in (layout.head, layout.relation, layout.tail))
    source = f"""
        SELECT number, line, {layout.shape} AS reason, NULL AS kind, {head} AS head, {relation} AS relation,
            {tail} AS tail, {weight} AS w, {count} AS n, {types[0]} AS head_type, {types[1]} AS tail_type,
            false AS more, 0 AS dropped
        FROM (
            SELECT number, line, {layout.cells} AS f, {plain} AS plain FROM (
                SELECT CASE WHEN ends_with(cr, chr(13)) THEN rtrim(cr, chr(13)) ELSE cr END AS line, number
                FROM (
                    SELECT unnest(ls) AS cr, unnest(range(1, len(ls) + 1)) + $2 AS number
                    FROM (SELECT string_split($1, chr(10)) AS ls)
                )
            ) WHERE regexp_matches(line, '\\S')
        )"""
    low = "w <= {}" if layout.weight_kind == "count" else "false"
    return _judged(source, low, layout.weight_kind or "confidence or count", min_confidence)


def stage_text(
    db: Any, query: str, block: str, before: int, name: str, file: int, tally: Tally, *, typed: bool = False
) -> Outcome:
    """Parse a block of lines after ``before`` others into ``raw``; return what became of them."""
    db.execute(query, [block, before])
    outcome = _count(db, name, tally)
    types, group = ("head_type, tail_type", ", head_type, tail_type") if typed else ("NULL, NULL", "")
    db.execute(
        f"INSERT INTO raw SELECT head, relation, tail, sum(n), sum(w), {types}, $1 FROM parsed WHERE kind IS NULL "
        f"GROUP BY head, relation, tail{group}",
        [file],
    )
    if typed and not tally.typed:
        found = "SELECT 1 FROM parsed WHERE kind IS NULL AND (head_type IS NOT NULL OR tail_type IS NOT NULL) LIMIT 1"
        tally.typed = db.execute(found).fetchone() is not None
    return outcome


def differing(db: Any) -> bool:
    """Whether equal triples of the block staged last have different weights."""
    found = db.execute(
        "SELECT 1 FROM parsed WHERE kind IS NULL GROUP BY head, relation, tail HAVING min(w) <> max(w) LIMIT 1"
    ).fetchone()
    return found is not None


def settle(db: Any, files: Sequence[int]) -> bool:
    """Decide files (by number) whose relations may be names or phrases, all alike: whether they are set to names.

    They are if no relation in any of them has white space, wherever in a file it stands.
    """
    mine = f"file IN ({', '.join(map(str, files))})"
    if not files or db.execute(f"SELECT 1 FROM raw WHERE {mine} AND contains(relation, ' ') LIMIT 1").fetchone():
        return False
    db.execute(f"UPDATE file SET level = {LEVELS['names']} WHERE {mine.replace('file', 'id')}")
    return True


def stage_items(
    db: Any, items: Iterable[Item], policy: str, normalise: bool, min_confidence: float | None, name: str, file: int,
    tally: Tally,
) -> Iterator[Outcome]:  # fmt: skip
    """Insert the items of a reader into ``raw``, batch by batch; yield what became of each batch."""
    cells = ", ".join(
        [f"{_clean(cell, normalise)} AS {cell}" for cell in ("head", "relation", "tail")]
        + [f"nullif({cell}, '') AS {cell}" for cell in ("kind", "reason", "line", "head_type", "tail_type")]
    )
    source = f"SELECT * REPLACE ({cells}) FROM (SELECT *, false AS plain FROM batch)"
    query = _judged(source, "false", "confidence", min_confidence)
    rows = (row for item in items for row in expand(item, policy))
    while batch := list(itertools.islice(rows, _BATCH)):
        tally.notes += [row.reason or "" for row in batch if row.kind == "note"]
        batch = [row for row in batch if row.kind != "note"]
        columns = dict(zip(Row._fields, map(list, zip(*batch, strict=True)), strict=True)) if batch else {}
        if not columns:
            continue
        tally.typed = tally.typed or any(columns["head_type"]) or any(columns["tail_type"])
        db.register("batch", {key: _array(key, values) for key, values in columns.items()})
        try:
            db.execute(query)
        finally:
            db.unregister("batch")
        yield _count(db, name, tally)
        db.execute(
            "INSERT INTO raw SELECT head, relation, tail, sum(n), sum(w), head_type, tail_type, $1 FROM parsed "
            "WHERE kind IS NULL GROUP BY head, relation, tail, head_type, tail_type",
            [file],
        )


def _array(key: str, values: list[Any]) -> Any:
    kinds = {"number": np.int64, "dropped": np.int64, "w": np.float64, "n": np.float64, "more": np.bool_}
    if key in kinds:
        return np.array(values, dtype=kinds[key])
    # A column without any text would be read as one of numbers.
    return np.array(values, dtype=object) if any(values) else np.full(len(values), "", dtype=object)


def _count(db: Any, name: str, tally: Tally) -> Outcome:
    used, extractions, low, bad, left, aside, dropped, smallest, largest, whole = db.execute(
        "SELECT count(*) FILTER (kind IS NULL AND NOT more), count(*) FILTER (kind IS NULL), "
        "count(*) FILTER (kind = 'low' AND NOT more), count(*) FILTER (kind = 'bad' AND NOT more), "
        "count(*) FILTER (kind = 'left'), count(*) FILTER (kind = 'aside'), "
        "coalesce(sum(dropped) FILTER (kind IS NULL), 0), coalesce(min(w) FILTER (kind IS NULL), 'inf'::DOUBLE), "
        "coalesce(max(w) FILTER (kind IS NULL), 0), "
        "coalesce(bool_and(w = floor(w) AND w > 0) FILTER (kind IS NULL), true) FROM parsed"
    ).fetchone()
    if bad or left:
        _note_bad(db, name, tally)
    counts = Counter(used=used, extractions=extractions, low=low, bad=bad, left=left, aside=aside, dropped=int(dropped))
    return Outcome(counts, smallest, largest, whole)


def _note_bad(db: Any, name: str, tally: Tally) -> None:
    for kind, reason, count in db.execute(
        "SELECT kind, reason, count(*) FROM parsed WHERE kind IN ('bad', 'left') AND NOT more GROUP BY ALL"
    ).fetchall():
        tally.reasons[kind][reason] += count
    if (room := _EXAMPLES - len(tally.examples)) > 0:
        found = db.execute(
            "SELECT number, reason, coalesce(line, concat_ws(' | ', head, relation, tail)) FROM parsed "
            f"WHERE kind = 'bad' AND NOT more ORDER BY number LIMIT {room}"
        ).fetchall()
        for number, reason, line in found:
            shown = line if len(line) <= 100 else f"{line[:100]}..."
            tally.examples.append(BadLine(name, number, reason, shown))
