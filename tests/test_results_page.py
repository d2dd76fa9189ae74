"""Summaries of the results page against rows made by hand and against the result files themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import RESULTS, row
from benchmarks.results_page import page
from benchmarks.summary import FAMILIES, summary

KG, HIERARCHIES, GRAPHS, *_ = FAMILIES


def content(*rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "one", "threads": 1, "torch": "2"}
    return {"command": "python -m b", "date": "2026-01-01", "machine": machine, "rows": list(rows)}


def test_a_family_has_a_line_for_each_metric_with_the_models_in_their_columns() -> None:
    title = "WN18RR, {}, dimension 32"
    rows = [
        row(f"{title.format('hybonet')}: test paper_mrr", 0.4812, "", n=3, spread=0.002, reference=0.489, target=0.489,
            met=False),
        row(f"{title.format('hybonet')}: test mrr", 0.47, "", n=3, spread=0.001),
        row(f"{title.format('hybonet')}: test hits@1", 0.4, "", n=3),
        row(f"{title.format('hybonet')}: minutes of training and evaluation", 18.6, "min", n=3),
        row(f"{title.format('mure')}: test paper_mrr", 0.47, "", n=3, spread=0.0),
        row(f"{title.format('mure')}: minutes of training and evaluation", 9.5, "min", n=3),
        row(f"{title.format('rote')}: test paper_mrr", 0.46, "", n=3),
        row(f"{title.format('hybonet')}, standard protocol throughout: test mrr", 0.465, "", n=1),
        row(f"{title.format('hybonet')}: mrr less that of mure", 0.01, "1", n=3, spread=0.1),
    ]  # fmt: skip
    paper, standard, throughout = summary(KG, [content(*rows)])
    assert paper == {
        "data and metric": "WN18RR, dimension 32, MRR in the paper's protocol",
        "published": "0.489", "ours": "0.4812 ± 0.002 (3)",
        "twin": "0.47 ± 0 (3)", "flat limit": "", "met": "**missed**", "time": "18.6 min", "command": "`python -m b`",
    }  # fmt: skip
    assert (standard["ours"], standard["published"], standard["met"], standard["twin"]) == (
        "0.47 ± 0.001 (3)",
        "",
        "",
        "",
    )
    assert (
        throughout["data and metric"]
        == "WN18RR, dimension 32, standard protocol throughout, MRR in the standard protocol"
    )
    assert (throughout["ours"], throughout["time"]) == ("0.465 (1)", "")


def test_a_number_met_by_its_interval_or_by_another_target_says_so() -> None:
    met = row("cora-nc test f1, Lorentz GCN, published split", 79.57, "", n=3, reference=80.2, target=80.2, met=True)
    flat = row(
        "cora-nc test f1, Lorentz GCN, flat limit k = 1e4 (the Lorentz network's settings), published split", 81.4, ""
    )
    other = row("cora-nc test f1, GAT, published split", 78.8, "")
    (line,) = summary(GRAPHS, [content(met | {"interval": [75.6, 83.5]}, flat, other)])
    assert (line["met"], line["flat limit"], line["twin"]) == ("yes, inside the 95 % interval", "81.4 (1)*", "")
    what = "WordNet mammals map, start {}, Lorentz, k = 1, 5 free coordinates (lr 1, geodesic distance)"
    seconds = "seconds of training, start normal, Lorentz, k = 1, 5 free coordinates"
    rows = [row(what.format(start), 0.93, "", target=0.9, met=True) for start in ("walk", "normal")]
    walk, normal = summary(HIERARCHIES, [content(*rows, row(seconds, 20.5, "s"))])
    assert walk["met"] == normal["met"] == "yes (target 0.9)"
    assert (walk["time"], normal["time"]) == ("", "20.5 s")
    assert "started from small random points" in normal["data and metric"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_every_published_or_aimed_at_number_of_a_family_is_in_its_summary(family: Any) -> None:
    paths = [path for path in sorted(RESULTS.glob("*.json")) if re.fullmatch(family.files, path.stem)]
    assert paths
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        lines = summary(family, [found])
        judged = [r for r in found["rows"] if r["met"] is not None and r["unit"] != "min"]
        hidden = [r for r in judged if "hits@1," in r["what"] or r["what"].endswith(("hits@1", "hits@3"))]
        assert sum(bool(line["met"]) for line in lines) == len(judged) - len(hidden)
        assert lines and all(line["ours"] for line in lines)


def test_the_page_holds_every_file_once_and_families_first(tmp_path: Path) -> None:
    rows = [row("airport-lp test roc_auc, Lorentz GCN, published split", 97.0, "x 100", n=2, spread=0.1)]
    for name in ("aaa", "graphs_airport-lp", "graphs_memory"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content(*rows)))
    text = page(tmp_path)
    order = ["## Graphs", "| airport-lp, roc_auc x 100, published split |", "### graphs_airport-lp",
             "## Other measurements", "### aaa", "### graphs_memory"]  # fmt: skip
    places = [text.index(f"{part}\n" if part.startswith("#") else part) for part in order]
    assert places == sorted(places) and all(text.count(f"{part}\n") == 1 for part in order if part.startswith("#"))
    assert "## Hierarchies" not in text
    assert "- [Graphs](#graphs)\n- [Other measurements](#other-measurements)\n" in text


def test_a_file_is_headed_by_what_made_it(tmp_path: Path) -> None:
    made = content(row("x", 1.0, "1")) | {"command": "python -m benchmarks.lorentz_accuracy --x 1"}
    (tmp_path / "lorentz_accuracy.json").write_text(json.dumps(made))
    heading = next(line for line in page(tmp_path).split("\n") if line.startswith("### "))
    source = (Path(RESULTS).parent / "lorentz_accuracy.py").read_text(encoding="utf-8")
    assert heading.endswith(" (lorentz_accuracy)") and heading[4:].split(",")[0] in " ".join(source.split())
