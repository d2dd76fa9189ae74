"""How far the outputs of a model's layers are from the hyperboloid, and how far out they lie."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from math import asinh, inf, isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import math
from .manifold import Lorentz

__all__ = ["LayerReport", "ManifoldReport", "check_manifold", "residual", "safe_radius", "tolerance", "watch"]


def residual(x: Float[Tensor, "... d"], *, k: float | Tensor = 1.0) -> float:
    r"""Worst :math:`|\langle x, x\rangle_L + k| / x_0^2` over points (..., d).

    NaN if any is not finite, infinite if any time is not positive.
    """
    if x.numel() == 0:
        return 0.0
    wide = x.detach().double()
    time = wide[..., 0]
    error = (math.minkowski(wide, wide) + (k.to(wide) if isinstance(k, Tensor) else k)).abs() / time**2
    return float(error.masked_fill(time <= 0, inf).max())


def tolerance(dtype: torch.dtype) -> float:
    """Largest residual of a point in this dtype that is rounding: 1e-5 in float32 and float64, 4 eps below."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 4 * torch.finfo(dtype).eps


def safe_radius(dtype: torch.dtype) -> float:
    r"""Radius (k = 1) from which rounding the space part moves a point by 1e-3: :math:`\operatorname{arsinh}(2e-3/\epsilon)`.

    10.4 in float32, 30.5 in float64, 0.25 in bfloat16.
    """
    return asinh(2e-3 / torch.finfo(dtype).eps)


@dataclass(frozen=True)
class LayerReport:
    """The first points that a layer returned or was given.

    Attributes
    ----------
    k : of the hyperboloid that they should lie on
    residual : worst off-manifold residual; NaN if a coordinate is not finite
    allowed : largest residual that is rounding in this dtype
    radius : median, 99 % quantile and maximum of the geodesic distance to the origin
    near_limit : share of points beyond :func:`safe_radius`
    """

    k: float
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
    """What was seen of the layers of a model, by their names in it.

    Attributes
    ----------
    layers : the points that each layer returned
    inputs : the points that a layer of this library was given by anything that is not watched, the worse of two
    mismatches : one line for each layer that was given points of another curvature
    strangers : one line for each layer that learns a curvature other than the one its points come from, equal so far
    """

    layers: dict[str, LayerReport] = field(default_factory=dict)
    inputs: dict[str, LayerReport] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

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
        """One line for each layer that is off the manifold or not finite, is given such points, or those of another k."""
        given = [
            f"{_call(name)} is given points off the hyperboloid of k = {points.k:g}: residual {points.residual:.1e}, allowed "
            f"{points.allowed:.1e}"
            + ("" if isnan(points.residual) else "; Euclidean features become points by manifold.lift")
            for name, points in self.inputs.items()
            if not points.on_manifold
        ]
        returned = [
            f"{_call(name)}: residual {points.residual:.1e}, allowed {points.allowed:.1e}"
            for name, points in self.layers.items()
            if not points.on_manifold
        ]
        return given + self.mismatches + returned

    @property
    def cautions(self) -> list[str]:
        """One line for each layer with points so far out that the dtype cannot tell neighbours apart; ``strangers``."""
        if not self.layers and not self.inputs:
            return ["no layer of the model takes or returns points, so nothing was checked"]
        far = [
            f"{_call(name)}: {layer.near_limit:.1%} of the points lie beyond the radius that the dtype resolves"
            for name, layer in self.layers.items()
            if layer.near_limit > 0
        ]
        return far + self.strangers

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
    allowed, k = tolerance(points.dtype), float(manifold.k.detach())
    if not len(points):
        return LayerReport(k, 0.0, allowed, (0.0, 0.0, 0.0), 0.0)
    radius = manifold.dist0(points.detach().double())
    middle, high, top = torch.quantile(
        radius, torch.tensor([0.5, 0.99, 1.0], dtype=torch.float64, device=radius.device)
    ).tolist()
    limit = safe_radius(points.dtype) * k**0.5
    near = float((radius > limit).double().mean())
    return LayerReport(k, residual(points, k=manifold.k.detach()), allowed, (middle, high, top), near)


class _Watch:
    """The hooks of :func:`watch`."""

    def __init__(self, rows: int) -> None:
        self.report = ManifoldReport()
        self.rows = rows
        # Where points came from, by the identity of the tensor; without a reference that would keep it alive.
        self.sources: dict[int, tuple[weakref.ref[Tensor], str, Lorentz]] = {}
        self.called: set[str] = set()

    def _points(self, x: object) -> Tensor | None:
        """The first rows of points."""
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0:
            return None
        return x.detach().reshape(-1, x.shape[-1])[: self.rows]

    def _note(self, x: Tensor, name: str, manifold: Lorentz) -> None:
        self.sources[id(x)] = weakref.ref(x), name, manifold

    def before(self, name: str, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Look at the points that a layer of this library is given."""
        if name in self.called:
            return
        self.called.add(name)
        manifold: Lorentz = module.get_submodule("manifold")  # type: ignore[assignment]
        for x in _given(module, args, keywords):
            points = self._points(x)
            if points is None:
                continue
            known, source, origin = self.sources.get(id(x), (None, "", manifold))
            if known is None or known() is not x:
                if name not in self.report.inputs or self.report.inputs[name].on_manifold:
                    self.report.inputs[name] = _describe(points, manifold)
                self._note(x, f"the input of {_call(name)}", manifold)
            elif float(origin.k.detach()) != float(manifold.k.detach()):
                self.report.mismatches.append(
                    f"{_call(name)} takes points of k = {_k(manifold)} and is given those of {source}, of k = {_k(origin)}: "
                    f"make both with one Lorentz object, or convert by LorentzLinear(..., manifold_out=...)"
                )
            elif origin is not manifold and (origin.learnable or manifold.learnable):
                self.report.strangers.append(
                    f"{_call(name)} and {source} have a k of their own each, equal so far and learned: they will part; "
                    f"make both with one Lorentz object"
                )

    def after(self, name: str, module: nn.Module, _args: tuple[Any, ...], output: object) -> None:
        """Look at the points that a layer returns."""
        first = output[0] if isinstance(output, tuple) and output else output
        points = self._points(first)
        if points is None:
            return
        manifold: Lorentz = getattr(module, "manifold_out", None) or module.get_submodule("manifold")  # type: ignore[assignment]
        self._note(first, _call(name), manifold)  # type: ignore[arg-type]
        if name not in self.report.layers:
            self.report.layers[name] = _describe(points, manifold)


def _call(name: str) -> str:
    return name or "the model"


def _k(manifold: Lorentz) -> str:
    return f"{float(manifold.k.detach()):g}"


def _takes_points(module: nn.Module) -> bool:
    """Whether it is a layer of this library, or one derived from it: what others take as arguments is not known."""
    package = __name__.rpartition(".")[0] + "."
    return any(cls.__module__.startswith(package) for cls in type(module).__mro__)


def _given(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> list[Any]:
    """Arguments of a call that are points, by position or keyword; weights and masks are tensors too."""
    try:
        # That of the class, as a wrapper in its place takes anything.
        given = signature(type(module).forward).bind_partial(module, *args, **keywords).arguments
    except TypeError:  # the call itself will say what is wrong with it
        return []
    names: tuple[str, ...] = getattr(module, "takes_points", ("x",))
    return [given[name] for name in names if name in given]


@contextmanager
def watch(model: nn.Module, *, rows: int = 4096) -> Iterator[ManifoldReport]:
    """Within the block, record the first output of every layer of `model` that returns points, and where its input is off.

    A layer returns points if it has a ``manifold`` and its output is a tensor; ``manifold_out`` wins where present, and a
    layer whose output is something else (scores) says ``returns_points = False``. It takes points in its argument ``x``, or
    in those that ``takes_points``, a tuple of names, says. At most `rows` points a layer are read, so watching costs little.
    """
    eye = _Watch(rows)
    handles = []
    for name, module in model.named_modules():
        if isinstance(getattr(module, "manifold", None), Lorentz) and not isinstance(module, Lorentz):
            if _takes_points(module):
                handles.append(module.register_forward_pre_hook(partial(eye.before, name), with_kwargs=True))
            if getattr(module, "returns_points", True):
                handles.append(module.register_forward_hook(partial(eye.after, name)))
    try:
        yield eye.report
    finally:
        for handle in handles:
            handle.remove()


def check_manifold(model: nn.Module, *inputs: Any, on_failure: str = "raise", **keywords: Any) -> ManifoldReport:
    """Call ``model(*inputs, **keywords)`` without gradients and report on every layer that takes or returns points.

    Parameters
    ----------
    on_failure : ``"raise"``, ``"warn"`` or ``"report"`` when a layer is given or returns points that are off the manifold,
        not finite, or of another curvature than the layer's. Points beyond the radius that the dtype resolves always warn,
        except with ``"report"``.

    Raises
    ------
    ValueError : such points; every layer is named with residual and tolerance, or with the layer of the other curvature.
    """
    if on_failure not in ("raise", "warn", "report"):
        raise ValueError(f"on_failure is 'raise', 'warn' or 'report'; got {on_failure!r}")
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), watch(model) as report:
            model(*inputs, **keywords)
    finally:
        for module in training:
            module.training = True
    if on_failure == "raise" and report.failures:
        raise ValueError("layers off the manifold: " + "; ".join(report.failures))
    if on_failure != "report":
        for line in [*report.failures, *report.cautions]:
            warnings.warn(line, stacklevel=2)
    return report
