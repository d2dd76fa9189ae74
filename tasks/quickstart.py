"""``hyrel quickstart``: everything on embedded data, checked against what was planted in it, in one HTML report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .api import Result, run
from .errors import RunError
from .folder import explain_os_error
from .redundancy import PAIR_COLUMNS, pair_rows, run_redundancy
from .report.tables import render

__all__ = ["quickstart"]

Say = Callable[[str], None]
SCORERS = {"hybonet": "Lorentz (HyboNet)", "mure": "Euclidean (its twin)"}
TRAIN = {"epochs": 30, "batch_size": 256, "lr": 0.02, "eval_every": 10}
SEEDS = (0, 1, 2)


def average_precisions(result: Any, truth: Any) -> list[tuple[str, float]]:
    """Average precision of the ranking, and of every baseline, for the planted pairs of equal meaning.

    A pair that was not kept ranks last. Inverse and narrower pairs count as different: merging them would be wrong.
    """
    from itertools import combinations

    import numpy as np
    from sklearn.metrics import average_precision_score

    pairs = result.pairs
    place = {frozenset(p): i for i, p in enumerate(zip(pairs["rel_a"], pairs["rel_b"], strict=True))}
    every = [frozenset(pair) for pair in combinations(sorted(result.facts.relations), 2)]
    gold = np.array([truth.kind(*sorted(pair)) == "equivalent" for pair in every])
    # An inverse row's probability is that of the swapped reading.
    own = np.where(pairs["kind"] == "inverse", -1.0, pairs["p_redundant"])
    scores = {"hyrel": own, **result.baselines}
    rows = []
    for name, values in scores.items():
        values = np.nan_to_num(np.asarray(values, dtype=float), nan=-np.inf)
        finite = values[np.isfinite(values)]
        worst = (finite.min() if len(finite) else 0.0) - 1.0
        ranked = np.array([values[place[pair]] if pair in place else worst for pair in every])
        rows.append((name, float(average_precision_score(gold, np.where(np.isfinite(ranked), ranked, worst)))))
    return rows[:1] + sorted(rows[1:], key=lambda row: -row[1])


def found_kinds(result: Any, truth: Any) -> dict[str, tuple[int, int]]:
    """For each kind of planted pair, how many were called that kind, and how many were planted."""
    called = {(r["rel_a"], r["rel_b"]): r["kind"] for r in result.pairs}
    planted = {
        "equivalent": [(a, b) for a, b, kind in truth.pairs() if kind == "equivalent"],
        "inverse": list(truth.inverse_pairs),
        "narrower": list(truth.narrower_pairs),
    }
    mirror = {"narrower": "broader", "broader": "narrower"}
    counts = {}
    for kind, pairs in planted.items():
        hits = sum(called.get((a, b)) == kind or called.get((b, a)) == mirror.get(kind, kind) for a, b in pairs)
        counts[kind] = (hits, len(pairs))
    return counts


def merges(result: Any, truth: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """How pairs that are called equivalent were planted, by kind, and the phrases rewritten to one of another meaning."""
    called = [(row["rel_a"], row["rel_b"]) for row in result.pairs if row["kind"] == "equivalent"]
    kinds = Counter(truth.kind(a, b).replace("broader", "narrower") for a, b in called)
    rewritten = [(phrase, to) for phrase, (to, *_) in result.canonical_map.items() if phrase != to]
    return dict(kinds), [(phrase, to) for phrase, to in rewritten if truth.kind(phrase, to) != "equivalent"]


def _redundancy(folder: Path, say: Say) -> tuple[Any, list[list[str]], dict[str, str]]:
    from .data.embedded import extractions, truth, write_extractions

    planted = truth()
    rows = extractions()
    source = write_extractions(folder / "extractions.tsv")
    say(
        f"1. Relation redundancy: {len(rows):,} extractions over {len(planted.phrases)} phrases, with "
        f"{len(planted.synonym_groups)} synonym groups, {len(planted.inverse_pairs)} inverse and "
        f"{len(planted.narrower_pairs)} narrower pairs planted"
    )
    done = run_redundancy([source], out=folder / "redundancy")
    scores = [[name, f"{score:.3f}"] for name, score in average_precisions(done.result, planted)]
    kinds = found_kinds(done.result, planted)
    say(render(PAIR_COLUMNS, pair_rows(done.result, 8), "table").rstrip())
    say("average precision for the planted synonyms, hyrel's ranking first, then the baselines:")
    say(render(["score", "average precision"], scores, "table").rstrip())
    numbers = {f"{kind} pairs found": f"{hits} of {count}" for kind, (hits, count) in kinds.items()}
    by_kind, wrong = merges(done.result, planted)
    right, called = by_kind.get("equivalent", 0), sum(by_kind.values())
    rest = ", ".join(f"{count} {kind}" for kind, count in by_kind.items() if kind != "equivalent")
    numbers["pairs called equivalent"] = f"{called}, {right} of them planted so" + (
        f" (the others: {rest})" if rest else ""
    )
    rewritten = sum(phrase != to for phrase, (to, *_) in done.result.canonical_map.items())
    named = "; ".join(f"{phrase} to {to}" for phrase, to in wrong)
    numbers["phrases rewritten"] = f"{rewritten}, {len(wrong)} wrongly" + (f" ({named})" if named else "")
    for what, value in numbers.items():
        say(f"{what}: {value}")
    return done.result, scores, numbers


def _link_prediction(folder: Path, say: Say) -> tuple[dict[str, list[Result]], list[list[str]]]:
    from statistics import mean, stdev

    say(f"2. Link prediction on a small taxonomy, {len(SEEDS)} seeds each (31 space coordinates on both sides)")
    results: dict[str, list[Result]] = {}
    rows = []
    for scorer, title in SCORERS.items():
        results[scorer] = [
            run(
                "kg",
                data="taxonomy",
                model={"scorer": scorer, "dim": 32, "start": "identity"},
                negatives={"count": 200},
                train=TRAIN,
                seed=seed,
                runs=folder / "runs",
                quiet=True,
            )
            for seed in SEEDS
        ]
        cells = [title]
        for metric in ("mrr", "hits@1", "hits@10"):
            values = [result.metrics["test"][metric] for result in results[scorer]]
            cells.append(f"{mean(values):.3f} ± {stdev(values):.3f}")
        rows.append(cells)
    say(render(["model", "test mrr", "hits@1", "hits@10"], rows, "table").rstrip())
    return results, rows


def _disk(result: Result) -> tuple[str, str]:
    """Picture of the trained Lorentz embedding on the Poincaré disk, and how far it distorts."""
    from safetensors.torch import load_file

    from .data.embedded.taxonomy import common_names, depths, taxonomy
    from .data.kg import graph_from_triples
    from .report.disk import draw_disk
    from .report.projection import to_disk

    graph = graph_from_triples("taxonomy", taxonomy())
    depth = depths()
    ids = [i for i, name in enumerate(graph.entities) if name in depth]
    place = {graph.entities[i]: n for n, i in enumerate(ids)}
    space = load_file(result.folder / "model.safetensors")["entity.weight"][ids].double().numpy()
    view = to_disk(space)
    edges = [
        (place[h], place[t])
        for h, r, t in taxonomy()["train"]
        if r == "is a" and depth.get(h, 0) == depth.get(t, -9) + 1
    ]
    names = common_names()
    labels = {n: names[entity] for entity, n in place.items() if depth[entity] <= 3}
    svg = draw_disk(
        view.points, edges=edges, labels=labels, depth=[depth[graph.entities[i]] for i in ids], note=view.note
    )
    return svg, view.note


def quickstart(out: str | Path = "hyrel-quickstart", *, say: Say = print) -> Path:
    """Run redundancy and link prediction on embedded data and write ``report.html`` into `out`.

    Needs no network and no file but the package's own. Returns the report's path.
    """
    from .report.html import Report
    from .report.redundancy import redundancy_section

    start = time.monotonic()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(explain_os_error(error, folder)) from None
    result, scores, numbers = _redundancy(folder, say)
    runs, rows = _link_prediction(folder, say)
    picture, note = _disk(runs["hybonet"][0])
    report = Report("hyrel quickstart", "Embedded data with a planted truth: every number can be checked")
    section = report.section("Redundancy against the planted truth")
    section.add_table(
        ["score", "average precision"],
        [[name, float(value)] for name, value in scores],
        caption="Average precision for the planted synonym pairs: hyrel's ranking, then the baselines",
    )
    section.add_numbers(numbers)
    section = report.section("Link prediction, Lorentz beside Euclidean")
    section.add_table(
        ["model", "test mrr", "hits@1", "hits@10"], rows, caption=f"Mean and deviation over {len(SEEDS)} seeds"
    )
    section.add_text(
        "Three seeds on a small graph show that both models run, not which geometry is better: see the results page."
    )
    section.add_figure(picture, f"The Lorentz embedding on the Poincaré disk, coloured by depth; {note}")
    redundancy_section(report, result)
    path = report.save(folder / "report.html")
    say(f"3. Report: {path} ({time.monotonic() - start:.0f} s in all)")
    say("\nNow on your own extractions (any Open-IE output, or arg1 TAB relation TAB arg2):")
    say("\n  hyrel redundancy YOUR_FILE.tsv\n")
    return path
