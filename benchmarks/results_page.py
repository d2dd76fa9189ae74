"""Make ``docs/results.md`` from the result files.

python -m benchmarks.results_page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .common import RESULTS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**missed**"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def page() -> str:
    """Text of the page."""
    parts = [
        "# Results\n",
        "Made by `python -m benchmarks.results_page` from `benchmarks/results/*.json`; every number is the output of the "
        "command above its table. *Reference* is a published or a peer's number, quoted in the source file of the command.\n",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        machine = content["machine"]
        parts.append(f"## {path.stem}\n\n`{content['command']}`\n")
        parts.append(f"{content['date']}, {machine['cpu']}, {machine['threads']} thread(s), torch {machine['torch']}\n")
        lines = [
            "| what | value | unit | n | deviation | reference | target | met |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for r in content["rows"]:
            cells = [
                r["what"],
                *(_text(r[key]) for key in ("value", "unit", "n", "spread", "reference", "target", "met")),
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
