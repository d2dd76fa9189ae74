"""``hyrel predict``: rows of a file through the model of a finished run, to a table."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError
from .folder import RunFolder, atomic_write, explain_os_error

__all__ = ["report_predictions"]

_BREAKS = re.compile(r"[\t\r\n]")  # which a cell of a table cannot hold; JSON lines keep them


def report_predictions(
    folder: Path,
    file: Path | None,
    *,
    out: Path | None = None,
    top: int = 10,
    format: str = "tsv",
    data: str | None = None,
    data_dir: str | Path | None = None,
    say: Callable[[str], None],
) -> None:
    """Answer every row of a file, or of standard input, and write the answers or say them.

    Parameters
    ----------
    folder : of a finished run
    file : a row a line, its parts between tabs; None for standard input
    out : file to write; None to say the answers
    top : see :meth:`tasks.trained.Trained.predict`
    format : ``"tsv"`` with a header, or ``"jsonl"``
    data, data_dir : see :func:`tasks.load`

    Raises
    ------
    UsageError : a file that is not there or no UTF-8, without rows, or with a row that is no question.
    RunError : a file that cannot be written.
    """
    from .api import load
    from .trained import TAKE_EMPTY

    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    RunFolder(folder).config()
    lines = _lines(file)
    trained = load(folder, data=data, data_dir=data_dir)
    while trained.task.name not in TAKE_EMPTY and not lines[-1].strip():
        lines.pop()
    answers = trained.predict(lines, top=top)
    text = _table(answers) if format == "tsv" else "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers)
    if out is None:
        say(text.rstrip("\n"))
        return
    try:
        if out.exists() and not out.is_file():  # a device or a pipe
            out.write_text(text, encoding="utf-8")
        else:
            atomic_write(out.resolve(), text)
    except OSError as error:
        raise RunError(explain_os_error(error, out)) from None
    say(f"{out}: {len(answers)} answers to {len(lines)} rows")


def _lines(file: Path | None) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file or 'standard input'} is not UTF-8 text (byte {error.start})") from None
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not any(line.strip() for line in lines):
        raise UsageError(f"{file or 'standard input'} holds no row")
    return lines


def _table(answers: list[dict[str, Any]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(answers[0])
    writer.writerows([_cell(value) for value in answer.values()] for answer in answers)
    return written.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else _BREAKS.sub(" ", str(value))
