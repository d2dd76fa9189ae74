"""What became of every line of the input: the report that travels with the facts, and the error for unusable input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BadLine", "IngestError", "IngestReport"]


class IngestError(ValueError):
    """Input that cannot be read as extractions; the message is one line for the person who gave it."""


@dataclass(frozen=True)
class BadLine:
    """One line that could not be used: where it stands, why, and its text (shortened)."""

    file: str
    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}: {self.text!r}"


@dataclass(frozen=True)
class IngestReport:
    """Counts of everything read and of everything left out.

    ``lines == blank + header + bad + below_confidence + used``, always.

    Parameters
    ----------
    formats
        File name to a short description of the format it was read as.
    skipped
        Files of a folder that were not read, each with the reason.
    lines, blank, header, bad, below_confidence, used
        Lines in all files, and how each was spent.
    bad_reasons, bad_examples
        How many bad lines had which reason, and the first few of them.
    latin1_lines
        Lines that are not valid UTF-8 and were read as Latin-1.
    distinct_facts, distinct_phrases
        Before the support filter.
    min_support
        Distinct argument pairs a phrase needs to be compared.
    below_support
        Phrases with fewer, each with its distinct argument pairs, most supported first.
    below_support_facts
        Distinct facts of those phrases.
    """

    formats: Mapping[str, str]
    lines: int
    used: int
    bad: int
    blank: int = 0
    header: int = 0
    below_confidence: int = 0
    latin1_lines: int = 0
    bad_reasons: Mapping[str, int] = field(default_factory=dict)
    bad_examples: tuple[BadLine, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    distinct_facts: int = 0
    distinct_phrases: int = 0
    min_support: int = 1
    below_support: tuple[tuple[str, int], ...] = ()
    below_support_facts: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read."""
        return tuple(self.formats)

    def summary(self, *, examples: int = 5) -> list[str]:
        """Human-readable lines: what was read, what was left out and why.

        Parameters
        ----------
        examples
            How many bad lines and phrases below the support to show.
        """
        out = [f"read {name} as {kind}" for name, kind in self.formats.items()]
        out += [f"skipped {name}: {reason}" for name, reason in self.skipped]
        kept = self.distinct_phrases - len(self.below_support)
        out.append(
            f"{self.lines:,} lines: {self.used:,} used, {self.bad:,} bad, {self.blank:,} blank, {self.header:,} header"
            + (f", {self.below_confidence:,} below the confidence" if self.below_confidence else "")
        )
        if self.latin1_lines:
            out.append(f"{self.latin1_lines:,} lines are not UTF-8 and were read as Latin-1")
        out += [f"bad: {count:,} x {reason}" for reason, count in self.bad_reasons.items()]
        out += [f"  {bad}" for bad in self.bad_examples[:examples]]
        out.append(f"{self.distinct_facts:,} distinct facts over {self.distinct_phrases:,} phrases")
        if self.below_support:
            named = ", ".join(f"{phrase!r} ({support})" for phrase, support in self.below_support[:examples])
            more = ", ..." if len(self.below_support) > examples else ""
            out.append(
                f"not enough evidence: {len(self.below_support):,} phrases with fewer than {self.min_support} distinct "
                f"argument pairs ({self.below_support_facts:,} facts), such as {named}{more}; {kept:,} phrases kept"
            )
        return out

    def __str__(self) -> str:
        return "\n".join(self.summary())
