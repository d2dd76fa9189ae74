"""The unified subspace of delta methods on real sets, with its controls.

    python -m benchmarks.subspace [--part pair|wide|unequal|single|minilm|quick|geometries|finetuning] [--seeds 0-2]
        [--runs runs] [--dims 1,4,16,100] [--steps N] [--threads 1] [--model lorentz-small] [--controls random,pca]

``pair``: Adapter, LoRA and PrefixTuning of equal size on each backbone of the matched pair, six seen and four unseen sets,
1,000 rows and 300 steps a solution; ``wide``: the same study at 256 dimensions. ``unequal``: with the methods' own sizes,
at 4 dimensions. ``single``: the subspace of one set. ``minilm``: one set and few shots on MiniLM; ``quick``: one space of
it, for the wall time. ``geometries``: methods of both backbones in one subspace, so that solutions of one geometry are read
by the other. ``finetuning``: full fine-tuning as one more method, through Fastfood. Finished work in the runs folder is used
again. Published figures (Yi et al. 2022, of T5 on other tasks) stand beside the plain joint rows for orientation. Results:
benchmarks/results/subspace_PART.json, or subspace_PART_MODEL.json of one backbone alone. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean
from typing import Any

from tasks.argv import parse_seeds
from tasks.subspace.cells import solvable
from tasks.subspace.command import StudyResult, study_subspace
from tasks.subspace.study import JOINT
from tasks.subspace.tables import PUBLISHED, difference_rows, performance_columns, performance_rows, transfer_table

from .common import row, save

SIZE = 16_384  # parameters of a delta of equal size: LoRA's own on the pair
PAIR = ("lorentz-small", "euclidean-small")
MANY = {"data": "SST-2,SST-5,CoLA,MRPC,SICK-E,MPQA", "unseen": "CR,SUBJ,TREC,AG-News"}
# The pair learns little at the usual rates (validation accuracy of LoRA on SST-2 and TREC), and more over the means of the
# classes than over their names (validation scores of LoRA and PrefixTuning on CR, SUBJ and TREC, lorentz-small); fewer
# steps only save time.
SMALL = {"head": "means", "lr_factor": 3.0, "steps": 300, "fit_steps": 400, "point_steps": 100}
ONE = {"data": "SST-2", "unseen": "CR", "controls": "random,pca"}
PARTS: dict[str, list[dict[str, Any]]] = {
    "pair": [{"model": model, "budget": SIZE, **MANY, **SMALL} for model in PAIR],
    "wide": [{"model": model, "budget": SIZE, "dims": "256", "grid": 0, **MANY, **SMALL} for model in PAIR],
    "unequal": [{"model": model, "dims": "4", **MANY, **SMALL} for model in PAIR],
    "single": [{"model": model, "budget": SIZE, **ONE, **SMALL} for model in PAIR],
    "minilm": [
        {
            "model": "minilm", "shots": 16, "dims": "4,100", "steps": 150, "fit_steps": 150, "point_steps": 100,
            "max_eval": 200, "grid": 5, "planes": 1, "landscape_rows": 60, **ONE,
        }
    ],
    "quick": [
        {
            "model": "minilm", "shots": 16, "dims": "4", "steps": 150, "fit_steps": 150, "point_steps": 100,
            "max_eval": 200, "grid": 5, "planes": 1, "landscape_rows": 60, **ONE, "controls": "random",
        }
    ],
    "geometries": [
        {"model": ",".join(PAIR), "deltas": "Adapter,LoRA", "budget": SIZE, "dims": "16", "grid": 0, **MANY, **SMALL}
    ],
    "finetuning": [
        {"model": model, "deltas": "LoRA,FullFineTuning", "dims": "16", "grid": 0, **MANY, **SMALL} for model in PAIR
    ],
}  # fmt: skip


# The paper's figures by its own numbers of dimensions.
PAPER_DIMS = {"one task": 4, "many tasks": 100}
NOTE = (
    "Published figures are those of T5 on other tasks. The intervals of the differences are not corrected for their number: "
    "of twenty without an effect one leaves 0 out."
)


def entries(name: str, result: StudyResult) -> list[dict[str, Any]]:
    """Rows of the result file for one study."""
    cells, kind = result.cells, "one task" if len(result.config.sets) == 1 else "many tasks"
    kept, remarks = solvable(cells)
    seeds = len({cell.seed for cell in cells})
    columns = performance_columns(cells)[2:]
    found = [
        row(f"{name}, {method.label}: parameters of the delta", method.parameters, "parameters")
        for method in result.methods
    ]
    published = dict(zip(("optimisation, plain", "transfer, plain"), PUBLISHED[kind], strict=True))
    most = len(result.config.sets)  # principal components that the solutions have
    for kind_of_space, dim, *values in performance_rows(cells):
        for what, value in zip(columns, values, strict=True):
            if isinstance(value, float):
                reference = published.get(what) if (kind_of_space, dim) == (JOINT, PAPER_DIMS[kind]) else None
                assert isinstance(dim, int)
                has = f" (it has {most})" if kind_of_space == "pca" and dim > most else ""
                text = f"{name}, {kind_of_space}, {dim} dimensions{has}: relative performance, {what}"
                found.append(row(text, round(value, 4), "ratio", n=seeds, reference=reference))
    for at, control, part, less, half, pairs in difference_rows(cells):
        assert isinstance(less, float) and isinstance(pairs, int)
        text = f"{name}, {at} dimensions: joint less {control}, {part}, chance-corrected"
        if not isinstance(half, float) or abs(less) <= half:
            text += ": no difference shown"
        shown = round(half, 4) if isinstance(half, float) else None
        found.append(row(text, round(less, 4), "ratio", n=pairs, half=shown))
    largest = max(result.config.dimensions)
    table, labels = transfer_table(cells, largest)
    for via, line in zip(labels, table, strict=True):
        for to, value in zip(labels, line, strict=True):
            if value is not None and via != to:
                found.append(
                    row(f"{name}, joint, {largest} dimensions: {via} read by {to}", round(value, 4), "ratio", n=seeds)
                )
    for planes in result.planes:
        text = (
            f"{name}, {planes.task}, {planes.dim} dimensions: part of the plane that keeps 90 % of every method's best"
        )
        found.append(
            row(text, round(planes.share, 4), "share", n=1)
            | {"interval": [planes.low, planes.high], "random_planes": planes.random}
        )
        if planes.random:
            share = mean(planes.random)
            found.append(row(f"{text}: random planes, mean", round(share, 4), "share", n=len(planes.random)))
    for seed, data, what, model, score in result.references:
        found.append(row(f"{name}, {data}, seed {seed}: {what} {model}".rstrip(), round(score, 4), "score"))
    counted = len({(c.seed, c.task) for c in kept})
    found.append(row(f"{name}: pairs of seed and set that count", counted, "pairs") | {"left_out": remarks})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="pair", choices=PARTS)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--dims", help="instead of those of the part")
    parser.add_argument("--steps", type=int, help="of a solution, instead of those of the part")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--controls", help="instead of those of the part")
    parser.add_argument("--model", help="one backbone of the part alone")
    options = parser.parse_args()
    parts = [told for told in PARTS[options.part] if options.model in (None, told["model"])]
    if not parts:
        parser.error(f"--model: {options.part} has {' and '.join(told['model'] for told in PARTS[options.part])}")
    rows: list[dict[str, Any]] = []
    for told in parts:
        told = {"dims": "1,4,16,100", "threads": options.threads, **told}
        told |= {key: value for key in ("dims", "steps", "controls") if (value := getattr(options, key)) is not None}
        name = "+".join(Path(word).name for word in told["model"].split(","))
        start = time.monotonic()
        result = study_subspace(
            seeds=options.seeds, runs=options.runs, say=lambda line: print(line, flush=True), **told
        )
        rows += entries(name, result)
        if options.part == "quick":
            minutes = round((time.monotonic() - start) / 60, 1)
            rows.append(row(f"{name}: wall time", minutes, "minutes", target=15, met=minutes < 15))
    seeds = ",".join(map(str, options.seeds))
    given = {
        "model": options.model,
        "dims": options.dims,
        "steps": options.steps,
        "controls": options.controls,
        "threads": options.threads if options.threads > 1 else None,
    }
    more = "".join(f" --{key} {value}" for key, value in given.items() if value is not None)
    print(
        save(
            f"subspace_{options.part}" + (f"_{options.model}" if options.model else ""),
            f"python -m benchmarks.subspace --part {options.part} --seeds {seeds}{more}",
            rows,
            threads=options.threads,
            note=NOTE,
        )
    )


if __name__ == "__main__":
    main()
