"""Rows a minute and peak memory of ``read_openie`` on a synthetic file in ReVerb's columns, normalisation included.

    python -m benchmarks.relsim_ingest [--rows 20000000]

The file is generated in the temporary folder and deleted; phrases and arguments are drawn by Zipf's law from as many
as the published ReVerb corpus has for 15 million extractions. One thread, one fresh process, DuckDB limited to 1 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .common import asked, row, save

PHRASES = 664_000
ARGUMENTS = 2_264_000
CHUNK = 200_000
BYTES_A_ROW = 450
ROWS_A_MINUTE = 1_000_000
MEMORY_GB = 4.0

_AUXILIARIES = ("was", "is", "are", "were", "has been", "did not", "will", "had", "can", "is not")
_PREPOSITIONS = ("in", "of", "for", "to", "by", "with", "from", "at", "on", "into", "over", "as")
_SYLLABLES = tuple(consonant + vowel for consonant in "bdklmnr" for vowel in "aeiou")


def word(number: int) -> str:
    """Pseudo-word of a number: two syllables or more, a different one for each number."""
    size = len(_SYLLABLES)
    out = _SYLLABLES[number % size]
    number //= size
    while True:
        out += _SYLLABLES[number % size] + "nstr"[number % 4]
        number //= size
        if not number:
            return out


def phrase(number: int) -> str:
    """Relation phrase of a number, with an auxiliary, an inflected pseudo-verb and a preposition."""
    number, auxiliary = divmod(number, len(_AUXILIARIES))
    number, preposition = divmod(number, len(_PREPOSITIONS))
    return f"{_AUXILIARIES[auxiliary]} {word(number)}ed {_PREPOSITIONS[preposition]}"


def argument(number: int) -> str:
    """Argument of a number: some with a determiner, some of two words."""
    name = word(number).capitalize()
    return (
        f"the {name}" if number % 5 == 0 else f"{name} {word(number % 977).capitalize()}" if number % 3 == 0 else name
    )


def cumulative(size: int) -> np.ndarray:
    """Cumulative probabilities of Zipf's law with exponent 1 over ``size`` ranks."""
    total = np.cumsum(1.0 / np.arange(1, size + 1))
    return total / total[-1]


def generate(path: Path, rows: int, seed: int = 0) -> None:
    """Write ``rows`` lines of 18 TAB columns."""
    rng = np.random.default_rng(seed)
    phrases = [phrase(i) for i in range(PHRASES)]
    arguments = [argument(i) for i in range(ARGUMENTS)]
    of_phrase, of_argument = cumulative(PHRASES), cumulative(ARGUMENTS)
    tags = (
        "NNP NNP VBD VBN IN DT NN , CC NNP VBZ DT JJ NN IN NNP .\tB-NP I-NP B-VP I-VP B-PP B-NP I-NP O O B-NP B-VP B-NP"
    )
    tail_text = "according to a report that was published on Monday ."
    with path.open("w", encoding="utf-8", buffering=1 << 22) as stream:
        for start in range(0, rows, CHUNK):
            size = min(CHUNK, rows - start)
            relation = np.searchsorted(of_phrase, rng.random(size)).tolist()
            heads, tails = (np.searchsorted(of_argument, rng.random(size)).tolist() for _ in range(2))
            confidence = rng.random(size).round(6).tolist()
            lines = []
            for i in range(size):
                h, r, t = arguments[heads[i]], phrases[relation[i]], arguments[tails[i]]
                lines.append(
                    f"corpus/part-{start // CHUNK:05d}.txt\t{start + i}\t{h}\t{r}\t{t}\t0\t2\t2\t5\t5\t7\t{confidence[i]}\t"
                    f"{h} {r} {t} {tail_text}\t{tags}\t{h.lower()}\t{r}\t{t.lower()}\n"
                )
            stream.write("".join(lines))


def child(path: Path) -> None:
    """Read the file in this process; print seconds, processor seconds, peak memory and counts as JSON."""
    from relsim.openie import read_openie

    start, processor = time.perf_counter(), time.process_time()
    facts = read_openie(path, threads=1, temp_folder=path.parent)
    report = facts.ingest
    assert report is not None and report.phrases is not None
    found = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
        "used": report.used,
        "facts": len(facts),
        "phrases": facts.num_relations,
        "arguments": facts.num_entities,
        "forms": report.phrases.forms,
        "names": report.phrases.names,
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, 2 * BYTES_A_ROW * options.rows
    if free < needed:
        sys.exit(
            f"{tempfile.gettempdir()} has {free / 1e9:.0f} GB free, {needed / 1e9:.0f} GB are needed: fewer --rows"
        )
    with tempfile.TemporaryDirectory(prefix="relsim-ingest-") as folder:
        path = Path(folder) / "reverb.tsv"
        generate(path, options.rows)
        size = path.stat().st_size / 1e9
        print(f"generated {options.rows:,} rows, {size:.1f} GB", flush=True)
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.relsim_ingest", "--child", str(path)],
            check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1],
        )  # fmt: skip
    found = json.loads(out.stdout.splitlines()[-1])
    assert found["used"] == options.rows
    rate = options.rows / found["seconds"] * 60
    rows = [
        row("ReVerb rows a minute, one thread, normalisation included", round(rate), "rows/min",
            target=ROWS_A_MINUTE, met=rate >= ROWS_A_MINUTE),
        row("processor seconds a million rows", found["processor_seconds"] / options.rows * 1e6, "s"),
        row("peak resident memory", found["peak_gb"], "GiB", target=MEMORY_GB, met=found["peak_gb"] <= MEMORY_GB),
        row("rows read", options.rows, "rows"),
        row("size of the file", size, "GB"),
        row("distinct facts kept", found["facts"], "facts"),
        row("arguments kept", found["arguments"], "arguments"),
        row("phrases as written", found["forms"], "phrases"),
        row("phrases after normalisation", found["names"], "phrases"),
        row("phrases with enough support", found["phrases"], "phrases"),
    ]  # fmt: skip
    for item in rows:
        print(f"{item['what']:60s} {item['value']:>16,.6g} {item['unit']}")
    path = save("relsim_ingest", asked("relsim_ingest"), rows, threads=1)
    print(path)


if __name__ == "__main__":
    main()
