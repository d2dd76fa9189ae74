"""The README: its Python examples run, and the commands that it shows exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tasks.api import TASKS
from tasks.cli import STUDIES
from tasks.parser import command_line

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(README.count("```python")))
def test_examples_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number]
    exec(compile(code, f"README example {number}", "exec"), {})


def test_there_are_two_set_up_commands() -> None:
    assert re.findall(r"<!-- command: (\w+) -->", README) == ["quickstart", "tests"]
    assert README.count("```bash") == 2


def test_every_task_has_a_row() -> None:
    shown = set(re.findall(r"^\| `hyrel run ([\w-]+)", README, re.MULTILINE))
    assert shown == {*TASKS, *STUDIES} - {"subspace-fit"}  # a step of the study subspace


def test_every_command_of_the_table_is_one() -> None:
    shown = {shlex.split(line)[1] for line in re.findall(r"^\| `(hyrel [^`]*)`", README, re.MULTILINE)}
    known = next(a for a in command_line()._actions if a.dest == "command").choices
    assert shown == set(known)
