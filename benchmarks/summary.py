"""One table a family of tasks: a published number, ours and its controls, whether it is met, time, and where more is.

Everything is read from the result files: a family names its files, and a pattern by which the rows' ``what`` tell data,
metric and model. Rows of models that are neither ours nor its controls stand in the full tables alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import floor, log10
from typing import Any

from .families import Family

__all__ = ["SOURCE", "aim", "cell", "measured", "number", "summary", "table"]

LABEL, MET, TIME, SOURCE = "data and metric", "met", "time", "all numbers"
_NOTE = "the Lorentz network's settings"


def _groups(pattern: str, what: str) -> dict[str, str] | None:
    """Named groups of a whole match."""
    found = re.fullmatch(pattern, what)
    if found is None:
        return None
    return {name: value for name, value in found.groupdict().items() if value is not None}


def number(value: Any) -> str:
    """Four digits; a dash for what there is none of."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def measured(row: Mapping[str, Any]) -> str:
    """A value to two digits of its spread, and the spread, which is a standard deviation where nothing else is said."""
    value, spread = row["value"], row.get("spread")
    if spread is None:
        return number(value)
    places = min(4, max(0, 1 - floor(log10(spread)))) if spread > 0 else 4
    kind = "" if row["spread_of"] == "SD" else f" [{row['spread_of']}]"
    return f"{value:.{places}f} ± {f'{spread:.{places}f}' if spread >= 1e-4 else number(spread)}{kind}"


def cell(row: Mapping[str, Any], note: str = "") -> str:
    """Mean, spread and number of seeds; a star where a control has our settings instead of its own."""
    return f"{measured(row)} ({row['n']})" + ("*" if _NOTE in note else "")


def aim(row: Mapping[str, Any]) -> str:
    """The target, or the reference that stands for it, and on which side of it a number has to be."""
    target = row["reference"] if row["target"] is None else row["target"]
    if not isinstance(target, int | float) or not isinstance(row["value"], int | float):
        return "" if target is None else number(target)
    least = "interval" in row or (row["value"] > target) == row["met"]
    return f"{'≥' if least else '≤'} {number(target)}"


def _met(row: Mapping[str, Any]) -> str:
    if row["met"] is None:
        return ""
    said = "yes" if row["met"] else "**missed**"
    if row["met"] and row.get("interval") and row["value"] < row["target"]:
        said += ", inside the 95 % interval"
    return said if row["target"] in (None, row["reference"]) else f"{said} (target {aim(row)})"


def summary(family: Family, contents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of a family's table, by column: one for each label that has a row of the leading column, in order of the files."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    keys: dict[tuple[str, str], dict[str, str]] = {}
    columns = (LABEL, *family.columns, MET, TIME, SOURCE)
    for place, content in contents.items():
        for row in content["rows"]:
            if (groups := _groups(family.rows, row["what"])) and groups["model"] in family.models:
                words = {name: family.words.get(value, value) for name, value in groups.items()}
                label = family.label.format_map(_Blank(words))
                line = lines.setdefault((place, label), dict.fromkeys(columns, "") | {LABEL: label})
                column = family.models[groups["model"]]
                line[column] = cell(row, groups.get("note", ""))
                if column == family.lead:
                    line |= {MET: _met(row), SOURCE: place}
                    line[family.columns[0]] = "" if row["reference"] is None else number(row["reference"])
                    keys[place, label] = groups
        for row in content["rows"]:
            if groups := _groups(family.time, row["what"]):
                for key, ours in keys.items():
                    if key[0] == place and all(ours.get(name, "") == value for name, value in groups.items()):
                        lines[key][TIME] = f"{number(row['value'])} {row['unit']}"
    return [line for line in lines.values() if line[family.lead]]


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ""


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(columns)
    lines = [head, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    first, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([first, "|" + "---|" * len(head), *rest])
