"""What ``redundancy`` found: ranked pairs, clusters, the canonical map, and the evidence behind each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim.evidence.counts import Float
from relsim.evidence.examples import Evidence, evidence
from relsim.evidence.guard import SWAPPED
from relsim.facts import Facts
from relsim.ingest.report import IngestReport
from relsim.kl.result import RelationSimilarity
from relsim.merge.clusters import Cluster, cluster_id
from relsim.merge.review import Review
from relsim.merge.tables import PairTable, write_columns, write_tsv

__all__ = ["COLUMNS", "KINDS", "RedundancyResult"]

COLUMNS = (
    "rel_a", "rel_b", "kind", "p_redundant", "similarity", "kl_ab", "kl_ba", "stderr", "ci_low", "ci_high", "ess",
    "support_a", "support_b", "shared_pairs", "agreement", "decided_by",
)  # fmt: skip
_MERGE_COLUMNS = (
    "cluster", "phrase", "canonical", "p_redundant", "decided_by", "agreement", "agreement_low", "agreement_high",
    "contradiction", "shared_facts", "examples", "mentions_rewritten", "cluster_facts_before", "cluster_facts_after",
)  # fmt: skip
KINDS = ("equivalent", "narrower", "broader", "inverse", "different", "not enough evidence")


@dataclass(frozen=True, eq=False)
class RedundancyResult:
    """Redundant relation phrases of a set of facts.

    Parameters
    ----------
    facts
        The facts that were compared.
    pairs
        One row a kept pair, highest ``p_redundant`` first. ``kind`` says how a relates to b (narrower: a is the
        narrower one). ``p_redundant``: probability that they mean the same by the evidence that decided, before ``kind`` is
        told (a narrower pair may have a high one, and is not merged); for kind inverse that a means b with its
        arguments exchanged; all numbers of such a row are of that comparison. ``kl_ab``, ``kl_ba`` in nats;
        ``similarity = exp(-max)``; ``stderr`` of the larger one: of its sampling (neural), or the deviation over resampled
        mentions (counts); ``ci_low``, ``ci_high`` its 95 % interval, neural only; ``ess`` the smaller effective number of
        heads (neural) or mentions (counts); ``agreement``: how often the tails agree on shared heads, NaN without any.
        ``decided_by`` names the measure that gave ``p_redundant``.
    clusters
        Groups of equivalent phrases, largest first.
    not_enough_evidence
        Phrases below the minimum support with their support, from ingest.
    baselines
        Scores of the count and text baselines for every row of ``pairs``; larger means more alike.
    details
        More columns for every row of ``pairs``: ``contradiction`` (contradicted, agrees, not enough evidence, off), the
        interval of ``agreement`` and the rate of two samples of one relation beside it (``agreement_of_halves``), the
        ``shared_arguments`` behind it; ``tail_entropy`` in nats, ``tail_lift`` (agreement over that of chance), and
        ``degenerate``: the second arguments are too few for agreement to mean anything; ``held``: where words gave a
        higher probability, of the pair or of its inverse, which was held down for want of common facts.
    threshold
        Probability from which a pair is called redundant.
    pairs_examined
        How many pairs were scored; ``len(pairs)`` of them were kept.
    similarity
        The neural similarity and the relation ids behind its rows, when there was one.
    review
        The marks that were given, which ``save`` writes again.
    warnings
        What a reader of the numbers must know.
    """

    facts: Facts
    pairs: PairTable
    clusters: tuple[Cluster, ...]
    not_enough_evidence: tuple[tuple[str, int], ...]
    baselines: Mapping[str, Float]
    threshold: float
    pairs_examined: int
    details: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    similarity: RelationSimilarity | None = None
    similarity_ids: tuple[int, ...] = ()
    review: Review | None = None
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def ingest(self) -> IngestReport | None:
        """How the facts were read, when they came from files."""
        return self.facts.ingest

    @cached_property
    def canonical_map(self) -> dict[str, tuple[str, str, float]]:
        """Phrase to (canonical phrase, cluster id, probability): every phrase that was compared, itself if alone."""
        out = {}
        for cluster in self.clusters:
            for member, p in zip(cluster.members, cluster.p_redundant, strict=True):
                out[member] = (cluster.canonical, cluster.id, p)
        for phrase in self.facts.relations:
            out.setdefault(phrase, (phrase, cluster_id(phrase), 1.0))
        return out

    def evidence(self, a: str, b: str, *, top: int = 10) -> Evidence:
        """Facts behind a pair of phrases, compared the way the pair was.

        Raises
        ------
        ValueError
            For a phrase that was not compared.
        """
        ids = {name: i for i, name in enumerate(self.facts.relations)}
        for phrase in (a, b):
            if phrase not in ids:
                below = dict(self.not_enough_evidence)
                why = f"has only {below[phrase]} distinct argument pairs" if phrase in below else "is not in the facts"
                raise ValueError(f"{phrase!r} was not compared: it {why}")
        return evidence(self.facts, ids[a], ids[b], swapped=frozenset((a, b)) in self._swapped, top=top)

    @cached_property
    def _swapped(self) -> frozenset[frozenset[str]]:
        return frozenset(
            frozenset((a, b))
            for a, b, decided in zip(self.pairs["rel_a"], self.pairs["rel_b"], self.pairs["decided_by"], strict=True)
            if str(decided).endswith(SWAPPED)
        )

    def summary(self) -> list[str]:
        """Human-readable lines: what was compared, what was found, what could not be told."""
        found = Counter(self.pairs["kind"].tolist())
        measures = Counter(self.pairs["decided_by"].tolist())
        merged = sum(len(cluster.members) for cluster in self.clusters)
        out = [
            f"{len(self.facts):,} facts over {self.facts.num_relations:,} phrases; "
            f"{self.pairs_examined:,} pairs scored, {len(self.pairs):,} kept",
            "kinds: " + (", ".join(f"{kind} {found[kind]:,}" for kind in KINDS if found[kind]) or "none"),
            "decided by: " + (", ".join(f"{name} {count:,}" for name, count in measures.items()) or "nothing"),
            f"{len(self.clusters):,} clusters of {merged:,} phrases at p >= {self.threshold:g}",
        ]
        merged_facts = sum(c.facts_before - c.facts_after for c in self.clusters)
        if self.clusters:
            rewritten = sum(sum(c.mentions[1:]) for c in self.clusters)
            out.append(f"applying them rewrites {rewritten:,.0f} mentions and makes {merged_facts:,} facts equal")
        if "contradiction" in self.details:
            verdicts = Counter(self.details["contradiction"].tolist())
            out.append("contradiction evidence: " + ", ".join(f"{name} {n:,}" for name, n in verdicts.most_common()))
            if flagged := int(np.sum(self.details["degenerate"] & (self.pairs["p_redundant"] >= self.threshold))):
                out.append(
                    f"{flagged:,} redundant pairs have degenerate second arguments (see tail_entropy, tail_lift)"
                )
        if self.not_enough_evidence:
            out.append(f"not enough evidence: {len(self.not_enough_evidence):,} phrases below the minimum support")
        if not self.clusters and not len(self.pairs):
            out.append("not enough evidence: no phrase could be compared with another")
        return out + [f"warning: {warning}" for warning in self.warnings]

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write pairs.tsv (with details and baselines), clusters.tsv, merges.tsv and canonical_map.tsv, each atomically.

        Phrases without enough evidence stand in canonical_map.tsv as themselves, with empty cluster and probability. The
        last column of pairs.tsv, ``review``, is for marks (see ``read_review``) and holds those that were given; those of
        pairs that it has no row for are in review.tsv, which is written where there are any.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        columns = {name: self.pairs[name] for name in COLUMNS} | dict(self.details)
        columns |= {f"baseline_{name}": values for name, values in self.baselines.items()}
        review = Review({}) if self.review is None else self.review
        rows = list(zip(*(self.pairs[name].tolist() for name in ("rel_a", "rel_b", "kind")), strict=True))
        columns["review"] = np.array(review.words(rows), dtype=object)
        names = ["pairs.tsv", "clusters.tsv", "merges.tsv", "canonical_map.tsv"]
        if besides := review.besides((a, b) for a, b, _ in rows):  # first: pairs.tsv may be where they were given
            names.append("review.tsv")
            write_tsv(target / "review.tsv", ["rel_a", "rel_b", "review"], besides)
        write_columns(target / "pairs.tsv", columns)
        write_tsv(
            target / "clusters.tsv",
            ["cluster", "canonical", "phrase", "mentions", "p_redundant", "weakest_pair"],
            (
                (c.id, c.canonical, member, mentions, p, c.weakest)
                for c in self.clusters
                for member, mentions, p in zip(c.members, c.mentions, c.p_redundant, strict=True)
            ),
        )
        write_tsv(target / "merges.tsv", _MERGE_COLUMNS, self._merges())
        known = ((phrase, *where) for phrase, where in sorted(self.canonical_map.items()))
        unknown = ((phrase, phrase, "", "") for phrase, _ in self.not_enough_evidence)
        write_tsv(target / "canonical_map.tsv", ["phrase", "canonical", "cluster", "p_redundant"], (*known, *unknown))
        return [target / name for name in names]

    def _merges(self) -> Iterator[tuple[Any, ...]]:
        """What each rewriting of a phrase rests on, and what it would change."""
        rows = {frozenset(pair): k for k, pair in enumerate(zip(self.pairs["rel_a"], self.pairs["rel_b"], strict=True))}
        for cluster in self.clusters:
            for member, mentions, p in zip(
                cluster.members[1:], cluster.mentions[1:], cluster.p_redundant[1:], strict=True
            ):
                k = rows.get(frozenset((member, cluster.canonical)))
                found = self.evidence(cluster.canonical, member, top=3)
                shown = "; ".join(f"{h} - {t}" for h, t, _ in found.shared)
                why = (
                    ("review chain", np.nan, np.nan, np.nan, "not compared")
                    if k is None
                    else (
                        self.pairs["decided_by"][k],
                        float(self.pairs["agreement"][k]),
                        *(float(self.details[name][k]) for name in ("agreement_low", "agreement_high")),
                        self.details["contradiction"][k],
                    )
                )
                yield (
                    cluster.id, member, cluster.canonical, p, *why, found.num_shared, shown, mentions,
                    cluster.facts_before, cluster.facts_after,
                )  # fmt: skip
