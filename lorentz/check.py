"""How far the outputs of a model's layers are from the hyperboloid, and how far out they lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .manifold import Lorentz

__all__ = ["ManifoldReport", "residual", "watch"]


def residual(x: Float[Tensor, "... d"], *, k: float | Tensor = 1.0) -> float:
    r"""Worst :math:`|\langle x, x\rangle_L + k| / x_0^2` over points (..., d); NaN if any is not finite."""
    if x.numel() == 0:
        return 0.0
    wide = x.detach().double()
    error = (math.minkowski(wide, wide) + (k.to(wide) if isinstance(k, Tensor) else k)).abs() / wide[..., 0] ** 2
    return float(error.max())


@dataclass
class ManifoldReport:
    """Worst residual and the 99 % quantile of the radius, over the layers that were watched."""

    residuals: dict[str, float] = field(default_factory=dict)
    radii: dict[str, float] = field(default_factory=dict)

    @property
    def residual(self) -> float:
        """Worst off-manifold residual of any layer."""
        return max(self.residuals.values(), default=0.0)

    @property
    def radius_p99(self) -> float:
        """Largest 99 % quantile of the radius (geodesic distance to the origin) of any layer."""
        return max(self.radii.values(), default=0.0)

    def __bool__(self) -> bool:
        """Whether any layer returned points."""
        return bool(self.residuals)


@contextmanager
def watch(model: nn.Module, *, rows: int = 4096) -> Iterator[ManifoldReport]:
    """Within the block, record the first output of every layer of `model` that returns points.

    A layer returns points if it has a ``manifold`` and its output is a tensor; ``manifold_out`` wins where present. At
    most `rows` points a layer are read, so watching costs little.
    """
    report = ManifoldReport()

    def hook(name: str) -> Any:
        def record(module: nn.Module, _args: Any, output: Any) -> None:
            if name in report.residuals or not isinstance(output, Tensor) or output.ndim == 0:
                return
            manifold: Lorentz = getattr(module, "manifold_out", None) or module.get_submodule("manifold")  # type: ignore[assignment]
            points = output.detach().reshape(-1, output.shape[-1])[:rows]
            report.residuals[name] = residual(points, k=manifold.k)
            if len(points):
                radius = manifold.dist0(points.double())
                report.radii[name] = float(torch.quantile(radius, 0.99))

        return record

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(getattr(module, "manifold", None), Lorentz) and not isinstance(module, Lorentz)
    ]
    try:
        yield report
    finally:
        for handle in handles:
            handle.remove()
