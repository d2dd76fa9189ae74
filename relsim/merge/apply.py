"""Apply a canonical map to new extractions, line by line, and take it back."""

from __future__ import annotations

import gzip
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from relsim.merge.tables import plain, read_tsv, write_lines
from relsim.phrases.normalise import relation_key
from relsim.readers.columns import names_triple, role

__all__ = ["Applied", "apply_map", "read_map", "undo_map"]

_SAMPLE = 1000
_REMEMBERED = 1_000_000  # phrases whose answer is kept, so that memory stays bounded
_COLUMN = "original_relation"
_BOM = "\ufeff"


@dataclass(frozen=True)
class Applied:
    """What became of every line: ``lines == rewritten + kept + unknown + bad + header + blank``, always.

    Parameters
    ----------
    lines
        Lines read.
    rewritten, kept
        Lines whose phrase became another, and lines whose phrase is its own canonical form.
    unknown, bad, header, blank
        Lines whose phrase the map does not hold, lines with too few columns, and lines without a fact; all of them are
        copied as they are.
    unknown_phrases
        The most frequent phrases that the map does not hold.
    """

    lines: int
    rewritten: int
    kept: int
    unknown: int
    bad: int
    header: int
    blank: int
    unknown_phrases: tuple[tuple[str, int], ...]

    def summary(self) -> list[str]:
        """Human-readable lines."""
        out = [
            f"{self.lines:,} lines: {self.rewritten:,} rewritten, {self.kept:,} canonical already, "
            f"{self.unknown:,} with a phrase the map does not hold, {self.bad:,} bad, {self.header:,} header, "
            f"{self.blank:,} blank"
        ]
        if self.unknown_phrases:
            named = ", ".join(f"{phrase!r} ({count:,})" for phrase, count in self.unknown_phrases[:5])
            out.append(f"not in the map, such as {named}")
        return out


def read_map(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read phrase -> canonical from canonical_map.tsv, also after a spreadsheet saved it.

    Raises
    ------
    ValueError
        For a file without these columns, a row without one of the two, or a file that is no UTF-8 text.
    OSError
        When it cannot be read.
    """
    header, rows = read_tsv(path)
    if not {"phrase", "canonical"} <= set(header):
        shown = ", ".join(header)
        raise ValueError(f"{path}: expected columns phrase and canonical, got {shown}; give a canonical_map.tsv")
    for number, row in enumerate(rows, 2):
        if not row.get("phrase") or not row.get("canonical"):
            raise ValueError(
                f"{path}, row {number}: a phrase and its canonical phrase are expected, got {list(row.values())}"
            )
    return {plain(row["phrase"]): plain(row["canonical"]) for row in rows}


def apply_map(
    mapping: Mapping[str, str],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    column: int | str | None = None,
) -> Applied:
    """Rewrite the phrases of a file of TAB-separated extractions (may be gzip) in one pass, in constant memory.

    Each line with a known phrase gets its canonical form in place of the phrase, and the phrase as it stood in one more
    column at the end, so that ``undo_map`` gives the file back to the byte. Other lines get an empty last column.

    Parameters
    ----------
    mapping
        Phrase to canonical phrase; looked up as it stands, then in NFC with single spaces, then by
        :func:`relsim.phrases.normalise.relation_key`, where all phrases of that key have one canonical phrase.
    source, target
        Files; ``target`` is written under a temporary name and renamed.
    column
        Column of the phrase: its number from 1, or its name in the header. By default the header's, where it names all
        of head, relation and tail as for :func:`relsim.read_openie`, or the one that holds most known phrases among the
        first thousand lines.

    Raises
    ------
    ValueError
        When no column holds a known phrase, there is no such column, or ``source`` and ``target`` are one file.
    OSError
        When a file cannot be read or written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the input itself; name another file for the result")
    with _text(source) as stream:
        sample = [body.split("\t") for _, body, _ in islice(map(_split, stream), _SAMPLE)]
    place, header = _find(mapping, sample, source, column)
    counts: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    canonical_of = _Lookup(mapping)

    def lines() -> Iterator[str]:
        with _text(source) as stream:
            for mark, body, end in map(_split, stream):
                counts["lines"] += 1
                cells = body.split("\t")
                if header and counts["lines"] == 1:
                    counts["header"] += 1
                    yield f"{mark}{body}\t{_COLUMN}{end}"
                    continue
                if not body.strip():
                    counts["blank"] += 1
                elif len(cells) <= place:
                    counts["bad"] += 1
                else:
                    phrase = cells[place]
                    # A carriage return at its end could not be told from one at the end of the line.
                    canonical = None if phrase.endswith("\r") else canonical_of(phrase)
                    if canonical is None:
                        counts["unknown"] += 1
                        unknown[phrase] += 1
                    elif canonical == phrase:
                        counts["kept"] += 1
                    else:
                        counts["rewritten"] += 1
                        cells[place] = canonical
                        yield mark + "\t".join([*cells, phrase]) + end
                        continue
                yield f"{mark}{body}\t{end}"

    write_lines(target, lines(), errors="surrogateescape")
    numbers = {name: counts[name] for name in ("lines", "rewritten", "kept", "unknown", "bad", "header", "blank")}
    return Applied(**numbers, unknown_phrases=tuple(unknown.most_common(20)))


def undo_map(
    mapping: Mapping[str, str],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    column: int | str | None = None,
) -> int:
    """Give back the file that ``apply_map`` was given, to the byte; returns the lines whose phrase was put back.

    Parameters
    ----------
    mapping, column
        As they were given to ``apply_map``.
    source, target
        Its result, and where the original goes.

    Raises
    ------
    ValueError
        When a line is none that ``apply_map`` wrote by this map: nothing is written then.
    """
    source, target = Path(source), Path(target)
    with _text(source) as stream:
        sample = [body.split("\t")[:-1] for _, body, _ in islice(map(_split, stream), _SAMPLE)]
    place, _ = _find(mapping, sample, source, column)
    canonical_of = _Lookup(mapping)
    restored = 0

    def lines() -> Iterator[str]:
        nonlocal restored
        with _text(source) as stream:
            for number, (mark, body, end) in enumerate(map(_split, stream), 1):
                *cells, phrase = body.split("\t")
                mine = bool(cells)
                if phrase and not (number == 1 and phrase == _COLUMN):
                    # What stands there must come from the last cell, or that cell is the file's own.
                    mine = len(cells) > place and cells[place] == canonical_of(phrase) != phrase
                    if mine:
                        cells[place] = phrase
                        restored += 1
                if not mine:
                    raise ValueError(
                        f"{source}:{number}: the last cell is {phrase[:60]!r}, expected the column that --apply "
                        "(apply_map) of this map adds; give its result, with the same map and column"
                    )
                yield mark + "\t".join(cells) + end

    write_lines(target, lines(), errors="surrogateescape")
    return restored


def _split(line: str) -> tuple[str, str, str]:
    """Byte-order mark, text and end of a line; only the first one can have a mark."""
    mark = _BOM if line.startswith(_BOM) else ""
    body = line[len(mark) :].removesuffix("\n")
    body = body.removesuffix("\r") if len(mark) + len(body) < len(line) else body
    return mark, body, line[len(mark) + len(body) :]


def _clean(phrase: str) -> str:
    return unicodedata.normalize("NFC", re.sub(r"\s+", " ", phrase).strip())


class _Lookup:
    """Canonical phrase of a phrase: as it stands, in NFC with single spaces, or by the key of its inflections.

    A key under which the map holds two canonical phrases decides nothing.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = mapping
        self.keys: dict[str, str | None] = {}
        for phrase, canonical in mapping.items():
            key = relation_key(phrase)
            self.keys[key] = canonical if self.keys.get(key, canonical) == canonical else None
        self.seen: dict[str, str | None] = {}

    def __call__(self, phrase: str) -> str | None:
        if phrase not in self.seen:
            if len(self.seen) >= _REMEMBERED:
                self.seen.clear()
            found = self.mapping.get(phrase, self.mapping.get(_clean(phrase)))
            self.seen[phrase] = self.keys.get(relation_key(phrase)) if found is None else found
        return self.seen[phrase]


def _find(
    mapping: Mapping[str, str], sample: list[list[str]], source: Path, column: int | str | None
) -> tuple[int, bool]:
    """Column of the phrase from 0, and whether the first line is a header."""
    first = [cell.strip().strip('"') for cell in sample[0]] if sample else []
    # Three names, as the readers want them: a single cell such as R or P may be an argument.
    header = names_triple(first)
    if isinstance(column, str) and not column.isdecimal():
        if column not in first:
            raise ValueError(
                f"{source}: no column {column!r} in the first line ({', '.join(first)[:80]}); name one of its cells, or "
                "give the column's number with --column (column=)"
            )
        return first.index(column), True
    if column is not None:
        if (place := int(column)) < 1:
            raise ValueError(f"column is {column}, expected 1 or more")
        return place - 1, header
    if header:
        return next(k for k, cell in enumerate(first) if role(cell) == "relation"), True
    # Canonical forms count too: a mapped file must be read like the one it was made from.
    known = {*mapping, *mapping.values()}
    hits: Counter[int] = Counter()
    for row in sample:
        hits.update(k for k, cell in enumerate(row) if cell in known or _clean(cell) in known)
    if not hits:
        raise ValueError(
            f"{source}: no column holds a phrase of the map among the first {len(sample):,} lines; expected "
            "TAB-separated extractions read by this map, or the phrase's column named with --column (column=)"
        )
    return max(hits, key=lambda k: (hits[k], -k)), False


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    # Bytes that are not UTF-8 go through unchanged.
    opened = gzip.open if packed else open
    with opened(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        yield stream
