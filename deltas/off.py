"""What turns a delta on again at the end of a ``with`` block."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .handle import Handle

__all__ = ["Off"]


class Off:
    """What ``disable()`` returns: turns the delta on again at the end of a ``with`` block."""

    def __init__(self, handle: Handle, was: bool) -> None:
        self.handle, self.was = handle, was

    def __enter__(self) -> Handle:
        return self.handle

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.was and self.handle.attached:  # it may have been detached inside
            self.handle.enable()
