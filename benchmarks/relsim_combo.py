"""Which ComBO phrases mean the same: every kind of evidence and blends of them, in repeated 5x2-fold cross-validation.

    python -m benchmarks.relsim_combo [--no-encoder] [--no-neural]

Phrases with at least three occurrences; gold is the majority relation id. Five times, the phrases are cut into halves; a
blend is fitted on the pairs inside one half and judged on the pairs inside the other. Intervals: bootstrap over phrases
of the mean over folds, every pair of a phrase coming and going with it. At mention level a pair of phrases is positive
with the share of their mention pairs that have one gold relation, and each pair weighs as many mentions as it stands for.
Types are those that ComBO gives; the encoder reads their English names from CoDEx. The features were chosen on these
phrases and folds, so the blends are a little flattered; the weights are not fitted on the pairs they are judged on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from relsim.baselines import count_kl_max
from relsim.evidence.calibration import fit_logistic
from relsim.evidence.counts import Counts, Float
from relsim.evidence.encoding import Encoded
from relsim.evidence.features import text_features
from relsim.evidence.profiles import Profiles
from relsim.facts import Facts
from relsim.model.entitytypes import type_names

from .common import asked, row, save
from .relsim_calibrate import SIGN, TEXT_RIDGE
from .relsim_sources import Combo, combo, folds

SEEDS = 5
# Best blend of counts and tokens, and of eight features, that are known for this data.
PUBLISHED = {"types, no encoder": 0.294, "types and encoder": 0.436}
REPLICATES = 200


class Task:
    """Pairs of phrases, their labels at phrase and at mention level, and their features."""

    def __init__(self, gold: Combo, encoder: Any, *, neural: bool) -> None:
        facts = gold.facts
        self.size = facts.num_relations
        self.i, self.j = at = np.triu_indices(self.size, 1)
        self.label = (gold.gold[self.i] == gold.gold[self.j]).astype(float)
        self.mention_share, self.mention_weight = self._mentions(gold)
        counts = Counts(facts)
        self.features = text_features(counts, at, Profiles(facts, types=gold.types))
        self.features["everything untyped"] = Profiles(facts).everything(*at)
        induced = Profiles(facts, types=type_names(facts))
        self.features |= {"kinds induced": induced.kinds(*at), "signatures induced": induced.signatures(*at)}
        self.features["count KL"] = np.log1p(count_kl_max(counts, at))
        if encoder is not None:
            encoded = Encoded(facts, encoder, types=gold.type_names)
            self.features |= {f"sense_{view}": encoded.cosine(view, *at) for view in encoded.views}
            self.plain = mean_vectors(facts, encoder)[self.i, self.j]
        if neural:
            self.features["neural KL"] = self._neural(gold)

    def _mentions(self, gold: Combo) -> tuple[Float, Float]:
        """Share of mention pairs with one gold relation, and number of mention pairs, of every pair of phrases."""
        ids = sorted({key for found in gold.mention_gold for key in found})
        table = np.array([[found[key] for key in ids] for found in gold.mention_gold], dtype=float)
        same, all_ = table @ table.T, np.outer(table.sum(1), table.sum(1))
        return (same / all_)[self.i, self.j], all_[self.i, self.j]

    def _neural(self, gold: Combo) -> Float:
        """Log of the neural KL over pairs of types: over pairs of names it is worse still."""
        from relsim.evidence.neural import neural_similarity

        names = gold.facts.entities
        kinds = ["|".join(sorted(gold.types[name])) for name in names]
        f = gold.facts
        rows = zip(f.head.tolist(), f.relation.tolist(), f.tail.tolist(), strict=True)
        typed = Facts.from_triples([(kinds[h], f.relations[r], kinds[t]) for h, r, t in rows])
        kl = neural_similarity(typed, epochs=40, seed=0).kl.numpy()
        return np.log1p(np.maximum(kl, kl.T))[self.i, self.j]

    def blend(self, names: list[str]) -> list[tuple[Any, Float]]:
        """Held-out pairs and their probabilities, for every half of every repetition."""
        sign = {**SIGN, "count KL": -1, "neural KL": -1}
        sign |= {name: 1 for name in names if name.endswith(("untyped", "induced"))}
        out = []
        for seed in range(SEEDS):
            for train, test in folds(np.arange(self.size), self.i, self.j, seed):
                model = fit_logistic(
                    {name: self.features[name][train] for name in names},
                    self.label[train],
                    ridge=TEXT_RIDGE,
                    sign=sign,
                )
                out.append((test, model.probability({name: self.features[name][test] for name in names})))
        return out

    def one(self, score: Float) -> list[tuple[Any, Float]]:
        """The same held-out pairs with a score that nothing is fitted for."""
        return [(test, score[test]) for s in range(SEEDS) for _, test in folds(np.arange(self.size), self.i, self.j, s)]

    def judge(self, held: list[tuple[Any, Float]], weight: Float | None = None) -> dict[str, float]:
        """Mean average precision and area under the ROC curve over the halves, by phrase and by mention."""
        ap, auc, by_mention = [], [], []
        for test, p in held:
            w = None if weight is None else weight[test]
            if w is not None and not (w * self.label[test]).sum() > 0:
                continue
            ap.append(average_precision_score(self.label[test], p, sample_weight=w))
            auc.append(roc_auc_score(self.label[test], p, sample_weight=w))
            by_mention.append(soft_average_precision(self.mention_share[test], self.mention_weight[test], p))
        return {"ap": float(np.mean(ap)), "auc": float(np.mean(auc)), "mention": float(np.mean(by_mention))}

    def interval(self, held: list[tuple[Any, Float]]) -> tuple[float, float]:
        """95 % interval of the average precision: phrases drawn with replacement, a pair counting as often as both."""
        rng = np.random.default_rng(0)
        found = []
        for _ in range(REPLICATES):
            times = np.bincount(rng.integers(0, self.size, self.size), minlength=self.size).astype(float)
            found.append(self.judge(held, times[self.i] * times[self.j])["ap"])
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)


def soft_average_precision(share: Float, weight: Float, p: Float) -> float:
    """Average precision when each pair stands for ``weight`` mention pairs of which ``share`` are positive."""
    order = np.argsort(-p, kind="stable")
    w, good = weight[order], (share * weight)[order]
    return float(np.sum(good * np.cumsum(good) / np.cumsum(w)) / good.sum())


def mean_vectors(facts: Facts, encoder: Any) -> Float:
    """Cosine of the mean vectors of the phrases' triples as text, not centred: the untrained reference."""
    f = facts
    rows = list(zip(f.head.tolist(), f.relation.tolist(), f.tail.tolist(), strict=True))
    vectors = np.asarray(
        encoder([f"{f.entities[h]} {f.relations[r]} {f.entities[t]}" for h, r, t in rows]), dtype=float
    )
    mean = np.zeros((f.num_relations, vectors.shape[1]))
    np.add.at(mean, f.relation.numpy(), vectors * f.count.double().numpy()[:, None])
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean @ mean.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HYREL_DATA", "data")))
    parser.add_argument("--no-encoder", action="store_true")
    parser.add_argument("--no-neural", action="store_true")
    args = parser.parse_args()
    encoder = None
    if not args.no_encoder:
        from tasks.encoder import sentence_encoder

        encoder = sentence_encoder()
    task = Task(combo(args.data), encoder, neural=not args.no_neural)
    print(f"{task.size} phrases, {len(task.label):,} pairs, {task.label.mean():.4f} of them positive")
    kl = [name for name in ("count KL", "neural KL") if name in task.features]
    untyped = ["tokens", "tfidf", "root_pairs", "words", "everything untyped"]
    typed = ["tokens", "tfidf", "root_pairs", "words", "everything", "kinds", "signatures"]
    blends: dict[str, tuple[list[str], tuple[float, float] | None]] = {
        "no types, no encoder": (untyped, None),
        "no types, no encoder, induced types": ([*untyped, "kinds induced", "signatures induced"], None),
        "types, no encoder": (typed, (0.40, 0.0)),
        "types, no encoder, with KL": ([*typed, *kl], (0.40, 0.0)),
    }
    if encoder is not None:
        senses = [name for name in task.features if name.startswith("sense_")]
        named = [name for name in senses if name != "sense_typed"]
        blends |= {
            "encoder, no types": ([*untyped, *named], None),
            "types and encoder": ([*typed, *senses], (0.46, 0.91)),
            "types and encoder, with KL": ([*typed, *senses, *kl], (0.46, 0.91)),
        }
    rows = []
    for name, values in task.features.items():
        found = task.judge(task.one(-values if name in kl else values))
        rows.append(row(f"average precision, {name} alone", round(found["ap"], 4), "0 to 1", n=2 * SEEDS))
    if encoder is not None:
        found = task.judge(task.one(task.plain))
        what = "average precision, mean vector of the triples, untrained"
        rows.append(row(what, round(found["ap"], 4), "0 to 1", n=2 * SEEDS, reference=0.365))
    for name, (features, target) in blends.items():
        held = task.blend(features)
        found, (low, high) = task.judge(held), task.interval(held)
        half = round((high - low) / 2, 4)
        rows += [
            row(f"average precision, {name}", round(found["ap"], 4), "0 to 1", n=2 * SEEDS, half=half,
                reference=PUBLISHED.get(name), target=target and f">= {target[0]}",
                met=target and found["ap"] >= target[0]),
            row(f"area under ROC, {name}", round(found["auc"], 4), "0 to 1", n=2 * SEEDS,
                target=f">= {target[1]}" if target and target[1] else None,
                met=found["auc"] >= target[1] if target and target[1] else None),
            row(f"average precision over mentions, {name}", round(found["mention"], 4), "0 to 1", n=2 * SEEDS),
        ]  # fmt: skip
    for line in rows:
        print(f"{line['what']}: {line['value']}", f"+- {line['spread']}" if line["spread"] else "", line["met"] or "")
    print(save("relsim_combo", asked("relsim_combo"), rows, threads=1))


if __name__ == "__main__":
    main()
