"""Who may import whom: the contracts hold, and each of them notices a planted violation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lorentz", "relsim", "deltas", "tasks")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [
        ("lorentz imports nothing of ours", "lorentz/math.py", "import relsim"),
        ("relsim imports nothing of ours and never transformers", "relsim/facts.py", "import lorentz"),
        ("relsim imports nothing of ours and never transformers", "relsim/facts.py", "import transformers"),
        ("rooms of relsim import from those below only", "relsim/phrases/text.py", "import relsim.facts"),
        ("rooms of relsim import from those below only", "relsim/planted.py", "import relsim.facts"),
        ("deltas imports lorentz in deltas.space only", "deltas/planted.py", "import lorentz"),
        ("deltas imports lorentz in deltas.space only", "deltas/planted.py", "import tasks"),
        ("only lorentz.hf imports transformers", "lorentz/math.py", "import transformers"),
        (None, "deltas/space.py", "import lorentz"),
        (None, "lorentz/hf/planted.py", "import transformers"),
    ],
)
def test_a_planted_import_breaks_its_contract(contract: str | None, file: str, line: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / file
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    result = lint(tmp_path)
    if contract is None:
        assert result.returncode == 0, result.stdout
    else:
        assert result.returncode == 1
        broken = [row for row in result.stdout.splitlines() if re.search(r" BROKEN( \(.*\))?\s*$", row)]
        assert any(row.startswith(contract) for row in broken), result.stdout


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("lorentz", ("transformers", "accelerate", "duckdb", "sklearn", "relsim", "deltas", "tasks")),
        ("relsim", ("transformers", "lorentz", "deltas", "tasks", "duckdb", "sklearn")),
        ("tasks", ("torch", "transformers", "jsonargparse")),
    ],
)
def test_importing_a_package_loads_no_more_than_it_says(
    package: str, forbidden: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    code = f"import sys, {package}; print(*[m for m in {forbidden!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "empty", capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == []


def test_a_foreign_tasks_module_in_the_folder_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit('the foreign module was imported')\n")
    hyrel = Path(sys.executable).with_name("hyrel")
    for command in ([sys.executable, "-c", "import lorentz"], [str(hyrel), "ls", "tasks"]):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    shadowed = subprocess.run([str(hyrel), "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shadowed.returncode == 1 and "hides hyrel's package 'tasks'" in shadowed.stdout


def test_no_file_is_too_long() -> None:
    for path in (p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 400, path
