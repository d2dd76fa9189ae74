"""The number k of a hyperboloid: checked, exact in every dtype, and part of the state."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Curvature", "positive"]


def positive(k: Any) -> float:
    """The number k > 0 as a float.

    Raises
    ------
    TypeError : no single real number.
    ValueError : not positive and finite, or a tensor whose gradient would be lost.
    """
    if isinstance(k, Tensor) and k.requires_grad:
        raise ValueError("k is a number here, so its gradient would be lost; learnable=True learns k")
    try:
        if isinstance(k, (bool, str, bytes, bytearray)):
            raise TypeError
        value = float(k)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        given = f"a {type(k).__name__} of shape {tuple(k.shape)}" if hasattr(k, "shape") else repr(k)
        raise TypeError(f"k is one number > 0, such as 1.0 (the curvature is -1/k), got {given}") from None
    if not (isfinite(value) and value > 0):
        raise ValueError(f"k must be a positive finite number (the curvature is -1/k), got {k}")
    return value


class Curvature(nn.Module):
    r"""The part of a manifold that holds :math:`k = k_0 e^\rho`.

    k0 is a float64 tensor that moves between devices with the module and is no parameter or buffer: a cast of the model
    leaves it exact, ``to_empty`` and loaders that fill missing buffers leave it alone, and a manifold that several layers
    share is no tied weight. ``state_dict()`` has it in the manifold's extra state, a new tensor for each name of the
    manifold, as a safetensors file takes no tensor twice. A state with another k is refused where k is fixed and taken
    over where it is learned; one from before k was part of it loads as it is.
    """

    rho: nn.Parameter | None

    def _start(self, k: Any, learnable: bool) -> None:
        value = positive(k)
        if not isinstance(learnable, bool):
            raise TypeError(f"learnable is True or False, got {learnable!r}")
        # On the CPU whatever the default device is: a model that is built on "meta" keeps its k.
        self.k0 = torch.tensor(value, dtype=torch.float64, device="cpu")
        self.register_parameter("rho", nn.Parameter(torch.zeros((), dtype=torch.float64)) if learnable else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Put ``rho`` back to 0, as is needed after ``to_empty``."""
        if self.rho is not None:
            self.rho.zero_()

    def set_k(self, k: float) -> None:
        """Put another k0, and ``rho`` back to 0: points keep their space coordinates, and their times follow.

        The tensor is a new one, so a graph that was built before keeps the k it was built with.
        """
        self.k0 = torch.tensor(positive(k), dtype=torch.float64, device=self.k0.device)
        self.reset_parameters()

    @property
    def k(self) -> Tensor:
        """Scalar tensor k > 0 in float64; equals the given value to the bit until it is trained."""
        if self.rho is None:
            return self.k0
        k: Tensor = self.k0.to(self.rho.device) * self.rho.double().exp()
        return k

    @property
    def learnable(self) -> bool:
        """Whether k is trained."""
        return self.rho is not None

    @property
    def curvature(self) -> Tensor:
        """Sectional curvature, -1/k."""
        return -1 / self.k

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move(t: Tensor) -> Tensor:  # to where fn puts it, without its change of dtype
            moved = fn(t)
            return moved if t.is_meta or moved.is_meta else t.to(moved.device)

        moved = move(self.k0)
        self.k0 = self.k0 if moved.is_meta else moved
        return super()._apply(move, recurse)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> Tensor:
        """What ``state_dict()`` holds besides ``rho``: the tensor (k0, k)."""
        k = self.k.detach()
        return torch.stack([self.k0, self.k0 if k.is_meta else k.to(self.k0.device)])

    @torch.no_grad()
    def set_extra_state(self, state: Tensor) -> None:
        """Compare k with that of a state, or take k0 over if k is learned.

        Raises
        ------
        ValueError : the state of another k, or no k at all.
        """
        start, k = state.double().tolist()
        own = float(self.k0)
        # What a cast of the state to a lower precision, or an average of equal numbers, does to k is not another k.
        rounding = max(1e-12, torch.finfo(state.dtype).eps)
        if not all(isfinite(value) and value > 0 for value in (start, k)):
            raise ValueError(f"the state has k = {k:.15g} from k0 = {start:.15g}, expected positive finite numbers")
        if self.rho is None and abs(k - own) > rounding * own:
            raise ValueError(
                f"the state has k = {k:.15g} and this manifold k = {own:.15g}: build it as Lorentz({k:.15g}), or take the "
                f"state's _extra_state out to keep k = {own:.15g}"
            )
        if self.rho is not None and abs(start - own) > rounding * own:
            self.k0.fill_(start)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        *_, missing, _unexpected, errors = args
        try:
            super()._load_from_state_dict(state_dict, prefix, *args)
        except ValueError as error:
            errors.append(f"{prefix.rstrip('.') or 'manifold'}: {error}")
        if prefix + "_extra_state" in missing:  # a state from before k was part of it
            missing.remove(prefix + "_extra_state")
