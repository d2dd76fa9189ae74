"""How long the comparison of delta methods takes, as users start it: eight methods and the controls on MiniLM, one seed.

    python -m benchmarks.deltas_compare [--model minilm] [--data SST-2] [--runs FOLDER] [-- OPTION ...]

Runs ``hyrel run compare-deltas`` with its defaults, or the options after ``--``, in a fresh process of one thread, into an
empty folder, and reports wall and CPU seconds of it and its children, and what of the wall time was training and evaluation
by the runs' own account; the rest is imports, loading, tokens, and the measurement of costs. On a machine that does other
work the CPU seconds say what the wall would be without it. The target is ten minutes. Results:
benchmarks/results/deltas_compare.json. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .common import asked, row, save

TARGET = 600.0  # seconds


def measure(words: list[str], runs: Path) -> list[dict[str, Any]]:
    """Rows of one comparison with these options into an empty folder."""
    if any(runs.glob("*/seed*")):
        raise SystemExit(f"{runs} holds runs, which would be used again: give an empty folder to --runs")
    program = "import sys; from tasks.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "run", "compare-deltas", "--runs", str(runs), *words]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with next(runs.glob("compare-deltas-*/compare-deltas.csv")).open(encoding="utf-8") as file:
        methods = len(list(csv.DictReader(file)))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in runs.glob("*/seed*/result.json")]
    what = f"hyrel run compare-deltas, {methods} rows"
    rows = [
        row(f"{what}: {kind} seconds", round(value, 1), "s", target=TARGET, met=value < TARGET)
        for kind, value in (("wall", wall), ("CPU", cpu))
    ]
    for part, name in (("train", "training"), ("evaluate", "evaluation")):
        seconds = sum(result["seconds"][part] for result in results)
        rows.append(row(f"{what}: wall seconds of {name}", round(seconds, 1), "s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--data", default="SST-2")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("words", nargs="*", metavar="-- OPTION ...", help="further options of hyrel run compare-deltas")
    options = parser.parse_args()
    words = ["--model", options.model, "--data", options.data, *options.words]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(words, options.runs or Path(folder))
    print(save("deltas_compare", asked("deltas_compare"), rows, threads=1))


if __name__ == "__main__":
    main()
