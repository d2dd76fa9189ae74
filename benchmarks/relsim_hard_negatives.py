"""Pairs that look alike and must not be merged: how many are, at the threshold for a stated precision of .9.

    python -m benchmarks.relsim_hard_negatives [--no-encoder] [--no-neural]

The pairs stand in ``benchmarks/data/relation_hard_negatives.tsv`` (antonyms, co-hyponyms, before and after, nominated and
won), chosen by meaning. The choice was not blind: the highest-ranked CESI pairs and the agreement of some WD50K pairs had
been seen, and the rules for passives and for pairs without a common fact came after a look at which pairs were merged.
Each pair is decided within its whole corpus: WD50K under the English names of its relations, the extractions of CESI
(Base and Ambiguous together), ComBO validation. What merges
nothing would pass, so the share of true pairs that are merged stands beside it: halves of WD50K's relations, sampled
independently, and ComBO phrases of one gold relation.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from relsim import Facts, read_openie, redundancy
from relsim.evidence.contradiction import wilson

from .common import asked, row, save
from .relsim_sources import combo, knowledge_base

TABLE = Path(__file__).parent / "data" / "relation_hard_negatives.tsv"
PRECISION = 0.9


def pairs() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def merged(result: Any, a: str, b: str) -> bool:
    """Whether both phrases are written as one."""
    names = result.canonical_map
    return a in names and b in names and names[a][0] == names[b][0]


def with_halves(facts: Facts, least: int = 40) -> tuple[Facts, list[tuple[str, str]]]:
    """Beside the facts, every relation of ``least`` facts once more: each fact is in either copy with chance 1/2."""
    rng = np.random.default_rng(0)
    e = facts.entities
    rows, twins = [], []
    enough = facts.support.numpy() >= least
    for h, r, t in zip(facts.head.tolist(), facts.relation.tolist(), facts.tail.tolist(), strict=True):
        name = facts.relations[r]
        if not enough[r]:
            rows.append((e[h], name, e[t]))
            continue
        rows += [(e[h], copy, e[t]) for copy in (name, f"{name} (2)") if rng.random() < 0.5]
    twins = [(name, f"{name} (2)") for r, name in enumerate(facts.relations) if enough[r]]
    return Facts.from_triples(rows), twins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HYREL_DATA", "data")))
    parser.add_argument("--no-encoder", action="store_true")
    parser.add_argument("--no-neural", action="store_true", help="do not fit a fact distribution to WD50K")
    args = parser.parse_args()
    encoder = None
    if not args.no_encoder:
        from tasks.encoder import sentence_encoder

        encoder = sentence_encoder()
    gold = combo(args.data)
    files = [args.data / "openie/cesi/ambiguous", args.data / "openie/cesi/base"]
    cesi = read_openie(files, min_support=4, normalise=False)  # the phrases of the table are those of the files
    wd50k = knowledge_base(args.data, "WD50K")
    wd50k = wd50k.select(np.flatnonzero(wd50k.support.numpy() >= 20).tolist())
    results = {
        "WD50K": redundancy(wd50k, precision=PRECISION, neural="never"),
        "CESI": redundancy(cesi, precision=PRECISION),
        "ComBO": redundancy(gold.facts, precision=PRECISION),
        "ComBO, types": redundancy(gold.facts, precision=PRECISION, types=gold.types),
    }
    if not args.no_neural:
        results["WD50K, neural"] = redundancy(wd50k, precision=PRECISION)
    if encoder is not None:
        results["CESI, encoder"] = redundancy(cesi, precision=PRECISION, encoder=encoder)
        results["ComBO, encoder"] = redundancy(gold.facts, precision=PRECISION, encoder=encoder)
    rows = []
    table = pairs()
    total: Counter[str] = Counter()
    for name, result in results.items():
        own = [pair for pair in table if pair["source"] == name.split(",")[0]]
        missing = [p for p in own if p["rel_a"] not in result.canonical_map or p["rel_b"] not in result.canonical_map]
        if missing:
            raise SystemExit(f"{name}: not in the data: {missing[:3]}")
        wrong = [pair for pair in own if merged(result, pair["rel_a"], pair["rel_b"])]
        for pair in wrong:
            print(f"  {name}: merged {pair['rel_a']!r} and {pair['rel_b']!r} ({pair['reason']})")
        rows.append(_rate(f"hard negatives merged, {name}", len(wrong), len(own)))
        if "," not in name:
            total.update(wrong=len(wrong), all=len(own))
        print(rows[-1]["what"], rows[-1]["value"], f"threshold {result.threshold:.3f}, {len(result.clusters)} clusters")
    rows.insert(0, _rate("hard negatives merged at the threshold for precision .9", total["wrong"], total["all"]))
    doubled, twins = with_halves(wd50k)
    both = redundancy(doubled, precision=PRECISION, neural="never")
    found = sum(merged(both, a, b) for a, b in twins)
    rows.append(_rate("true pairs merged, halves of WD50K relations", found, len(twins), target=None))
    i, j = np.triu_indices(gold.facts.num_relations, 1)
    same = np.flatnonzero(gold.gold[i] == gold.gold[j])
    names = gold.facts.relations
    for name in [key for key in results if key.startswith("ComBO")]:
        found = sum(merged(results[name], names[i[k]], names[j[k]]) for k in same)
        rows.append(_rate(f"true pairs merged, {name}", found, len(same), target=None))
    for line in rows:
        print(line["what"], line["value"], line["n"])
    print(save("relsim_hard_negatives", asked("relsim_hard_negatives"), rows, threads=1))


def _rate(what: str, count: int, of: int, *, target: str | None = "<= .05") -> dict[str, Any]:
    low, high = wilson(np.array([float(count)]), np.array([float(of)]))
    share = count / of
    met = None if target is None else share <= 0.05
    return row(what, round(share, 4), "share", n=of, half=round(float(high[0] - low[0]) / 2, 4), target=target, met=met)


if __name__ == "__main__":
    main()
