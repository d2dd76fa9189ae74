"""``hyrel redundancy`` on real files, each in a fresh process: seconds, peak memory, phrases, pairs.

    python -m benchmarks.redundancy_files

HYREL_DATA names the data folder.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .common import asked, row, save

# name, files below the data folder, limit in seconds
CASES = [
    ("CESI Base", ["openie/cesi/base"], 180),
    ("CESI Ambiguous", ["openie/cesi/ambiguous"], 600),
    ("CaRB's native ReVerb output", ["openie/carb/system_outputs/test/reverb_output.txt.gz"], None),
    ("FB15k-237 train as triples", ["kg/FB15k-237/train.txt.gz"], None),
]


def main() -> None:
    data = Path(os.environ["HYREL_DATA"])
    hyrel = shutil.which("hyrel", path=str(Path(sys.executable).parent)) or "hyrel"
    rows = []
    for name, files, limit in CASES:
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            command = [hyrel, "redundancy", *(str(data / file) for file in files), "--out", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - start
            lines = done.stdout.splitlines()
            said = [
                line for line in lines if " phrases; " in line or line.startswith(("kinds:", "not enough evidence"))
            ]
            print(f"{name}: exit {done.returncode}, {seconds:.1f} s", *said, done.stderr, sep="\n  ")
            pairs = (Path(folder) / "pairs.tsv").read_text(encoding="utf-8").count("\n") - 1
        done.check_returncode()
        rows.append(
            row(
                f"hyrel redundancy, {name}",
                round(seconds, 1),
                "s",
                target=limit,
                met=None if limit is None else seconds < limit,
            )
        )
        rows.append(row(f"ranked pairs, {name}", pairs, "pairs"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    rows.append(row("peak memory of the largest of them", round(peak, 2), "GiB"))
    print(save("redundancy_files", asked("redundancy_files"), rows, threads=1))


if __name__ == "__main__":
    main()
