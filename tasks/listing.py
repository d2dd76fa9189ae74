"""What ``hyrel ls`` shows."""

from __future__ import annotations

from pathlib import Path

__all__ = ["listing"]


def _tasks() -> list[str]:
    from .api import TASKS, described
    from .cli import STUDIES

    places = {
        **{name: place for name, (place, _) in TASKS.items()},
        **{name: place for name, (place, _) in STUDIES.items()},
    }
    return [f"{name}  {described(place)}" for name, place in sorted(places.items())]


def _deltas() -> list[str]:
    from dataclasses import MISSING, fields

    from deltas import DELTAS

    lines = []
    for name, cls in DELTAS.items():
        options = [f.name if f.default is MISSING else f"{f.name}={f.default}" for f in fields(cls)]
        lines.append(f"{name}  {', '.join(sorted(options, key=lambda text: text.startswith('layers=')))}")
    return lines


def _recipes() -> list[str]:
    from .api import recipes
    from .config import load_recipe

    lines = []
    for name, path in recipes().items():
        published = load_recipe(path)[1]
        numbers = ", ".join(
            f"{row['metric']} {row['value']} ({row['source']}{', recalled' if row.get('recalled') else ''})"
            for row in published
        )
        lines.append(f"{name}" + (f"  published: {numbers}" if numbers else ""))
    return lines


def _data(data_dir: str | Path | None) -> list[str]:
    from .data.locate import candidates, find
    from .data.sets import DATA, EMBEDDED
    from .errors import UsageError

    candidates(data_dir)  # that folder is there
    lines = [f"{name}  (embedded)" for name in EMBEDDED]
    for name, entry in DATA.items():
        try:
            where = str(find(name, data_dir)[1])
        except UsageError:
            where = f"not here; origin {entry.origin}"
        lines.append(f"{name}  [{entry.kind}]  {where}")
    return lines


def listing(what: str | None, *, data_dir: str | Path | None = None) -> str:
    """List the tasks, data sets, deltas or recipes; all four if `what` is None."""
    parts = {"tasks": _tasks, "data": lambda: _data(data_dir), "deltas": _deltas, "recipes": _recipes}
    if what is not None:
        return "\n".join(parts[what]())
    return "\n\n".join("\n".join([f"{name}:", *(f"  {line}" for line in show())]) for name, show in parts.items())
