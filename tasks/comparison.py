"""Finished runs side by side: one row a configuration, over its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from .config import flatten
from .errors import UsageError
from .folder import RunFolder
from .registry import did_you_mean

__all__ = ["Table", "compare_results"]

SMALLER_IS_BETTER = ("loss", "nll", "perplexity", "mean_rank", "distortion")


@dataclass(frozen=True)
class Table:
    """Columns and rows of text, and what to warn of."""

    columns: list[str]
    rows: list[list[str]]
    warnings: list[str] = field(default_factory=list)

    def render(self, style: str = "table") -> str:
        """Text in the style table, csv, latex or html."""
        from .report.tables import render

        return render(self.columns, self.rows, style)


@dataclass
class _Group:
    """Runs of one configuration hash."""

    config: dict[str, Any]
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    unfinished: list[int] = field(default_factory=list)
    folders: dict[int, Path] = field(default_factory=dict)


def _expand(paths: Sequence[Path]) -> list[Path]:
    """Run folders among the paths and one level below them."""
    found = []
    for path in paths:
        if (path / "config.yaml").exists():
            found.append(path)
        else:
            below = sorted(config.parent for config in path.rglob("config.yaml"))
            if not below:
                raise UsageError(f"{path} is no run folder and holds none (a run folder has a config.yaml)")
            found += below
    return list({path.resolve(): path for path in found}.values())


def _collect(paths: Sequence[Path]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for path in _expand(paths):
        folder = RunFolder(path)
        config = folder.config()
        if folder.finished:
            result = folder.result()
            group = groups.setdefault(result["config_hash"], _Group(config))
            if (other := group.folders.setdefault(result["seed"], path)) != path:
                raise UsageError(
                    f"{other} and {path} are runs of one configuration and seed; leave one of them out, "
                    "or compare them by name in separate calls"
                )
            group.results[result["seed"]] = result
        else:
            from .config import config_hash

            rest = {key: value for key, value in config.items() if key != "task"}
            group = groups.setdefault(config_hash(config.get("task", ""), rest), _Group(config))
            group.unfinished.append(config.get("seed", 0))
    return groups


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


def _warn(groups: Mapping[str, _Group]) -> list[str]:
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
    warnings = []
    for digest, group in groups.items():
        marks = {(r["data"]["sha256"], r["data"]["split"]) for r in group.results.values()}
        if len(marks) > 1:
            warnings.append(f"the runs of configuration {digest[:8]} differ in data hash or split: do not average them")
        for result in group.results.values():
            seen[result["data"]["name"]] |= marks
    warnings += [
        f"runs on {name} used {len(marks)} different contents or splits of it: their rows are not comparable"
        for name, marks in seen.items()
        if len(marks) > 1
    ]
    return warnings


def compare_results(paths: Sequence[Path], *, by: Sequence[str], metric: str | None) -> Table:
    """Compare run folders (or folders of them); see ``tasks.compare``."""
    groups = _collect(paths)
    done = [group for group in groups.values() if group.results]
    if not done:
        raise UsageError(f"no finished run among {len(groups)} configurations; finish one with `hyrel resume FOLDER`")
    available = list(next(iter(done[0].results.values()))["metrics"]["test"])
    chosen = metric or available[0]
    every = [r["metrics"]["test"] for g in done for r in g.results.values()]
    if metric is None and any(chosen not in metrics for metrics in every):
        shared = [name for name in available if all(name in metrics for metrics in every)]
        if not shared:
            other = next(metrics for metrics in every if chosen not in metrics)
            raise UsageError(
                f"these runs have no metric in common: one has {', '.join(available)}, another {', '.join(other)}; compare "
                "runs of one kind at a time"
            )
        raise UsageError(f"not every run has the metric {chosen!r}; give --metric, one of {', '.join(shared)}")
    if any(chosen not in metrics for metrics in every):
        raise UsageError(f"not every run has the metric {chosen!r}. {did_you_mean(chosen, available)}")
    options = {key for group in groups.values() for key, _ in flatten(group.config)}
    options |= {key.split(".")[0] for key in options}
    for name in by:
        if name not in options:
            raise UsageError(f"no run has the option {name!r} to --by. {did_you_mean(name, sorted(options))}")
    every_seed = {seed for group in groups.values() for seed in [*group.results, *group.unfinished]}
    varying = _varying(list(groups.values()))
    scores = {
        digest: [group.results[seed]["metrics"]["test"][chosen] for seed in sorted(group.results)]
        for digest, group in groups.items()
    }
    best: dict[str, float] = {}
    sign = -1 if chosen in SMALLER_IS_BETTER else 1
    for digest, group in groups.items():
        if scores[digest]:
            name = _label(group.config, "data", varying)
            best[name] = max(best.get(name, float("-inf")), sign * mean(scores[digest]))
    rows = []
    for digest, group in groups.items():
        values = scores[digest]
        average = mean(values) if values else None
        top = average is not None and sign * average == best[_label(group.config, "data", varying)]
        missing = sorted(every_seed - set(group.results))
        rows.append(
            [
                *(_label(group.config, name, varying) for name in by),
                digest[:8],
                str(len(values)),
                "" if average is None else f"{average:.4f}" + (" *" if top else ""),
                f"{stdev(values):.4f}" if len(values) > 1 else "",
                ",".join(map(str, missing)),
            ]
        )
    rows.sort(key=lambda row: row[: len(by)])
    return Table([*by, "config", "n", chosen, "deviation", "missing seeds"], rows, _warn(groups))
