"""Nothing is left behind on the CPU: what all packages compute on an accelerator, a simulated one, is what the CPU says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch.utils.backend_registration

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch makes no device in Python (2.9 or newer)",
)


def failures(part: str) -> list[str]:
    """Checks of a part that fail, in a process of its own, since the device changes torch."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.devices.run", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stderr.split()[-2]) > 3, "there are no checks"
    return done.stdout.splitlines()


@pytest.mark.parametrize("part", ["layers", "manifold", "methods", "relations", "runs"])
def test_everything_is_computed_there(part: str) -> None:
    assert not failures(part)


def test_the_device_refuses_what_an_accelerator_refuses() -> None:
    said = dict(line.split(": ", 1) for line in failures("refusals"))
    words = {
        "two devices": "same device", "a table of the CPU": "same device", "a gradient of two devices": "same device",
        "a generator": "generator", "NumPy": "numpy", "the CPU's work": "tensor of the CPU",
    }  # fmt: skip
    assert said.keys() == words.keys() and all(words[name] in why for name, why in said.items())
