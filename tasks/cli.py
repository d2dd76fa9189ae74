"""The command ``hyrel``: one function a command, each a thin call of what Python users call."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .argv import parse_seeds, regular
from .errors import HyrelError, RunError, UsageError
from .launch import launched, rank_of_process, require_one_process

__all__ = ["main"]


# Commands of `hyrel run` that make many runs: where the options are (light) and what makes them (imports torch).
STUDIES = {
    "compare-deltas": ("tasks.compare_deltas.config:CompareConfig", "tasks.compare_deltas.command:compare_deltas"),
    "subspace": ("tasks.subspace.config:StudyConfig", "tasks.subspace.command:study_subspace"),
}


def _out(text: str) -> None:
    if rank_of_process():  # of several that a launcher started, one speaks
        return
    print(text)  # noqa: T201 (the command line's output)


def _run(options: argparse.Namespace, rest: list[str]) -> None:
    from .api import TASKS, Result, run
    from .registry import lookup

    if options.task is not None:
        lookup({**TASKS, **STUDIES}, options.task, kind="task")
    if options.task in STUDIES:
        _run_study(options, rest)
        return
    if options.task is None or {"-h", "--help"} & set(rest):
        _run_help(options.task)
        return
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


def _run_study(options: argparse.Namespace, rest: list[str]) -> None:
    from .registry import named

    config, command = STUDIES[options.task]
    if {"-h", "--help"} & set(rest):
        from .config import describe_options

        _out("beside the options below: --seeds 0,1,2  --runs FOLDER  --data-dir FOLDER\n")
        _out(describe_options(named(config), prog=f"hyrel run {options.task}"))
        return
    if options.out or options.config:
        raise UsageError(f"{options.task} takes --runs, its options and no --out and --config")
    seeds = [0] if options.seeds is None else parse_seeds(options.seeds)
    named(command)(seeds=seeds, runs=options.runs or "runs", data_dir=options.data_dir, args=rest, say=_out)


def _show(folder: Path, metrics: dict[str, float]) -> None:
    _out(f"{folder}  test: " + "  ".join(f"{key} {value:.4f}" for key, value in metrics.items()))


def _run_help(task: str | None) -> None:
    from .api import TASKS, option_help

    _out("usage: hyrel run TASK [--config RECIPE] [--seeds 0,1,2] [--runs FOLDER | --out FOLDER] [--data-dir FOLDER]")
    _out("                 [--quiet] [--OPTION VALUE ...]\n")
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyrel", description="Hyperbolic layers, relation similarity and delta tuning: benchmarks and reports."
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(
        name: str, function: Callable[..., int | None], text: str, *, help_flag: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=help_flag)
        sub.set_defaults(function=function)
        return sub

    def data_dir(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--data_dir", metavar="FOLDER", help="where data sets lie (then HYREL_DATA, then the user cache)"
        )

    sub = command("quickstart", _quickstart, "everything on embedded data, about two minutes, one HTML report")
    sub.add_argument("--out", default="hyrel-quickstart", metavar="FOLDER", help="where the report goes")

    sub = command("redundancy", _redundancy, "relation redundancy of any Open-IE output")
    sub.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="extractions (may be .gz), or a folder of them"
    )
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where the tables and report.html go (FILE-redundancy)")
    sub.add_argument("--format", default="auto", help="auto, or the name of a reader; auto decides by content")
    sub.add_argument(
        "--columns", metavar="A,B,...", help="tsv and csv: name every column, such as head,relation,tail,-"
    )
    sub.add_argument("--min_support", type=int, metavar="N", help="fewest different facts of a phrase that is scored")
    sub.add_argument("--min_facts", type=int, default=50, metavar="N", help="fewest facts for the neural measure (50)")
    sub.add_argument("--threshold", type=float, metavar="P", help="probability from which two phrases are merged (0.5)")
    sub.add_argument("--precision", type=float, metavar="P", help="choose the threshold for this precision instead")
    sub.add_argument("--encoder", metavar="NAME", help="sentence encoder: all-MiniLM-L6-v2, or a model folder")
    sub.add_argument("--types", choices=("induced",), help="types of entities, from the relations they stand in")
    sub.add_argument(
        "--contradiction",
        choices=("auto", "on", "off"),
        default="auto",
        help="veto pairs that disagree on common arguments; off for relations cut into parts",
    )
    sub.add_argument("--review", type=Path, metavar="PAIRS", help="pairs.tsv with accept or reject in its last column")
    sub.add_argument(
        "--apply", type=Path, metavar="MAP", help="rewrite FILE (a TSV) by this canonical_map.tsv, nothing else"
    )
    sub.add_argument("--undo", type=Path, metavar="MAP", help="take an earlier --apply of this map back (a TSV)")
    sub.add_argument(
        "--column", metavar="NAME", help="--apply, --undo: column of the phrase, by name in the header or by number"
    )
    sub.add_argument(
        "--neural",
        choices=("auto", "never"),
        default="auto",
        help="whether to fit a fact distribution where facts suffice",
    )
    sub.add_argument(
        "--no_normalise", "--raw", dest="raw", action="store_true", help="keep phrases and arguments as extracted"
    )
    sub.add_argument(
        "--extractor_forms", action="store_true", help="use the extractor's own normal forms (ReVerb, CESI)"
    )
    sub.add_argument(
        "--nary",
        default="first",
        choices=("first", "each", "binary"),
        help="arguments after the second: drop them, make a fact of each, or leave such extractions out",
    )
    sub.add_argument("--min_confidence", type=float, metavar="C", help="leave out extractions below it")
    sub.add_argument("--memory_limit", default="1GB", metavar="SIZE", help="of the ingest, which spills to disk (1GB)")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("run", _run, "train and evaluate a task", help_flag=False)
    sub.add_argument("task", nargs="?", help="name of the task")
    sub.add_argument("--config", metavar="RECIPE", help="a YAML file or a shipped recipe; flags win over it")
    sub.add_argument("--seeds", metavar="0,1,2")
    sub.add_argument("--runs", metavar="FOLDER")
    sub.add_argument("--out", metavar="FOLDER")
    sub.add_argument("--quiet", action="store_true")
    data_dir(sub)

    sub = command("resume", _resume, "go on with stopped runs")
    sub.add_argument("folders", nargs="+", metavar="FOLDER")
    sub.add_argument("--quiet", action="store_true")
    sub.add_argument("--data", metavar="PLACE", help="the data of the run, where it now lies elsewhere")
    data_dir(sub)

    sub = command("compare", _compare, "finished runs in one table")
    sub.add_argument("folders", nargs="+", metavar="FOLDER", help="run folders, or folders of them")
    sub.add_argument("--by", default="data,model", help="columns: data, model, delta, or any option (model.dim)")
    sub.add_argument("--metric", help="test metric; of each run the first one by default")
    sub.add_argument("--format", default="table", choices=("table", "csv", "latex", "html"))

    sub = command("predict", _predict, "what the model of a finished run says of new texts, triples, nodes or lines")
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="run folder")
    sub.add_argument("input", type=Path, nargs="?", metavar="FILE", help="a row a line, parts by tabs (standard input)")
    sub.add_argument("--out", type=Path, metavar="FILE", help="where the answers go (standard output)")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="kg: most answers to a question (10)")
    sub.add_argument("--format", default="tsv", choices=("tsv", "jsonl"))
    sub.add_argument("--data", metavar="PLACE", help="the data of the run, where it now lies elsewhere")
    data_dir(sub)

    sub = command("plot", _plot, "picture of a finished hierarchy run on the Poincaré disk")
    sub.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where disk.svg and plot.html go (the run folder)")
    sub.add_argument("--nodes", type=int, default=400, metavar="N", help="draw those with most descendants (400)")
    data_dir(sub)

    sub = command("geometry", _geometry, "how tree-like and hierarchical a graph is, and which k that speaks for")
    sub.add_argument("data", help="name of a data set, folder of a graph, or file of edges (./edges.csv)")
    sub.add_argument("--quadruples", type=int, default=100_000, metavar="N", help="of nodes, for delta (100000)")
    sub.add_argument("--sources", type=int, default=300, metavar="N", help="nodes they are drawn from (300)")
    sub.add_argument("--seed", type=int, default=0)
    data_dir(sub)

    sub = command("ls", _ls, "list tasks, data sets, deltas or recipes")
    sub.add_argument("what", nargs="?", choices=("tasks", "data", "deltas", "recipes"))
    data_dir(sub)

    data_dir(command("doctor", _doctor, "check the installation, the machine and the data"))
    return parser


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
    parser = _parser()
    options, rest = parser.parse_known_args(words)
    if options.version:
        from importlib.metadata import version

        _out(f"hyrel {version('hyrel')}")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    try:
        if rest and options.command != "run":
            raise UsageError(f"unknown option {rest[0]!r} of `hyrel {options.command}`; see its --help")
        if options.command not in ("run", "resume", "ls", "doctor"):
            require_one_process(f"hyrel {options.command}")
        code: int | None = options.function(options, rest)
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
