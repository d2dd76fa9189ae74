"""What became of every line of the input: the report that travels with the facts, and the error for unusable input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relsim.phrases.normalise import RULES

__all__ = ["BadLine", "IngestError", "IngestReport", "Merged", "Unrecognised"]

_REASONS = 10


class IngestError(ValueError):
    """Input that cannot be read as extractions; the message is one line for the person who gave it."""


class Unrecognised(IngestError):
    """A file in which no format can be recognised; in a folder it is skipped."""


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
class Merged:
    """How many spellings normalisation read as how many relations, or arguments, and the most frequent examples.

    An example is the name that stands for all, and the spellings it replaces.
    """

    forms: int
    names: int
    examples: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """Counts of everything read and of everything left out.

    ``lines == blank + header + aside + bad + left_out + below_confidence + used``, always.

    Parameters
    ----------
    formats
        File name to a short description of the format it was read as.
    detected
        File name to what the format was recognised by; empty for a file whose format was given.
    skipped
        Files of a folder that were not read, each with the reason.
    lines, blank, header, aside, bad, left_out, below_confidence, used
        Lines (or records) in all files, and how each was spent. ``aside`` holds sentences, comments and counts;
        ``left_out`` extractions that are whole but have no place among facts of two arguments.
    bad_reasons, bad_examples
        How many bad lines had which reason, and the first few of them.
    left_out_reasons
        How many lines were left out for which reason.
    latin1_lines
        Lines that are not valid UTF-8 and were read as Latin-1.
    nary, further_arguments
        What was done with arguments after the second, and how many of them were not kept.
    extractions
        Extractions from the used lines: more than lines where further arguments give facts of their own.
    notes
        Anything else worth knowing, such as a file with fewer rows than its first line says.
    warnings
        What may have been misread, such as years taken for counts.
    phrases, arguments
        What normalisation merged; None if it was off.
    negated
        Relations whose key is negative ("did not win"); None if normalisation was off.
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
    aside: int = 0
    left_out: int = 0
    below_confidence: int = 0
    latin1_lines: int = 0
    extractions: int = 0
    further_arguments: int = 0
    nary: str = "first"
    detected: Mapping[str, str] = field(default_factory=dict)
    bad_reasons: Mapping[str, int] = field(default_factory=dict)
    left_out_reasons: Mapping[str, int] = field(default_factory=dict)
    bad_examples: tuple[BadLine, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    phrases: Merged | None = None
    arguments: Merged | None = None
    negated: int | None = None
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
        out = [
            f"read {name} as {kind}" + (f": {why}" if (why := self.detected.get(name)) else "")
            for name, kind in self.formats.items()
        ]
        out += [f"skipped {name}: {reason}" for name, reason in self.skipped]
        kept = self.distinct_phrases - len(self.below_support)
        out.append(
            f"{self.lines:,} lines: {self.used:,} used, {self.bad:,} bad, {self.blank:,} blank, {self.header:,} header"
            + (f", {self.aside:,} sentences or notes" if self.aside else "")
            + (f", {self.left_out:,} left out" if self.left_out else "")
            + (f", {self.below_confidence:,} below the confidence" if self.below_confidence else "")
        )
        out += self.notes
        out += [f"warning: {warning}" for warning in self.warnings]
        if self.latin1_lines:
            out.append(f"{self.latin1_lines:,} lines are not UTF-8 and were read as Latin-1")
        out += [f"bad: {count:,} x {reason}" for reason, count in [*self.bad_reasons.items()][:_REASONS]]
        if (unnamed := len(self.bad_reasons) - _REASONS) > 0:
            out.append(f"bad: {unnamed} more reasons")
        out += [f"  {bad}" for bad in self.bad_examples[:examples]]
        out += [f"left out: {count:,} x {reason}" for reason, count in self.left_out_reasons.items()]
        if self.further_arguments or self.extractions > self.used:
            out.append(_nary(self))
        out += self._normalisation(examples)
        out.append(f"{self.distinct_facts:,} distinct facts over {self.distinct_phrases:,} phrases")
        if self.below_support:
            named = ", ".join(f"{phrase!r} ({support})" for phrase, support in self.below_support[:examples])
            more = ", ..." if len(self.below_support) > examples else ""
            out.append(
                f"not enough evidence: {len(self.below_support):,} phrases with fewer than {self.min_support} distinct "
                f"argument pairs ({self.below_support_facts:,} facts), such as {named}{more}; {kept:,} phrases kept"
            )
        return out

    def _normalisation(self, examples: int) -> list[str]:
        if self.phrases is None or self.arguments is None:
            return []
        out = [
            f"normalisation: {self.phrases.forms:,} phrases read as {self.phrases.names:,}, {self.arguments.forms:,} "
            f"arguments as {self.arguments.names:,}; {self.negated:,} negative relations kept apart",
            f"  rules: {RULES}",
        ]
        out += [f"  {name!r} is also {', '.join(map(repr, forms))}" for name, forms in self.phrases.examples[:examples]]
        return out

    def __str__(self) -> str:
        return "\n".join(self.summary())


def _nary(report: IngestReport) -> str:
    if report.nary == "each":
        return f"n-ary: every further argument is a fact of its own, {report.extractions:,} extractions in all"
    return f"n-ary: the first two arguments are kept, {report.further_arguments:,} further arguments are not"
