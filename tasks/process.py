"""What a run sets in its process, and what it notes of it."""

from __future__ import annotations

import platform
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["accelerator", "cpu_threads", "environment", "seed_everything", "without_bars"]


_NO_FLOAT64 = ("mps",)  # curvatures and sums are in float64


def accelerator() -> torch.device | None:
    """The accelerator that runs take; None where there is none, one without float64, or ACCELERATE_USE_CPU says so."""
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return None
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if found is None or found.type in _NO_FLOAT64 else found


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of transformers, where that is loaded."""
    logging = sys.modules.get("transformers.utils.logging")
    shown = logging is not None and logging.is_progress_bar_enabled()
    if logging is not None and shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if logging is not None and shown:
            logging.enable_progress_bar()


def seed_everything(seed: int) -> None:
    """Seed the generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def environment() -> dict[str, Any]:
    """Versions and machine of this process, for ``env.json``."""
    from importlib.metadata import version

    names = ("hyrel", "torch", "geoopt", "accelerate", "transformers", "numpy")
    machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    return {**machine, **{name: version(name) for name in names}}
