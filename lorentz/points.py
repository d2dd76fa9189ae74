"""What layers share: arguments that are points, and parameters that are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["PointParameters", "check_points"]


def check_points(name: str, x: Tensor, dim: int) -> None:
    """Refuse points of another size than the layer's."""
    if x.shape[-1] != dim:
        raise ValueError(
            f"{name} expects points of {dim} coordinates, time first, and got {x.shape[-1]}. "
            f"Euclidean features of size {dim - 1} become points by manifold.lift(features)."
        )


class PointParameters(nn.Module):
    """Module with learned points, whose attribute ``manifold`` tells Riemannian optimisers what they are.

    A Parameter loses its attributes when it is copied or unpickled, and torch puts another in its place in ``to_empty()`` and
    ``load_state_dict(assign=True)``: after each of these, ``_tag`` sets them again.
    """

    def _tag(self) -> None:
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._tag()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._tag()
        return self

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As for every module: points that take the place of others are points of the manifold too."""
        known = self.__dict__.setdefault("_registered", set())
        super().register_parameter(name, param)
        if name in known and param is not None:
            self._tag()
        known.add(name)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._tag()
