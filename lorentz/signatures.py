"""Signatures of autograd functions, found once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["signed"]

F = TypeVar("F", bound=Callable[..., Any])


def signed(forward: F) -> F:
    """Keep the signature of a ``forward`` with it.

    ``torch.autograd.Function.apply`` asks for it at every call, and finding it takes longer than a small product.
    """
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward
