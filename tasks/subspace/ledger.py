"""What a study has measured, kept line by line, so that a stopped one goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.errors import UsageError

__all__ = ["Ledger"]


class Ledger:
    """Values by key in a file of JSON lines; what is there is not computed again.

    Parameters
    ----------
    path : of the file, which is made with the first value
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a line that was cut off is measured again
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    row = json.loads(line)
                    self.values[row["key"]] = row["value"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise UsageError(f"{path}, line {number}: not written by hyrel; move the file away") from None
            if whole != text:
                path.write_text(whole, encoding="utf-8")

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a key, computed and written where it is not known."""
        if key not in self.values:
            value = compute()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.values[key] = value
        return self.values[key]
