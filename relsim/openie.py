"""Open-IE output of any size -> Facts, through DuckDB: grouped out of core, every line accounted for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from relsim.facts import Facts
from relsim.ingest.gathering import gather
from relsim.ingest.nary import POLICIES
from relsim.ingest.report import IngestError, IngestReport, Unrecognised
from relsim.ingest.staging import (
    LEVELS,
    SCHEMA,
    Outcome,
    Tally,
    check_memory_limit,
    differing,
    settle,
    stage_items,
    stage_text,
    text_query,
)  # fmt: skip
from relsim.ingest.textfiles import BINARY, PathLike, find_files, peek, text_blocks
from relsim.readers import READERS, check_format, detect
from relsim.readers.base import Layout, Level, Options, Reader, Sample

__all__ = ["READERS", "IngestError", "IngestReport", "read_openie"]

_SAMPLE_LINES = 200
_LEAST_ODD = 100  # counts that are all as large are unusual: most extractions are seen once


def read_openie(
    path: PathLike | Iterable[PathLike],
    *,
    format: str = "auto",
    min_support: int = 5,
    min_confidence: float | None = None,
    normalise: bool | str = True,
    nary: str = "first",
    columns: Sequence[str] | None = None,
    memory_limit: str = "1GB",
    threads: int | None = None,
    temp_folder: PathLike | None = None,
) -> Facts:
    """Read Open-IE extractions, or the triples of a knowledge base, into ``Facts``.

    Equal extractions become one fact; its count is the number of lines, or the sum of the count column. Everything
    left out is counted and named in ``facts.ingest``.

    Parameters
    ----------
    path
        A file, several files, or a folder of files, of which those in no known format are skipped and named in
        ``facts.ingest.skipped``; gzip is recognised by content.
    format
        "auto" (by content, file by file; ``facts.ingest.detected`` says what by), or a key of ``READERS``.
    min_support
        Distinct argument pairs a relation phrase needs; phrases below it are named in ``facts.ingest.below_support``
        and their facts left out. With 5, a phrase seen with fewer argument pairs cannot be compared on evidence.
    min_confidence
        Leave out extractions below it, in the unit of the file's confidence column. None keeps all.
    normalise
        True: spellings with one key of :mod:`relsim.phrases.normalise` are one relation, or one argument, named by the most
        frequent of them; negation is part of the key. Names of knowledge bases (no white space in any relation of all
        the tables read) are left alone. False: text as it stands, ends trimmed. "extractor": the normalised forms that
        ReVerb (columns 16 to 18) and CESI (``triple_norm``) give; ReVerb's drop the passive and write numbers as #.
    nary
        What becomes of arguments after the second: "first" drops them, "each" makes each a fact of its own with its
        preposition in the relation, "binary" leaves such extractions out. All are counted.
    columns
        tsv and csv only: the name of every column, in order (head, relation, tail, confidence, count, or anything
        else for a column to ignore). Without it a header row, or the rules of ``READERS`` decide. An unnamed fourth
        column counts extractions if all its values are integers and one is above 1, and is a confidence otherwise;
        ``facts.ingest.warnings`` says where such counts look like years or ids.
    memory_limit
        DuckDB's; beyond it the group-by spills to disk.
    threads
        DuckDB's; all processors by default.
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

    check_format(format)
    check_memory_limit(memory_limit)
    if min_support < 1:
        raise ValueError(f"min_support is {min_support}, expected 1 or more")
    if nary not in POLICIES:
        raise ValueError(f"nary is {nary!r}, expected {', '.join(map(repr, POLICIES))}")
    if not isinstance(normalise, bool) and normalise != "extractor":
        raise ValueError(f"normalise is {normalise!r}, expected True, False or 'extractor'")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more")
    if min_confidence is not None and not isfinite(min_confidence):
        raise ValueError(f"min_confidence is {min_confidence}, expected a number")
    if temp_folder is not None and not Path(temp_folder).is_dir():
        raise ValueError(f"temp_folder is {temp_folder}, which is no folder")
    files, skipped = find_files(path)
    with (
        _explained(memory_limit),
        tempfile.TemporaryDirectory(prefix="relsim-", dir=temp_folder) as temp,
        duckdb.connect(str(Path(temp) / "ingest.duckdb")) as db,
    ):
        db.execute(f"SET memory_limit = '{memory_limit}'")
        db.execute(f"SET temp_directory = '{str(Path(temp) / 'spill').replace(chr(39), chr(39) * 2)}'")
        db.execute("SET preserve_insertion_order = false")
        if threads is not None:
            db.execute(f"SET threads = {int(threads)}")
        db.execute(SCHEMA)
        tally = Tally()
        options = Options(normalise, columns)
        unknown: list[Unrecognised] = []
        undecided: dict[int, str] = {}
        for number, (file, named) in enumerate(files):
            try:
                level = _File(db, file, number, tally, options, nary, min_confidence).read(format)
            except Unrecognised as error:
                if named:
                    raise
                unknown.append(error)
                skipped.append((str(file), "no known format; name the file to learn what was expected"))
                continue
            if level == "any":
                undecided[number] = str(file)
        if len(unknown) == len(files):
            raise unknown[0]
        if normalise is True and settle(db, list(undecided)):
            for name in undecided.values():
                plain = tally.formats[name].removesuffix(")")
                tally.formats[name] = f"{plain}; relations are single words: names, not normalised)"
        db.execute(
            "CREATE VIEW staged AS SELECT head, relation, tail, CASE WHEN weighted THEN w ELSE n END AS n, "
            "head_type, tail_type, level FROM raw JOIN file ON file = id"
        )
        return gather(
            db, tally, skipped=tuple(skipped), min_support=min_support, normalise=normalise is True, nary=nary
        )


@contextmanager
def _explained(memory_limit: str) -> Iterator[None]:
    """Say what to do about DuckDB's own errors."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise IngestError(
            f"memory_limit is {memory_limit}, which is too little for this input; give more with --memory-limit "
            "(memory_limit=), or use fewer threads (threads=)"
        ) from None
    except duckdb.IOException as error:
        raise IngestError(f"the temporary files of the reading: {' '.join(str(error).split())[:200]}") from None


class _File:
    """One file on its way into the table ``raw``."""

    def __init__(
        self, db: Any, path: Path, number: int, tally: Tally, options: Options, nary: str, min_confidence: float | None
    ) -> None:
        self.db, self.path, self.number, self.tally = db, path, number, tally
        self.options, self.nary, self.min_confidence = options, nary, min_confidence
        self.counts: Counter[str] = Counter()

    def read(self, format: str) -> Level:
        """Recognise the format, stage every line, and say what became of them; returns the level of its relations."""
        start, lines = peek(self.path)
        sample = Sample(self.path, start, tuple(lines[:_SAMPLE_LINES]))
        if not lines and not start.startswith(BINARY):
            raise IngestError(f"{self.path}: no usable line: the file begins with blank lines only")
        name, why = detect(sample) if format == "auto" else (format, "")
        reader = READERS[name]
        if reader.layout and not sample.lines:
            raise IngestError(f"{self.path}: no text, so no {name}; leave format at auto")
        description, level, kind = self._lines(reader, sample) if reader.layout else self._items(reader, name)
        c = self.counts
        if not c["used"]:
            own = [example for example in self.tally.examples if example.file == str(self.path)]
            raise IngestError(
                f"{self.path}: no usable line as {description}: {c['lines']} lines, {c['bad']} bad, "
                f"{c['header']} header, {c['aside']} without an extraction, {c['left']} left out, "
                f"{c['low']} below the confidence{f'; {own[-1]}' if own else ''}"
            )
        if kind == "count" and self.min_confidence is not None:
            raise IngestError(f"{self.path}: min_confidence is given but {description} has counts, not confidences")
        applied = level.replace("any", "text") if self.options.normalise is True else "names"
        self.db.execute("INSERT INTO file VALUES ($1, $2, $3)", [self.number, LEVELS[applied], kind == "count"])
        c["blank"] = c["lines"] - sum(c[key] for key in ("used", "low", "bad", "left", "aside", "header"))
        self.tally.counts.update(c)
        self.tally.formats[str(self.path)] = description
        if why:
            self.tally.detected[str(self.path)] = why
        return level

    def _lines(self, reader: Reader, sample: Sample) -> tuple[str, Level, str]:
        """Lines of fixed cells, taken apart by DuckDB block by block."""
        assert reader.layout is not None
        try:
            layout: Layout = reader.layout(sample, self.options)
        except IngestError as error:
            raise IngestError(f"{self.path}: {error}") from None
        if self.min_confidence is not None and (layout.weight is None or layout.weight_kind == "count"):
            raise IngestError(f"{self.path}: min_confidence is given but {layout.description} has no confidence")
        query = text_query(layout, bool(self.options.normalise), self.min_confidence)
        self.counts["header"] = int(layout.header)
        line, all_of, odd = 0, Outcome(Counter(), float("inf"), 0.0, True), False
        for text, latin1 in text_blocks(self.path):
            block = _blank_header(text) if layout.header and line == 0 else text
            outcome = stage_text(
                self.db, query, block, line, str(self.path), self.number, self.tally,
                typed=bool(layout.head_type or layout.tail_type),
            )  # fmt: skip
            lines = block.count("\n") + 1
            self.counts.update(outcome.counts)
            self.counts.update(lines=lines, latin1=latin1)
            line += lines
            smallest, largest = min(all_of.smallest, outcome.smallest), max(all_of.largest, outcome.largest)
            all_of = Outcome(self.counts, smallest, largest, all_of.whole and outcome.whole)
            guessed = layout.weight is not None and layout.weight_kind is None and all_of.whole
            odd = guessed and (odd or differing(self.db))
        kind = layout.weight_kind or (
            "count" if layout.weight and all_of.whole and all_of.largest > 1 else "confidence"
        )
        if kind == "count" and layout.weight_kind is None:
            self._doubt_counts(all_of, odd)
        return layout.description.replace("confidence or count", kind), layout.level, kind

    def _doubt_counts(self, values: Outcome, differ: bool) -> None:
        """Warn of whole numbers that were taken for counts without a name that says so, and may be none."""
        reasons = []
        if values.smallest >= _LEAST_ODD:
            years = values.smallest >= 1000 and values.largest <= 2100
            reasons.append(f"all from {values.smallest:,.0f} to {values.largest:,.0f}{', like years' if years else ''}")
        if differ:
            reasons.append("different for equal triples")
        if reasons:
            self.tally.warnings.append(
                f"{self.path}: an unnamed column of whole numbers is read as counts, and they are {' and '.join(reasons)}; "
                "if they are no counts, name the columns with --columns head,relation,tail,- (columns=)"
            )

    def _items(self, reader: Reader, name: str) -> tuple[str, Level, str]:
        """Items of a reader in Python."""
        self.options.no_columns(name)
        description = f"{name} ({reader.description})"
        has = reader.confidence if isinstance(reader.confidence, bool) else reader.confidence(self.path)
        if self.min_confidence is not None and not has:
            raise IngestError(f"{self.path}: min_confidence is given but {description} has no confidence")
        if reader.records is not None:
            items = reader.records(self.path)
        else:
            assert reader.rows is not None
            items = reader.rows(self._counted_lines(), self.path)
        normalise = bool(self.options.normalise)
        for outcome in stage_items(
            self.db, items, self.nary, normalise, self.min_confidence, str(self.path), self.number, self.tally
        ):
            self.counts.update(outcome.counts)
        if reader.records is not None:
            self.counts["lines"] = sum(self.counts[key] for key in ("used", "low", "bad", "left", "aside"))
        return description, reader.level, "confidence"

    def _counted_lines(self) -> Iterator[tuple[int, str]]:
        """Lines that are not blank with their numbers, counting all of them."""
        for text, latin1 in text_blocks(self.path):
            before = self.counts["lines"]
            lines = text.split("\n")
            self.counts.update(lines=len(lines), latin1=latin1)
            for number, line in enumerate(lines, before + 1):
                if line.strip():
                    yield number, line.rstrip("\r")


def _blank_header(text: str) -> str:
    """Blank the first line that is not empty, so that line numbers stay those of the file."""
    start = len(text) - len(text.lstrip("\r\n"))
    end = text.find("\n", start)
    return "\n" * text.count("\n", 0, start) + (text[end:] if end >= 0 else "")
