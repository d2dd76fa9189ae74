"""``hyrel quickstart`` in a fresh process and an empty folder: seconds, peak memory, scores against the planted truth.

python -m benchmarks.quickstart
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

from relsim import read_openie, redundancy
from tasks.data.embedded import truth
from tasks.quickstart import average_precisions, found_kinds, merges

from .common import asked, row, save


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        hyrel = Path(sys.executable).with_name("hyrel")
        start = time.monotonic()
        subprocess.run([str(hyrel), "quickstart"], cwd=folder, check=True)
        seconds = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        rows.append(row("hyrel quickstart, wall time", round(seconds, 1), "s", target=120, met=seconds < 120))
        rows.append(row("hyrel quickstart, peak memory", round(peak, 2), "GiB", target=2, met=peak < 2))
        out = Path(folder) / "hyrel-quickstart"
        result = redundancy(read_openie(out / "extractions.tsv"))
        for name, score in average_precisions(result, truth()):
            rows.append(row(f"average precision for the planted synonyms, {name}", round(score, 3), "0 to 1"))
        for kind, (hits, count) in found_kinds(result, truth()).items():
            rows.append(row(f"planted pairs called {kind}, of {count}", hits, "pairs"))
        kinds, wrong = merges(result, truth())
        for kind, count in kinds.items():
            rows.append(row(f"pairs called equivalent that were planted {kind}", count, "pairs"))
        rows.append(row("phrases rewritten to one of another meaning", len(wrong), "phrases"))
        scores: dict[str, list[float]] = {}
        for path in sorted(out.glob("runs/*/seed*/result.json")):
            values = json.loads(path.read_text(encoding="utf-8"))
            scorer = "hybonet" if values["manifold"] else "mure"
            scores.setdefault(scorer, []).append(values["metrics"]["test"]["mrr"])
        for scorer, values in scores.items():
            rows.append(
                row(
                    f"taxonomy test mrr, {scorer}",
                    round(mean(values), 3),
                    "0 to 1",
                    n=len(values),
                    sd=round(stdev(values), 3),
                )
            )
    print(save("quickstart", asked("quickstart"), rows, threads=1))


if __name__ == "__main__":
    main()
