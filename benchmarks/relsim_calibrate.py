"""Fit the coefficients of ``relsim/evidence/calibration.json`` and say how well they do on relations they have not seen.

    python -m benchmarks.relsim_calibrate [--neural] [--encoder] [--write]

Phrases with few facts: ComBO validation (gold relation ids), with and without types and an encoder. Shared facts:
overlapping samples of 12 to 60, and of 50 to 2,000 facts of relations of FB15k-237, CoDEx-M and NELL-995; WD50K is the
second source: no coefficient was fitted to it, though the features were chosen with all four in view. Parts: disjoint
parts of relations, where agreement is zero by
construction. Neural: a model fitted on FB15k-237, each relation with enough facts in four disjoint parts.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from relsim.evidence.calibration import Calibration, fit_logistic
from relsim.evidence.contradiction import contradiction
from relsim.evidence.counts import Counts, Float
from relsim.evidence.encoding import VIEWS, Encoded
from relsim.evidence.features import count_features, fact_features, neural_features, text_features
from relsim.evidence.guard import text_regime
from relsim.evidence.profiles import Profiles
from relsim.evidence.reliability import reliability
from relsim.facts import Facts
from relsim.kl.localscale import local_scaling

from .common import asked, row, save
from .relsim_sources import combo, copies, disjoint_parts, folds, knowledge_base

_FOR = ("tfidf", "root_pairs", "contained", "deficit", "tokens", "words", "everything", "kinds", "signatures", "local")
SIGN = {"log_kl": -1, **dict.fromkeys(_FOR, 1), **{f"sense_{view}": 1 for view in VIEWS}}
FACTS = ("log_kl", "contained", "deficit", "log_n")
FITTED, SECOND = ("FB15k-237", "CoDEx-M", "NELL-995"), "WD50K"
TEXT_RIDGE = 20.0
NEURAL_SIZES = (1.0, 0.3, 0.15)  # shares of the relations

Features = dict[str, Float]


class Labelled:
    """Features and labels of all pairs of a set of facts; ``groups``: what stays together in a fold."""

    def __init__(self, features: Features, groups: Any, gold: Any) -> None:
        self.i, self.j = np.triu_indices(len(gold), 1)
        self.features, self.groups = features, groups
        self.label = (gold[self.i] == gold[self.j]).astype(float)

    def take(self, rows: Any) -> Features:
        """Keep some pairs."""
        return {name: values[rows] for name, values in self.features.items()}


def of_samples(facts: Facts, gold: Any, names: Sequence[str]) -> Labelled:
    at = np.triu_indices(facts.num_relations, 1)
    counts = Counts(facts)
    features = fact_features(counts, at, contradiction(counts, at)) | count_features(counts, at)
    return Labelled({name: features[name] for name in names}, gold, gold)


def fit(sources: Sequence[tuple[Features, Float]], **options: Any) -> Calibration:
    features = {name: np.concatenate([f[name] for f, _ in sources]) for name in sources[0][0]}
    return fit_logistic(features, np.concatenate([y for _, y in sources]), sign=SIGN, **options)


def fit_shrunk(source: Labelled, rows: Any, seeds: int = 3) -> Calibration:
    """Fit on pairs ``rows`` of one small source, the log-odds then scaled to what halves of them say of other halves.

    With few phrases the weights fit those phrases: stated probabilities of other phrases would be too extreme.
    """
    model = fit([(source.take(rows), source.label[rows])], ridge=TEXT_RIDGE)
    odds, label = [], []
    for seed in range(seeds):
        for train, test in folds(source.groups, source.i, source.j, seed + 100):
            inner = fit([(source.take(train & rows), source.label[train & rows])], ridge=TEXT_RIDGE)
            p = inner.probability(source.take(test & rows))
            odds.append(np.log(p) - np.log1p(-p))
            label.append(source.label[test & rows])
    scale = fit_logistic({"odds": np.concatenate(odds)}, np.concatenate(label), ridge=0.0)
    a = scale.weights[0]
    return Calibration(model.features, tuple(a * w for w in model.weights), a * model.intercept + scale.intercept)


def text_held_out(source: Labelled) -> dict[str, Any]:
    stated, labels = [], []
    for train, test in folds(source.groups, source.i, source.j, 0):
        stated.append(fit_shrunk(source, train).probability(source.take(test)))
        labels.append(source.label[test])
    return judged(np.concatenate(labels), np.concatenate(stated))


def held_out(sources: Sequence[Labelled], **options: Any) -> list[dict[str, Any]]:
    """Reliability on each source of probabilities fitted on the other half of the groups of all, both halves together."""
    stated: list[list[Float]] = [[] for _ in sources]
    labels: list[list[Float]] = [[] for _ in sources]
    for both in zip(*(folds(s.groups, s.i, s.j, 0) for s in sources), strict=True):
        model = fit([(s.take(train), s.label[train]) for s, (train, _) in zip(sources, both, strict=True)], **options)
        for k, (s, (_, test)) in enumerate(zip(sources, both, strict=True)):
            stated[k].append(model.probability(s.take(test)))
            labels[k].append(s.label[test])
    return [judged(np.concatenate(y), np.concatenate(p)) for y, p in zip(labels, stated, strict=True)]


def judged(label: Float, p: Float) -> dict[str, Any]:
    found = asdict(reliability(label, p))
    rounded = {key: round(float(value), 4) if isinstance(value, float) else value for key, value in found.items()}
    rounded["stated"] = [{key: round(float(value), 4) for key, value in s.items()} for s in found["stated"]]
    return rounded


def entry(model: Calibration, **provenance: Any) -> dict[str, Any]:
    weights = {name: round(weight, 6) for name, weight in zip(model.features, model.weights, strict=True)}
    return {"weights": weights, "intercept": round(model.intercept, 6), "provenance": provenance}


def text_regimes(folder: Path, encoder: Any) -> dict[str, Any]:
    gold = combo(folder)
    at = np.triu_indices(gold.facts.num_relations, 1)
    counts = Counts(gold.facts)
    out = {}
    for typed in (False, True):
        for encoded in (False, True) if encoder else (False,):
            # Ids of types tell more apart; an encoder needs their names.
            profiles = Profiles(gold.facts, types=gold.types if typed else None)
            vectors = Encoded(gold.facts, encoder, types=gold.type_names if typed else None) if encoded else None
            own = np.arange(gold.facts.num_relations)
            source = Labelled(text_features(counts, at, profiles, vectors), own, gold.gold)
            out[text_regime(types=typed, encoder=encoded)] = entry(
                fit_shrunk(source, np.ones(len(source.label), dtype=np.bool_)),
                fitted_on="ComBO validation, phrases with at least 3 occurrences, gold = majority relation id",
                pairs=len(source.label),
                cross_validation="halves of the phrases, pairs inside the held-out half",
                held_out={"ComBO": text_held_out(source)},
            )
    return out


def fact_regime(folder: Path, least: int, most: int, names: Sequence[str]) -> dict[str, Any]:
    sources = [of_samples(*copies(knowledge_base(folder, name), 0, least=least, most=most), names) for name in FITTED]
    model = fit([(s.features, s.label) for s in sources])
    second = of_samples(*copies(knowledge_base(folder, SECOND), 0, least=least, most=most), names)
    return entry(
        model,
        fitted_on=f"overlapping samples of {least} to {most:,} facts of relations of {', '.join(FITTED)}, without text",
        pairs=sum(len(s.label) for s in sources),
        cross_validation="halves of the relations, pairs inside the held-out half",
        held_out=dict(zip(FITTED, held_out(sources), strict=True)),
        second_source={SECOND: judged(second.label, model.probability(second.features))},
    )


def parts_regime(folder: Path) -> dict[str, Any]:
    names = ("log_kl", "tfidf", "log_n")
    source = of_samples(*disjoint_parts(knowledge_base(folder, "FB15k-237"), 0, least=60, most=2000), names)
    model = fit([(source.features, source.label)])
    second = of_samples(*disjoint_parts(knowledge_base(folder, SECOND), 0, least=60, most=2000), names)
    return entry(
        model,
        fitted_on="relations of FB15k-237 with at least 60 facts, at most 2,000 of each, in 4 disjoint parts",
        pairs=len(source.label),
        cross_validation="halves of the relations, pairs inside the held-out half",
        held_out={"FB15k-237": held_out([source])[0]},
        second_source={SECOND: judged(second.label, model.probability(second.features))},
    )


def screens(folder: Path) -> dict[str, Any]:
    """Models that only choose which pairs are looked at closely."""
    gold = combo(folder)
    at = np.triu_indices(gold.facts.num_relations, 1)
    text = Labelled(count_features(Counts(gold.facts), at), gold.gold, gold.gold)
    base = knowledge_base(folder, "FB15k-237")
    few = of_samples(*copies(base, 0, least=5, most=60), tuple(text.features))
    many = of_samples(*copies(base, 0, least=50, most=2000), ("log_kl", "root_pairs"))
    weight = np.concatenate([np.ones(len(text.label)), np.full(len(few.label), len(text.label) / len(few.label))])
    return {
        "screen": entry(
            fit([(text.features, text.label), (few.features, few.label)], weight=weight),
            fitted_on="ComBO validation and samples of 5 to 60 facts of FB15k-237 relations, equal weight",
        ),
        "screen many facts": entry(
            fit([(many.features, many.label)]), fitted_on="samples of 50 to 2,000 facts of FB15k-237 relations"
        ),
    }


def neural_regime(folder: Path, *, least: int = 400) -> dict[str, Any]:
    from relsim.evidence.neural import neural_similarity

    facts, gold = disjoint_parts(knowledge_base(folder, "FB15k-237"), 0, least=least, most=1 << 60, others=50)
    kl = neural_similarity(facts, seed=0).kl.numpy()
    # How near the surroundings are depends on how many relations there are, which the probability must not.
    rng, sources = np.random.default_rng(0), []
    for size in NEURAL_SIZES:
        chosen = np.flatnonzero(np.isin(gold, rng.permutation(np.unique(gold))[: round(size * len(np.unique(gold)))]))
        part = kl[np.ix_(chosen, chosen)]
        local = local_scaling(np.maximum(part, part.T))
        i, j = np.triu_indices(len(chosen), 1)
        sources.append(Labelled(neural_features(part[i, j], part[j, i], local[i, j]), gold[chosen], gold[chosen]))
    model = fit([(s.features, s.label) for s in sources])
    names = [f"FB15k-237, {size:.0%} of the relations" for size in NEURAL_SIZES]
    return entry(
        model,
        fitted_on=f"FB15k-237 training facts, relations with at least {least} facts in 4 disjoint parts, beside the "
        "other relations with at least 50, and random shares of these relations; seed 0",
        pairs=sum(len(s.label) for s in sources),
        cross_validation="halves of the relations, pairs inside the held-out half",
        held_out=dict(zip(names, held_out(sources), strict=True)),
    )


def rows_of(regimes: dict[str, Any]) -> list[dict[str, Any]]:
    out = []
    for name, regime in regimes.items():
        found = regime["provenance"].get("held_out", {})
        second = regime["provenance"].get("second_source", {})
        for source, values in [*found.items(), *((f"{key} (second source)", v) for key, v in second.items())]:
            if not isinstance(values, dict):  # coefficients kept from an older run
                continue
            n = values["pairs"]
            out += [
                row(f"{name}, {source}: {what}", values[key], "0 to 1", n=n, target=target, met=met(values[key]))
                for what, key, target, met in (
                    ("Brier skill", "brier_skill", ">= .25", lambda v: bool(v >= 0.25)),
                    ("log-loss skill", "log_skill", ">= .25", lambda v: bool(v >= 0.25)),
                    ("calibration error among p >= .2", "error", "<= .05", lambda v: bool(v <= 0.05)),
                )
            ]
            for s in values["stated"]:
                inside = s["low"] <= s["precision"] <= s["high"]
                interval = f"inside {s['low']:.3f} to {s['high']:.3f}"
                what = f"{name}, {source}: precision where {s['precision']:g} is stated"
                out.append(row(what, s["found"], "0 to 1", n=int(s["pairs"]), target=interval, met=inside))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HYREL_DATA", "data")))
    parser.add_argument("--encoder", action="store_true", help="fit the regimes with a sentence encoder too (a minute)")
    parser.add_argument("--neural", action="store_true", help="fit the neural regime too (minutes)")
    parser.add_argument("--write", action="store_true", help="write relsim/evidence/calibration.json and the results")
    args = parser.parse_args()
    encoder = None
    if args.encoder:
        from tasks.encoder import sentence_encoder

        encoder = sentence_encoder()
    target = Path(__file__).parents[1] / "relsim/evidence/calibration.json"
    regimes = json.loads(target.read_text("utf-8"))["regimes"] if target.exists() else {}
    regimes |= screens(args.data) | text_regimes(args.data, encoder)
    regimes["facts"] = fact_regime(args.data, 12, 60, FACTS)
    regimes["many facts"] = fact_regime(args.data, 50, 2000, FACTS)
    regimes["parts"] = parts_regime(args.data)
    if args.neural:
        regimes["neural"] = neural_regime(args.data)
    regimes = {name: regimes[name] for name in sorted(regimes)}
    command = asked("relsim_calibrate")
    text = json.dumps({"schema": 1, "command": command, "regimes": regimes}, indent=2) + "\n"
    print(text)
    if args.write:
        target.write_text(text, "utf-8")
        print(save("relsim_calibrate", command, rows_of(json.loads(text)["regimes"]), threads=1))


if __name__ == "__main__":
    main()
