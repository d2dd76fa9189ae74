"""The command ``hyrel``: one function a command, each a thin call of what Python users call."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .argv import parse_seeds, regular
from .errors import HyrelError, RunError, UsageError
from .launch import launched, rank_of_process, require_one_process
from .parser import command_line

__all__ = ["main"]


# Commands of `hyrel run` that make many runs: where the options are (light) and what makes them (imports torch).
STUDIES = {
    "compare-deltas": ("tasks.compare_deltas.config:CompareConfig", "tasks.compare_deltas.command:compare_deltas"),
    "subspace": ("tasks.subspace.config:StudyConfig", "tasks.subspace.command:study_subspace"),
}


RUN_OPTIONS = {
    "--config RECIPE": "a recipe (hyrel ls recipes), or a config.yaml of a run; options on the command line win over it",
    "--seeds 0,1,2": "one run a seed, in the place of --seed; also 0-4",
    "--runs FOLDER": "where the folders of runs are made (runs)",
    "--out FOLDER": "the folder of the run itself, of one seed",
    "--data-dir FOLDER": "where data sets lie (then HYREL_DATA, then the user's cache)",
    "--quiet": "no progress",
}
STUDY_OPTIONS = ("--seeds 0,1,2", "--runs FOLDER", "--data-dir FOLDER")


def _out(text: str) -> None:
    if rank_of_process():  # of several that a launcher started, one speaks
        return
    print(text)  # noqa: T201 (the command line's output)


def _run(options: argparse.Namespace, rest: list[str]) -> int | None:
    from .api import TASKS, Result, run
    from .registry import lookup

    if options.task in COMMANDS:
        raise UsageError(f"{options.task!r} is a command of its own, expected a task: `hyrel {options.task}`")
    if options.task is not None:
        lookup({**TASKS, **STUDIES}, options.task, kind="task")
    if options.task in STUDIES:
        _run_study(options, rest)
        return None
    if options.task is None or {"-h", "--help"} & set(rest):
        _run_help(options.task)
        return None if {"-h", "--help"} & set(rest) else 2
    seeds: list[int | None] = [None] if options.seeds is None else list(parse_seeds(options.seeds))
    if options.seeds is not None and any(word.split("=")[0] == "--seed" for word in rest):
        raise UsageError("--seed and --seeds are given, expected one of them")
    if options.out and options.runs is not None:
        raise UsageError(
            "--out and --runs are given, expected one: --out names the run's folder, --runs that of all runs"
        )
    if options.out and len(seeds) > 1:
        raise UsageError("--out names one run folder; with several --seeds use --runs, below which each gets its own")
    failed: list[int | None] = []
    for seed in seeds:
        try:
            result: Result = run(
                options.task,
                recipe=options.config,
                seed=seed,
                runs=options.runs or "runs",
                out=options.out,
                data_dir=options.data_dir,
                quiet=options.quiet,
                args=rest,
            )
        except RunError as error:
            if len(seeds) == 1 or launched() > 1:
                raise
            print(f"hyrel: seed {seed}: {error}", file=sys.stderr)  # noqa: T201
            failed.append(seed)
            continue
        _show(result.folder, dict(result.values["metrics"]["test"]))
    if failed:
        raise RunError(f"{len(failed)} of {len(seeds)} seeds failed, as said above: {', '.join(map(str, failed))}")
    return None


def _run_study(options: argparse.Namespace, rest: list[str]) -> None:
    from .registry import named

    config, command = STUDIES[options.task]
    if {"-h", "--help"} & set(rest):
        from .config import describe_options

        _out(f"usage: hyrel run {options.task} [OPTION ...] [--TASK-OPTION VALUE ...]\n")
        _out(_described(STUDY_OPTIONS))
        _out(describe_options(named(config), prog=f"hyrel run {options.task}"))
        return
    if options.out or options.config:
        raise UsageError(f"{options.task} takes --runs, its options and no --out and --config")
    seeds = [0] if options.seeds is None else parse_seeds(options.seeds)
    named(command)(seeds=seeds, runs=options.runs or "runs", data_dir=options.data_dir, args=rest, say=_out)


def _show(folder: Path, metrics: dict[str, float]) -> None:
    _out(f"{folder}  test: " + "  ".join(f"{key} {value:.4f}" for key, value in metrics.items()))


def _described(names: Iterable[str]) -> str:
    return "options of every task:\n" + "".join(f"  {name:<19}{RUN_OPTIONS[name]}\n" for name in names)


def _run_help(task: str | None) -> None:
    from .api import TASKS, option_help

    _out("usage: hyrel run TASK [OPTION ...] [--TASK-OPTION VALUE ...]\n")
    _out(_described(RUN_OPTIONS))
    if task is None:
        _out(f"tasks: {', '.join([*TASKS, *STUDIES])}. `hyrel run TASK --help` shows a task's options.")
    else:
        _out(option_help(task))


def _resume(options: argparse.Namespace, rest: list[str]) -> None:
    from .api import resume

    if options.data is not None and len(options.folders) > 1:
        raise UsageError("--data is the data of one run; resume them one at a time")
    for folder in options.folders:
        result = resume(folder, data=options.data, data_dir=options.data_dir, quiet=options.quiet)
        _show(result.folder, dict(result.metrics["test"]))


def _compare(options: argparse.Namespace, rest: list[str]) -> None:
    from .api import compare

    table = compare(options.folders, by=options.by.split(","), metric=options.metric)
    _out(table.render(options.format))
    for warning in table.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201


def _ls(options: argparse.Namespace, rest: list[str]) -> None:
    from .listing import listing

    _out(listing(options.what, data_dir=options.data_dir))


def _doctor(options: argparse.Namespace, rest: list[str]) -> int:
    from .doctor import examine

    report, healthy = examine(data_dir=options.data_dir)
    _out(report)
    return 0 if healthy else 1


def _redundancy(options: argparse.Namespace, rest: list[str]) -> None:
    from .config import require_seed
    from .redundancy import report_apply, report_redundancy

    if options.apply is not None or options.undo is not None:
        if options.apply is not None and options.undo is not None:
            raise UsageError("--apply and --undo are given, expected one of them")
        undo = options.undo is not None
        mapping = options.undo if undo else options.apply
        _out(report_apply(mapping, options.files, out=options.out, column=options.column, undo=undo))
        return
    require_seed(options.seed)
    if options.column is not None:
        raise UsageError("--column goes with --apply and --undo; --columns names the columns of what is analysed")
    _out(
        report_redundancy(
            options.files,
            out=options.out,
            format=options.format,
            columns=None if options.columns is None else options.columns.split(","),
            min_support=options.min_support,
            min_facts=options.min_facts,
            threshold=options.threshold,
            precision=options.precision,
            neural=options.neural,
            encoder=options.encoder,
            types=options.types,
            contradiction=options.contradiction,
            review=options.review,
            normalise="extractor" if options.extractor_forms else not options.raw,
            nary=options.nary,
            min_confidence=options.min_confidence,
            memory_limit=options.memory_limit,
            seed=options.seed,
        )
    )


def _geometry(options: argparse.Namespace, rest: list[str]) -> None:
    from .config import require, require_seed
    from .data.edges import load_edges
    from .geometry import describe, geometry

    require_seed(options.seed)
    require("--quadruples", options.quadruples, at_least=1)
    require("--sources", options.sources, at_least=4)
    edges = load_edges(options.data, options.data_dir)
    _out(describe(geometry(edges, quadruples=options.quadruples, sources=options.sources, seed=options.seed)))


def _predict(options: argparse.Namespace, rest: list[str]) -> None:
    from .predictions import report_predictions

    report_predictions(
        options.folder,
        options.input,
        out=options.out,
        top=options.top,
        format=options.format,
        data=options.data,
        data_dir=options.data_dir,
        say=_out,
    )


def _plot(options: argparse.Namespace, rest: list[str]) -> None:
    from .config import require
    from .plot import plot

    require("--nodes", options.nodes, at_least=1)
    if options.out and len(options.folders) > 1:
        raise UsageError("--out names the folder of one run's picture; plot several runs in separate calls")
    for folder in options.folders:
        _out(plot(folder, out=options.out, nodes=options.nodes, data_dir=options.data_dir))


def _quickstart(options: argparse.Namespace, rest: list[str]) -> None:
    from .quickstart import quickstart

    quickstart(options.out, say=_out)


COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], int | None]] = {
    "quickstart": _quickstart,
    "redundancy": _redundancy,
    "run": _run,
    "resume": _resume,
    "compare": _compare,
    "predict": _predict,
    "plot": _plot,
    "geometry": _geometry,
    "ls": _ls,
    "doctor": _doctor,
}


def _check_command(words: Sequence[str]) -> None:
    """Say of a first word that is no command what it is, or which is the nearest."""
    if not words or words[0].startswith("-") or words[0] in COMMANDS:
        return
    from .api import TASKS
    from .registry import lookup

    if words[0] in {**TASKS, **STUDIES}:
        raise UsageError(f"{words[0]!r} is a task, expected a command: `hyrel run {words[0]}`")
    lookup(COMMANDS, words[0], kind="command")


def _silence_stdout() -> None:
    """After a closed pipe (``hyrel ... | head``) the interpreter's own flush must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _how_to_go_on(options: argparse.Namespace) -> str:
    """What to do after an interruption."""
    if options.command == "run" and options.task in STUDIES:
        return "the same command goes on where it was"
    return "a run goes on with `hyrel resume FOLDER`" if options.command in ("run", "resume") else "nothing was kept"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a failure, 2 for a user's mistake, 130 when interrupted."""
    words = regular(sys.argv[1:] if argv is None else argv)
    options = argparse.Namespace(command=None)
    try:
        _check_command(words)
        parser = command_line()
        options, rest = parser.parse_known_args(words)
        if options.version:
            from importlib.metadata import version

            _out(f"hyrel {version('hyrel')}")
            return 0
        if options.command is None:
            parser.print_help()
            return 2
        if rest and options.command != "run":
            raise UsageError(f"unknown option {rest[0]!r} of `hyrel {options.command}`; see its --help")
        if options.command not in ("run", "resume", "ls", "doctor"):
            require_one_process(f"hyrel {options.command}")
        code: int | None = COMMANDS[options.command](options, rest)
        sys.stdout.flush()
    except HyrelError as error:
        print(f"hyrel: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print(f"hyrel: interrupted; {_how_to_go_on(options)}", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except (MemoryError, RuntimeError) as error:
        # torch has no class of its own for a CPU allocation that failed
        if isinstance(error, RuntimeError) and not re.search("can't allocate memory|out of memory", str(error)):
            raise
        print("hyrel: not enough memory for this; make the model, the batch or --memory-limit smaller", file=sys.stderr)  # noqa: T201
        return 1
    except OSError as error:
        print(f"hyrel: {error.strerror or error}: {error.filename or 'output'}", file=sys.stderr)  # noqa: T201
        return 1
    return code or 0
