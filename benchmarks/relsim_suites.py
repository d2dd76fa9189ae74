"""The redundancy suites on FB15k-237: every count measure, trained relation vectors, and divergences of fact distributions.

    python -m benchmarks.relsim_suites --folder FOLDER [--suites disjoint,capped-50] [--seeds 0,1,2] [--members 3]

Each finished (suite, seed, scorer) is one line of FOLDER/scores.jsonl, so that a stopped run goes on where it was;
divergences and relation vectors are kept in FOLDER. Results go to benchmarks/results/relsim_suites.json. One thread; data
from the folder that HYREL_DATA names. The seed is that of the suite; the members of an ensemble
differ in the seed of the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relsim.baselines import MEASURES, cosine
from relsim.evaluation.suites import SUITES, Suite, make_suite
from relsim.evidence.counts import Counts
from relsim.facts import Facts
from relsim.kl.localscale import local_scaling
from relsim.model.inverses import with_inverses
from relsim.model.recommended import fit_distribution
from relsim.similarity import similarity
from tasks.argv import parse_seeds
from tasks.data.load import load
from tasks.similarity.judge import judge
from tasks.similarity.task import graph_facts

from .common import asked, row, save
from .relsim_kinds import judge_kinds
from .relsim_vectors import relation_vectors

Matrix = NDArray[np.float64]

COUNTS = [name for name in MEASURES if name != "token_overlap"]  # the parts of a relation share its name
VECTORS = ("transe", "distmult", "rescal")
DIVERGENCES = ("count_kl", "jensen_shannon")
# What AP and R@1 of the divergences of one fit should reach, as they are and locally scaled.
TARGETS = {"disjoint": {"ap": 0.91, "r@1": 0.95}, "capped-50": {"ap": 0.72}}
AIMED = ("neural KL", "neural KL, locally scaled")
HEADS = 150


def kept(path: Path, make: Callable[[], Matrix]) -> Matrix:
    """The array in a file, made and written first if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, make())
        temporary.rename(path)
    return np.load(path, allow_pickle=False)


def divergence(facts: Facts, seed: int) -> Matrix:
    """KL, its head part and its tail part, (3, R, R), of one fit."""
    found = similarity(fit_distribution(facts, seed=seed)[0], heads=HEADS, seed=seed)
    return np.stack([part.numpy() for part in (found.kl, found.head_kl, found.tail_kl)])


def scores(suite: Suite, seed: int, folder: Path, members: int, wanted: set[str]) -> Iterator[tuple[str, Matrix]]:
    """Scorers of a suite by name, symmetric, larger for more alike, each also scaled by its neighbourhood."""
    counts = Counts(suite.facts)
    for name in COUNTS:
        if name in wanted:
            yield from both(name, MEASURES[name](counts), name in DIVERGENCES)
    if "neural" in wanted:
        parts = []
        for member in range(members):
            path = folder / f"kl-{suite.name}-{seed}-{member}.npy"
            parts.append(kept(path, lambda m=member: divergence(suite.facts, seed + 100 * m)))
            if member == 0:
                for part, name in zip(parts[0], ("KL", "head KL", "tail KL"), strict=True):
                    yield from both(f"neural {name}", -np.maximum(part, part.T), True)
        if members > 1:
            mean = np.mean([kl[0] for kl in parts], axis=0)
            yield from both(f"neural KL, mean of {members} fits", -np.maximum(mean, mean.T), True)
    for name in VECTORS:
        if name in wanted and suite.name in ("disjoint", "capped-50"):
            path = folder / f"vectors-{name}-{suite.name}-{seed}.npy"
            vectors = kept(path, lambda n=name: relation_vectors(n, suite.facts, seed=seed))
            yield from both(f"{name} cosine", cosine(vectors), False)


def both(name: str, score: Matrix, is_divergence: bool) -> Iterator[tuple[str, Matrix]]:
    score = (score + score.T) / 2
    yield name, score
    distance = -score if is_divergence else 1.0 - score
    np.fill_diagonal(distance, 0.0)
    scaled = local_scaling(np.maximum(distance, 0.0))  # a cosine passes 1 by rounding
    np.fill_diagonal(scaled, scaled[~np.eye(len(scaled), dtype=bool)].max())
    yield f"{name}, locally scaled", scaled


def measure(args: argparse.Namespace, facts: Facts) -> None:
    lines = args.folder / "scores.jsonl"
    done = {(r["suite"], r["seed"], r["scorer"]) for r in read(lines)}
    for seed in args.seeds:
        for name in args.suites:
            suite = make_suite(name, facts, seed=seed)
            found = judged(suite, seed, args)
            started = time.process_time()
            for scorer, metrics in found:
                seconds, started = time.process_time() - started, time.process_time()
                if (name, seed, scorer) not in done:
                    size = {
                        "relations": suite.facts.num_relations,
                        "facts": len(suite.facts),
                        "pairs": len(suite.first),
                    }
                    entry = {
                        "suite": name,
                        "seed": seed,
                        "scorer": scorer,
                        **size,
                        "seconds": seconds,
                        "metrics": metrics,
                    }
                    with lines.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(entry) + "\n")
                    print(
                        name, seed, scorer, {k: round(v, 4) for k, v in metrics.items()}, f"{seconds:.1f} s", flush=True
                    )


def judged(suite: Suite, seed: int, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    if suite.name != "kinds":
        for name, score in scores(suite, seed, args.folder, args.members, args.wanted):
            yield name, judge(suite, score)
    elif "neural" in args.wanted:
        facts = with_inverses(suite.facts)
        kl = kept(args.folder / f"kl-kinds-{seed}.npy", lambda: divergence(facts, seed))[0]
        yield "kinds by neural KL", judge_kinds(suite, kl)


def read(lines: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else []


def summarise(lines: Path, suites: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """Rows of the finished lines of these suites and seeds."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for entry in read(lines):
        if entry["suite"] not in suites or entry["seed"] not in seeds:
            continue
        for metric, value in entry["metrics"].items():
            groups.setdefault((entry["suite"], entry["scorer"], metric), []).append(value)
    rows = []
    for (suite, scorer, metric), values in groups.items():
        target = TARGETS.get(suite, {}).get(metric) if scorer in AIMED else None
        if suite == "kinds" and metric.endswith("accuracy"):
            target = 0.95
        mean = statistics.mean(values)
        sd = statistics.stdev(values) if len(values) > 1 else None
        met = None if target is None else mean >= target
        rows.append(row(f"{suite}: {scorer}, {metric}", mean, "1", n=len(values), sd=sd, target=target, met=met))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where finished scores and fits are kept")
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--members", type=int, default=1, help="fits of the ensemble")
    parser.add_argument("--scorers", default=",".join([*COUNTS, "neural"]), help=f"{COUNTS}, neural, {VECTORS}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.suites, args.wanted = args.suites.split(","), set(args.scorers.split(","))
    args.seeds = parse_seeds(args.seeds)
    if unknown := args.wanted - {*COUNTS, *VECTORS, "neural"}:
        parser.error(f"unknown scorers {sorted(unknown)}, expected {[*COUNTS, 'neural', *VECTORS]}")
    args.folder.mkdir(parents=True, exist_ok=True)
    measure(args, graph_facts(load("FB15k-237")))
    rows = summarise(args.folder / "scores.jsonl", args.suites, args.seeds)
    print(save("relsim_suites", asked("relsim_suites"), rows, threads=1))


if __name__ == "__main__":
    main()
