"""Fit the coefficients of ``relsim/calibration.json`` and say how well they do on phrases they have not seen.

    python -m benchmarks.relsim_calibrate --data DATA_FOLDER [--neural] [--write]

Count regime, two sources of equal weight: ComBO validation (gold relation ids; phrases with at least three occurrences)
teaches what shared words are worth, samples of 5 to 60 facts of FB15k-237 relations what shared arguments are worth.
Rich regime: both phrases have many facts but no neural fit decides; samples of 50 to 2,000 facts, no text. Neural
regime: a model fitted on FB15k-237, each relation with enough facts split into four disjoint parts.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from relsim.calibration import Calibration, fit_logistic
from relsim.counts import Counts, Float
from relsim.facts import Facts
from relsim.features import count_features, neural_features
from relsim.openie import read_openie

COUNT = ("log_kl", "tfidf", "root_pairs", "tokens")
RICH = ("log_kl", "root_pairs")  # with tf-idf or a veto the weights change sign between samples
Labelled = tuple[dict[str, Float], Float, np.ndarray, tuple[np.ndarray, np.ndarray]]


def combo(folder: Path) -> Labelled:
    """Features, labels, group of each phrase, and pairs of ComBO phrases with at least three occurrences."""
    with gzip.open(folder / "openie/combo/revised.val.json.gz", "rt", encoding="utf-8") as stream:
        rows = json.load(stream)
    triples = [tuple(" ".join(row[key]["name"]) for key in "hrt") for row in rows]
    occurrences = Counter(relation for _, relation, _ in triples)
    gold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row, (_, relation, _) in zip(rows, triples, strict=True):
        if row["r"]["id"]:
            gold[relation][row["r"]["id"]] += 1
    kept = {relation for relation, count in occurrences.items() if count >= 3 and relation in gold}
    facts = Facts.from_triples([triple for triple in triples if triple[1] in kept])
    return _labelled(facts, [gold[relation].most_common(1)[0][0] for relation in facts.relations])


def copies(facts: Facts, seed: int, *, least: int = 5, most: int = 60, names: tuple[str, ...] = COUNT) -> Labelled:
    """Two to four samples of ``least`` to ``most`` facts of every relation that has four times ``least``.

    The samples of a relation are drawn from a common part of it, at most four times ``most``, so that they overlap.
    """
    rng = np.random.default_rng(seed)
    relation = facts.relation.numpy()
    rows, phrases = [], []
    for r in np.flatnonzero(facts.support.numpy() >= 4 * least):
        own = np.flatnonzero(relation == r)
        part = rng.permutation(own)[: int(np.exp(rng.uniform(np.log(4 * least), np.log(4 * most))))]
        for copy in range(int(rng.integers(2, 5))):
            size = min(int(np.exp(rng.uniform(np.log(least), np.log(most)))), len(part))
            picked = rng.choice(part, size, replace=False)
            rows += picked.tolist()
            phrases += [f"q{r}x{copy}"] * size
    entities = facts.entities
    head, tail = facts.head.numpy()[rows], facts.tail.numpy()[rows]
    sample = Facts.from_triples([(entities[h], n, entities[t]) for h, n, t in zip(head, phrases, tail, strict=True)])
    return _labelled(sample, [name.split("x")[0] for name in sample.relations], names)


def _labelled(facts: Facts, group: list[str], names: tuple[str, ...] = COUNT) -> Labelled:
    i, j = np.triu_indices(facts.num_relations, 1)
    groups = np.array(group)
    features = {name: values for name, values in count_features(Counts(facts), (i, j)).items() if name in names}
    return features, (groups[i] == groups[j]).astype(float), groups, (i, j)


def _folds(labelled: Labelled, seed: int, by_group: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs inside one half of the phrases (or of the relations behind them), and pairs inside the other half."""
    _, _, groups, (i, j) = labelled
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(groups)) % 2
    if by_group:
        names, place = np.unique(groups, return_inverse=True)
        half = (rng.permutation(len(names)) % 2)[place]
    for side in (0, 1):
        yield (half[i] == side) & (half[j] == side), (half[i] != side) & (half[j] != side)


def _take(features: dict[str, Float], rows: np.ndarray) -> dict[str, Float]:
    return {name: values[rows] for name, values in features.items()}


def score(label: Float, p: Float) -> dict[str, float]:
    base = float(label.mean())
    return {
        "average_precision": float(average_precision_score(label, p)),
        "roc_auc": float(roc_auc_score(label, p)),
        "brier": float(brier_score_loss(label, p)),
        "brier_of_base_rate": base * (1.0 - base),
        "base_rate": base,
    }


def join(sources: list[tuple[dict[str, Float], Float]]) -> Calibration:
    """Fit on several sources, each with the weight of the first."""
    features = {name: np.concatenate([f[name] for f, _ in sources]) for name in sources[0][0]}
    label = np.concatenate([y for _, y in sources])
    weight = np.concatenate([np.full(len(y), len(sources[0][1]) / len(y)) for _, y in sources])
    return fit_logistic(features, label, weight=weight)


def rich_regime(folder: Path) -> dict[str, object]:
    facts = read_openie(folder / "kg/FB15k-237/train.txt.gz")
    sampled = copies(facts, 0, least=50, most=2000, names=RICH)
    label = sampled[1]
    rows = [
        score(label[test], fit_logistic(_take(sampled[0], fit), label[fit]).probability(_take(sampled[0], test)))
        for seed in range(5)
        for fit, test in _folds(sampled, seed, True)
    ]
    return _entry(
        fit_logistic(sampled[0], label),
        {
            "fitted_on": "samples of 50 to 2000 facts of FB15k-237 training relations, without text",
            "pairs": len(label),
            "cross_validation": "5 x 2 halves of the relations, pairs inside the held-out half, mean",
            "held_out": _mean(rows),
        },
    )


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}


def count_regime(folder: Path) -> dict[str, object]:
    text = combo(folder)
    facts = read_openie(folder / "kg/FB15k-237/train.txt.gz")
    sampled = copies(facts, 0)
    found: dict[str, list[dict[str, float]]] = {"combo": [], "samples": []}
    for seed in range(5):
        for (fit_a, test_a), (fit_b, test_b) in zip(
            _folds(text, seed, False), _folds(sampled, seed, True), strict=True
        ):
            model = join([(_take(text[0], fit_a), text[1][fit_a]), (_take(sampled[0], fit_b), sampled[1][fit_b])])
            for name, source, test in (("combo", text, test_a), ("samples", sampled, test_b)):
                found[name].append(score(source[1][test], model.probability(_take(source[0], test))))
    model = join([(text[0], text[1]), (sampled[0], sampled[1])])
    return _entry(
        model,
        {
            "fitted_on": "ComBO validation (phrases with at least 3 occurrences, gold = majority relation id) and "
            "samples of 5 to 60 facts of FB15k-237 training relations, equal weight",
            "pairs": {"combo": len(text[1]), "samples": len(sampled[1])},
            "cross_validation": "5 x 2 halves of the phrases (ComBO) and of the relations (samples), pairs inside the "
            "held-out half, mean",
            "held_out": {name: _mean(rows) for name, rows in found.items()},
        },
    )


def _entry(model: Calibration, provenance: dict[str, object]) -> dict[str, object]:
    weights = {name: round(weight, 6) for name, weight in zip(model.features, model.weights, strict=True)}
    return {"weights": weights, "intercept": round(model.intercept, 6), "provenance": provenance}


def neural_regime(folder: Path, *, least: int = 400, epochs: int = 4, seed: int = 0) -> dict[str, object]:
    from relsim.neural import neural_similarity

    facts = read_openie(folder / "kg/FB15k-237/train.txt.gz")
    rng = np.random.default_rng(seed)
    relation = facts.relation.numpy()
    part = np.zeros(len(facts), dtype=np.int64)
    many = np.flatnonzero(facts.support.numpy() >= least)
    for r in many:
        own = rng.permutation(np.flatnonzero(relation == r))
        part[own] = np.arange(len(own)) % 4
    e = facts.entities
    split = Facts.from_triples(
        [
            (e[h], f"q{r}x{p}", e[t])
            for h, r, t, p in zip(
                facts.head.tolist(), relation.tolist(), facts.tail.tolist(), part.tolist(), strict=True
            )
            if facts.support[r] >= 50
        ]
    )
    kl = neural_similarity(split, epochs=epochs, seed=seed).kl.numpy()
    groups = np.array([name.split("x")[0] for name in split.relations])
    i, j = np.triu_indices(len(groups), 1)
    labelled: Labelled = (neural_features(kl[i, j], kl[j, i]), (groups[i] == groups[j]).astype(float), groups, (i, j))
    rows = [
        score(
            labelled[1][test],
            fit_logistic(_take(labelled[0], fit), labelled[1][fit]).probability(_take(labelled[0], test)),
        )
        for s in range(5)
        for fit, test in _folds(labelled, s, True)
    ]
    return _entry(
        fit_logistic(labelled[0], labelled[1]),
        {
            "fitted_on": f"FB15k-237 training facts, {len(many)} relations with at least {least} facts split into 4 "
            f"disjoint parts, beside the other relations with at least 50; {epochs} epochs, seed {seed}",
            "pairs": len(i),
            "cross_validation": "5 x 2 halves of the relations, pairs inside the held-out half, mean",
            "held_out": _mean(rows),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--neural", action="store_true", help="fit the neural regime too (minutes)")
    parser.add_argument("--write", action="store_true", help="write relsim/calibration.json")
    args = parser.parse_args()
    target = Path(__file__).parents[1] / "relsim/calibration.json"
    regimes = json.loads(target.read_text("utf-8"))["regimes"] if target.exists() else {}
    regimes["count"] = count_regime(args.data)
    regimes["rich"] = rich_regime(args.data)
    if args.neural:
        regimes["neural"] = neural_regime(args.data)
    command = "python -m benchmarks.relsim_calibrate --data DATA_FOLDER --neural --write"
    text = json.dumps({"schema": 1, "command": command, "regimes": regimes}, indent=2) + "\n"
    print(text)
    if args.write:
        target.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
