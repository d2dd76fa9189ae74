"""Relation redundancy: which phrases mean the same, how sure that is, and which evidence said so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from relsim.evidence import neural as fitting
from relsim.evidence.calibration import load_calibration
from relsim.evidence.contradiction import disjoint_by_construction
from relsim.evidence.counts import Counts
from relsim.evidence.encoding import Encoded, Encoder
from relsim.evidence.guard import Guard
from relsim.evidence.profiles import Profiles, Types
from relsim.evidence.scoring import keep_best
from relsim.facts import Facts
from relsim.kl.result import RelationSimilarity
from relsim.merge.clusters import Cluster, cluster_id, complete_linkage
from relsim.merge.ranking import rank_pairs
from relsim.merge.result import RedundancyResult
from relsim.merge.review import Review
from relsim.merge.tables import PairTable
from relsim.model.entitytypes import type_names

__all__ = ["redundancy"]

Progress = Callable[[str, int, int], None]


def redundancy(
    facts: Facts,
    similarity: RelationSimilarity | None = None,
    *,
    min_facts: int = 50,
    neural: str = "auto",
    threshold: float | None = None,
    precision: float | None = None,
    types: Types | str | None = None,
    encoder: Encoder | None = None,
    contradiction: str = "auto",
    review: Review | None = None,
    top: int = 50,
    seed: int = 0,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> RedundancyResult:
    """Find redundant relation phrases.

    Each pair is decided by the best evidence there is for it, and says which: neural KL where both phrases have
    ``min_facts`` facts and a similarity exists; shared facts and count KL where there are enough of them; and otherwise
    the words of the phrases and of their arguments, with types and a sentence encoder where given. Each becomes a
    probability by a logistic model fitted on labelled data (``relsim/evidence/calibration.json``). A pair that disagrees
    on the arguments both phrases have is not merged, however alike the distributions.

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
        Probability, inside (0, 1), from which a pair is redundant; clusters hold pairs at or above it only. 0.5 when
        neither it nor ``precision`` is given.
    precision
        Inside (0, 1): choose the threshold so that the pairs called redundant are right at this rate, as far as the
        probabilities hold.
    types
        Entity to its types, or "induced": clusters of entities by the relations they stand in.
    encoder
        A function from texts to vectors ``(n, d)``, for phrases with few facts.
    contradiction
        "on", "off" (for relations cut into parts, which agree on nothing by construction), or "auto": off where near
        relations share many arguments and never a fact.
    review
        Marks of a reader: accepted pairs are merged, rejected ones kept apart, the other probabilities adjusted.
    top
        Partners kept a phrase.
    seed, epochs
        Of the fit and of the resampling behind standard errors; epochs by default as in ``neural_similarity``.
    progress
        Called with a stage name, steps done, steps in all.

    Raises
    ------
    ValueError
        For an option out of range, a similarity that is not over the relations of ``facts``, or marks that contradict
        each other.
    TypeError
        For an encoder that is no function, or types that are no mapping.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019.

    Examples
    --------
    >>> rows = [(f"e{i}", r, f"f{i}") for i in range(20) for r in ("wrote", "is the author of")]
    >>> redundancy(Facts.from_triples(rows)).clusters[0].members
    ('is the author of', 'wrote')
    """
    if encoder is not None and not callable(encoder):
        raise TypeError(
            f"encoder is {encoder!r}, expected a function from texts to vectors; tasks.encoder.sentence_encoder(name) "
            "makes one, and hyrel redundancy --encoder takes a name"
        )
    if types is not None and not isinstance(types, str | Mapping):
        raise TypeError(
            f"types is a {type(types).__name__}, expected 'induced' or a mapping from entities to their types"
        )
    check_options(neural, threshold, precision, types, contradiction, min_facts, top, epochs)
    if similarity is not None and len(similarity.kl) != facts.num_relations:
        raise ValueError(
            f"similarity covers {len(similarity.kl)} relations, facts have {facts.num_relations}; "
            "both must come from the same relations in the same order"
        )
    enough = np.flatnonzero(facts.support.numpy() >= min_facts)
    warnings = [] if facts.ingest is None else list(facts.ingest.warnings)
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
    if review is not None:
        warnings += review.unknown(facts.relations)
    always = [] if review is None else [link for m in (True, False) for link in review.links(facts.relations, m)]
    kept = keep_best(counts, top=top, min_facts=min_facts, neural=known, always=always, progress=progress)
    given = type_names(facts, seed=seed) if types == "induced" else types
    profiles = Profiles(facts, types=None if isinstance(given, str) else given)
    encoded = None if encoder is None else Encoded(facts, encoder, types=profiles.types)
    guard = Guard(counts, profiles, encoded, table, min_facts=min_facts, off=contradiction == "off")
    if contradiction == "auto" and len(kept.i) and disjoint_by_construction(guard.nearest(kept.i, kept.j)):
        guard = Guard(counts, profiles, encoded, table, min_facts=min_facts, off=True)
        warnings.append(
            "contradiction evidence is off: near relations share many arguments and never a fact, as if relations had "
            "been cut into parts; contradiction='on' keeps it"
        )
    ranked = rank_pairs(counts, kept, guard, threshold=threshold or 0.5, precision=precision, review=review, seed=seed)
    return RedundancyResult(
        facts=facts,
        pairs=ranked.pairs,
        clusters=_clusters(facts, ranked.pairs, ranked.threshold, review),
        not_enough_evidence=facts.ingest.below_support if facts.ingest is not None else (),
        baselines=ranked.baselines,
        details=ranked.details,
        threshold=ranked.threshold,
        pairs_examined=kept.examined,
        similarity=similarity if use else None,
        similarity_ids=tuple(ids.tolist()) if use else (),
        review=review,
        warnings=tuple(warnings),
        provenance={
            "seed": seed,
            "epochs": epochs,
            "min_facts": min_facts,
            "top": top,
            "precision": precision,
            "review": None if review is None else {"source": review.source, "marks": len(review.marks)},
            "calibration": {regime: load_calibration(regime).provenance for regime in sorted(guard.used)},
        },
    )


def check_options(
    neural: str = "auto",
    threshold: float | None = None,
    precision: float | None = None,
    types: Types | str | None = None,
    contradiction: str = "auto",
    min_facts: int = 1,
    top: int = 1,
    epochs: int | None = None,
) -> None:
    """Refuse options of :func:`redundancy` that are out of range, before facts are read for them.

    Raises
    ------
    ValueError
        See :func:`redundancy`.
    """
    if neural not in ("auto", "never"):
        raise ValueError(f"neural is {neural!r}, expected 'auto' or 'never'")
    if contradiction not in ("auto", "on", "off"):
        raise ValueError(f"contradiction is {contradiction!r}, expected 'auto', 'on' or 'off'")
    if isinstance(types, str) and types != "induced":
        raise ValueError(f"types is {types!r}, expected 'induced' or a mapping from entities to their types")
    for name, rate in (("threshold", threshold), ("precision", precision)):
        if rate is not None and not 0.0 < rate < 1.0:
            raise ValueError(f"{name} is {rate}, expected inside 0 to 1")
    if threshold is not None and precision is not None:
        raise ValueError(
            f"threshold={threshold} and precision={precision} are given, expected one: precision sets both"
        )
    for size, value in (("min_facts", min_facts), ("top", top), ("epochs", epochs)):
        if value is not None and value < 1:
            raise ValueError(f"{size} is {value}, expected 1 or more")


def _clusters(facts: Facts, pairs: PairTable, threshold: float, review: Review | None) -> tuple[Cluster, ...]:
    """Cluster the equivalent pairs; a narrower, broader or inverse phrase is not the same phrase."""
    same = pairs.take(pairs["kind"] == "equivalent")
    number = {name: k for k, name in enumerate(facts.relations)}
    i = np.fromiter((number[name] for name in same["rel_a"]), np.int64, len(same))
    j = np.fromiter((number[name] for name in same["rel_b"]), np.int64, len(same))
    p = np.asarray(same["p_redundant"], dtype=np.float64)
    must, cannot = ([] if review is None else review.links(facts.relations, mark) for mark in (True, False))
    try:
        found = complete_linkage(i, j, p, size=facts.num_relations, threshold=threshold, must=must, cannot=cannot)
    except ValueError as error:
        a, b = (facts.relations[k] for k in error.args[1])
        raise ValueError(
            f"{review.source if review else 'review'}: {a!r} and {b!r} are rejected, but accepted pairs chain them "
            "together; take one of these marks back"
        ) from None
    mentions, support = facts.mentions.tolist(), facts.support.tolist()
    relation = facts.relation.numpy()
    keys = facts.head.numpy() * np.int64(max(facts.num_entities, 1)) + facts.tail.numpy()
    out = []
    for ids, known in found:
        order = sorted(range(len(ids)), key=lambda k: (-mentions[ids[k]], ids[k]))
        canonical = facts.relations[ids[order[0]]]
        out.append(
            Cluster(
                id=cluster_id(canonical),
                canonical=canonical,
                members=tuple(facts.relations[ids[k]] for k in order),
                mentions=tuple(mentions[ids[k]] for k in order),
                p_redundant=tuple(float(known[order[0], k]) for k in order),
                weakest=float(known.min()),
                facts_before=sum(support[k] for k in ids),
                facts_after=len(np.unique(keys[np.isin(relation, ids)])),
            )
        )
    return tuple(sorted(out, key=lambda cluster: (-len(cluster.members), cluster.canonical)))
