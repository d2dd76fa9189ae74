"""Train every cell of a comparison through the runner, and put the results into one table, chart and report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from tasks.api import run
from tasks.config import make_config, study_digest, to_dict
from tasks.data.load import load
from tasks.data.text import Texts
from tasks.errors import RunError, UsageError
from tasks.folder import atomic_write
from tasks.launch import require_one_process
from tasks.process import cpu_threads
from tasks.report.html import Report
from tasks.report.tables import render

from .chart import chart
from .config import CompareConfig
from .cost import Cost, costs
from .methods import Method, methods

__all__ = ["Row", "compare_deltas"]

TUNING_SEED = 1000  # learning rates are chosen on this seed and never on those of the table


@dataclass(frozen=True)
class Row:
    """A method on a backbone and a data set.

    Attributes
    ----------
    scores : test score by seed, of the data set's own metric
    lr : learning rate
    """

    model: str
    data: str
    method: Method
    metric: str
    scores: tuple[float, ...]
    lr: float | None
    cost: Cost | None

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(np.mean(self.scores))

    @property
    def half(self) -> float | None:
        """Half of the 95 % t interval of the mean; None with one seed."""
        n = len(self.scores)
        return float(t.ppf(0.975, n - 1) * np.std(self.scores, ddof=1) / n**0.5) if n > 1 else None


def compare_deltas(
    *,
    seeds: Sequence[int] = (0,),
    runs: str | Path = "runs",
    data_dir: str | None = None,
    args: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    rates: Mapping[tuple[str, str], float] | None = None,
    **overrides: Any,
) -> list[Row]:
    """Compare methods; finished runs in `runs` are used again, so a stopped comparison goes on.

    Parameters
    ----------
    seeds : of every row; intervals need at least two
    runs : folder of the runs; ``compare-deltas.{csv,html,svg}`` are written into one of this comparison below it
    data_dir : folder of the data sets
    args, **overrides : options of the comparison, as words of the command line or by name
    say : told of every row as it is finished
    rates : learning rates by (backbone, method) that an earlier comparison chose; no trials are made for these

    Returns
    -------
    The rows, in the order of backbones, data sets and methods.
    """
    require_one_process("a comparison of deltas")
    config = make_config(CompareConfig, overrides=overrides, args=args, prog="hyrel run compare-deltas")
    if len(config.factors) > 1 and TUNING_SEED in seeds:
        raise UsageError(f"--seeds: learning rates are chosen on seed {TUNING_SEED}, which is for none of the rows")
    rows: list[Row] = []
    notes: list[str] = []
    _check_sets(config, data_dir)
    every = {model: methods(config, model) for model in config.models}
    for model, chosen in every.items():
        notes += [f"{method.name} on {Path(model).name}: {method.note}" for method in chosen if method.note]
        chosen = [method for method in chosen if not method.note.startswith("left out")]
        chosen_rates: dict[str, float | None] = {name: lr for (of, name), lr in (rates or {}).items() if of == model}
        for data in config.sets:
            cost = _costs(config, chosen, model, data, data_dir) if config.costs else {}
            for method in chosen:
                options: dict[str, Any] = {"runs": Path(runs), "data_dir": data_dir, "quiet": True}
                if method.name not in chosen_rates:
                    chosen_rates[method.name] = _rate(config, method, model, data, options)
                lr = chosen_rates[method.name]
                row = _row(config, method, model, data, lr, seeds, options, cost.get(method.name))
                rows.append(row)
                say(_line(row))
    _write(rows, notes, config, _folder(config, seeds, Path(runs)), say)
    return rows


def _check_sets(config: CompareConfig, data_dir: str | None) -> None:
    """Load every set once, before the first is trained on.

    Raises
    ------
    UsageError : one that is not there or no set of texts, or two of one name, by which runs go.
    """
    names = [Path(data).resolve().name for data in config.sets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--data: two sets are called {twice[0]}; results go by the names")
    for data in config.sets:
        if not isinstance(load(data, data_dir, kind="text"), Texts):
            raise UsageError(f"{data} is no set of texts, which `hyrel ls data` names")


def _folder(config: CompareConfig, seeds: Sequence[int], runs: Path) -> Path:
    """Folder of the tables of one comparison; the number of threads makes no other one."""
    named = {key: value for key, value in to_dict(config).items() if key != "threads"} | {"seeds": list(seeds)}
    folder = runs / f"compare-deltas-{study_digest(named)}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _overrides(config: CompareConfig, method: Method, model: str, data: str, lr: float | None = None) -> dict[str, Any]:
    found = {
        "data": data,
        "max_train": config.max_train,
        "max_eval": config.max_eval,
        "max_length": config.max_length,
        **method.overrides(model),
    }
    if method.name in ("majority", "tfidf"):
        return found
    rate = method.lr if lr is None else lr
    if config.group_by_length:
        found["group_by_length"] = True
    found["head_lr"] = rate if method.name == "head" else config.head_lr
    found["train"] = {
        "max_steps": config.steps,
        "eval_steps": -(-config.steps // config.evaluations),
        "batch_size": config.batch_size,
        "lr": rate,
        "threads": config.threads,
    }
    return found


def _rate(config: CompareConfig, method: Method, model: str, data: str, options: dict[str, Any]) -> float | None:
    """Learning rate of a method: the usual one, or that with the best validation score on the first data set."""
    if method.parameters is None:
        return None
    if len(config.factors) < 2:
        return method.lr * next(iter(config.factors), 1.0)
    scores: dict[float, float] = {}
    failed: list[RunError] = []
    for rate in (method.lr * factor for factor in config.factors):
        try:
            result = run("text", seed=TUNING_SEED, **options, **_overrides(config, method, model, data, rate))
            scores[rate] = next(iter(result.metrics["valid"].values()))
        except RunError as error:  # a rate at which it diverges is not the best one
            failed.append(error)
    if not scores:
        raise failed[0]
    return max(scores, key=lambda rate: scores[rate])


def _row(
    config: CompareConfig,
    method: Method,
    model: str,
    data: str,
    lr: float | None,
    seeds: Sequence[int],
    options: dict[str, Any],
    cost: Cost | None,
) -> Row:
    told = _overrides(config, method, model, data, lr)
    results = [run("text", seed=seed, **options, **told) for seed in seeds]
    metric = next(iter(results[0].metrics["test"]))
    return Row(model, data, method, metric, tuple(r.metrics["test"][metric] for r in results), lr, cost)


def _costs(config: CompareConfig, chosen: list[Method], model: str, data: str, data_dir: str | None) -> dict[str, Cost]:
    named = {
        m.name: _overrides(config, m, model, data) for m in chosen if m.parameters is not None and m.name != "head"
    }
    with cpu_threads(config.threads):
        return costs(named, data_dir)


COLUMNS = [
    "model",
    "data",
    "method",
    "metric",
    "score",
    "95 %",
    "seeds",
    "trained",
    "bytes",
    "step/full",
    "peak MiB",
    "lr",
]


def _cells(row: Row) -> list[str]:
    cost = row.cost or Cost(None, None, None)
    return [
        Path(row.model).name,
        Path(row.data).name,
        row.method.name,
        row.metric,
        f"{row.mean:.4f}",
        "" if row.half is None else f"{row.half:.4f}",
        str(len(row.scores)),
        "" if row.method.parameters is None else str(row.method.parameters),
        "" if cost.size is None else str(cost.size),
        "" if cost.step is None else f"{cost.step:.2f}",
        "" if cost.peak is None else f"{cost.peak:.0f}",
        "" if row.lr is None else f"{row.lr:g}",
    ]


def _line(row: Row) -> str:
    half = "" if row.half is None else f" +- {row.half:.4f}"
    trained = "" if row.method.parameters is None else f", {row.method.parameters:,} trained"
    return f"{Path(row.model).name} {Path(row.data).name} {row.method.name}: {row.metric} {row.mean:.4f}{half}{trained}"


def _write(rows: list[Row], notes: list[str], config: CompareConfig, folder: Path, say: Callable[[str], None]) -> None:
    cells = [_cells(row) for row in rows]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, "scores"])
    writer.writerows([*line, " ".join(map(repr, row.scores))] for line, row in zip(cells, rows, strict=True))
    atomic_write(folder / "compare-deltas.csv", text.getvalue())
    figure = chart(rows)
    atomic_write(folder / "compare-deltas.svg", figure)
    report = Report(
        "Delta methods side by side", f"{config.steps} steps of {config.batch_size}, {config.max_train} rows"
    )
    section = report.section("Scores").add_table(COLUMNS, cells, caption="Test score by method")
    for note in notes:
        section.add_text(note)
    report.section("Score against trained parameters").add_figure(
        figure, caption="Mean over the data sets, by backbone"
    )
    say(render(COLUMNS, cells))
    for note in notes:
        say(note)
    say(f"{report.save(folder / 'compare-deltas.html')}")
