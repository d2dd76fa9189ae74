from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from relsim.distribution import FactDistribution
from relsim.kl.blocks import BlockStore, fingerprint
from relsim.similarity import similarity

SCRIPT = """
import sys, time
import torch
torch.set_num_threads(1)
import relsim.kl.blocks, relsim.divergence, relsim.similarity
from relsim.distribution import FactDistribution
from relsim.similarity import similarity

folder, out, method = sys.argv[1:]
model = FactDistribution(700, 5, dim=8, hidden=16, seed=3)
write = relsim.kl.blocks.write_atomically
def slowly(*args):
    write(*args)
    print("written", flush=True)
    time.sleep(0.4)
relsim.kl.blocks.write_atomically = slowly
store = relsim.kl.blocks.BlockStore
sys.modules["relsim.similarity"].BlockStore = lambda path, key: store(path, key, every=0.0)
relsim.divergence._BLOCK = 5 * 8 * 64
similarity(model, method=method, heads=600, folder=folder).save(out)
"""


def start(folder: Path, out: Path, method: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(out), method]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("method", ["pooled", "exact"])
def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(tmp_path / "sums", tmp_path / "killed", method) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["written\n"] * 2
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed").exists()
    kept = [p for p in (tmp_path / "sums").iterdir() if p.suffix == ".safetensors"]
    assert len(kept) == 1
    first = kept[0].read_bytes()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("relsim.divergence._BLOCK", 5 * 8 * 64)
    model = FactDistribution(700, 5, dim=8, hidden=16, seed=3)
    similarity(model, method=method, heads=600, folder=tmp_path / "sums").save(tmp_path / "resumed")
    similarity(model, method=method, heads=600).save(tmp_path / "whole")
    torch.set_num_threads(threads)
    assert kept[0].read_bytes() != first  # the rest was added
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_finished_sums_are_not_summed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FactDistribution(700, 5, dim=8, hidden=16, seed=3)
    first = similarity(model, heads=600, folder=tmp_path)
    monkeypatch.setattr("relsim.kl.twophase._Run.step", None)
    again = similarity(model, heads=600, folder=tmp_path)
    assert torch.equal(first.kl, again.kl) and torch.equal(first.stderr, again.stderr)


def test_a_folder_of_another_comparison_is_refused(tmp_path: Path) -> None:
    model = FactDistribution(700, 5, dim=8, hidden=16, seed=3)
    similarity(model, heads=600, folder=tmp_path)
    with pytest.raises(ValueError, match="sums of another model, seed or option"):
        similarity(model, heads=600, seed=1, folder=tmp_path)
    with torch.no_grad():
        model.relation[0, 0] += 1.0
    with pytest.raises(ValueError, match="sums of another model, seed or option"):
        similarity(model, heads=600, folder=tmp_path)


def test_writes_are_at_least_so_many_seconds_apart_but_the_last(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, "key", every=0.2)
    state = {"x": torch.arange(3)}
    store.save("a", 1, state, last=False)
    assert store.load("a") is None
    time.sleep(0.25)
    store.save("a", 2, state, last=False)
    store.save("a", 3, state, last=False)
    found = store.load("a")
    assert found is not None and found[0] == 2 and torch.equal(found[1]["x"], state["x"])
    store.save("a", 4, state, last=True)
    assert BlockStore(tmp_path, "key").load("a")[0] == 4  # type: ignore[index]
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_fingerprint_tells_models_and_options_apart() -> None:
    one, two = (FactDistribution(9, 2, dim=4, hidden=4, seed=seed) for seed in (0, 1))
    marks = {fingerprint(one, {"a": 1}), fingerprint(two, {"a": 1}), fingerprint(one, {"a": 2})}
    assert len(marks) == 3 and fingerprint(one, {"a": 1}) in marks
