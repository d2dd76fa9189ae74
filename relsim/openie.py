"""Open-IE output of any size -> Facts, through DuckDB: grouped out of core, every line accounted for."""

from __future__ import annotations

import difflib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from relsim.facts import Facts
from relsim.formats import READERS, Layout
from relsim.ingest import BadLine, IngestError, IngestReport
from relsim.textfiles import PathLike, find_files, text_blocks

__all__ = ["READERS", "IngestError", "IngestReport", "read_openie"]

_SAMPLE_LINES = 200
_EXAMPLES = 5
_SPACE = r"[\s\x{00A0}\x{2028}\x{2029}]+"


def read_openie(
    path: PathLike | Iterable[PathLike],
    *,
    format: str = "auto",
    min_support: int = 5,
    min_confidence: float | None = None,
    normalise: bool = True,
    columns: Sequence[str] | None = None,
    memory_limit: str = "1GB",
    temp_folder: PathLike | None = None,
) -> Facts:
    """Read Open-IE extractions, or the triples of a knowledge base, into ``Facts``.

    Equal extractions become one fact; its count is the number of lines, or the sum of the count column. Everything
    left out is counted and named in ``facts.ingest``.

    Parameters
    ----------
    path
        A file, several files, or a folder of files; gzip is recognised by content.
    format
        "auto" (by content, file by file), or a key of ``READERS``: reverb, tsv, csv, cesi.
    min_support
        Distinct argument pairs a relation phrase needs; phrases below it are named in ``facts.ingest.below_support``
        and their facts left out. With 5, a phrase seen with fewer argument pairs cannot be compared on evidence.
    min_confidence
        Leave out extractions below it, in the unit of the file's confidence column. None keeps all.
    normalise
        Use the extractor's normalised forms where it gives them (ReVerb columns 16 to 18, ``triple_norm``), NFC and
        single spaces; otherwise the surface text, its ends trimmed. Case is kept.
    columns
        tsv and csv only: the name of every column, in order (head, relation, tail, confidence, count, or anything
        else for a column to ignore). Without it a header row, or the rules of ``READERS`` decide. An unnamed fourth
        column counts extractions if all its values are integers and one is above 1, and is a confidence otherwise.
    memory_limit
        DuckDB's; beyond it the group-by spills to disk.
    temp_folder
        Where to spill; the system's temporary folder by default.

    Raises
    ------
    IngestError
        For input that cannot be recognised, is damaged, or holds no usable line.
    ValueError
        For an unknown format or an option out of range.
    """
    import duckdb

    if format != "auto" and format not in READERS:
        near = difflib.get_close_matches(format, READERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown format {format!r}, expected auto, {', '.join(READERS)}{hint}")
    if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGT]i?)?B", memory_limit, re.IGNORECASE):
        raise ValueError(f"memory_limit is {memory_limit!r}, expected a size such as 500MB or 4GB")
    if min_support < 1:
        raise ValueError(f"min_support is {min_support}, expected 1 or more")
    files, skipped = find_files(path)
    with (
        tempfile.TemporaryDirectory(prefix="relsim-", dir=temp_folder) as temp,
        duckdb.connect(str(Path(temp) / "ingest.duckdb")) as db,
    ):
        db.execute(f"SET memory_limit = '{memory_limit}'")
        db.execute(f"SET temp_directory = '{str(Path(temp) / 'spill').replace(chr(39), chr(39) * 2)}'")
        db.execute("SET preserve_insertion_order = false")
        db.execute("CREATE TABLE raw (head VARCHAR, relation VARCHAR, tail VARCHAR, n DOUBLE)")
        tally = _Tally()
        for file in files:
            _read_file(db, file, tally, format, normalise, columns, min_confidence)
        return _collect(db, tally, tuple(skipped), min_support)


class _Tally:
    """Running counts over files."""

    def __init__(self) -> None:
        self.formats: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.examples: list[BadLine] = []


def _choose(file: Path, sample: list[str], format: str) -> str:
    if format != "auto":
        return format
    fits = [name for name, reader in READERS.items() if reader.sniff(sample)]
    if len(fits) == 1:
        return fits[0]
    widths = Counter(line.count("\t") + 1 for line in sample).most_common(1)[0]
    commas = Counter(line.count(",") + 1 for line in sample).most_common(1)[0]
    what = " and ".join(fits) if fits else "no known format"
    seen = f"{widths[1]} of {len(sample)} lines have {widths[0]} TAB columns, {commas[1]} have {commas[0]} by comma"
    if sample[0].lstrip().startswith("["):
        seen = "it begins with '[': a JSON list, expected one object a line"
    raise IngestError(
        f"{file}: looks like {what}: {seen}; first line {sample[0][:80]!r}. "
        f"Choose with --format {'|'.join(READERS)} (format=), and --columns (columns=) for other tsv or csv orders"
    )


def _read_file(
    db: Any,
    file: Path,
    tally: _Tally,
    format: str,
    normalise: bool,
    columns: Sequence[str] | None,
    min_confidence: float | None,
) -> None:
    blocks = text_blocks(file)
    first = next(blocks)
    # A first block of blank lines cannot be sniffed; the sample is what stands at the beginning of the file.
    sample = [s for line in first[0].split("\n", 20 * _SAMPLE_LINES) if (s := line.rstrip("\r")).strip()]
    if not sample:
        raise IngestError(f"{file}: no usable line: the file begins with blank lines only")
    sample = sample[:_SAMPLE_LINES]
    name = _choose(file, sample, format)
    try:
        layout = READERS[name].layout(sample, normalise, columns)
    except IngestError as error:
        raise IngestError(f"{file}: {error}") from None
    if min_confidence is not None and (layout.weight is None or layout.weight_kind == "count"):
        raise IngestError(f"{file}: min_confidence is given but {layout.description} has no confidence")
    sql = _parse_sql(layout, normalise, min_confidence)
    db.execute("CREATE OR REPLACE TABLE one (head VARCHAR, relation VARCHAR, tail VARCHAR, n DOUBLE, w DOUBLE)")
    counts: Counter[str] = Counter(header=int(layout.header))
    largest, whole = 0.0, True
    line = 0
    for text, latin1 in chain([first], blocks):
        block = _blank_header(text) if layout.header and line == 0 else text
        lines = block.count("\n") + 1
        db.execute(sql, [block, line])
        row = db.execute(
            "SELECT count(*) FILTER (reason IS NULL), count(*) FILTER (reason = ''), count(*) FILTER (reason <> ''), "
            "max(w) FILTER (reason IS NULL), bool_and(w = floor(w) AND w > 0) FILTER (reason IS NULL) FROM parsed"
        ).fetchone()
        counts.update(lines=lines, used=row[0], below=row[1], bad=row[2], latin1=latin1)
        largest, whole = max(largest, row[3] or 0.0), whole and row[4] is not False
        if row[2]:
            _note_bad(db, file, tally)
        db.execute(
            "INSERT INTO one SELECT head, relation, tail, count(*), sum(w) FROM parsed "
            "WHERE reason IS NULL GROUP BY ALL"
        )
        line += lines
    if not counts["used"]:
        why = f"; {tally.examples[-1]}" if counts["bad"] and tally.examples else ""
        raise IngestError(
            f"{file}: no usable line as {layout.description}: {counts['lines']} lines, {counts['bad']} bad, "
            f"{counts['header']} header, {counts['below']} below the confidence{why}"
        )
    kind = layout.weight_kind or ("count" if layout.weight and whole and largest > 1 else "confidence")
    if kind == "count" and min_confidence is not None:
        raise IngestError(
            f"{file}: min_confidence is given but {layout.weight} holds counts (integers up to {largest:.0f})"
        )
    db.execute(f"INSERT INTO raw SELECT head, relation, tail, {'w' if kind == 'count' else 'n'} FROM one")
    counts["blank"] = counts["lines"] - sum(counts[key] for key in ("used", "below", "bad", "header"))
    tally.counts.update(counts)
    tally.formats[str(file)] = layout.description.replace("confidence or count", kind)


def _blank_header(text: str) -> str:
    """Blank the first line that is not empty, so that line numbers stay those of the file."""
    start = len(text) - len(text.lstrip("\r\n"))
    end = text.find("\n", start)
    return "\n" * text.count("\n", 0, start) + (text[end:] if end >= 0 else "")


def _parse_sql(layout: Layout, normalise: bool, min_confidence: float | None) -> str:
    """Write the SQL that fills ``parsed``: reason is NULL for a good line, '' below the confidence, else what is bad."""
    if normalise:
        # Nearly every line is plain ASCII with single spaces and needs none of it, at a third of the time.
        clean = (
            f"CASE WHEN plain THEN trim(CELL) ELSE nfc_normalize(trim(regexp_replace(CELL, '{_SPACE}', ' ', 'g'))) END"
        )
    else:
        clean = f"regexp_replace(CELL, '^{_SPACE}|{_SPACE}$', '', 'g')"
    head, relation, tail = (clean.replace("CELL", cell) for cell in (layout.head, layout.relation, layout.tail))
    odd = " OR ".join(f"contains(line, {text})" for text in ("'  '", "chr(11)", "chr(12)", "chr(13)"))
    plain = "false" if layout.escapes else f"strlen(line) = length(line) AND NOT ({odd})"
    weight = f"TRY_CAST(trim({layout.weight}) AS DOUBLE)" if layout.weight else "1.0"
    what = layout.weight_kind or "confidence or count"
    low = "w <= 0" if layout.weight_kind == "count" else "false"
    below = "false" if min_confidence is None else f"w < {float(min_confidence)!r}"
    return f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        SELECT number, head, relation, tail, w, CASE WHEN reason <> '' THEN left(line, 200) END AS line, reason FROM (
            SELECT *, CASE
                WHEN shape IS NOT NULL THEN shape
                WHEN contains(line, chr(0)) THEN 'a NUL byte'
                WHEN coalesce(head, '') = '' THEN 'first argument is empty'
                WHEN coalesce(relation, '') = '' THEN 'relation phrase is empty'
                WHEN coalesce(tail, '') = '' THEN 'second argument is empty'
                WHEN w IS NULL OR NOT isfinite(w) THEN '{what} is not a number'
                WHEN {low} THEN 'count is not above 0'
                WHEN {below} THEN '' END AS reason
            FROM (
                SELECT number, line, {layout.shape} AS shape,
                    {head} AS head, {relation} AS relation, {tail} AS tail, {weight} AS w
                FROM (
                    SELECT number, line, {layout.cells} AS f, {plain} AS plain FROM (
                        SELECT CASE WHEN ends_with(cr, chr(13)) THEN rtrim(cr, chr(13)) ELSE cr END AS line, number
                        FROM (
                            SELECT unnest(ls) AS cr, unnest(range(1, len(ls) + 1)) + $2 AS number
                            FROM (SELECT string_split($1, chr(10)) AS ls)
                        )
                    ) WHERE regexp_matches(line, '\\S')
                )
            )
        )"""


def _note_bad(db: Any, file: Path, tally: _Tally) -> None:
    for reason, count in db.execute("SELECT reason, count(*) FROM parsed WHERE reason <> '' GROUP BY 1").fetchall():
        tally.reasons[reason] += count
    if (room := _EXAMPLES - len(tally.examples)) > 0:
        found = db.execute(
            f"SELECT number, reason, line FROM parsed WHERE reason <> '' ORDER BY number LIMIT {room}"
        ).fetchall()
        for number, reason, line in found:
            shown = line if len(line) <= 100 else f"{line[:100]}..."
            tally.examples.append(BadLine(str(file), number, reason, shown))


def _collect(db: Any, tally: _Tally, skipped: tuple[tuple[str, str], ...], min_support: int) -> Facts:
    """Group, filter by support, and number names in sorted order."""
    db.execute(
        "CREATE TABLE fact AS SELECT head, relation, tail, sum(n) AS n FROM raw GROUP BY ALL; DROP TABLE raw;"
        "CREATE TABLE phrase AS SELECT relation, count(*) AS support FROM fact GROUP BY 1;"
        f"CREATE TABLE kept AS SELECT relation, row_number() OVER (ORDER BY relation) - 1 AS id FROM phrase "
        f"WHERE support >= {int(min_support)};"
        "CREATE TABLE entity AS SELECT name, row_number() OVER (ORDER BY name) - 1 AS id FROM ("
        "  SELECT head AS name FROM fact SEMI JOIN kept USING (relation) UNION"
        "  SELECT tail FROM fact SEMI JOIN kept USING (relation))"
    )
    ids = db.execute(
        "SELECT h.id AS h, k.id AS r, t.id AS t, n::FLOAT AS n FROM fact JOIN kept k USING (relation) "
        "JOIN entity h ON h.name = head JOIN entity t ON t.name = tail ORDER BY r, h, t"
    ).fetchnumpy()
    below = db.execute(
        f"SELECT relation, support FROM phrase WHERE support < {int(min_support)} ORDER BY support DESC, relation"
    ).fetchall()
    c = tally.counts
    report = IngestReport(
        formats=tally.formats,
        lines=c["lines"],
        used=c["used"],
        bad=c["bad"],
        blank=c["blank"],
        header=c["header"],
        below_confidence=c["below"],
        latin1_lines=c["latin1"],
        bad_reasons=dict(tally.reasons.most_common()),
        bad_examples=tuple(tally.examples),
        skipped=skipped,
        distinct_facts=db.execute("SELECT count(*) FROM fact").fetchone()[0],
        distinct_phrases=db.execute("SELECT count(*) FROM phrase").fetchone()[0],
        min_support=min_support,
        below_support=tuple(below),
        below_support_facts=sum(support for _, support in below),
    )
    entities, relations = (
        [row[0] for row in db.execute(f"SELECT {column} FROM {table} ORDER BY id").fetchall()]
        for table, column in (("entity", "name"), ("kept", "relation"))
    )
    head, relation, tail = (torch.from_numpy(ids[key].astype("int64")) for key in "hrt")
    return Facts(
        head=head,
        relation=relation,
        tail=tail,
        count=torch.from_numpy(ids["n"].astype("float32")),
        entities=entities,
        relations=relations,
        ingest=report,
    )
