"""Relation redundancy: which phrases mean the same, how sure that is, and which measure said so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relsim import neural as fitting
from relsim.calibration import load_calibration
from relsim.clusters import Cluster, complete_linkage
from relsim.counts import Counts
from relsim.facts import Facts
from relsim.ranking import rank_pairs
from relsim.redundant import RedundancyResult
from relsim.result import RelationSimilarity
from relsim.scoring import keep_best
from relsim.tables import PairTable

__all__ = ["redundancy"]

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
    epochs: int | None = None,
    progress: Progress | None = None,
) -> RedundancyResult:
    """Find redundant relation phrases.

    A pair in which either phrase has fewer than ``min_facts`` distinct facts is decided by smoothed count KL, shared
    arguments and shared tokens; neural KL with ten facts a phrase is worse than nothing. With more facts neural KL
    decides, or counts alone where no fit is made and for the comparison with arguments exchanged. Each of these scores
    becomes a probability by a logistic model fitted on labelled data (see ``relsim/calibration.json``).

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
        "auto": neural KL where both phrases have ``min_facts`` facts, if these phrases have ``LEAST_FACTS_TO_FIT``
        facts in all or a similarity is given. "never": counts and text only.
    threshold
        Probability, inside (0, 1), from which a pair is redundant; clusters hold pairs at or above it only.
    top
        Partners kept a phrase.
    seed, epochs
        Of the fit and of the resampling behind standard errors; epochs by default as in ``neural_similarity``.
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
        if value is not None and value < 1:
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
        rich = facts.select(enough.tolist())
        if len(rich) >= fitting.LEAST_FACTS_TO_FIT:
            similarity, ids = fitting.neural_similarity(rich, epochs=epochs, seed=seed, progress=progress), enough
        else:
            warnings.append(
                f"neural KL is not used: the {len(enough)} phrases with at least {min_facts} facts have {len(rich):,} in "
                f"all, a fit needs {fitting.LEAST_FACTS_TO_FIT:,}; counts and text decide"
            )
    elif similarity is not None and (neural == "never" or len(enough) < 2):
        warnings.append(f"the similarity given is not used: {len(enough)} phrases have at least {min_facts} facts")
    use = similarity is not None and neural == "auto" and len(enough) >= 2
    table = fitting.Neural(similarity, ids, enough) if similarity is not None and use else None
    if table is not None:
        warnings += table.similarity.warnings
    counts = Counts(facts)
    known = None if table is None else (table.enough, table.probability)
    kept = keep_best(counts, top=top, min_facts=min_facts, neural=known, progress=progress)
    pairs, scores = rank_pairs(counts, kept, table, min_facts=min_facts, threshold=threshold, seed=seed)
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
                regime: load_calibration(regime).provenance
                for regime in ("count", "rich", *(["neural"] if use else []))
            },
        },
    )


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
