"""Errors that are shown as one line, without a traceback."""

from __future__ import annotations

__all__ = ["HyrelError", "RunError", "UsageError"]


class HyrelError(Exception):
    """What the command line prints as one clear line."""

    exit_code = 1


class UsageError(HyrelError):
    """The user asked for something that does not exist or does not fit together; exit code 2."""

    exit_code = 2


class RunError(HyrelError):
    """A run could not go on (disk, non-finite loss, foreign folder); exit code 1."""
