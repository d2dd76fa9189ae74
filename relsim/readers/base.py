"""What every reader of a file format is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from relsim.ingest.report import IngestError

__all__ = [
    "Argument",
    "Aside",
    "Extraction",
    "Item",
    "Layout",
    "Level",
    "Lines",
    "Options",
    "Reader",
    "Sample",
    "is_integer",
    "is_number",
]

Level = Literal["text", "lemma", "names", "any"]
"""What :mod:`relsim.phrases.normalise` may do: phrases as written, phrases of lemmas, or names left as they are.

"any": names if no relation of the input has white space, else phrases as written."""
Lines = Iterable[tuple[int, str]]
"""Number and text of every line of a file that is not blank."""


class Argument(NamedTuple):
    """An argument after the first: its text, the word that ties it to the relation, and its kind (time, place)."""

    text: str
    marker: str = ""
    kind: str = ""


class Extraction(NamedTuple):
    """One extraction: two arguments or more, or fewer where a system leaves one out."""

    line: int
    head: str
    relation: str
    tails: Sequence[Argument]
    confidence: float | None = None
    negative: bool = False
    head_type: str | None = None
    tail_type: str | None = None
    weight: float = 1.0


class Aside(NamedTuple):
    """A line without a usable extraction: "aside" (a sentence, a comment), "left" out by policy, or "bad"; or a note."""

    line: int
    kind: Literal["aside", "left", "bad", "note"]
    reason: str
    text: str = ""


Item = Extraction | Aside


@dataclass(frozen=True)
class Sample:
    """The beginning of a file: its first bytes (decompressed) and lines that are not blank."""

    path: Path
    start: bytes
    lines: tuple[str, ...]

    def count(self, good: Callable[[str], bool]) -> int:
        """How many lines are good."""
        return sum(map(good, self.lines))

    def mostly(self, good: Callable[[str], bool], share: float = 0.5) -> str | None:
        """Text ``n of m sampled lines`` if more than ``share`` of them are good, else None."""
        count = self.count(good)
        return f"{count} of {len(self.lines)} sampled lines" if count > share * len(self.lines) else None


@dataclass(frozen=True)
class Options:
    """What the caller asked of a reader: normalise is True, False or "extractor"."""

    normalise: bool | str = True
    columns: Sequence[str] | None = None

    def no_columns(self, name: str) -> None:
        """Refuse ``columns`` for a format whose columns are fixed."""
        if self.columns is not None:
            raise IngestError(f"columns= applies to tsv and csv; the fields of {name} are fixed")


@dataclass(frozen=True)
class Layout:
    """How to take a line apart, as DuckDB expressions over ``line`` (text) and ``f`` (its cells, or NULL).

    ``shape`` gives the reason a line is bad, or NULL. ``weight_kind`` is "confidence", "count", or None to decide from
    all values: integers of which one is above 1 are counts, anything else is a confidence. ``count`` is that of a file with
    a confidence too. ``escapes`` says that a cell
    may hold characters that do not stand in the line itself, or a TAB.
    """

    description: str
    cells: str
    shape: str
    head: str
    relation: str
    tail: str
    weight: str | None = None
    weight_kind: str | None = None
    count: str | None = None
    head_type: str | None = None
    tail_type: str | None = None
    header: bool = False
    escapes: bool = False
    level: Level = "text"


@dataclass(frozen=True)
class Reader:
    """One format.

    Parameters
    ----------
    description
        One line on the format.
    sniff
        Why the beginning of a file looks like it, or None.
    layout
        Formats of one extraction a line with fixed cells: the SQL that takes a line apart. The fastest way.
    rows
        Any other text format: items from the lines of the file at a path.
    records
        Formats that are no lines: items from a path, numbered from 1.
    level
        For ``rows`` and ``records``: what normalisation may do.
    confidence
        For ``rows`` and ``records``: whether extractions carry a confidence; a function of the path if files differ.
    """

    description: str
    sniff: Callable[[Sample], str | None]
    layout: Callable[[Sample, Options], Layout] | None = None
    rows: Callable[[Lines, Path], Iterator[Item]] | None = None
    records: Callable[[Path], Iterator[Item]] | None = None
    level: Level = "text"
    confidence: bool | Callable[[Path], bool] = True


def is_number(text: str) -> bool:
    """Whether a cell holds a finite number."""
    try:
        return float(text) - float(text) == 0
    except ValueError:
        return False


def is_integer(text: str) -> bool:
    """Whether a cell holds digits only."""
    return text.strip().isascii() and text.strip().isdigit()
