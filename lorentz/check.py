"""How far the outputs of a model's layers are from the hyperboloid, and how far out they lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import asinh, isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .manifold import Lorentz

__all__ = ["LayerReport", "ManifoldReport", "check_manifold", "residual", "safe_radius", "tolerance", "watch"]


def residual(x: Float[Tensor, "... d"], *, k: float | Tensor = 1.0) -> float:
    r"""Worst :math:`|\langle x, x\rangle_L + k| / x_0^2` over points (..., d); NaN if any is not finite."""
    if x.numel() == 0:
        return 0.0
    wide = x.detach().double()
    error = (math.minkowski(wide, wide) + (k.to(wide) if isinstance(k, Tensor) else k)).abs() / wide[..., 0] ** 2
    return float(error.max())


def tolerance(dtype: torch.dtype) -> float:
    """Largest residual of a point in this dtype that is rounding: 1e-5 in float32 and float64, 4 eps below."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 4 * torch.finfo(dtype).eps


def safe_radius(dtype: torch.dtype) -> float:
    r"""Radius (k = 1) from which rounding the space part moves a point by 1e-3: :math:`\operatorname{arsinh}(2e-3/\epsilon)`.

    10.4 in float32, 29.8 in float64, 0.25 in bfloat16.
    """
    return asinh(2e-3 / torch.finfo(dtype).eps)


@dataclass(frozen=True)
class LayerReport:
    """One layer's first output.

    Attributes
    ----------
    residual : worst off-manifold residual; NaN if a coordinate is not finite
    allowed : largest residual that is rounding in this dtype
    radius : median, 99 % quantile and maximum of the geodesic distance to the origin
    near_limit : share of points beyond :func:`safe_radius`
    """

    residual: float
    allowed: float
    radius: tuple[float, float, float]
    near_limit: float

    @property
    def on_manifold(self) -> bool:
        """Whether the residual is rounding."""
        return self.residual <= self.allowed


@dataclass
class ManifoldReport:
    """What was seen of each layer that returns points, by its name in the model."""

    layers: dict[str, LayerReport] = field(default_factory=dict)

    @property
    def residual(self) -> float:
        """Worst off-manifold residual of any layer; NaN if any is."""
        values = [layer.residual for layer in self.layers.values()]
        return float("nan") if any(map(isnan, values)) else max(values, default=0.0)

    @property
    def radius_p99(self) -> float:
        """Largest 99 % quantile of the radius of any layer."""
        return max((layer.radius[1] for layer in self.layers.values()), default=0.0)

    @property
    def failures(self) -> list[str]:
        """One line for each layer that is off the manifold or not finite."""
        return [
            f"{name or 'the model'}: residual {layer.residual:.1e}, allowed {layer.allowed:.1e}"
            for name, layer in self.layers.items()
            if not layer.on_manifold
        ]

    @property
    def cautions(self) -> list[str]:
        """One line for each layer with points so far out that the dtype cannot tell neighbours apart."""
        return [
            f"{name or 'the model'}: {layer.near_limit:.1%} of the points lie beyond the radius that the dtype resolves"
            for name, layer in self.layers.items()
            if layer.near_limit > 0
        ]

    def __bool__(self) -> bool:
        """Whether any layer returned points."""
        return bool(self.layers)

    def __str__(self) -> str:
        """Table of the layers."""
        lines = [f"{'layer':<32} {'residual':>9} {'r 50 %':>8} {'r 99 %':>8} {'r max':>8} {'near limit':>10}"]
        for name, layer in self.layers.items():
            middle, high, top = layer.radius
            lines.append(
                f"{name or '(model)':<32} {layer.residual:>9.1e} {middle:>8.3f} {high:>8.3f} {top:>8.3f} "
                f"{layer.near_limit:>10.1%}" + ("" if layer.on_manifold else "  OFF THE MANIFOLD")
            )
        return "\n".join(lines)


def _describe(points: Tensor, manifold: Lorentz) -> LayerReport:
    allowed = tolerance(points.dtype)
    if not len(points):
        return LayerReport(0.0, allowed, (0.0, 0.0, 0.0), 0.0)
    radius = manifold.dist0(points.detach().double())
    middle, high, top = torch.quantile(
        radius, torch.tensor([0.5, 0.99, 1.0], dtype=torch.float64, device=radius.device)
    ).tolist()
    limit = safe_radius(points.dtype) * float(manifold.k.detach()) ** 0.5
    near = float((radius > limit).double().mean())
    return LayerReport(residual(points, k=manifold.k.detach()), allowed, (middle, high, top), near)


@contextmanager
def watch(model: nn.Module, *, rows: int = 4096) -> Iterator[ManifoldReport]:
    """Within the block, record the first output of every layer of `model` that returns points.

    A layer returns points if it has a ``manifold`` and its output is a tensor; ``manifold_out`` wins where present, and a
    layer whose output is something else (scores) says ``returns_points = False``. At most `rows` points a layer are read,
    so watching costs little.
    """
    report = ManifoldReport()

    def hook(name: str) -> Any:
        def record(module: nn.Module, _args: Any, output: Any) -> None:
            points = output[0] if isinstance(output, tuple) else output
            if name in report.layers or not isinstance(points, Tensor) or points.ndim == 0:
                return
            manifold: Lorentz = getattr(module, "manifold_out", None) or module.get_submodule("manifold")  # type: ignore[assignment]
            report.layers[name] = _describe(points.detach().reshape(-1, points.shape[-1])[:rows], manifold)

        return record

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(getattr(module, "manifold", None), Lorentz)
        and not isinstance(module, Lorentz)
        and getattr(module, "returns_points", True)
    ]
    try:
        yield report
    finally:
        for handle in handles:
            handle.remove()


def check_manifold(model: nn.Module, *inputs: Any, on_failure: str = "raise", **keywords: Any) -> ManifoldReport:
    """Call ``model(*inputs, **keywords)`` without gradients and report on every layer that returns points.

    Inputs that are themselves off the manifold show up in the first layer only if it does not derive time anew; use
    :func:`residual` on them.

    Parameters
    ----------
    on_failure : ``"raise"``, ``"warn"`` or ``"report"`` when a layer is off the manifold or not finite. Points beyond the
        radius that the dtype resolves always warn, except with ``"report"``.

    Raises
    ------
    ValueError : a layer left the manifold; the worst are named with residual and tolerance.
    """
    if on_failure not in ("raise", "warn", "report"):
        raise ValueError(f"on_failure is 'raise', 'warn' or 'report'; got {on_failure!r}")
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), watch(model) as report:
            model(*inputs, **keywords)
    finally:
        model.train(training)
    if on_failure == "raise" and report.failures:
        raise ValueError("layers off the manifold: " + "; ".join(report.failures))
    if on_failure != "report":
        for line in [*report.failures, *report.cautions]:
            warnings.warn(line, stacklevel=2)
    return report
