"""Make ``docs/results.md`` from the result files.

python -m benchmarks.results_page
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from .common import RESULTS
from .summary import COLUMNS, FAMILIES, number, summary, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
DETAILS = {
    "what": "what", "value": "value", "unit": "unit", "n": "n", "spread": "deviation", "reference": "reference",
    "target": "target", "met": "met",
}  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**missed**"
    return number(value)


def _title(name: str, command: str) -> str:
    """First sentence of the module that makes a result file, without its full stop, and the file's name."""
    found = re.search(r"benchmarks\.(\w+)", command)
    module = Path(__file__).parent / f"{found[1]}.py" if found else None
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) if module and module.exists() else None
    first = " ".join((text or "").split("\n\n")[0].split()).rstrip(".").replace("``", "`")
    return f"{first} ({name})" if first else name


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _details(name: str, content: dict[str, Any], level: str) -> str:
    machine = content["machine"]
    made = f"{content['date']}, {machine['cpu']}, {machine['threads']} thread(s), torch {machine['torch']}"
    made += f", load {machine['load']}" if "load" in machine else ""
    rows = table(DETAILS.values(), ([_text(row[key]) for key in DETAILS] for row in content["rows"]))
    return f"{level} {_title(name, content['command'])}\n\n`{content['command']}`\n\n{made}\n\n{rows}\n"


def page(results: Path = RESULTS) -> str:
    """Text of the page: for each family of tasks a summary and its full tables, then all other files."""
    parts = [
        "# Results\n",
        "Made by `python -m benchmarks.results_page` from `benchmarks/results/*.json`; every number is the output of the "
        "command beside or above it. *Published* and *reference* are a published or a peer's number, quoted in the source "
        "file of the command. In a summary a cell is mean ± deviation (seeds); the twin is the Euclidean model of the same "
        "code and sizes, the flat limit the Lorentz model at a large k; a star marks a control with the Lorentz network's "
        "settings, not tuned for itself; an empty cell was not measured; times are of one run of ours.\n",
    ]
    contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    for family in FAMILIES:
        own = {name: contents.pop(name) for name in list(contents) if re.fullmatch(family.files, name)}
        if own:
            rows = summary(family, own.values())
            parts.append(f"## {family.title}\n\n" + table(COLUMNS, (line.values() for line in rows)) + "\n")
            parts += [_details(name, content, "###") for name, content in own.items()]
    if contents:
        parts.append("## Other measurements\n")
    parts += [_details(name, content, "###") for name, content in contents.items()]
    headings = [part.split("\n", 1)[0].lstrip("# ") for part in parts if part.startswith("## ")]
    parts.insert(2, "".join(f"- [{heading}](#{_anchor(heading)})\n" for heading in headings))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
