"""Which way two relations are one: equivalent, narrower, broader, inverse or different, told from divergences alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relsim.evaluation.suites import KINDS, Suite
from relsim.facts import Facts

__all__ = ["judge_kinds"]

Matrix = NDArray[np.float64]

DIFFERENT = len(KINDS)
_HARD = 2  # nearest wrong partners taken for each relation


def judge_kinds(suite: Suite, kl: Matrix) -> dict[str, float]:
    """Accuracy by kind, cross-fitted over halves of the source relations, five times; ``kl (2 R, 2 R)``, inverses last.

    Pairs: all gold ones, and for each relation the nearest that no source relation joins it with (straight or swapped), as
    different. Relations that are their own inverse (over half of the facts are there both ways) are left out and counted: all
    kinds are right for them.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    size = suite.facts.num_relations
    straight, swapped, back = kl[:size, :size], kl[:size, size:], kl[size:, :size].T
    source = np.array([name.rsplit(" #", 1)[0] for name in suite.facts.relations])
    symmetric = _symmetric(suite.facts, source)
    keep = ~np.isin(source[suite.first], symmetric)
    nearness = np.minimum(np.maximum(straight, straight.T), np.maximum(swapped, back))
    nearness[source[:, None] == source[None]] = np.inf
    nearness[np.isin(source, symmetric)] = np.inf
    nearness[:, np.isin(source, symmetric)] = np.inf
    wrong = {
        (min(i, j), max(i, j))
        for i in suite.queries.tolist()
        for j in np.argsort(nearness[i], kind="stable")[:_HARD].tolist()
        if np.isfinite(nearness[i, j])
    }
    i = np.concatenate([suite.first[keep], np.array([p[0] for p in sorted(wrong)], dtype=np.int64)])
    j = np.concatenate([suite.second[keep], np.array([p[1] for p in sorted(wrong)], dtype=np.int64)])
    kind = np.concatenate([suite.kind[keep].astype(np.int64), np.full(len(wrong), DIFFERENT)])
    # Each pair is read from both sides, which makes narrower of broader.
    flip = np.array([KINDS.index(k) for k in ("equivalent", "broader", "narrower", "inverse")] + [DIFFERENT])
    i, j, kind = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([kind, flip[kind]])
    sides = [straight[i, j], straight[j, i], swapped[i, j], back[i, j]]
    a, b, c, d = (np.log(side + 1e-2) for side in sides)
    features = np.stack([a, b, c, d, np.maximum(a, b), np.maximum(c, d), a - b, np.maximum(a, b) - np.maximum(c, d)], 1)
    names, rng = np.unique(source), np.random.default_rng(0)
    confusion = np.zeros((DIFFERENT + 1, DIFFERENT + 1))
    for _ in range(5):
        half = np.isin(source, rng.permutation(names)[: len(names) // 2])
        for fold in (half, ~half):
            train, test = fold[i] & fold[j], ~fold[i] & ~fold[j]
            model = HistGradientBoostingClassifier(max_depth=3, random_state=0).fit(features[train], kind[train])
            np.add.at(confusion, (kind[test], model.predict(features[test])), 1.0)
    recall = np.diag(confusion) / confusion.sum(1)
    total = confusion.sum()

    def against_rest(chosen: list[int]) -> float:
        inside = np.isin(np.arange(DIFFERENT + 1), chosen)
        return float((confusion[np.ix_(inside, inside)].sum() + confusion[np.ix_(~inside, ~inside)].sum()) / total)

    labels = [*KINDS, "different"]
    sub = [labels.index("narrower"), labels.index("broader")]
    direction = confusion[np.ix_(sub, sub)]
    return {
        "all kinds accuracy": float(np.trace(confusion) / total),
        "inverse against the rest accuracy": against_rest([labels.index("inverse")]),
        "sub-relation against the rest accuracy": against_rest(sub),
        "direction of sub-relations accuracy": float(np.trace(direction) / direction.sum()),
        **{f"{name} recall": float(value) for name, value in zip(labels, recall, strict=True)},
        "pairs": float(len(kind) // 2),
        "symmetric relations left out": float(len(symmetric)),
    }


def _symmetric(facts: Facts, source: NDArray[np.str_]) -> NDArray[np.str_]:
    """Source relations of which over half of the facts are there with arguments swapped too."""
    names, own = np.unique(source, return_inverse=True)
    inverse_part = np.array([name.endswith(" #3") for name in facts.relations])[facts.relation.numpy()]
    h, t = facts.head.numpy(), facts.tail.numpy()
    head, tail = np.where(inverse_part, t, h), np.where(inverse_part, h, t)
    key = (own[facts.relation.numpy()] * facts.num_entities + head) * facts.num_entities + tail
    back = (own[facts.relation.numpy()] * facts.num_entities + tail) * facts.num_entities + head
    found = np.isin(back, key)
    group = own[facts.relation.numpy()]
    share = np.bincount(group, weights=found, minlength=len(names)) / np.maximum(
        np.bincount(group, minlength=len(names)), 1
    )
    return names[share > 0.5]
