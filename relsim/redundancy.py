"""Relation redundancy: which phrases mean the same, how sure that is, and which measure said so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim import baselines
from relsim.calibration import load_calibration
from relsim.clusters import Cluster, complete_linkage
from relsim.counts import Counts, Float, dot
from relsim.facts import Facts
from relsim.features import neural_features
from relsim.redundant import COLUMNS, RedundancyResult
from relsim.result import RelationSimilarity
from relsim.scoring import Kept, keep_best
from relsim.tables import PairTable
from relsim.text import negated

__all__ = ["COUNT_MEASURE", "NEURAL_MEASURE", "neural_similarity", "redundancy"]

COUNT_MEASURE = "count KL + tokens"
NEURAL_MEASURE = "neural KL"
SWAPPED = ", arguments swapped"
POLARITY = "polarity"
# A direction is called only when the KL divergences differ by this many nats and by two standard errors.
_MARGIN = 1.0
# Below this many facts, sharing nothing says nothing: two halves of one relation often share no argument.
_FEW = 10
_BOOTSTRAP_ROWS = 20_000
_REPLICATES = 20

Progress = Callable[[str, int, int], None]


def redundancy(
    facts: Facts,
    similarity: RelationSimilarity | None = None,
    *,
    min_facts: int = 50,
    neural: str = "auto",
    threshold: float = 0.5,
    top: int = 50,
    seed: int = 0,
    epochs: int = 4,
    progress: Progress | None = None,
) -> RedundancyResult:
    """Find redundant relation phrases.

    A pair in which either phrase has fewer than ``min_facts`` distinct facts is decided by smoothed count KL, shared
    arguments and shared tokens; neural KL with ten facts a phrase is worse than nothing. Both scores become a
    probability by a logistic model fitted on labelled data (see ``relsim/calibration.json``).

    Parameters
    ----------
    facts
        What to compare. No relation, or one, gives an empty result, not an error.
    similarity
        Neural similarity over all relations of ``facts``, in their order. Without it a ``FactDistribution`` is fitted
        in memory to the relations with at least ``min_facts`` facts.
    min_facts
        Distinct facts both phrases need for neural KL; at least 1.
    neural
        "auto": neural KL where both phrases have ``min_facts`` facts. "never": counts and text only.
    threshold
        Probability, inside (0, 1), from which a pair is redundant; clusters hold pairs at or above it only.
    top
        Partners kept a phrase.
    seed, epochs
        Of the fit and of the resampling behind standard errors.
    progress
        Called with a stage name, steps done, steps in all.

    Raises
    ------
    ValueError
        For an option out of range, or a similarity that is not over the relations of ``facts``.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019.

    Examples
    --------
    >>> facts = Facts.from_triples([(f"e{i}", r, f"f{i}") for i in range(9) for r in ("wrote", "is the author of")])
    >>> redundancy(facts).clusters[0].members
    ('is the author of', 'wrote')
    """
    if neural not in ("auto", "never"):
        raise ValueError(f"neural is {neural!r}, expected 'auto' or 'never'")
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold is {threshold}, expected inside 0 to 1")
    for name, value in (("min_facts", min_facts), ("top", top), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
    if similarity is not None and len(similarity.kl) != facts.num_relations:
        raise ValueError(
            f"similarity covers {len(similarity.kl)} relations, facts have {facts.num_relations}; "
            "both must come from the same relations in the same order"
        )
    enough = np.flatnonzero(facts.support.numpy() >= min_facts)
    warnings: list[str] = []
    ids = np.arange(facts.num_relations)
    if similarity is None and neural == "auto" and len(enough) >= 2:
        similarity = neural_similarity(facts.select(enough.tolist()), epochs=epochs, seed=seed, progress=progress)
        ids = enough
    elif similarity is not None and (neural == "never" or len(enough) < 2):
        warnings.append(f"the similarity given is not used: {len(enough)} phrases have at least {min_facts} facts")
    use = similarity is not None and neural == "auto" and len(enough) >= 2
    table = _Neural(similarity, ids, enough) if similarity is not None and use else None
    if table is not None:
        warnings += table.similarity.warnings
    counts = Counts(facts)
    known = None if table is None else (table.enough, table.probability)
    kept = keep_best(counts, load_calibration("count"), top=top, neural=known, progress=progress)
    pairs, scores = _pair_table(counts, kept, table, threshold, seed)
    return RedundancyResult(
        facts=facts,
        pairs=pairs,
        clusters=_clusters(facts, pairs, threshold),
        not_enough_evidence=facts.ingest.below_support if facts.ingest is not None else (),
        baselines=scores,
        threshold=threshold,
        pairs_examined=kept.examined,
        similarity=similarity if use else None,
        similarity_ids=tuple(ids.tolist()) if use else (),
        warnings=tuple(warnings),
        provenance={
            "seed": seed,
            "epochs": epochs,
            "min_facts": min_facts,
            "top": top,
            "calibration": {
                regime: load_calibration(regime).provenance for regime in ("count", *(["neural"] if use else []))
            },
        },
    )


def neural_similarity(
    facts: Facts, *, epochs: int = 4, seed: int = 0, progress: Progress | None = None
) -> RelationSimilarity:
    """Fit a ``FactDistribution`` to the facts and compare all its relations.

    Parameters
    ----------
    facts
        At least two relations.
    epochs, seed
        Of the fit; the seed is that of the sampled heads too.
    progress
        Called with "fit", epochs done, epochs in all.
    """
    from relsim.distribution import FactDistribution
    from relsim.fit import fit
    from relsim.similarity import similarity as compare

    model = FactDistribution(facts.num_entities, facts.num_relations, seed=seed)

    def report(epoch: int, _: dict[str, float]) -> None:
        if progress is not None:
            progress("fit", epoch, epochs)

    fit(model, facts, epochs=epochs, seed=seed, callback=report)
    return compare(model, method="auto", seed=seed)


class _Neural:
    """A similarity, and where its relations stand in the facts."""

    def __init__(self, similarity: RelationSimilarity, ids: NDArray[np.int64], enough: NDArray[np.int64]) -> None:
        self.similarity = similarity
        self.enough = enough
        self.place = np.full(int(max(ids.max(), enough.max())) + 1, -1)
        self.place[ids] = np.arange(len(ids))
        self.kl = similarity.kl.numpy()
        inside = self.place[enough]
        kl = self.kl[np.ix_(inside, inside)]
        # The ancestral sampler's estimates may fall below 0 by chance; log(1 + KL) then still exists above -1.
        kl = np.where(kl < 0.0, 0.0, kl) if similarity.method == "ancestral" else kl
        self.probability = load_calibration("neural").probability(neural_features(kl, kl.T))

    def decides(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether both relations have enough facts."""
        return np.isin(i, self.enough) & np.isin(j, self.enough)


def _pair_table(
    counts: Counts, kept: Kept, neural: _Neural | None, threshold: float, seed: int
) -> tuple[PairTable, dict[str, Float]]:
    i, j = kept.i, kept.j
    facts = counts.facts
    support = facts.support.numpy()
    by_neural = neural.decides(i, j) if neural is not None else np.zeros(len(i), dtype=np.bool_)
    swap = (kept.swapped >= threshold) & (kept.swapped > kept.straight)
    by_neural &= ~swap
    p = np.where(swap, kept.swapped, kept.straight)
    order = np.lexsort((j, i, -p))
    i, j, p, swap, by_neural = i[order], j[order], p[order], swap[order], by_neural[order]
    kl_ab, kl_ba, shared, agree = (np.zeros(len(i)) for _ in range(4))
    for flag in (False, True):
        rows = np.flatnonzero(swap == flag)
        at = (i[rows], j[rows])
        kl_ab[rows] = baselines.count_kl(counts, at, swapped=flag)
        kl_ba[rows] = baselines.count_kl(counts, at, swapped=flag, reverse=True)
        agree[rows], _ = baselines.agreement(counts, at, swapped=flag)
        other = counts.pair_swapped if flag else counts.pair
        shared[rows] = dot(counts.pair, other, at)
    effective = counts.total**2 / np.maximum(np.asarray(counts.fact_square), 1e-300)
    ess = np.minimum(effective[i], effective[j])
    stderr_ab, stderr_ba = _bootstrap(counts, i, j, swap, by_neural, seed)
    quantile = np.full(len(i), 1.96)
    if neural is not None:
        rows = np.flatnonzero(by_neural)
        a, b = neural.place[i[rows]], neural.place[j[rows]]
        kl_ab[rows], kl_ba[rows] = neural.kl[a, b], neural.kl[b, a]
        error = neural.similarity.stderr.numpy()
        stderr_ab[rows], stderr_ba[rows] = error[a, b], error[b, a]
        ess[rows] = np.minimum(neural.similarity.ess.numpy()[a], neural.similarity.ess.numpy()[b])
        low, high = (end.numpy() for end in neural.similarity.interval())
        wide = np.where(kl_ab[rows] >= kl_ba[rows], high[a, b] - low[a, b], high[b, a] - low[b, a])
        error_wide = np.where(kl_ab[rows] >= kl_ba[rows], stderr_ab[rows], stderr_ba[rows])
        quantile[rows] = np.divide(wide / 2, error_wide, out=np.zeros_like(wide), where=error_wide > 0)
    worst = np.maximum(kl_ab, kl_ba)
    stderr = np.where(kl_ab >= kl_ba, stderr_ab, stderr_ba)
    gap, noise = kl_ba - kl_ab, 2.0 * np.hypot(stderr_ab, stderr_ba)
    sure = np.abs(gap) > np.maximum(_MARGIN, np.nan_to_num(noise, nan=np.inf))
    tokens = baselines.token_overlap(counts, (i, j))
    common = baselines.argument_jaccard(counts, (i, j)) + np.where(swap, shared, 0.0)
    denied = np.array([negated(phrase) for phrase in facts.relations], dtype=np.bool_)
    opposed = denied[i] != denied[j]
    few = np.minimum(support[i], support[j]) < _FEW
    nothing = few & ~by_neural & ~opposed & (p < threshold) & (common == 0) & (tokens == 0)
    kind = np.select(
        [nothing, p < threshold, swap, sure & (gap > 0), sure],
        ["not enough evidence", "different", "inverse", "narrower", "broader"],
        "equivalent",
    )
    measure = np.where(by_neural, NEURAL_MEASURE, np.where(swap, COUNT_MEASURE + SWAPPED, COUNT_MEASURE))
    measure = np.where(opposed, POLARITY, measure)
    names = np.array(facts.relations, dtype=object)
    values: list[NDArray[Any]] = [names[i], names[j], kind, p, np.exp(-worst), kl_ab, kl_ba, stderr]
    # KL is never below 0, and neither is the end of its interval.
    values += [np.maximum(worst - quantile * stderr, 0.0), worst + quantile * stderr, ess]
    values += [support[i], support[j], shared.astype(np.int64), agree, measure]
    scores = {name: _score(measure_of, counts, i, j, swap) for name, measure_of in baselines.MEASURES.items()}
    return PairTable(dict(zip(COLUMNS, values, strict=True))), scores


def _score(measure: Any, counts: Counts, i: NDArray[np.int64], j: NDArray[np.int64], swap: NDArray[np.bool_]) -> Float:
    out = np.zeros(len(i))
    for flag in (False, True):
        rows = np.flatnonzero(swap == flag)
        if len(rows):
            out[rows] = measure(counts, (i[rows], j[rows]), swapped=flag)
    return out


def _bootstrap(
    counts: Counts,
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    swap: NDArray[np.bool_],
    by_neural: NDArray[np.bool_],
    seed: int,
) -> tuple[Float, Float]:
    """Deviation of both count KLs over resampled mentions, for the most probable rows; NaN elsewhere."""
    out = np.full((2, len(i)), np.nan)
    wanted = np.flatnonzero(~by_neural)[:_BOOTSTRAP_ROWS]
    if not len(wanted):
        return out[0], out[1]
    rng = np.random.default_rng(seed)
    weight = counts.facts.count.double().numpy()
    total, square = np.zeros((2, len(wanted))), np.zeros((2, len(wanted)))
    for _ in range(_REPLICATES):
        # Mentions are resampled independently; the background stays that of the data but for the same noise.
        again = Counts(counts.facts, weight=rng.poisson(weight).astype(np.float64))
        for flag in (False, True):
            rows = np.flatnonzero(swap[wanted] == flag)
            at = (i[wanted[rows]], j[wanted[rows]])
            for side, reverse in enumerate((False, True)):
                kl = baselines.count_kl(again, at, swapped=flag, reverse=reverse)
                total[side, rows] += kl
                square[side, rows] += kl**2
    variance = (square - total**2 / _REPLICATES) / (_REPLICATES - 1)
    out[:, wanted] = np.sqrt(np.maximum(variance, 0.0))
    return out[0], out[1]


def _clusters(facts: Facts, pairs: PairTable, threshold: float) -> tuple[Cluster, ...]:
    """Cluster the equivalent pairs; a narrower, broader or inverse phrase is not the same phrase."""
    same = pairs.take(pairs["kind"] == "equivalent")
    number = {name: k for k, name in enumerate(facts.relations)}
    i = np.fromiter((number[name] for name in same["rel_a"]), np.int64, len(same))
    j = np.fromiter((number[name] for name in same["rel_b"]), np.int64, len(same))
    p = np.asarray(same["p_redundant"], dtype=np.float64)
    mentions = facts.mentions.tolist()
    out = []
    for ids, known in complete_linkage(i, j, p, size=facts.num_relations, threshold=threshold):
        order = sorted(range(len(ids)), key=lambda k: (-mentions[ids[k]], ids[k]))
        out.append(
            Cluster(
                canonical=facts.relations[ids[order[0]]],
                members=tuple(facts.relations[ids[k]] for k in order),
                mentions=tuple(mentions[ids[k]] for k in order),
                p_redundant=tuple(float(known[order[0], k]) for k in order),
                weakest=float(known.min()),
            )
        )
    return tuple(sorted(out, key=lambda cluster: (-len(cluster.members), cluster.canonical)))
