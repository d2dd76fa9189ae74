"""Finished runs side by side: one row a configuration, over its seeds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from .config import config_hash, flatten
from .errors import UsageError
from .folder import RunFolder
from .registry import did_you_mean

__all__ = ["Table", "compare_results"]

STUDY = re.compile(r"subspace-[0-9a-f]{8}")  # folder of a study, whose runs are its own
SMALLER_IS_BETTER = re.compile(r"(.*_)?(loss|nll|cross_entropy|perplexity|mean_rank|distortion|error|stderr)(_.*)?")


@dataclass(frozen=True)
class Table:
    """Columns and rows, and what to warn of.

    Attributes
    ----------
    rows : text and numbers, None where nothing is known
    best : places of the rows that are the best on their data
    """

    columns: list[str]
    rows: list[list[Any]]
    warnings: list[str] = field(default_factory=list)
    best: frozenset[int] = frozenset()

    def render(self, style: str = "table") -> str:
        """Text in the style table, text, csv (numbers in full), latex or html; a star marks the best rows."""
        from .report.tables import render

        marks = [["*" if place in self.best else ""] if self.best else [] for place in range(len(self.rows))]
        rows = [[*row, *mark] for row, mark in zip(self.rows, marks, strict=True)]
        return render([*self.columns, *(["best"] if self.best else [])], rows, style, spec=".4f")


@dataclass
class _Group:
    """Runs of one configuration hash."""

    config: dict[str, Any]
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    unfinished: list[int] = field(default_factory=list)
    folders: dict[int, Path] = field(default_factory=dict)


def _expand(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Run folders among the paths and below them, but for those inside a study, of which a warning says."""
    found, warnings = [], []
    for path in paths:
        if (path / "config.yaml").exists():
            found.append(path)
            continue
        below = sorted(config.parent for config in path.rglob("config.yaml") if _is_run(config))
        if not below:
            raise UsageError(f"{path} is no run folder and holds none (a run folder has a config.yaml)")
        inside = [run for run in below if any(STUDY.fullmatch(part) for part in run.relative_to(path).parts)]
        if inside:
            studies = sorted({next(p.name for p in run.parents if STUDY.fullmatch(p.name)) for run in inside})
            warnings.append(
                f"{len(inside)} runs of {', '.join(studies)} are parts of a study and left out; name its folder"
            )
        found += [run for run in below if run not in inside]
    if not found:
        raise UsageError(f"{'; '.join(warnings)} to compare them")
    return list({path.resolve(): path for path in found}.values()), warnings


def _is_run(config: Path) -> bool:
    """Whether a config.yaml is that of a run: folders may hold those of other programs."""
    try:
        RunFolder(config.parent).config()
    except UsageError:
        return (config.parent / "checkpoints").is_dir() or (config.parent / "result.json").is_file()
    return True


def _collect(paths: Sequence[Path]) -> tuple[dict[str, _Group], list[str]]:
    groups: dict[str, _Group] = {}
    folders, warnings = _expand(paths)
    for path in folders:
        folder = RunFolder(path)
        config = folder.config()
        if folder.finished:
            result = folder.result()
            asked = {key: value for key, value in config.items() if key != "task"}
            if result["config_hash"] != config_hash(config["task"], asked):
                warnings.append(f"{path / 'config.yaml'} was changed after the run, whose result is left out")
                continue
            group = groups.setdefault(result["config_hash"], _Group(config))
            if (other := group.folders.setdefault(result["seed"], path)) != path:
                raise UsageError(
                    f"{other} and {path} are runs of one configuration and seed; leave one of them out, "
                    "or compare them by name in separate calls"
                )
            group.results[result["seed"]] = result
        else:
            rest = {key: value for key, value in config.items() if key != "task"}
            group = groups.setdefault(config_hash(config.get("task", ""), rest), _Group(config))
            group.unfinished.append(config.get("seed", 0))
    return groups, warnings


def _label(config: Mapping[str, Any], name: str, varying: set[str]) -> str:
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return "default"  # an option that joined later and is not set
        value = value[part]
    if not isinstance(value, Mapping):
        return Path(str(value)).name if name == "data" else str(value)
    first = next(iter(value.values()), "")
    rest = [f"{key}={leaf}" for key, leaf in flatten(value) if f"{name}.{key}" in varying and key != next(iter(value))]
    return " ".join([str(first), *rest])


def _varying(groups: Sequence[_Group]) -> set[str]:
    configs = [dict(flatten(group.config)) for group in groups]
    keys = {key for config in configs for key in config}
    return {key for key in keys if len({str(config.get(key, "default")) for config in configs}) > 1}


def _warn(groups: Mapping[str, _Group]) -> tuple[list[str], set[str]]:
    """Warnings of data that differ, and the names of data of which rows are not comparable."""
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
    warnings = []
    for digest, group in groups.items():
        marks = {(r["data"]["sha256"], r["data"]["split"]) for r in group.results.values()}
        if len(marks) > 1:
            warnings.append(f"the runs of configuration {digest[:8]} differ in data hash or split: do not average them")
        for result in group.results.values():
            seen[result["data"]["name"]] |= marks
    unequal = {name: len(marks) for name, marks in seen.items() if len(marks) > 1}
    warnings += [
        f"runs on {name} used {count} different contents or splits of it: their rows are not comparable"
        for name, count in unequal.items()
    ]
    return warnings, set(unequal)


def _metric(group: _Group, metric: str | None) -> str:
    """Metric of a configuration's row: the one that is asked for, or its task's first; empty of unfinished runs."""
    tests = [result["metrics"]["test"] for result in group.results.values()]
    return (metric or next(iter(tests[0]))) if tests else ""


def _with_metric(groups: Mapping[str, _Group], metric: str | None) -> tuple[dict[str, _Group], list[str]]:
    """Configurations that have a metric, and a warning of those that have it not."""
    if metric is None:
        return dict(groups), []
    every = {d: [r["metrics"]["test"] for r in group.results.values()] for d, group in groups.items()}
    kept = {d: group for d, group in groups.items() if all(metric in found for found in every[d])}
    if not any(every[digest] for digest in kept):
        names = dict.fromkeys(name for tests in every.values() for found in tests for name in found)
        raise UsageError(f"no run has the metric {metric!r}. {did_you_mean(metric, list(names))}")
    left = len(groups) - len(kept)
    return kept, [f"{left} configurations do not have the metric {metric} and are left out"] if left else []


def compare_results(paths: Sequence[Path], *, by: Sequence[str], metric: str | None) -> Table:
    """Compare run folders (or folders of them); see ``tasks.compare``."""
    by = [name.strip() for name in by]
    groups, warnings = _collect(paths)
    if not any(group.results for group in groups.values()):
        raise UsageError(f"no finished run among {len(groups)} configurations; finish one with `hyrel resume FOLDER`")
    options = {key for group in groups.values() for key, _ in flatten(group.config)}
    options |= {key.split(".")[0] for key in options}
    for name in by:
        if name not in options:
            raise UsageError(f"no run has the option {name!r} to --by. {did_you_mean(name, sorted(options))}")
    groups, left = _with_metric(groups, metric)
    metrics = {digest: _metric(group, metric) for digest, group in groups.items()}
    several = len({name for name in metrics.values() if name}) > 1
    varying = _varying(list(groups.values()))
    warned, unequal = _warn(groups)
    means: dict[str, float] = {}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for digest, group in groups.items():
        data = _label(group.config, "data", varying)
        seeds[str(group.config.get("task")), data] |= {*group.results, *group.unfinished}
        if group.results:
            means[digest] = mean(_scores(group, metrics[digest]))
            found[data, metrics[digest]].append(_sign(metrics[digest]) * means[digest])
    rows = []
    for digest, group in groups.items():
        name, values = metrics[digest], _scores(group, metrics[digest])
        data = _label(group.config, "data", varying)
        others = found[data, name]  # the best of several that are comparable
        top = values and len(others) > 1 and data not in unequal and _sign(name) * means[digest] == max(others)
        rows.append(
            [
                *(_label(group.config, option, varying) for option in by),
                digest[:8],
                *([name] if several else []),
                len(values),
                means.get(digest),
                stdev(values) if len(values) > 1 else None,
                ",".join(map(str, sorted(seeds[str(group.config.get("task")), data] - set(group.results)))),
                bool(top),
            ]
        )
    rows.sort(key=lambda row: row[: len(by)])
    best_rows = frozenset(place for place, row in enumerate(rows) if row.pop())
    columns = ["metric", "n", "score"] if several else ["n", next(name for name in metrics.values() if name)]
    columns = [*by, "config", *columns, "deviation", "missing seeds"]
    return Table(columns, rows, [*warnings, *left, *warned], best_rows)


def _scores(group: _Group, metric: str) -> list[float]:
    return [group.results[seed]["metrics"]["test"][metric] for seed in sorted(group.results)]


def _sign(metric: str) -> int:
    return -1 if SMALLER_IS_BETTER.fullmatch(metric) else 1
