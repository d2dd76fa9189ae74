"""One table a family of tasks: published number, ours, twin, flat limit, whether it is met, time and command.

Everything is read from the result files: a family names its files, and a pattern by which the rows' ``what`` tell data,
metric and model. Rows of models that are neither ours nor its controls stand in the full tables alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["COLUMNS", "FAMILIES", "Family", "cell", "number", "summary", "table"]

COLUMNS = ("data and metric", "published", "ours", "twin", "flat limit", "met", "time", "command")
_NOTE = "the Lorentz network's settings"


@dataclass(frozen=True)
class Family:
    """Result files of one kind.

    Attributes
    ----------
    files : pattern of their names
    rows : pattern of ``what`` with the groups ``model``, perhaps ``note``, and those of `label`
    label : what tells rows of the summary apart, ``{data}, {metric}``
    models : value of the group ``model`` to ``ours``, ``twin`` or ``flat limit``
    time : pattern of the rows that hold times; what groups it shares with `rows` must agree
    words : what to write for values of groups
    """

    title: str
    files: str
    rows: str
    label: str
    models: Mapping[str, str]
    time: str = r"(?!)"
    words: Mapping[str, str] = field(default_factory=dict)


FAMILIES = (
    Family(
        "Knowledge graphs",
        r"kg_(?!speed|tune|rapidity)\w+",
        r"(?P<data>[^,\s]+), (?P<model>\w+), dimension (?P<dim>\d+)(?P<how>[^:]*): "
        r"test (?P<metric>(?:paper_)?(?:mrr|hits@10))",
        "{data}, dimension {dim}{how}, {metric}",
        {"hybonet": "ours", "mure": "twin", "flat": "flat limit"},
        r"(?P<data>[^,\s]+), (?P<model>\w+), dimension (?P<dim>\d+)(?P<how>[^:]*): minutes of training and evaluation",
        {
            "paper_mrr": "MRR in the paper's protocol", "mrr": "MRR in the standard protocol",
            "paper_hits@10": "hits@10 in the paper's protocol", "hits@10": "hits@10 in the standard protocol",
        },
    ),
    Family(
        "Hierarchies",
        r"hierarchy",
        r"WordNet (?P<data>\w+) (?P<metric>map|mean_rank)(?: of (?P<nodes>all nodes))?(?:, start (?P<start>\w+))?, "
        r"(?P<model>Lorentz|Euclidean twin|flat limit)(?:, k = \S+)?, (?P<free>\d+) free coordinates.*",
        "WordNet {data}, {free} free coordinates, {start}{metric}",
        {"Lorentz": "ours", "Euclidean twin": "twin", "flat limit": "flat limit"},
        r"seconds of training, start (?P<start>\w+), (?P<model>Lorentz|Euclidean twin|flat limit)(?:, k = \S+)?, "
        r"(?P<free>\d+) free coordinates|minutes of training, WordNet (?P<data>nouns)",
        {"walk": "started from the taxonomy, ", "normal": "started from small random points, ", "map": "MAP",
         "mean_rank": "mean rank"},
    ),
    Family(
        "Graphs",
        r"graphs_(?!memory)[\w-]+",
        r"(?P<data>\S+) test (?P<metric>\w+), (?P<model>Lorentz GCN, flat limit|Lorentz GCN|GCN)(?P<note>[^,]*), "
        r"(?P<split>published split|fresh splits)",
        "{data}, {metric} x 100, {split}",
        {"Lorentz GCN": "ours", "GCN": "twin", "Lorentz GCN, flat limit": "flat limit"},
    ),
    *(
        Family(
            title,
            files,
            r"(?P<model>lorentz-small|euclidean-small), (?P<data>[^,]+), (?P<method>[^:]+): test (?P<metric>\w+)",
            "{data}, {method}, {metric}",
            {"lorentz-small": "ours", "euclidean-small": "twin"},
        )
        for title, files in (
            ("Delta tuning of the matched pair", "deltas_pair"),
            ("Delta tuning of the matched pair: the other methods", "deltas_rest"),
            ("Delta tuning of the matched pair: sums of methods", "deltas_combinations"),
        )
    ),
    Family(
        "Delta tuning of MiniLM and of its conversion to a Lorentz model",
        r"deltas_minilm",
        r"(?P<model>converted|minilm), (?P<data>[^,]+), (?P<method>[^:]+): test (?P<metric>\w+)",
        "{data}, {method}, {metric}",
        {"converted": "ours", "minilm": "twin"},
    ),
    Family(
        "Probes of dependency trees",
        r"probing",
        r"(?P<data>[^,\s]+), \w+, (?P<model>Lorentz|Euclidean|flat limit), layer \d+: test (?P<metric>\w+)",
        "{data}, {metric}",
        {"Lorentz": "ours", "Euclidean": "twin", "flat limit": "flat limit"},
    ),
    Family(
        "Translation",
        r"translation",
        r"(?P<data>[^,]+), (?P<set>\w+), (?P<model>Lorentz|Euclidean twin): (?P<metric>bleu|chrf|cross_entropy)",
        "{data}, {set}, {metric}",
        {"Lorentz": "ours", "Euclidean twin": "twin"},
        r"(?P<data>[^,]+), (?P<model>Lorentz|Euclidean twin): minutes of training",
        {"bleu": "BLEU", "chrf": "chrF", "cross_entropy": "cross entropy"},
    ),
)  # fmt: skip


def _groups(pattern: str, what: str) -> dict[str, str] | None:
    """Named groups of a whole match."""
    found = re.fullmatch(pattern, what)
    if found is None:
        return None
    return {name: value for name, value in found.groupdict().items() if value is not None}


def number(value: Any) -> str:
    """Four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cell(row: Mapping[str, Any], note: str = "") -> str:
    """Mean, deviation and number of seeds; a star where a control has our settings instead of its own."""
    spread = f" ± {number(row['spread'])}" if row.get("spread") is not None else ""
    return f"{number(row['value'])}{spread} ({row['n']})" + ("*" if _NOTE in note else "")


def _met(row: Mapping[str, Any]) -> str:
    if row["met"] is None:
        return ""
    said = "yes" if row["met"] else "**missed**"
    if row["met"] and row.get("interval") and row["value"] < row["target"]:
        said += ", inside the 95 % interval"
    return said if row["target"] in (None, row["reference"]) else f"{said} (target {number(row['target'])})"


def summary(family: Family, contents: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of a family's table, by column: one for each label that has a row of ours, in order of the files."""
    lines: dict[tuple[int, str], dict[str, str]] = {}
    keys: dict[tuple[int, str], dict[str, str]] = {}
    for place, content in enumerate(contents):
        for row in content["rows"]:
            if (groups := _groups(family.rows, row["what"])) and groups["model"] in family.models:
                words = {name: family.words.get(value, value) for name, value in groups.items()}
                label = family.label.format_map(_Blank(words))
                line = lines.setdefault((place, label), dict.fromkeys(COLUMNS, "") | {"data and metric": label})
                column = family.models[groups["model"]]
                line[column] = cell(row, groups.get("note", ""))
                if column == "ours":
                    line |= {"met": _met(row), "command": f"`{content['command']}`"}
                    line["published"] = "" if row["reference"] is None else number(row["reference"])
                    keys[place, label] = groups
        for row in content["rows"]:
            if groups := _groups(family.time, row["what"]):
                for key, ours in keys.items():
                    if key[0] == place and all(ours.get(name, "") == value for name, value in groups.items()):
                        lines[key]["time"] = f"{number(row['value'])} {row['unit']}"
    return [line for line in lines.values() if line["ours"]]


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(columns)
    lines = [head, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    first, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([first, "|" + "---|" * len(head), *rest])
