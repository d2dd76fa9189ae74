"""What a run sets in its process, and what it notes of it."""

from __future__ import annotations

import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["cpu_threads", "environment", "seed_everything"]


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
