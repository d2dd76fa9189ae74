"""Child processes that are killed on purpose."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE = 120.0  # seconds


def in_child(work: Callable[[], object]) -> int:
    """Do it in a copy of this process; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(9)
    return pid


def killed_after_checkpoint(run: Path, work: Callable[[], object]) -> None:
    """Do it in a child that is killed as soon as the run folder holds a checkpoint, before it has finished."""
    pid, start = in_child(work), time.monotonic()
    while not (run / "checkpoints" / "latest").exists():
        ended, status = os.waitpid(pid, os.WNOHANG)
        assert not ended, f"the child ended by itself, status {status}"
        if time.monotonic() - start > DEADLINE:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"no checkpoint in {run} after {DEADLINE:g} s")
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), "the child had finished before it was killed: give it more to do"
