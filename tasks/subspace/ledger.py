"""What a study has measured, kept line by line, so that a stopped one goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.errors import UsageError
from tasks.folder import atomic_write

__all__ = ["Ledger"]


class Ledger:
    """Values by key in a file of JSON lines; what is there is not computed again, unless what it was made of has changed.

    Parameters
    ----------
    path : of the file, which is made with the first value
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a line that was cut off is measured again
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    row = json.loads(line)
                    self.rows[row["key"]] = {"value": row["value"], "of": row.get("of")}
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise UsageError(f"{path}, line {number}: not written by hyrel; move the file away") from None
            if whole != text:
                atomic_write(path, whole)

    def get(self, key: str, compute: Callable[[], Any], *, of: str | None = None) -> Any:
        """The value of a key, computed and written where it is not known.

        Parameters
        ----------
        of : SHA-256 of what it is made of; a value that was made of something else is computed again. None, here or of an
            older value, says nothing
        """
        known = self.rows.get(key)
        if known is None or (of is not None and known["of"] not in (None, of)):
            value = compute()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": value, **({} if of is None else {"of": of})}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.rows[key] = {"value": value, "of": of}
        return self.rows[key]["value"]
