"""Make ``docs/results.md`` and the pages of ``docs/results/`` from the result files.

    python -m benchmarks.results_page

The first page says which targets are met and which are missed, and has one summary a family of tasks; the others, one a
room, hold every row of every result file with the command that made it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .common import RESULTS
from .families import FAMILIES
from .summary import SOURCE, aim, measured, number, summary, table

DOCS = Path(__file__).resolve().parents[1] / "docs"
DETAILS = ("what", "value", "unit", "n", "reference", "target", "met")
MANY = 3  # missed targets of a file that the first page names; beyond, it gives their number


@dataclass(frozen=True)
class Room:
    """What one page shows: result files whose names match a pattern."""

    page: str
    title: str
    files: str


ROOMS = (
    Room("lorentz", "Lorentz layers", r"lorentz_\w+"),
    Room("graphs", "Knowledge graphs, hierarchies and graphs", r"kg_\w+|hierarchy|graphs_[\w-]+"),
    Room("relsim", "Similarity of relations", r"relsim_\w+|redundancy_files"),
    Room("deltas", "Delta tuning", r"deltas_\w+|pretrain\w*|conversion"),
    Room("subspace", "One subspace for all delta methods", r"subspace_[\w-]+"),
    Room("activations", "Activation-compressed training", r"activations\w*"),
    Room("text", "Probes, translation and the quickstart", r"probing|translation|quickstart"),
    Room("other", "Other measurements", r".*"),
)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**missed**"
    return number(value)


def _title(command: str) -> str:
    """First sentence of the module that makes a result file, without its full stop."""
    found = re.search(r"benchmarks\.(\w+)", command)
    module = Path(__file__).parent / f"{found[1]}.py" if found else None
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) if module and module.exists() else None
    return " ".join((text or "").split("\n\n")[0].split()).rstrip(".").replace("``", "`")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _details(name: str, content: dict[str, Any]) -> str:
    machine = content["machine"]
    made = f"{content['date']}, {machine['cpu']}, {machine['threads']} thread(s), torch {machine['torch']}"
    made += f", load {machine['load']}" if "load" in machine else ""
    rows = table(DETAILS, (_detail(row) for row in content["rows"]))
    title = _title(content["command"])
    left = [remark for row in content["rows"] for remark in row.get("left_out", [])]
    parts = [f"## {name}", *([f"{title}."] if title else []), f"`{content['command']}`", made]
    parts += [content["note"]] if "note" in content else []
    parts += [rows, *(["Left out:", "\n".join(f"- {remark}" for remark in left)] if left else [])]
    return "\n\n".join(parts) + "\n"


def _detail(row: dict[str, Any]) -> list[str]:
    aimed = "" if row["target"] is None else aim(row)
    return [row["what"], measured(row), row["unit"], str(row["n"]), _text(row["reference"]), aimed, _text(row["met"])]


def _link(room: Room, name: str) -> str:
    return f"[{name}](results/{room.page}.md#{_anchor(name)})"


def _targets(rooms: Iterable[tuple[Room, dict[str, dict[str, Any]]]]) -> list[str]:
    """How many targets each file has, meets and misses; and the rows that miss one."""
    counts, missed = [], []
    for room, own in rooms:
        for name, content in own.items():
            judged = [row for row in content["rows"] if row["met"] is not None]
            if not judged:
                continue
            short = [row for row in judged if not row["met"]]
            link = _link(room, name)
            counts.append([link, str(len(judged)), str(len(judged) - len(short)), str(len(short) or "")])
            shown = short if len(short) <= MANY else []
            missed += [[link, row["what"], measured(row), aim(row)] for row in shown]
            if not shown and short:
                missed.append([link, f"{len(short)} of {len(judged)}: marked there", "", ""])
    parts = ["## Targets\n", table(("measurement", "targets", "met", "missed"), counts) + "\n"] if counts else []
    if missed:
        parts += ["### Missed\n", table(("measurement", "what", "value", "target"), missed) + "\n"]
    return parts


def _sorted(results: Path) -> list[tuple[Room, dict[str, dict[str, Any]]]]:
    """Result files by the first room whose pattern they match; rooms without any are left out."""
    contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    rooms = []
    for room in ROOMS:
        if own := {name: contents.pop(name) for name in list(contents) if re.fullmatch(room.files, name)}:
            rooms.append((room, own))
    return rooms


def pages(results: Path = RESULTS) -> dict[str, str]:
    """Texts of all pages by their paths below ``docs``."""
    rooms = _sorted(results)
    first = [
        "# Results\n",
        "Made by `python -m benchmarks.results_page` from `benchmarks/results/*.json`; every number is the output of the "
        "command beside or above it, in which FOLDER is a place of yours (`--converted`: what `benchmarks.conversion` "
        "leaves). *Published* and *reference* are a published or a peer's number, quoted in the source file of the command. "
        "A number with a spread is mean ± standard deviation, or, where [95 %] follows, mean ± half of "
        "its 95 % interval, and in a summary (seeds) beside it. A difference of fewer than five pairs is no claim, whatever "
        "its interval. The twin is the Euclidean model of the same code and sizes, the flat limit the Lorentz model at a "
        "large k; SST-2 is its version of 6,920 training sentences; a star marks a control with the Lorentz network's "
        "settings, not tuned for itself; an empty cell was not measured; times are of one run of ours.\n",
        *_targets(rooms),
    ]
    made = {}
    for room, own in rooms:
        first += [f"## {room.title}\n"]
        for family in FAMILIES:
            if found := {name: content for name, content in own.items() if re.fullmatch(family.files, name)}:
                lines = [line | {SOURCE: _link(room, line[SOURCE])} for line in summary(family, found)]
                assert lines, f"no row of {', '.join(found)} is a row of {family.title}"
                used = [column for column in lines[0] if any(line[column] for line in lines)]
                cells = ([line[column] for column in used] for line in lines)
                notes = dict.fromkeys(content["note"] for content in found.values() if "note" in content)
                first += [f"### {family.title}\n", table(used, cells) + "\n", *(f"{note}\n" for note in notes)]
        listed = (
            [_link(room, name), _title(content["command"]), content["date"], f"`{content['command']}`"]
            for name, content in own.items()
        )
        first.append(table(("all numbers", "about", "date", "command"), listed) + "\n")
        made[f"results/{room.page}.md"] = "\n".join(
            [
                f"# {room.title}: all numbers\n",
                "Made by `python -m benchmarks.results_page`; the [summary](../results.md) says how to read it.\n",
                *(_details(name, content) for name, content in own.items()),
            ]
        )
    headings = [part.split("\n", 1)[0].lstrip("# ") for part in first if part.startswith("## ")]
    first.insert(2, "".join(f"- [{heading}](#{_anchor(heading)})\n" for heading in headings))
    return {"results.md": "\n".join(first), **made}


def main() -> None:
    made = pages()
    for path in (DOCS / "results").glob("*.md"):
        if f"results/{path.name}" not in made:
            path.unlink()
    for name, text in made.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
