"""What a launcher of several processes, ``torchrun`` or one like it, says of this one. Loads no torch."""

from __future__ import annotations

import os

from .errors import UsageError

__all__ = ["launched", "rank_of_process", "require_one_process", "rows_of_rank"]


def launched() -> int:
    """Number of processes that were launched together."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() and int(count) > 0 else 1


def rank_of_process() -> int:
    """Number of this process among them; 0 of one alone."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if launched() > 1 and rank.isdecimal() else 0


def require_one_process(what: str) -> None:
    """Refuse a launcher of several processes.

    Raises
    ------
    UsageError : the environment says that there are more.
    """
    if (count := launched()) > 1:
        raise UsageError(
            f"{what} works in one process and WORLD_SIZE is {count}: start it without torchrun or accelerate launch; what "
            "several processes can share is one `hyrel run TASK`"
        )


def rows_of_rank(count: int, rank: int, ranks: int) -> slice:
    """Rows of a batch of so many that process `rank` of `ranks` takes: parts of one size, or two that differ by one."""
    return slice(count * rank // ranks, count * (rank + 1) // ranks)
