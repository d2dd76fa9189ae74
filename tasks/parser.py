"""What the command ``hyrel`` takes: its commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["command_line"]


def command_line() -> argparse.ArgumentParser:
    """The parser of ``hyrel``: ``command`` names the command, of which ``run`` leaves a task's own options over."""
    parser = argparse.ArgumentParser(
        prog="hyrel", description="Hyperbolic layers, relation similarity and delta tuning: benchmarks and reports."
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str, *, help_flag: bool = True) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=help_flag)

    def data_dir(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--data_dir", metavar="FOLDER", help="where data sets lie (then HYREL_DATA, then the user cache)"
        )

    sub = command("quickstart", "everything on embedded data, about two minutes, one HTML report")
    sub.add_argument("--out", default="hyrel-quickstart", metavar="FOLDER", help="where the report goes")

    sub = command("redundancy", "relation redundancy of any Open-IE output")
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

    sub = command("run", "train and evaluate a task", help_flag=False)
    sub.add_argument("task", nargs="?", help="name of the task")
    sub.add_argument("--config", metavar="RECIPE", help="a YAML file or a shipped recipe; flags win over it")
    sub.add_argument("--seeds", metavar="0,1,2")
    sub.add_argument("--runs", metavar="FOLDER")
    sub.add_argument("--out", metavar="FOLDER")
    sub.add_argument("--quiet", action="store_true")
    data_dir(sub)

    sub = command("resume", "go on with stopped runs")
    sub.add_argument("folders", nargs="+", metavar="FOLDER")
    sub.add_argument("--quiet", action="store_true")
    sub.add_argument("--data", metavar="PLACE", help="the data of the run, where it now lies elsewhere")
    data_dir(sub)

    sub = command("compare", "finished runs in one table")
    sub.add_argument("folders", nargs="+", metavar="FOLDER", help="run folders, or folders of them")
    sub.add_argument("--by", default="data,model", help="columns: data, model, delta, or any option (model.dim)")
    sub.add_argument("--metric", help="test metric; of each run the first one by default")
    sub.add_argument("--format", default="table", choices=("table", "csv", "latex", "html"))

    sub = command("predict", "what the model of a finished run says of new texts, triples, nodes or lines")
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="run folder")
    sub.add_argument("input", type=Path, nargs="?", metavar="FILE", help="a row a line, parts by tabs (standard input)")
    sub.add_argument("--out", type=Path, metavar="FILE", help="where the answers go (standard output)")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="kg: most answers to a question (10)")
    sub.add_argument("--format", default="tsv", choices=("tsv", "jsonl"))
    sub.add_argument("--data", metavar="PLACE", help="the data of the run, where it now lies elsewhere")
    data_dir(sub)

    sub = command("plot", "picture of a finished hierarchy run on the Poincaré disk")
    sub.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where disk.svg and plot.html go (the run folder)")
    sub.add_argument("--nodes", type=int, default=400, metavar="N", help="draw those with most descendants (400)")
    data_dir(sub)

    sub = command("geometry", "how tree-like and hierarchical a graph is, and which k that speaks for")
    sub.add_argument("data", help="name of a data set, folder of a graph, or file of edges (./edges.csv)")
    sub.add_argument("--quadruples", type=int, default=100_000, metavar="N", help="of nodes, for delta (100000)")
    sub.add_argument("--sources", type=int, default=300, metavar="N", help="nodes they are drawn from (300)")
    sub.add_argument("--seed", type=int, default=0)
    data_dir(sub)

    sub = command("ls", "list tasks, data sets, deltas or recipes")
    sub.add_argument("what", nargs="?", choices=("tasks", "data", "deltas", "recipes"))
    data_dir(sub)

    data_dir(command("doctor", "check the installation, the machine and the data"))
    return parser
