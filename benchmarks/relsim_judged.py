"""How well divergences, count measures and names agree with the shipped judgement of 300 pairs of WD50K relations.

    python -m benchmarks.relsim_judged --folder FOLDER [--seeds 0,1,2]

The judgement is rule-based, by one automatic grader, not human. Every score sees the training facts of the 162
relations with at least 50 of them and a name. Divergences of each seed are kept in FOLDER. Rows: Spearman and Pearson
with the 95 % bootstrap interval over relations, partial Spearman given the kinds of subject and object, and how far
the mean divergence is ahead of each other score. Results go to benchmarks/results/relsim_judged.json. One thread;
data from the folder that HYREL_DATA names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from relsim.baselines import MEASURES, cosine, count_kl
from relsim.evaluation.judgements import Agreement, Ratings, agreement, ceiling, partial_correlation, pearson, spearman
from relsim.evidence.counts import Counts
from relsim.facts import Facts
from relsim.model.recommended import fit_distribution
from relsim.similarity import similarity
from tasks.data.judgements import relation_judgements, signatures
from tasks.data.load import load
from tasks.encoder import sentence_encoder
from tasks.similarity.task import graph_facts

from .common import asked, row, save
from .relsim_judged_draw import relations, texts
from .relsim_suites import HEADS

Scores = NDArray[np.float64]
KL = "neural KL"


def fitted(facts: Facts, seed: int, path: Path) -> dict[str, Scores]:
    """Scores of one fit: divergence, its parts, and the cosine of its relation vectors, (R, R) each."""
    if not path.exists():
        model, report = fit_distribution(facts, seed=seed)
        print(
            f"seed {seed}: held-out {report.held_out_head:.3f} + {report.held_out_tail:.3f} nats, {report.seconds:.0f} s"
        )
        found = similarity(model, heads=HEADS, seed=seed)
        np.savez(
            path,
            **{KL: found.kl.numpy(), "neural head KL": found.head_kl.numpy(), "neural tail KL": found.tail_kl.numpy()},
            vectors=model.relation.detach().numpy(),
        )
    with np.load(path) as kept:
        scores = {name: -np.maximum(kept[name], kept[name].T) for name in kept if name != "vectors"}
        return scores | {"cosine of fitted relation vectors": cosine(kept["vectors"])}


def plain_scores(facts: Facts) -> Iterator[tuple[str, Scores]]:
    """Measures that need no training, (R, R) each, larger for more alike."""
    names = texts()
    counts = Counts(replace(facts, relations=[names[p][0] for p in facts.relations]))
    for name, measure in MEASURES.items():
        straight = measure(counts)
        yield name, straight
        if name != "token_overlap":
            yield f"{name}, either way round", np.maximum(straight, measure(counts, swapped=True))
    for side in ("head", "tail"):
        one = count_kl(counts, side=side)
        yield f"count_kl of the {side}s", -np.maximum(one, one.T)
    encode = sentence_encoder()
    yield "MiniLM cosine of names", cosine(encode([names[p][0] for p in facts.relations]))
    yield "MiniLM cosine of names and descriptions", cosine(encode([": ".join(names[p]) for p in facts.relations]))


def judge(ratings: Ratings, scores: dict[str, Scores], samples: int) -> Iterator[dict[str, Any]]:
    kinds = signatures()
    same = np.array([[kinds[a][k] == kinds[b][k] for k in (0, 1)] for a, b in ratings.pairs], dtype=np.float64)
    controls, grade, pairs = np.column_stack([same, same.prod(1)]), ratings.mean, ratings.pairs

    def shown(what: str, found: Agreement, **rest: Any) -> dict[str, Any]:
        print(f"{what}: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]", flush=True)
        half = (found.high - found.low) / 2
        return row(what, found.value, "1", n=len(pairs), half=half, **rest) | {"interval": [found.low, found.high]}

    yield shown(
        "Spearman: kinds of subject and object alone", agreement(pairs, lambda k: spearman(same.sum(1)[k], grade[k]))
    )
    for name, score in scores.items():
        yield shown(f"Spearman: {name}", agreement(pairs, lambda k, s=score: spearman(s[k], grade[k]), samples=samples))
        yield shown(f"Pearson: {name}", agreement(pairs, lambda k, s=score: pearson(s[k], grade[k]), samples=samples))
        given = agreement(
            pairs, lambda k, s=score: partial_correlation(s[k], grade[k], controls[k]), samples=samples
        )  # fmt: skip
        yield shown(f"partial Spearman given the kinds: {name}", given)
    ours = scores[KL_MEAN]
    for name, score in scores.items():
        if not name.startswith("neural"):
            ahead = agreement(
                pairs, lambda k, s=score: spearman(ours[k], grade[k]) - spearman(s[k], grade[k]), samples=samples
            )  # fmt: skip
            told = ahead.low > 0 or ahead.high < 0
            yield shown(f"{KL_MEAN} ahead of {name}, Spearman" + ("" if told else ": no difference shown"), ahead)


KL_MEAN = f"{KL}, mean of the fits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where divergences are kept")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--samples", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    ratings = relation_judgements()
    graph = graph_facts(load("WD50K"))
    facts = graph.select([graph.relations.index(name) for name in relations()])
    place = {name: i for i, name in enumerate(facts.relations)}
    i, j = np.array([[place[a], place[b]] for a, b in ratings.pairs]).T
    scores = {name: ((score + score.T) / 2)[i, j] for name, score in plain_scores(facts)}
    fits = [fitted(facts, int(seed), args.folder / f"judged-{seed}.npz") for seed in args.seeds.split(",")]
    for name in fits[0]:
        parts = np.stack([one[name][i, j] for one in fits])
        scores |= (
            {f"neural, fit of seed {seed}": part for seed, part in zip(args.seeds.split(","), parts, strict=True)}
            if name == KL
            else {}
        )
        scores[f"{name}, mean of the fits"] = parts.mean(0)
    grades = ratings.grades.astype(int)
    rows = [
        row("grades: kappa of the two passes", cohen_kappa_score(*grades.T), "1", n=len(grades)),
        row(
            "grades: quadratic kappa of the two passes",
            cohen_kappa_score(*grades.T, weights="quadratic"),
            "1",
            n=len(grades),
        ),
        row("grades: leave-one-pass-out ceiling, Spearman", ceiling(ratings), "1", n=len(grades)),
        row("facts", len(facts), "facts"),
        *judge(ratings, scores, args.samples),
    ]
    print(save("relsim_judged", asked("relsim_judged"), rows, threads=1))


if __name__ == "__main__":
    main()
