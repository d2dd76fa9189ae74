"""The part of a report that shows a relation redundancy result: what was read, the ranked pairs, the clusters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tasks.report.html import Column, Report

if TYPE_CHECKING:
    from relsim.evidence.examples import Evidence
    from relsim.merge.result import RedundancyResult

__all__ = ["redundancy_section"]

# What decides first, what it was computed from after it.
_COLUMNS = {
    "rel_a": Column("phrase A"),
    "rel_b": Column("phrase B"),
    "kind": Column("kind", help="Narrower: where A holds, B holds too. Inverse: B is A with swapped arguments."),
    "p_redundant": Column("p", ".2f", "Probability that both mean the same (for an inverse: with arguments swapped)."),
    "shared_pairs": Column("shared", ".0f", "Argument pairs that both phrases state (for an inverse: swapped)."),
    "agreement": Column("agreement", ".2f", "Share of common first arguments on which the second arguments agree."),
    "support_a": Column("facts A", ".0f", "Distinct argument pairs of the phrase."),
    "support_b": Column("facts B", ".0f"),
    "decided_by": Column("decided by", help="The measure that ranked the row, and why it was chosen."),
    "similarity": Column("similarity", ".3f", "exp(-max(KL A to B, KL B to A)), 0 to 1."),
    "kl_ab": Column("KL A→B", ".2f", "Divergence of B's facts from A's, in nats; 0 if they are distributed alike."),
    "kl_ba": Column("KL B→A", ".2f"),
    "stderr": Column(
        "± SE", ".2f", "Of the larger divergence: sampling error (neural KL), spread over resampled mentions (counts)."
    ),
    "ci_low": Column("95 % from", ".2f", "Interval of the larger divergence, in nats; neural KL only."),
    "ci_high": Column("to", ".2f"),
    "ess": Column("ESS", ".0f", "Effective number of heads (neural) or mentions (counts) behind the divergence."),
}


def redundancy_section(
    report: Report, result: RedundancyResult, *, max_pairs: int = 500, max_evidence: int = 8, max_phrases: int = 200
) -> None:
    """Add the sections of a redundancy result to a report; all counts are of everything, the tables may be cut.

    Parameters
    ----------
    report
        Gets the sections "Summary", "Ranked pairs", "Clusters" and "Left out".
    result
        Of ``relsim.redundancy``.
    max_pairs
        Rows of the table of pairs, the highest ranked; the report says how many there are.
    max_evidence
        Facts of each kind shown when a row is opened.
    max_phrases
        Phrases without enough evidence that are named.
    """
    _summary(report, result)
    _pairs(report, result, max_pairs, max_evidence)
    _clusters(report, result)
    _left_out(report, result, max_phrases)


def _summary(report: Report, result: RedundancyResult) -> None:
    section = report.section("Summary")
    numbers = {"phrases compared": result.facts.num_relations, "distinct facts": len(result.facts)}
    numbers |= {"pairs scored": result.pairs_examined, "pairs kept": len(result.pairs)}
    numbers |= {f"pairs: {kind}": n for kind, n in Counter(result.pairs["kind"].tolist()).most_common()}
    numbers["clusters"] = len(result.clusters)
    numbers["phrases in a cluster"] = sum(len(cluster.members) for cluster in result.clusters)
    if result.ingest is not None:
        numbers |= {"lines read": result.ingest.lines, "lines used": result.ingest.used, "bad lines": result.ingest.bad}
    numbers["phrases without enough evidence"] = len(result.not_enough_evidence)
    section.add_numbers({label: f"{n:,}" for label, n in numbers.items()})
    if measures := Counter(result.pairs["decided_by"].tolist()):
        section.add_list([f"{name}: {n:,} pairs" for name, n in measures.most_common()], title="What ranked the pairs")
    if fitted := _fitted_on(result):
        section.add_list(fitted, title="What the probabilities were fitted on")
    if result.warnings:
        section.add_list(result.warnings, title="To keep in mind")


def _pairs(report: Report, result: RedundancyResult, max_pairs: int, max_evidence: int) -> None:
    pairs = result.pairs.rows(max_pairs)
    intro = f"Most likely redundant first; redundant from p = {result.threshold:g}. Open a row for the facts behind it."
    if len(pairs) < len(result.pairs):
        intro += f" The first {len(pairs):,} of {len(result.pairs):,} pairs are shown; pairs.tsv has all of them."
    section = report.section("Ranked pairs", intro)
    if not pairs:
        section.add_text("No pair of phrases has enough evidence to be compared.")
        return
    # A column in which nothing is known would only push the others out of sight.
    names = [name for name in _COLUMNS if any(pair[name] == pair[name] for pair in pairs)]
    section.add_table(
        [_COLUMNS[name] for name in names],
        [[pair[name] for name in names] for pair in pairs],
        caption="Pairs of relation phrases",
        evidence=[
            [
                *_blocks(result.evidence(pair["rel_a"], pair["rel_b"], top=max_evidence)),
                ("Contradiction and tails", _checks(result, row, pair["agreement"])),
            ]
            for row, pair in enumerate(pairs)
        ],
    )


def _blocks(evidence: Evidence) -> list[tuple[str, list[str]]]:
    """Shared and typical facts as lines; an inverse says that its second phrase is read backwards."""
    turned = ", arguments of the second swapped" if evidence.swapped else ""
    shared = [_fact(fact) for fact in evidence.shared]
    if evidence.num_shared > len(shared):
        shared.append(f"and {evidence.num_shared - len(shared):,} more")
    return [
        (f"Facts of both ({evidence.num_shared:,}{turned})", shared),
        (f"Only of “{evidence.rel_a}”", [_fact(fact) for fact in evidence.only_a]),
        (f"Only of “{evidence.rel_b}”", [_fact(fact) for fact in evidence.only_b]),
    ]


def _checks(result: RedundancyResult, row: int, agreement: float) -> list[str]:
    """Agreement on common arguments beside that of one relation's samples, and whether the tails mean anything."""
    found = {name: values[row] for name, values in result.details.items()}
    if not found:
        return []
    lines = [f"{found['contradiction']}: {found['shared_arguments']:.0f} common arguments"]
    if agreement == agreement:
        lines[0] += (
            f", agreement {agreement:.2f} ({found['agreement_low']:.2f} to {found['agreement_high']:.2f}); two samples "
            f"of one relation: {found['agreement_of_halves']:.2f}"
        )
    if found["degenerate"]:
        lines.append(
            f"degenerate second arguments: entropy {found['tail_entropy']:.2f} nats, agreement {found['tail_lift']:.1f} "
            "times that of chance"
        )
    return lines


def _fitted_on(result: RedundancyResult) -> list[str]:
    regimes = result.provenance.get("calibration")
    found = regimes if isinstance(regimes, dict) else {}
    return [f"{name}: {values['fitted_on']}" for name, values in found.items()]


def _fact(fact: tuple[str, str, float]) -> str:
    head, tail, count = fact
    return f"{head} – {tail}" + (f" ×{count:g}" if count != 1 else "")


def _clusters(report: Report, result: RedundancyResult) -> None:
    intro = "Phrases that can be written as one, the canonical phrase; every pair in a cluster is redundant."
    section = report.section("Clusters", intro)
    if not result.clusters:
        section.add_text(f"No two phrases reach p = {result.threshold:g}.")
        return
    rows = [
        (
            c.canonical,
            len(c.members),
            "; ".join(c.members[1:]),
            sum(c.mentions),
            sum(c.mentions[1:]),
            c.facts_before - c.facts_after,
            c.weakest,
        )
        for c in result.clusters
    ]
    columns = [
        Column("canonical phrase"),
        Column("phrases"),
        Column("the others"),
        Column("mentions", ".0f"),
        Column("rewritten", ".0f", "Mentions that applying the map rewrites."),
        Column("facts made equal", ".0f", "Distinct facts that fall together when the phrases are one."),
        Column("weakest pair", ".2f", "The smallest p of any two phrases of the cluster."),
    ]
    section.add_table(columns, rows, caption="Clusters of phrases")


def _left_out(report: Report, result: RedundancyResult, max_phrases: int) -> None:
    section = report.section("Left out", "What was not used, and why. Nothing is dropped without being counted here.")
    few = result.not_enough_evidence
    if result.ingest is not None:
        lines = result.ingest.summary(examples=0)
        section.add_list([line for line in lines if not line.startswith("not enough evidence")], title="Input")
        if result.ingest.bad_examples:
            section.add_list([str(bad) for bad in result.ingest.bad_examples], title="The first bad lines")
    if not few:
        section.add_text("Every phrase has enough evidence to be compared.")
        return
    cut = f", the first {max_phrases:,} of {len(few):,}" if len(few) > max_phrases else ""
    columns = [Column("phrase"), Column("distinct argument pairs")]
    section.add_table(columns, few[:max_phrases], caption=f"Phrases without enough evidence{cut}", page=20)
