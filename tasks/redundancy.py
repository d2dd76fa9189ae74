"""``hyrel redundancy``: from files of extractions to ranked pairs, clusters, a canonical map and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError
from .folder import explain_os_error

__all__ = ["RedundancyRun", "report_apply", "report_redundancy", "run_redundancy"]

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
    precision: float | None = None,
    neural: str = "auto",
    encoder: str | None = None,
    types: str | None = None,
    contradiction: str = "auto",
    review: Path | None = None,
    normalise: bool | str = True,
    nary: str = "first",
    min_confidence: float | None = None,
    memory_limit: str = "1GB",
    seed: int = 0,
    progress: Progress | None = None,
) -> RedundancyRun:
    """Read extractions, find redundant relation phrases, write the tables and ``report.html``.

    Parameters
    ----------
    files : extractions of any Open-IE system, or triples of a knowledge base
    out : folder of the results; ``NAME-redundancy`` beside the caller if None
    format, columns, min_support, min_confidence, normalise, nary, memory_limit : see ``relsim.read_openie``
    min_facts, threshold, precision, neural, types, contradiction, seed, progress : see ``relsim.redundancy``
    encoder : name of a sentence encoder, see ``tasks.encoder``
    review : pairs.tsv of an earlier run with accept or reject in its last column

    Raises
    ------
    UsageError : a missing or unreadable file, an option out of range
    RunError : the results cannot be written
    """
    from relsim import redundancy
    from relsim.redundancy import check_options

    from .report.html import Report
    from .report.redundancy import redundancy_section

    start = time.monotonic()
    folder = out or Path(f"{Path(files[0].name.removesuffix('.gz')).stem}-redundancy")
    # What can be refused is refused before the long reading.
    try:
        check_options(neural, threshold, precision, types, contradiction, min_facts)
    except ValueError as error:
        raise UsageError(str(error)) from None
    marks = _marks(review)
    _refuse_lost_marks(folder, marks)
    texts = None if encoder is None else _encoder(encoder)
    facts = _read(
        files,
        format=format,
        columns=columns,
        min_support=min_support,
        min_confidence=min_confidence,
        normalise=normalise,
        nary=nary,
        memory_limit=memory_limit,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the long work, not after it
    except OSError as error:
        raise RunError(explain_os_error(error, folder)) from None
    try:
        result = redundancy(
            facts,
            min_facts=min_facts,
            threshold=threshold,
            precision=precision,
            neural=neural,
            encoder=texts,
            types=types,
            contradiction=contradiction,
            review=marks,
            seed=seed,
            progress=progress,
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


def _encoder(name: str) -> Any:
    from .encoder import sentence_encoder

    return sentence_encoder(name)


def _marks(path: Path | None) -> Any:
    from relsim.merge.review import read_review

    if path is None:
        return None
    try:
        return read_review(path)
    except OSError as error:
        raise UsageError(f"--review: cannot read {path}: {error.strerror or error}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(" ".join(str(error).split())) from None


def _refuse_lost_marks(folder: Path, marks: Any) -> None:
    """Refuse to write over marks of an earlier run's tables that this run was not given."""
    from relsim.merge.review import Review, read_review

    given = Review({}) if marks is None else marks
    for path in (folder / "pairs.tsv", folder / "review.tsv"):
        if not path.is_file():
            continue
        try:
            lost = given.lacks(read_review(path))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path} would be written over and cannot be read: {error}; choose another --out"
            ) from None
        if lost:
            raise UsageError(
                f"{path} holds {lost:,} marks that this run would write over; use them with --review {path}, or choose "
                "another --out"
            )


def report_apply(
    mapping: Path, files: Sequence[Path], *, out: Path | None = None, column: str | None = None, undo: bool = False
) -> str:
    """Rewrite the phrases of new extractions by a canonical map, or take that back; describe what happened, as text.

    Parameters
    ----------
    mapping : canonical_map.tsv of an earlier run
    files : TAB-separated extractions (may be .gz); with `undo`, results of an earlier call
    out : the result of one file, or a folder for several; ``NAME.mapped.tsv`` (``NAME.restored.tsv``) if None
    column : column of the phrase, by its number from 1 or its name in the header; found by content if None
    undo : give back what was there before

    Raises
    ------
    UsageError : a file that is missing, a folder, or a file that has no phrase of the map
    RunError : the result cannot be written
    """
    from relsim.merge.apply import apply_map, read_map, undo_map

    missing = [path for path in (mapping, *files) if not path.exists()]
    if missing:
        raise UsageError(f"no such file: {', '.join(map(str, missing))}")
    if folders := [path for path in (mapping, *files) if path.is_dir()]:
        raise UsageError(
            f"{folders[0]} is a folder, expected TAB-separated files; name them, such as {folders[0]}/*.tsv"
        )
    lines = []
    try:
        phrases = read_map(mapping)
        targets = [_target(path, out, len(files) > 1, "restored" if undo else "mapped") for path in files]
        if twice := [target for target in targets if targets.count(target) > 1]:
            same = [str(file) for file, other in zip(files, targets, strict=True) if other == twice[0]]
            raise UsageError(f"{' and '.join(same)} would all be written to {twice[0]}: give them one at a time")
        for path, target in zip(files, targets, strict=True):
            if undo:
                lines.append(f"{target}: {undo_map(phrases, path, target, column=column):,} phrases put back")
            else:
                found = apply_map(phrases, path, target, column=column).summary()
                lines += [f"{target}: {found[0]}", *(f"  {line}" for line in found[1:])]
    except OSError as error:
        raise RunError(explain_os_error(error, out or mapping)) from None
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from None
    return "\n".join(lines)


def _target(path: Path, out: Path | None, several: bool, word: str) -> Path:
    name = Path(path.name.removesuffix(".gz").removesuffix(".tsv").removesuffix(".mapped")).name + f".{word}.tsv"
    if out is None:
        return Path(name)
    if several or out.is_dir():
        out.mkdir(parents=True, exist_ok=True)
        return out / name
    return out


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
    read = run.result.ingest.summary()
    # What reading warned of is among the warnings of the result too.
    lines = [*read, "", *(line for line in run.result.summary() if line not in read)]
    if len(run.result.pairs):
        table = render(PAIR_COLUMNS, pair_rows(run.result, show), "table").rstrip()
        lines += ["", f"first {min(show, len(run.result.pairs))} of {len(run.result.pairs):,} ranked pairs:", table]
    lines += ["", f"written in {run.seconds:.1f} s:", *(f"  {path}" for path in run.files)]
    return "\n".join(lines)
