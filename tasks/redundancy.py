"""``hyrel redundancy``: from files of extractions to ranked pairs, clusters, a canonical map and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError
from .folder import explain_os_error

__all__ = ["RedundancyRun", "report_redundancy", "run_redundancy"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RedundancyRun:
    """A finished analysis: ``result`` is a ``relsim.RedundancyResult``."""

    result: Any
    folder: Path
    files: list[Path]
    seconds: float


def _read(files: Sequence[Path], **options: Any) -> Any:
    from relsim import IngestError, read_openie

    missing = [path for path in files if not path.exists()]
    if missing:
        raise UsageError(f"no such file: {', '.join(map(str, missing))}")
    try:
        return read_openie(files, **{key: value for key, value in options.items() if value is not None})
    except (IngestError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None


def run_redundancy(
    files: Sequence[Path],
    *,
    out: Path | None = None,
    format: str = "auto",
    columns: Sequence[str] | None = None,
    min_support: int | None = None,
    min_facts: int = 50,
    threshold: float | None = None,
    neural: str = "auto",
    normalise: bool = True,
    memory_limit: str = "1GB",
    seed: int = 0,
    progress: Progress | None = None,
) -> RedundancyRun:
    """Read extractions, find redundant relation phrases, write the tables and ``report.html``.

    Parameters
    ----------
    files : extractions of any Open-IE system, or triples of a knowledge base
    out : folder of the results; ``NAME-redundancy`` beside the caller if None
    format, columns, min_support, normalise, memory_limit : see ``relsim.read_openie``
    min_facts, threshold, neural, seed, progress : see ``relsim.redundancy``

    Raises
    ------
    UsageError : a missing or unreadable file, an option out of range
    RunError : the results cannot be written
    """
    from relsim import redundancy

    from .report.html import Report
    from .report.redundancy import redundancy_section

    start = time.monotonic()
    folder = out or Path(f"{Path(files[0].name.removesuffix('.gz')).stem}-redundancy")
    facts = _read(
        files, format=format, columns=columns, min_support=min_support, normalise=normalise, memory_limit=memory_limit
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the long work, not after it
    except OSError as error:
        raise RunError(explain_os_error(error, folder)) from None
    options = {} if threshold is None else {"threshold": threshold}
    try:
        result = redundancy(
            facts,
            min_facts=min_facts,
            neural=neural,
            seed=seed,
            progress=progress,
            **options,  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        written = result.save(folder)
        report = Report("Relation redundancy", ", ".join(path.name for path in files))
        redundancy_section(report, result)
        written.append(report.save(folder / "report.html"))
    except OSError as error:
        raise RunError(explain_os_error(error, folder)) from None
    return RedundancyRun(result, folder, written, time.monotonic() - start)


def pair_rows(result: Any, count: int) -> list[list[str]]:
    """First `count` ranked pairs as text cells: phrases, kind, probability, facts, what decided."""
    return [
        [
            row["rel_a"],
            row["rel_b"],
            row["kind"],
            f"{row['p_redundant']:.2f}",
            f"{row['support_a']}/{row['support_b']}",
            row["decided_by"],
        ]
        for row in result.pairs.rows(count)
    ]


PAIR_COLUMNS = ["phrase A", "phrase B", "A is", "p", "facts", "decided by"]


def report_redundancy(files: Sequence[Path], *, show: int = 15, **options: Any) -> str:
    """Run :func:`run_redundancy` and describe what was read, what was found and where it is, as text."""
    from .report.tables import render

    run = run_redundancy(files, **options)
    lines = [*run.result.ingest.summary(), "", *run.result.summary()]
    if len(run.result.pairs):
        table = render(PAIR_COLUMNS, pair_rows(run.result, show), "table").rstrip()
        lines += ["", f"first {min(show, len(run.result.pairs))} of {len(run.result.pairs):,} ranked pairs:", table]
    lines += ["", f"written in {run.seconds:.1f} s:", *(f"  {path}" for path in run.files)]
    return "\n".join(lines)
