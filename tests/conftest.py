"""Shared fixtures, the shape-check hook, and where real data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

collect_ignore = ["devices"]  # importing it, for doctests, would change torch for the whole process
os.environ.setdefault("OMP_NUM_THREADS", "1")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("HYREL_DATA", str(SHARED))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-shapes", action="store_true", help="do not check tensor shapes at run time (for -m compiled)"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--no-shapes"):
        from jaxtyping import install_import_hook

        install_import_hook(["lorentz", "relsim", "deltas"], "beartype.beartype")
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real benchmark data."""
    folder = os.environ.get("HYREL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data: HYREL_DATA names no folder (see the README)")
    return Path(folder)


@pytest.fixture
def small_graph(tmp_path: Path) -> Path:
    """Folder of a small knowledge graph: successor and parity relations over 40 numbers."""
    rows = [(f"n{i}", "next", f"n{(i + 1) % 40}") for i in range(40)]
    rows += [(f"n{i}", "half", f"n{i // 2}") for i in range(1, 40)]
    folder = tmp_path / "numbers"
    folder.mkdir()
    parts = {"train": rows[:55] + rows[60:], "valid": rows[55:58], "test": rows[58:60]}
    for name, part in parts.items():
        (folder / f"{name}.txt").write_text("".join("\t".join(row) + "\n" for row in part))
    return folder
