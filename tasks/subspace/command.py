"""``hyrel run subspace``: solutions, subspaces, points and transfers of all seeds, in tables and one report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config import make_config, study_digest, to_dict
from tasks.folder import atomic_write, locked
from tasks.launch import require_one_process
from tasks.process import cpu_threads
from tasks.report.html import Column, Report, format_cell
from tasks.report.tables import render

from .cells import Cell, solvable
from .checks import check_methods, check_sets, check_unchanged
from .config import StudyConfig
from .figures import contours, heat_map
from .planes import Planes, planes_of
from .study import JOINT, Method, Study, study_methods
from .tables import (
    COLUMNS,
    PUBLISHED,
    cell_rows,
    difference_rows,
    performance_columns,
    performance_rows,
    transfer_table,
)

__all__ = ["StudyResult", "study_subspace"]

_DIFFERENCE = ["dim", "joint less", "of", "difference", "95 %", "pairs"]


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes
    ----------
    cells : every score of a point
    references : seed, set, what, backbone, score, of the unseen sets without a delta
    planes : landscape of each seed
    folder : of ``subspace.csv``, ``subspace.html`` and the runs
    """

    config: StudyConfig
    methods: list[Method]
    cells: list[Cell]
    references: list[list[Any]]
    planes: list[Planes]
    folder: Path


def study_subspace(
    *,
    seeds: Sequence[int] = (0,),
    runs: str | Path = "runs",
    data_dir: str | None = None,
    args: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    **overrides: Any,
) -> StudyResult:
    """Study the unified subspace of delta methods; what is finished in `runs` is used again.

    Every seed trains the deltas on all sets, approximates the subspaces of the seen sets' solutions, trains points on the
    unseen sets through each method, and reads every point by every method. Controls share the solutions.

    Parameters
    ----------
    seeds : of the whole study
    runs : folder below which that of the study is made
    data_dir : folder of the data sets
    args, **overrides : options, as words of the command line or by name
    say : told of every step
    """
    require_one_process("a subspace study")
    config = make_config(StudyConfig, overrides=overrides, args=args, prog="hyrel run subspace")
    tree = to_dict(config)
    # The dimensions and controls add to what is there; what is measured has them in its key.
    named = {key: value for key, value in tree.items() if key not in ("dims", "controls", "grid", "planes", "threads")}
    folder = Path(runs) / f"subspace-{study_digest(named)}"
    contents = check_sets(config, data_dir)
    methods = study_methods(config)
    for method in methods:
        say(f"{method.label}: {method.parameters:,} parameters")
    check_methods(config, methods)
    check_unchanged(folder, contents)
    with locked(folder, "choose another --runs"), cpu_threads(config.threads):
        result = _study(config, methods, seeds, folder, data_dir, say)
        _write(result, say)
    return result


def _study(
    config: StudyConfig,
    methods: list[Method],
    seeds: Sequence[int],
    folder: Path,
    data_dir: str | None,
    say: Callable[[str], None],
) -> StudyResult:
    cells: list[Cell] = []
    references: list[list[Any]] = []
    planes: list[Planes] = []
    for seed in dict.fromkeys(seeds):
        study = Study(config, methods, seed=seed, folder=folder / f"seed{seed}", data_dir=data_dir, say=say)
        whole = study.whole()
        references += study.references()
        cells += study.cells(whole)
        planes += [found] if (found := planes_of(study)) is not None else []
    return StudyResult(config, methods, cells, references, planes, folder)


def _text(rows: list[list[Any]]) -> list[list[str]]:
    return [["" if cell is None else format_cell(cell, ".3f") for cell in row] for row in rows]


def _write(result: StudyResult, say: Callable[[str], None]) -> None:
    cells = result.cells
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(cell_rows(cells))
    atomic_write(result.folder / "subspace.csv", text.getvalue())
    _, remarks = solvable(cells)
    performance, differences = _text(performance_rows(cells)), _text(difference_rows(cells))
    columns = performance_columns(cells)
    say(render(columns, performance))
    say(render(_DIFFERENCE, differences))
    for line in [*remarks, *_landscape_lines(result.planes)]:
        say(line)
    say(str(_report(result, performance, differences, remarks).save(result.folder / "subspace.html")))


def _landscape_lines(planes: Sequence[Planes]) -> list[str]:
    return [
        f"{p.task}, {p.dim} dimensions: all methods keep 90 % of their best on {p.share:.2f} of the plane "
        f"[{p.low:.2f}, {p.high:.2f}]; on random planes {', '.join(f'{share:.2f}' for share in p.random) or '(none drawn)'}"
        for p in planes
    ]


def _report(
    result: StudyResult, performance: list[list[str]], differences: list[list[str]], remarks: list[str]
) -> Report:
    config, cells = result.config, result.cells
    report = Report("Unified subspace of delta methods", f"{config.model}; seen {config.data}; unseen {config.unseen}")
    names = [[m.label, m.model, m.delta, str(m.parameters), f"{m.lr * config.lr_factor:g}"] for m in result.methods]
    report.section("Methods").add_table(
        ["method", "backbone", "delta", "parameters", "learning rate"], names, caption="Deltas of the study"
    )
    section = report.section(
        "Relative performance",
        "Test score of a point over that of the method's whole delta, both less the score of a guess; the plain ratio beside "
        "it. Optimisation: the point was trained through the method itself. Transfer: through another one.",
    )
    section.add_table(performance_columns(cells), performance, caption="By subspace and dimension")
    kind = "one task" if len(config.sets) == 1 else "many tasks"
    own, moved = PUBLISHED[kind]
    section.add_text(
        f"Published, plain, T5 on other tasks ({kind}): optimisation {own:.3f}, transfer {moved:.3f} (Yi et al. 2022). "
        "Another backbone, other tasks: for orientation, no target."
    )
    if "pca" in config.control_names and max(config.dimensions) > len(config.sets):
        section.add_text(
            f"The solutions of {len(config.sets)} sets have no more principal components: pca has no more."
        )
    for remark in remarks:
        section.add_text(remark)
    section = report.section(
        "The joint subspace against its controls",
        "Difference of chance-corrected relative performance over pairs of seed and set, with the wider of the 95 % t "
        "intervals over sets and over seeds.",
    )
    section.add_table(_DIFFERENCE, differences, caption="Joint less control")
    dim = max(config.dimensions)
    table, labels = transfer_table(cells, dim)
    report.section("Transfer").add_figure(
        heat_map(table, labels), caption=f"Relative performance in the {JOINT} subspace of {dim} dimensions"
    )
    if result.planes:
        section = report.section("Landscape")
        section.add_figure(contours(result.planes[0]), caption="Share of validation rows right, first seed")
        for line in _landscape_lines(result.planes):
            section.add_text(line)
    references = [
        [str(cell) if not isinstance(cell, float) else f"{cell:.4f}" for cell in row] for row in result.references
    ]
    report.section("Without a delta").add_table(
        ["seed", "set", "what", "backbone", "score"], references, caption="Unseen sets, test split"
    )
    everything = cell_rows(cells)
    report.section("Every point").add_table(
        [Column(name) for name in COLUMNS], everything, caption="Also in subspace.csv"
    )
    return report
