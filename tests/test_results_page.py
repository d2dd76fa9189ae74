"""Summaries of the results page against rows made by hand and against the result files themselves."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import RESULTS, row
from benchmarks.families import CONTROLS, FAMILIES
from benchmarks.results_page import ROOMS, pages
from benchmarks.summary import measured, summary

KG, HIERARCHIES, GRAPHS, *_ = FAMILIES


def content(*rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "one", "threads": 1, "torch": "2"}
    return {"command": "python -m b", "date": "2026-01-01", "machine": machine, "rows": list(rows)}


def test_a_family_has_a_line_for_each_metric_with_the_models_in_their_columns() -> None:
    title = "WN18RR, {}, dimension 32"
    rows = [
        row(f"{title.format('hybonet')}: test paper_mrr", 0.4812, "", n=3, sd=0.002, reference=0.489, target=0.489,
            met=False),
        row(f"{title.format('hybonet')}: test mrr", 0.47, "", n=3, sd=0.001),
        row(f"{title.format('hybonet')}: test hits@1", 0.4, "", n=3),
        row(f"{title.format('hybonet')}: minutes of training and evaluation", 18.6, "min", n=3),
        row(f"{title.format('mure')}: test paper_mrr", 0.47, "", n=3, sd=0.0),
        row(f"{title.format('mure')}: minutes of training and evaluation", 9.5, "min", n=3),
        row(f"{title.format('rote')}: test paper_mrr", 0.46, "", n=3),
        row(f"{title.format('hybonet')}, standard protocol throughout: test mrr", 0.465, "", n=1),
        row(f"{title.format('hybonet')}: mrr less that of mure", 0.01, "1", n=3, half=0.1),
    ]  # fmt: skip
    paper, standard, throughout = summary(KG, {"kg_x": content(*rows)})
    assert paper == {
        "data and metric": "WN18RR, dimension 32, MRR in the paper's protocol",
        "published": "0.489", "ours": "0.4812 ± 0.0020 (3)",
        "twin": "0.4700 ± 0 (3)", "flat limit": "", "met": "**missed**", "time": "18.6 min", "all numbers": "kg_x",
    }  # fmt: skip
    assert (standard["ours"], standard["published"], standard["met"], standard["twin"]) == (
        "0.4700 ± 0.0010 (3)",
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
    (line,) = summary(GRAPHS, {"x": content(met | {"interval": [75.6, 83.5]}, flat, other)})
    assert (line["met"], line["flat limit"], line["twin"]) == ("yes, inside the 95 % interval", "81.4 (1)*", "")
    what = "WordNet mammals map, start {}, Lorentz, k = 1, 5 free coordinates (lr 1, geodesic distance)"
    seconds = "seconds of training, start normal, Lorentz, k = 1, 5 free coordinates"
    rows = [row(what.format(start), 0.93, "", target=0.9, met=True) for start in ("walk", "normal")]
    walk, normal = summary(HIERARCHIES, {"x": content(*rows, row(seconds, 20.5, "s"))})
    assert walk["met"] == normal["met"] == "yes (target ≥ 0.9)"
    assert (walk["time"], normal["time"]) == ("", "20.5 s")
    assert "started from small random points" in normal["data and metric"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_every_published_or_aimed_at_number_of_a_family_is_in_its_summary(family: Any) -> None:
    paths = [path for path in sorted(RESULTS.glob("*.json")) if re.fullmatch(family.files, path.stem)]
    held = 0
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        lines = summary(family, {path.stem: found})
        judged = [r for r in found["rows"] if r["met"] is not None and r["unit"] != "min"]
        hidden = [r for r in judged if "hits@1," in r["what"] or r["what"].endswith(("hits@1", "hits@3"))]
        held += len(lines)
        if family.columns == CONTROLS:
            assert sum(bool(line["met"]) for line in lines) == len(judged) - len(hidden)
    assert held


def test_every_file_has_its_place_and_families_their_summaries(tmp_path: Path) -> None:
    rows = [row("airport-lp test roc_auc, Lorentz GCN, published split", 97.0, "x 100", n=2, sd=0.1)]
    for name in ("aaa", "graphs_airport-lp", "graphs_memory"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content(*rows)))
    made = pages(tmp_path)
    assert list(made) == ["results.md", "results/graphs.md", "results/other.md"]
    line = "| airport-lp, roc_auc x 100, published split | 97.00 ± 0.10 (2) | [graphs_airport-lp]"
    order = ["## Knowledge graphs, hierarchies and graphs\n", "### Graphs\n", line, "| [graphs_memory](results/graphs.md",
             "## Other measurements\n", "| [aaa](results/other.md#aaa) |"]  # fmt: skip
    first = made["results.md"]
    assert [first.count(part) for part in order] == [1] * len(order)
    places = [first.index(part) for part in order]
    assert places == sorted(places)
    assert "## Hierarchies" not in first and "## Targets" not in first
    assert "- [Other measurements](#other-measurements)\n" in first
    assert re.findall("^## .*", made["results/graphs.md"], re.MULTILINE) == ["## graphs_airport-lp", "## graphs_memory"]


def test_every_result_file_lies_in_a_room_of_its_own(tmp_path: Path) -> None:
    made = pages()
    assert "results/other.md" not in made
    headings = [found for text in made.values() for found in re.findall("^## (.*)", text, re.MULTILINE)]
    stems = [path.stem for path in RESULTS.glob("*.json")]
    assert sorted(set(headings) & set(stems)) == sorted(stems) and all(headings.count(stem) == 1 for stem in stems)
    assert len(made) == len(ROOMS)


def test_targets_are_counted_and_the_missed_ones_named(tmp_path: Path) -> None:
    met, aimed = row("a", 1.0, "s", target=2.0, met=True), row("b", 3.14159, "s", target=3.0, met=False)
    compared = row("c", 5, "MiB", reference="4 MiB", met=False)
    (tmp_path / "pretrain_few.json").write_text(json.dumps(content(met, aimed, compared, row("d", 0.0, "1"))))
    (tmp_path / "pretrain_many.json").write_text(json.dumps(content(met, *(aimed,) * 4)))
    (tmp_path / "pretrain_none.json").write_text(json.dumps(content(row("d", 0.0, "1"))))
    few, many = (f"[pretrain_{name}](results/deltas.md#pretrain_{name})" for name in ("few", "many"))
    lines = pages(tmp_path)["results.md"].partition("## Targets\n\n")[2].partition("\n## ")[0].splitlines()
    assert lines[2:4] == [f"| {few} | 3 | 1 | 2 |", f"| {many} | 5 | 1 | 4 |"]
    assert lines[lines.index("### Missed") + 4 :] == [
        f"| {few} | b | 3.142 | ≤ 3 |",
        f"| {few} | c | 5 | 4 MiB |",
        f"| {many} | 4 of 5: marked there |  |  |",
    ]


def test_a_spread_says_what_it_is_and_gives_the_digits() -> None:
    values = {"sd": "0.123 ± 0.012", "half": "0.123 ± 0.012 [95 %]", "quartiles": "0.123 ± 0.012 [quartiles]"}
    assert {of: measured(row("a", 0.12345, "1", **{of: 0.0123})) for of in values} == values
    assert [measured(row("a", value, "1")) for value in (0.123456, 7, None)] == ["0.1235", "7", "–"]
    with pytest.raises(AssertionError, match="2 kinds of spread"):
        row("a", 1.0, "1", sd=0.1, half=0.2)


def test_what_a_file_says_of_all_its_rows_and_what_it_left_out_is_shown(tmp_path: Path) -> None:
    rows = [
        row("airport-lp test roc_auc, Lorentz GCN, published split", 97.0, "x 100"),
        row("b", 1, "") | {"left_out": ["CR"]},
    ]
    made = content(*rows) | {"note": "Three trials each."}
    (tmp_path / "graphs_airport-lp.json").write_text(json.dumps(made))
    shown = pages(tmp_path)
    assert all("Three trials each.\n" in shown[page] for page in ("results.md", "results/graphs.md"))
    assert "Left out:\n\n- CR\n" in shown["results/graphs.md"]


@pytest.mark.parametrize("path", sorted(RESULTS.parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_imported(path: Path) -> None:
    import_module("benchmarks" if path.stem == "__init__" else f"benchmarks.{path.stem}")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_command_of_a_file_is_one_that_there_is(path: Path) -> None:
    for command in json.loads(path.read_text(encoding="utf-8"))["command"].split(" && "):
        python, option, module, *words = shlex.split(command)
        source = RESULTS.parent / f"{module.removeprefix('benchmarks.')}.py"
        known = source.read_text(encoding="utf-8") + (RESULTS.parent / "relsim_models.py").read_text(encoding="utf-8")
        assert (python, option) == ("python", "-m")
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in known] == []


def test_a_file_is_headed_by_what_made_it(tmp_path: Path) -> None:
    made = content(row("x", 1.0, "1")) | {"command": "python -m benchmarks.lorentz_accuracy --x 1"}
    (tmp_path / "lorentz_accuracy.json").write_text(json.dumps(made))
    _, title, command, *_ = pages(tmp_path)["results/lorentz.md"].partition("## lorentz_accuracy")[2].split("\n\n")
    source = (Path(RESULTS).parent / "lorentz_accuracy.py").read_text(encoding="utf-8")
    assert title.split(",")[0] in " ".join(source.split()) and command == f"`{made['command']}`"
