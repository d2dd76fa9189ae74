"""What ``redundancy`` found: ranked pairs, clusters, the canonical map, and the evidence behind each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from relsim.clusters import Cluster
from relsim.counts import Float
from relsim.evidence import Evidence, evidence
from relsim.facts import Facts
from relsim.ingest import IngestReport
from relsim.result import RelationSimilarity
from relsim.tables import PairTable, write_tsv

__all__ = ["COLUMNS", "KINDS", "RedundancyResult"]

COLUMNS = (
    "rel_a", "rel_b", "kind", "p_redundant", "similarity", "kl_ab", "kl_ba", "stderr", "ci_low", "ci_high", "ess",
    "support_a", "support_b", "shared_pairs", "agreement", "decided_by",
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
        narrower one). ``p_redundant``: probability that they mean the same, for kind inverse that a means b with its
        arguments exchanged; all numbers of such a row are of that comparison. ``kl_ab``, ``kl_ba`` in nats;
        ``similarity = exp(-max)``; ``stderr``, ``ci_low``, ``ci_high`` (95 %) of the larger one; ``ess`` the smaller
        effective number of heads (neural) or mentions (counts); ``agreement``: how often the tails agree on shared
        heads, NaN without any. ``decided_by`` names the measure that gave ``p_redundant``.
    clusters
        Groups of equivalent phrases, largest first.
    not_enough_evidence
        Phrases below the minimum support with their support, from ingest.
    baselines
        Scores of the count and text baselines for every row of ``pairs``; larger means more alike.
    threshold
        Probability from which a pair is called redundant.
    pairs_examined
        How many pairs were scored; ``len(pairs)`` of them were kept.
    similarity
        The neural similarity and the relation ids behind its rows, when there was one.
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
    similarity: RelationSimilarity | None = None
    similarity_ids: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def ingest(self) -> IngestReport | None:
        """How the facts were read, when they came from files."""
        return self.facts.ingest

    @cached_property
    def canonical_map(self) -> dict[str, tuple[str, int, float]]:
        """Phrase to (canonical phrase, cluster number, probability): every phrase that was compared, itself if alone."""
        out = {}
        for number, cluster in enumerate(self.clusters):
            for member, p in zip(cluster.members, cluster.p_redundant, strict=True):
                out[member] = (cluster.canonical, number, p)
        alone = len(self.clusters)
        for phrase in self.facts.relations:
            if phrase not in out:
                out[phrase] = (phrase, alone, 1.0)
                alone += 1
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
        return evidence(self.facts, ids[a], ids[b], swapped=frozenset((a, b)) in self._inverse, top=top)

    @cached_property
    def _inverse(self) -> frozenset[frozenset[str]]:
        return frozenset(
            frozenset((a, b))
            for a, b, kind in zip(self.pairs["rel_a"], self.pairs["rel_b"], self.pairs["kind"], strict=True)
            if kind == "inverse"
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
        if self.not_enough_evidence:
            out.append(f"not enough evidence: {len(self.not_enough_evidence):,} phrases below the minimum support")
        if not self.clusters and not len(self.pairs):
            out.append("not enough evidence: no phrase could be compared with another")
        return out + [f"warning: {warning}" for warning in self.warnings]

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write pairs.tsv (with the baselines), clusters.tsv and canonical_map.tsv, each atomically; return their paths.

        Phrases without enough evidence stand in canonical_map.tsv as themselves, with empty cluster and probability.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        names = [f"baseline_{name}" for name in self.baselines]
        columns = [*(self.pairs[name].tolist() for name in COLUMNS), *(v.tolist() for v in self.baselines.values())]
        write_tsv(target / "pairs.tsv", [*COLUMNS, *names], zip(*columns, strict=True))
        write_tsv(
            target / "clusters.tsv",
            ["cluster", "canonical", "phrase", "mentions", "p_redundant", "weakest_pair"],
            (
                (number, c.canonical, member, mentions, p, c.weakest)
                for number, c in enumerate(self.clusters)
                for member, mentions, p in zip(c.members, c.mentions, c.p_redundant, strict=True)
            ),
        )
        known = ((phrase, *where) for phrase, where in sorted(self.canonical_map.items()))
        unknown = ((phrase, phrase, "", "") for phrase, _ in self.not_enough_evidence)
        write_tsv(target / "canonical_map.tsv", ["phrase", "canonical", "cluster", "p_redundant"], (*known, *unknown))
        return [target / name for name in ("pairs.tsv", "clusters.tsv", "canonical_map.tsv")]
