"""The documents: their Python blocks run as shown and print what is shown below them; links and names exist.

``python tests/test_docs.py`` writes what the blocks print into the ``text`` blocks that follow them. The examples of the
README are run by ``test_readme.py``.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tasks.api import TASKS, configure
from tasks.argv import regular
from tasks.cli import STUDIES
from tasks.config import make_config
from tasks.registry import named

ROOT = Path(__file__).resolve().parents[1]
DOCS = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "results").glob("*.md"))]
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text( varies)?\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")

# A process of its own: nothing imported before, no shape-check hook, and warnings are errors (geoopt uses deprecated torch).
DRIVER = """
import contextlib, io, json, sys
namespace, printed = {"__name__": "__main__"}, []
path, blocks = json.load(sys.stdin)
for line, code in blocks:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\\n" * line + code, path, "exec"), namespace)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


def run(page: Path, blocks: list[tuple[int, str]], folder: Path) -> list[str]:
    """What each block prints, run in order in one namespace; `blocks` are (lines before, code)."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", DRIVER],
        input=json.dumps([str(page), blocks]),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed: list[str] = json.loads(done.stdout)
    return printed


def blocks_of(text: str) -> list[tuple[int, str]]:
    return [(text[: m.start(1)].count("\n"), m[1]) for m in BLOCK.finditer(text)]


def close(shown: str, printed: str) -> bool:
    """Whether two numbers agree: integers exactly, others to 2 % and one unit of the last digit shown."""
    if re.fullmatch(r"-?\d+", shown):
        return shown == printed
    mantissa, _, exponent = shown.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    x, y = float(shown), float(printed)
    # Below 1e-9 stands rounding, which differs between processors.
    return max(abs(x), abs(y)) < 1e-9 or abs(x - y) <= 1.01 * unit + 0.02 * abs(x)


def differences(shown: str, printed: str, *, varies: bool) -> list[str]:
    """Lines that differ in their words, or, unless they vary, in a number."""
    a, b = shown.splitlines(), printed.splitlines()
    if len(a) != len(b):
        return [f"{len(a)} lines are shown and {len(b)} printed"]
    found = []
    for left, right in zip(a, b, strict=True):
        words = [" ".join(NUMBER.sub("#", line).split()) for line in (left, right)]
        pairs = zip(NUMBER.findall(left), NUMBER.findall(right), strict=False)
        if words[0] != words[1] or not (varies or all(close(x, y) for x, y in pairs)):
            found.append(f"shown {left!r}, printed {right!r}")
    return found


@pytest.mark.parametrize(
    "page", [page for page in DOCS if "```python" in page.read_text("utf-8")], ids=lambda p: p.name
)
def test_blocks_run_and_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    assert len(blocks_of(text)) == text.count("```python")
    printed = run(page, blocks_of(text), tmp_path)
    for match, output in zip(BLOCK.finditer(text), printed, strict=True):
        line = text[: match.start()].count("\n") + 1
        assert differences(match[3] or "", output, varies=bool(match[2])) == [], f"{page.name}, line {line}"


def test_a_failing_block_is_named_by_its_line(tmp_path: Path) -> None:
    text = "a\n\n```python\nx = 1\n```\n\nb\n\n```python\nassert x == 2\n```\n"
    with pytest.raises(AssertionError, match=r"page.md\", line 10"):
        run(tmp_path / "page.md", blocks_of(text), tmp_path)


def test_a_changed_number_or_word_is_noticed() -> None:
    assert differences("a 1.00 b\n", "a 1.03 b\n", varies=False) == []
    assert differences("4e-08\n", "5e-08\n", varies=False) == [] and differences("4e-08\n", "7e-08\n", varies=False)
    assert differences("288\n", "289\n", varies=False)
    assert differences("a 1.00 b\n", "a 1.10 b\n", varies=False)
    assert differences("a 1.00 b\n", "a 1.10 b\n", varies=True) == []
    assert differences("a 1.00 b\n", "c 1.00 b\n", varies=True)
    assert differences("a 1e-15\n", "a 3e-15\n", varies=False) == []
    assert differences("a\n", "a\nb\n", varies=True)


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_site_has_every_page_and_package() -> None:
    contents = (ROOT / "docs" / "contents.rst").read_text("utf-8").split()
    assert {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in DOCS} <= set(contents)
    packages = {path.stem for path in (ROOT / "docs" / "api").glob("*.rst")}
    assert packages == {"lorentz", "relsim", "deltas", "tasks"}
    assert {f"api/{name}" for name in packages} <= set(contents)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_and_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"`(lorentz(?:\.\w+)+)", text):
        parts = name.split(".")
        found = importlib.import_module(parts[0])
        for i, part in enumerate(parts[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[:i]))
            found = getattr(found, part)
    for name in re.findall(r"`((?:Lorentz|Riemannian)\w+)", text):
        holders = [importlib.import_module(module) for module in ("lorentz", "lorentz.optim")]
        assert any(hasattr(holder, name) for holder in holders), f"{page.name}: {name}"
    for module in re.findall(r"`python -m (benchmarks\.\w+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), f"{page.name}: {module}"
    for path in re.findall(r"`((?:benchmarks|tests|docs|lorentz|relsim|deltas|tasks)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists() or "NAME" in path, f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_parse(page: Path) -> None:
    """Every ``hyrel run`` that is shown has options that exist, with values that fit."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    shown = re.findall(r"^    (hyrel run .*)$|`(hyrel run [^`]*)`", text, re.MULTILINE)
    for line in (indented or quoted for indented, quoted in shown):
        task, *words = [word for word in shlex.split(line, comments=True)[2:] if word != "|"] or [""]
        if task not in {*TASKS, *STUDIES} or "..." in line:
            assert task in {"", "TASK", *TASKS, *STUDIES}, f"{page.name}: {line}"
            continue
        told, rest = {}, []
        words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
        for name, value in zip(words[::2], words[1::2], strict=True):
            assert name.startswith("--"), f"{page.name}: {line}"
            if name in ("--config", "--seeds", "--runs", "--out", "--data-dir"):
                told[name] = value
            else:
                rest += [name, value]
        if task in STUDIES:
            make_config(named(STUDIES[task][0]), args=regular(rest))
        else:
            recipe = told.get("--config")
            configure(task, recipe=None if recipe in (None, "RECIPE.yaml") else recipe, args=regular(rest))


def refresh(page: Path) -> None:
    """Write what the blocks print below them."""
    text = page.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        printed = iter(run(page, blocks_of(text), Path(folder)))

    def block(match: re.Match[str]) -> str:
        output = next(printed)
        return f"```python\n{match[1]}```\n" + (f"```text{match[2] or ''}\n{output}```\n" if output else "")

    page.write_text(BLOCK.sub(block, text), "utf-8")


if __name__ == "__main__":
    for path in DOCS:
        if "```python" in path.read_text("utf-8"):
            refresh(path)
